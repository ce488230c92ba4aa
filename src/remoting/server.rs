//! Accepts connections and keeps them until they end or the server is shut down.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::watch,
    task::JoinHandle,
};
use tracing::{debug, error, warn};

use super::{
    Connection, Limits, Service,
    connection::{attach, run},
};

/// Numbers connections of servers and clients alike.
pub(super) static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// How long to wait after a failed accept (mostly: no file descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it stops accepting and closes its connections at once; [`Self::shutdown`] lets
/// answers go out first.
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

struct Shared {
    service: Arc<dyn Service>,
    limits: Limits,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    /// Set while `connections` is locked, so that none is added to a server that ends.
    ending: AtomicBool,
    /// How many connections are there, for whoever waits until none is.
    count: watch::Sender<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `addr` and serves from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When `addr` cannot be listened on.
    pub async fn bind(
        addr: impl ToSocketAddrs,
        service: Arc<dyn Service>,
        limits: Limits,
    ) -> io::Result<Self> {
        Self::over(TcpListener::bind(addr).await?, service, limits)
    }

    /// Serves from now on whom `listener` hears. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When `listener` does not know where it listens.
    pub fn over(listener: TcpListener, service: Arc<dyn Service>, limits: Limits) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let period = sweep_period(&limits);
        let shared = Arc::new(Shared {
            service,
            limits,
            connections: Mutex::default(),
            ending: AtomicBool::new(false),
            count: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept_task(Arc::clone(&shared), listener));
        let sweeping = tokio::spawn(sweep_task(Arc::clone(&shared), period));
        Ok(Self { local, shared, tasks: [accepting, sweeping] })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// How many peers are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().len()
    }

    /// Stops accepting and reading, sends the answers that wait (at most for [`Limits::drain`]), and returns when
    /// every connection has ended.
    pub async fn shutdown(self) {
        self.tasks[0].abort();
        let mut count = self.shared.count.subscribe();
        self.shared.end();
        self.shared.each(Connection::stop);
        let none = tokio::time::timeout(self.shared.limits.drain, count.wait_for(|n| *n == 0)).await.is_ok();
        if !none {
            self.shared.each(Connection::close);
            // Closed connections end without waiting for their peers; the sender outlives this wait.
            let _ = count.wait_for(|n| *n == 0).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.end();
        self.shared.each(Connection::close);
    }
}

impl Shared {
    fn each(&self, act: impl Fn(&Connection)) {
        let all: Vec<_> = self.connections.lock().values().cloned().collect();
        all.iter().for_each(|connection| act(connection));
    }

    fn end(&self) {
        let _connections = self.connections.lock();
        self.ending.store(true, Ordering::Relaxed);
    }

    fn count_changed(&self) {
        let connections = self.connections.lock();
        self.count.send_replace(connections.len());
    }
}

/// Often enough to keep the shortest time within a quarter, at most once a second when times are long.
fn sweep_period(limits: &Limits) -> Duration {
    let shortest = limits.idle.min(limits.first_frame).min(limits.partial_frame).min(limits.unread);
    (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

async fn accept_task(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => take(&shared, stream, peer),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn take(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let id = NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed);
    let connection = match attach(id, &stream, shared.limits.clone()) {
        Ok(connection) => connection,
        Err(error) => return debug!(%peer, %error, "gone before it was served"),
    };
    {
        let mut connections = shared.connections.lock();
        if connections.len() >= shared.limits.max_connections {
            return warn!(%peer, "refused: {} connections are open", connections.len());
        }
        if shared.ending.load(Ordering::Relaxed) {
            return;
        }
        connections.insert(id, Arc::clone(&connection));
    }
    shared.count_changed();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        // In a task of its own, so that a panic of the service ends this connection and nothing else.
        let service = Arc::clone(&shared.service);
        if let Err(error) = tokio::spawn(run(Arc::clone(&connection), stream, service)).await {
            error!(%peer, %error, "a request made the service panic");
            connection.close();
        }
        shared.service.closed(&connection);
        shared.connections.lock().remove(&id);
        shared.count_changed();
    });
}

async fn sweep_task(shared: Arc<Shared>, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.each(Connection::sweep);
    }
}
