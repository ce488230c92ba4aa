//! The broker: RocketMQ's request codes over the store.
//!
//! Owns the boot and stop order, and the table from request code to the file that answers it; each concern has one
//! file. Invariants: a name was checked by `names` before it is kept or becomes a file, every request that is not
//! one-way gets exactly one reply (or is held by `hold`), and nothing here blocks on the disk but boot, stop, and a put:
//! those of clients take turns (`send_queue`), so that the disk keeps one thread and not all.
//! Called by the command line and by tests.

mod absent;
mod admin;
mod answers;
mod attributes;
mod batch_body;
mod bloom;
mod clients;
mod config;
mod config_file;
mod connections;
mod counts;
mod delivered;
mod filters;
mod groups;
mod hold;
mod inner_batch;
mod json;
mod light;
mod live;
mod lock;
mod names;
mod offsets;
mod pop;
mod progress;
mod property_text;
mod pull;
mod put_times;
mod query;
mod queue_entries;
mod rates;
mod refusal;
mod register;
mod release;
mod reply;
mod retry;
mod runtime;
mod schedule;
mod selection;
mod send;
mod send_header;
mod send_queue;
mod settings;
mod timer;
mod topics;
mod transaction;
mod wait;
mod worker;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Handle as Runtime, sync::watch};

pub use config::{BrokerConfig, ConfigWarning};
pub use config_file::{mend_tables, unreadable_tables};
pub(crate) use refusal::Refusal;

use crate::{
    clock::{Clock, SystemClock},
    error::{Error, Result},
    remoting::{Command, Connection, Limits, Server, Service, codes::response},
    store::Store,
    types::{QueueOffset, StoreTimestamp},
    vfs::{OsVfs, Vfs},
};

use {
    answers::Answers,
    clients::Clients,
    config_file::ConfigFile,
    counts::Counts,
    delivered::Copies,
    filters::Filters,
    groups::Groups,
    json::Json,
    live::Live,
    lock::Locks,
    offsets::Offsets,
    pop::Pop,
    pull::PullHold,
    rates::Rates,
    register::Register,
    schedule::Schedule,
    send_queue::{Kind, SendQueue},
    settings::Settings,
    timer::Timer,
    topics::Topics,
    transaction::Transactions,
};

/// A file of `config/` as this broker would write it again: what RocketMQ's reader accepts, in the layout of its files.
///
/// ```
/// let text = reput::broker::config_json(br#"{1:"a", "b":[true,null]}"#)?;
/// assert_eq!(reput::broker::config_json(text.as_bytes())?, text);
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// Where the text is none, and what was expected there.
pub fn config_json(text: &[u8]) -> std::result::Result<String, String> {
    Json::parse(text).map(|json| json.pretty())
}

/// The greatest `maxMessageSize`.
const WIDEST: usize = 0x4000_0000;

/// Serves one request at once.
type Answerer = fn(&Arc<Broker>, &Arc<Connection>, &Command) -> Result<Command, Refusal>;

/// How a request code is served.
#[derive(Clone, Copy)]
pub(crate) enum Route {
    /// Answered before the function returns.
    Answer(Answerer),
    /// The same on a thread that may wait for the disk: it reads what is seldom in memory.
    Aside(Answerer),
    /// Takes the request and replies by [`Broker::reply`], now or later.
    Take(fn(&Arc<Broker>, &Arc<Connection>, Command)),
    /// Like `Take`, for all requests of this code that one read brought, in their order.
    Batch(fn(&Arc<Broker>, &Arc<Connection>, Vec<Command>)),
    /// Like `Take`, in turn with everything else that puts messages.
    Queued(Kind, fn(&Arc<Broker>, &Arc<Connection>, Command)),
}

/// Every code that the broker serves; a code stands in one of these tables only.
const ROUTES: &[&[(i32, Route)]] = &[
    send::ROUTES,
    pull::ROUTES,
    offsets::ROUTES,
    clients::ROUTES,
    lock::ROUTES,
    retry::ROUTES,
    query::ROUTES,
    topics::ROUTES,
    groups::ROUTES,
    absent::ROUTES,
    admin::ROUTES,
    queue_entries::ROUTES,
    settings::ROUTES,
    runtime::ROUTES,
    progress::ROUTES,
    rates::ROUTES,
    connections::ROUTES,
    reply::ROUTES,
    transaction::ROUTES[0],
    transaction::ROUTES[1],
    timer::ROUTES[0],
    timer::ROUTES[1],
    pop::ROUTES,
];

fn route(code: i32) -> Option<Route> {
    ROUTES.iter().flat_map(|table| table.iter()).find(|(of, _)| *of == code).map(|(_, route)| *route)
}

/// A running broker. Shared by every connection and timer.
pub struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) store: Store,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Runtime,
    /// When this broker started.
    pub(crate) boot_time: StoreTimestamp,
    /// What goes into each record as the host that stored it: `brokerIP1:listenPort`.
    pub(crate) store_host: SocketAddr,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) offsets: Offsets,
    pub(crate) clients: Clients,
    pub(crate) filters: Arc<Filters>,
    pub(crate) register: Register,
    pub(crate) hold: PullHold,
    pop: Pop,
    /// Bytes behind the log's end that are taken to be in memory.
    pub(crate) hot_bytes: u64,
    pub(crate) locks: Locks,
    pub(crate) schedule: Schedule,
    pub(crate) transactions: Transactions,
    pub(crate) timer: Timer,
    pub(crate) rates: Rates,
    pub(crate) settings: Settings,
    /// Messages that wait for a time, and half messages, of each topic.
    timed: Counts,
    halves: Counts,
    sends: SendQueue,
    answers: Answers,
    /// The settings that may change while it runs.
    pub(crate) live: Live,
    /// Turns true once, when the broker stops.
    stopping: watch::Sender<bool>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("name", &self.config.name)
            .field("at", &self.store_host)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Sends the reply to `cmd`; nothing when it was one-way.
    pub(crate) fn reply(conn: &Connection, cmd: &Command, reply: Result<Command, Refusal>) {
        if cmd.is_oneway() {
            if let Err(refusal) = reply {
                tracing::debug!(
                    code = cmd.code,
                    refused = refusal.code,
                    remark = refusal.remark,
                    "one-way request"
                );
            }
            return;
        }
        conn.send(reply.unwrap_or_else(|refusal| cmd.reply(refusal.code).with_remark(refusal.remark)));
    }

    /// Runs `work` every `period` until the broker stops, on a thread that may wait for the disk. Its first run is one
    /// period from now.
    fn every(self: &Arc<Self>, period: Duration, work: fn(&Arc<Self>)) {
        let broker = Arc::clone(self);
        let mut stopping = self.stopping.subscribe();
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(period) => {}
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
                let turn = Arc::clone(&broker);
                // An error is a panic of the turn, which said so already; the next turn may do better.
                let _ = broker.runtime.spawn_blocking(move || work(&turn)).await;
            }
        });
    }

    /// Whether a new consumer may start from a queue's first message whatever it prefers: that one still exists and is
    /// young enough to lie in memory, or is yet to come. RocketMQ leaves a queue without messages to its client, which
    /// asks for the end then and passes over what came between the two questions.
    pub(crate) fn is_young_queue(&self, topic: &str, id: i32) -> bool {
        let queue = self.store.find_queue(topic, id);
        let Some(queue) = queue.filter(|queue| self.store.max_offset(*queue) > QueueOffset::ZERO) else {
            let topic = self.topics.get(topic);
            return topic.is_some_and(|topic| (0..topic.read_queues.max(topic.write_queues)).contains(&id));
        };
        let Ok(first) = self.store.entries(queue, QueueOffset::ZERO, 1) else { return false };
        let end = self.store.status().max_offset;
        first.first().is_some_and(|unit| {
            unit.queue_offset == QueueOffset::ZERO && end.since(unit.offset) <= self.hot_bytes
        })
    }

    /// Ends what writes, saves the tables and closes the store. Everything is tried; the first error counts.
    fn close(&self) -> Result<()> {
        self.schedule.stop();
        let ended = self.transactions.stop(self);
        self.timer.quiesce();
        let synced = self.store.sync();
        let timed = self.timer.stop(self);
        let scheduled = self.schedule.save(self.store.status().durable_offset);
        self.pop.stop_giving();
        let offsets = self.offsets.save(self.clock.now(), || self.store.sync());
        let filters = self.filters.save(self.clock.now());
        let popped = self.pop.save(self);
        let counted = self.timed.save().and(self.halves.save());
        self.sends.stop();
        let closed = self.store.close().and(ended).and(synced).and(timed).and(scheduled).and(offsets);
        closed.and(filters).and(popped).and(counted)
    }
}

/// The JSON body of a request.
pub(crate) fn body(cmd: &Command) -> Result<Json, Refusal> {
    Json::parse(&cmd.body.to_bytes())
        .map_err(|why| Refusal::new(response::SYSTEM_ERROR, format!("the body is no JSON: {why}")))
}

/// Answers on a thread that may wait for the disk.
fn aside(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command, answer: Answerer) {
    let (broker, conn) = (Arc::clone(broker), Arc::clone(conn));
    broker.runtime.clone().spawn_blocking(move || Broker::reply(&conn, &cmd, answer(&broker, &conn, &cmd)));
}

/// The service behind both ports.
struct Door(Arc<Broker>);

impl Service for Door {
    fn serve(&self, conn: &Arc<Connection>, batch: Vec<Command>) {
        let mut batch = batch.into_iter().peekable();
        while let Some(cmd) = batch.next() {
            match route(cmd.code) {
                Some(Route::Answer(answer)) => Broker::reply(conn, &cmd, answer(&self.0, conn, &cmd)),
                Some(Route::Aside(answer)) => aside(&self.0, conn, cmd, answer),
                Some(Route::Take(take)) => take(&self.0, conn, cmd),
                Some(Route::Queued(kind, take)) => send_queue::serve(&self.0, conn, cmd, kind, take),
                Some(Route::Batch(take)) => {
                    let code = cmd.code;
                    let mut run = vec![cmd];
                    while let Some(next) = batch.next_if(|next| next.code == code) {
                        run.push(next);
                    }
                    take(&self.0, conn, run);
                }
                None => Broker::reply(
                    conn,
                    &cmd,
                    Err(Refusal::new(
                        response::REQUEST_CODE_NOT_SUPPORTED,
                        format!(" request type {} not supported", cmd.code),
                    )),
                ),
            }
        }
    }

    fn closed(&self, conn: &Arc<Connection>) {
        self.0.client_gone(conn);
    }
}

/// The tables that outlive a restart, read before the first connection.
struct State {
    topics: Topics,
    groups: Groups,
    offsets: Offsets,
    pop: Pop,
    schedule: Schedule,
    filters: Filters,
    timed: Counts,
    halves: Counts,
}

fn load_state(
    config: &BrokerConfig,
    vfs: &Arc<dyn Vfs>,
    store: &Store,
    now: StoreTimestamp,
) -> Result<State> {
    let dir = config.store.path("config");
    let file = |name: &str| ConfigFile::new(Arc::clone(vfs), &dir, name);
    let offsets = Offsets::load(file, config.store.lmq, now)?;
    offsets.clamp(&config.store.path("quarantine/config"), |topic, id| {
        store.find_queue(topic, id).map_or(QueueOffset::ZERO, |queue| store.max_offset(queue))
    })?;
    let schedule = Schedule::load(file("delayOffset.json")?, config.store.delay_levels_ms(), now)?;
    schedule.clamp(|id| {
        let queue = store.find_queue(names::SCHEDULE_TOPIC, id)?;
        Some([store.min_offset(queue), store.max_offset(queue)])
    });
    Ok(State {
        topics: Topics::load(file("topics.json")?, config, now)?,
        groups: Groups::load(file("subscriptionGroup.json")?, config.store.lmq, now)?,
        offsets,
        pop: Pop::load(config, file)?,
        schedule,
        timed: Counts::of_timers(file("timermetrics")?)?,
        halves: Counts::of_transactions(file("transactionMetrics")?)?,
        filters: Filters::load(file("consumerFilter.json")?, config.bloom(), config.keep_filters_ms, now)?,
    })
}

/// A broker that serves, until [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    servers: Vec<Server>,
}

impl Running {
    /// Opens the store, reads the tables, listens, and registers with the name servers. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// What the store, a table or a port says.
    pub async fn start(config: BrokerConfig) -> Result<Self> {
        Self::start_with(config, Arc::new(OsVfs), Arc::new(SystemClock::new())).await
    }

    /// As [`Running::start`], over another file system or clock.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub async fn start_with(config: BrokerConfig, vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Result<Self> {
        config.validate()?;
        let opening = Runtime::current().spawn_blocking(move || open(config, vfs, clock)).await;
        let broker = Arc::new(opening.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?);
        pull::start(&broker);
        pop::start(&broker);
        SendQueue::start(&broker)?;
        Schedule::start(&broker)?;
        Transactions::start(&broker)?;
        Timer::start(&broker)?;
        let limits = Limits { idle: Duration::from_secs(broker.config.max_idle_s), ..Limits::default() };
        let servers = match listen(&broker, &limits).await {
            Ok(servers) => servers,
            Err(error) => {
                shut(&broker).await?;
                return Err(error);
            }
        };
        start_timers(&broker);
        Register::start(&broker);
        broker.register.all().wait(Duration::from_secs(2)).await;
        Ok(Self { broker, servers })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> String {
        self.broker.config.address()
    }

    /// Leaves the name servers, lets answers go out, saves the tables and closes the store.
    ///
    /// # Errors
    /// What the store or a table says; everything was tried.
    pub async fn stop(self) -> Result<()> {
        let broker = self.broker;
        broker.register.unregister(&broker.config).await;
        broker.stopping.send_replace(true);
        pull::stop(&broker);
        pop::stop(&broker);
        for server in self.servers {
            server.shutdown().await;
        }
        shut(&broker).await
    }
}

/// Listens on both ports. Older clients and replicas talk to the second one; both serve everything. The first one, by
/// which a client knows that the broker is there, is taken last: nothing can fail behind it.
async fn listen(broker: &Arc<Broker>, limits: &Limits) -> Result<Vec<Server>> {
    let ports = [broker.config.port - 2, broker.config.port];
    let mut listeners = Vec::new();
    for at in ports.map(|port| SocketAddr::new(broker.config.bind, port)) {
        let listener = TcpListener::bind(at).await;
        listeners.push((at, listener.map_err(Error::io("listen on", at.to_string()))?));
    }
    let serve = |(at, listener): (SocketAddr, _)| {
        let door = Arc::new(Door(Arc::clone(broker)));
        Server::over(listener, door, limits.clone()).map_err(Error::io("listen on", at.to_string()))
    };
    listeners.into_iter().map(serve).collect()
}

/// [`Broker::close`] on a thread that may wait for the disk.
async fn shut(broker: &Arc<Broker>) -> Result<()> {
    let closing = Arc::clone(broker);
    let closed = broker.runtime.spawn_blocking(move || closing.close()).await;
    closed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn open(config: BrokerConfig, vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Result<Broker> {
    let boot_time = clock.now();
    let mut config = config;
    config.store.ext_bitmap_bits = usize::try_from(config.bloom().bits()).unwrap_or(0);
    // How long a message may be can change while the broker runs: `send` looks to it.
    let open = crate::Config { max_message_size: WIDEST, ..config.store.clone() };
    let store = Store::open_with(open, Arc::clone(&vfs), Arc::clone(&clock))?;
    let State { topics, groups, offsets, pop, schedule, filters, timed, halves } =
        load_state(&config, &vfs, &store, boot_time)?;
    let timer = Timer::load(&config, &vfs, &store, boot_time)?;
    timer.recount(&timed, &topics, boot_time);
    Copies::find(&store, [schedule.copies(&store), timer.copies(&store)]);
    let ip = config.address();
    let store_host = ip.parse().unwrap_or(SocketAddr::new(config.bind, config.port));
    let hot_bytes = pull::hot_bytes(&*vfs, config.in_memory_percent);
    Ok(Broker {
        store,
        vfs,
        clock,
        runtime: Runtime::current(),
        boot_time,
        store_host,
        topics,
        groups,
        offsets,
        clients: Clients::default(),
        filters: Arc::new(filters),
        register: Register::new(config.name_servers.clone()),
        hold: pull::new_hold(),
        pop,
        hot_bytes,
        locks: Locks::new(),
        schedule,
        transactions: Transactions::default(),
        timer,
        rates: Rates::default(),
        settings: Settings::new(boot_time),
        timed,
        halves,
        sends: SendQueue::default(),
        answers: Answers::default(),
        live: Live::new(&config),
        stopping: watch::Sender::new(false),
        config,
    })
}

fn start_timers(broker: &Arc<Broker>) {
    broker.every(Duration::from_millis(broker.config.save_offsets_ms), |broker| broker.save_offsets());
    broker.every(Duration::from_secs(10), |broker| broker.expire_clients());
    broker.every(Duration::from_secs(10), |broker| broker.save_filters());
    broker.every(counts::EVERY, |broker| broker.save_counts());
    broker.sample_rates();
    broker.every(rates::PERIOD, |broker| broker.sample_rates());
}
