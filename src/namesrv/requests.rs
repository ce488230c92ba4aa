//! Answers a name server's requests. Every handler takes a request and gives its answer; what goes wrong is told in
//! the remark. The only state is behind two locks, held for one table operation each.

use std::{
    collections::HashMap,
    fmt::Display,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use tracing::{debug, info, warn};

use super::{
    json::{self, NumberKeys},
    kv::{KvTable, ORDER_TOPIC_CONFIG},
    registration::{DataVersion, Registration, TopicConfig},
    routes::{Queues, RouteTable},
    switches::Switches,
};
use crate::{
    clock::Clock,
    config::parse_properties,
    remoting::{
        Body, Command, Connection, FieldError, Service,
        codes::{request, response},
    },
    vfs::Vfs,
};

/// The first protocol version whose Java client reads number keys in quotes: 4.9.4.
const QUOTED_KEYS_SINCE: i32 = 401;

/// Why a request is not answered as asked: a code and a remark.
struct Refusal {
    code: i32,
    remark: String,
}

impl Refusal {
    fn error(remark: impl Display) -> Self {
        Self { code: response::SYSTEM_ERROR, remark: remark.to_string() }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::error(error)
    }
}

impl From<String> for Refusal {
    fn from(remark: String) -> Self {
        Self::error(remark)
    }
}

type Answer = Result<Command, Refusal>;

/// Where requests are answered.
#[derive(Debug)]
pub(super) struct Desk {
    clock: Arc<dyn Clock>,
    routes: RwLock<RouteTable>,
    kv: KvTable,
    switches: RwLock<Switches>,
    /// Known once the port is bound.
    listens_at: OnceLock<SocketAddr>,
    /// The connections over which brokers registered.
    brokers: Mutex<HashMap<u64, Weak<Connection>>>,
}

impl Desk {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        vfs: Arc<dyn Vfs>,
        kv_config_path: Option<PathBuf>,
        switches: Switches,
    ) -> io::Result<Self> {
        Ok(Self {
            clock,
            routes: RwLock::default(),
            kv: KvTable::load(vfs, kv_config_path)?,
            switches: RwLock::new(switches),
            listens_at: OnceLock::new(),
            brokers: Mutex::default(),
        })
    }

    /// Notes where the server listens, for those who ask for its configuration.
    pub(super) fn listening(&self, at: SocketAddr) {
        // A server is bound once.
        let _ = self.listens_at.set(at);
    }

    /// The configuration as the text of a properties file.
    fn properties(&self) -> String {
        let at = self.listens_at.get();
        let at = at.map(|at| format!("bindAddress={}\nlistenPort={}\n", at.ip(), at.port()));
        at.unwrap_or_default() + &self.switches.read().to_properties()
    }

    /// Forgets brokers that have been silent for too long and closes their connections.
    pub(super) fn forget_silent_brokers(&self) {
        let expired = self.routes.write().expire(self.clock.monotonic());
        for (addr, connection) in expired {
            warn!(broker = %addr, "forgotten: it was silent for too long");
            let connection = self.brokers.lock().get(&connection).and_then(Weak::upgrade);
            if let Some(connection) = connection {
                connection.close();
            }
        }
    }

    fn answer(&self, connection: &Arc<Connection>, request: &Command) -> Answer {
        match request.code {
            request::GET_ROUTEINFO_BY_TOPIC => self.route(request),
            request::REGISTER_BROKER => self.register(connection, request),
            request::UNREGISTER_BROKER => self.unregister(request),
            request::BROKER_HEARTBEAT => self.heartbeat(request),
            request::QUERY_DATA_VERSION => self.data_version(request),
            request::PUT_KV_CONFIG => self.put_kv(request),
            request::GET_KV_CONFIG => self.get_kv(request),
            request::DELETE_KV_CONFIG => self.delete_kv(request),
            request::GET_KVLIST_BY_NAMESPACE => self.list_kv(request),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(request),
            request::WIPE_WRITE_PERM_OF_BROKER => self.set_writable(request, false, "wipeTopicCount"),
            request::ADD_WRITE_PERM_OF_BROKER => self.set_writable(request, true, "addTopicCount"),
            request::UPDATE_NAMESRV_CONFIG => self.update_switches(request),
            request::GET_NAMESRV_CONFIG => Ok(done(request).with_body(self.properties())),
            _ => self.list(request),
        }
    }

    /// What lists the route table without changing it.
    fn list(&self, request: &Command) -> Answer {
        let switches = *self.switches.read();
        let allowed = |on: bool| if on { Ok(()) } else { Err(Refusal::error("disable")) };
        let routes = self.routes.read();
        let body = match request.code {
            request::GET_BROKER_CLUSTER_INFO => routes.cluster_info(),
            request::GET_BROKER_MEMBER_GROUP => {
                routes.member_group(request.fields.text("clusterName")?, request.fields.text("brokerName")?)
            }
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => routes.system_topics(),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => {
                allowed(switches.enable_all_topic_list)?;
                routes.topics()
            }
            request::GET_TOPICS_BY_CLUSTER => {
                allowed(switches.enable_topic_list)?;
                routes.topics_of_cluster(request.fields.text("cluster")?)
            }
            request::GET_UNIT_TOPIC_LIST => {
                allowed(switches.enable_topic_list)?;
                routes.unit_topics()
            }
            request::GET_HAS_UNIT_SUB_TOPIC_LIST => {
                allowed(switches.enable_topic_list)?;
                routes.unit_sub_topics(false)
            }
            request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                allowed(switches.enable_topic_list)?;
                routes.unit_sub_topics(true)
            }
            code => {
                return Err(Refusal {
                    code: response::REQUEST_CODE_NOT_SUPPORTED,
                    remark: format!(" request type {code} not supported"),
                });
            }
        };
        Ok(done(request).with_body(body))
    }

    fn route(&self, request: &Command) -> Answer {
        let topic = request.fields.text("topic")?;
        let standard = request.fields.parse_or("acceptStandardJsonOnly", false)?;
        let quoted = standard || request.version >= QUOTED_KEYS_SINCE;
        let keys = if quoted { NumberKeys::Quoted } else { NumberKeys::Bare };
        let switches = *self.switches.read();
        let order = switches.order_message_enable.then(|| self.kv.get(ORDER_TOPIC_CONFIG, topic)).flatten();
        let route = self.routes.read().route(topic, keys, order.as_deref(), switches.support_acting_master);
        match route {
            Some(body) => Ok(done(request).with_body(body)),
            None => Err(Refusal {
                code: response::TOPIC_NOT_EXIST,
                remark: format!("No topic route info in name server for the topic: {topic}"),
            }),
        }
    }

    fn register(&self, connection: &Arc<Connection>, request: &Command) -> Answer {
        let said = Registration::read(request)?;
        let (name, addr, topics) = (said.name.clone(), said.addr.clone(), said.topics.len());
        let switches = *self.switches.read();
        self.brokers.lock().insert(connection.id(), Arc::downgrade(connection));
        let known = self.routes.read().version(&said.cluster, &said.addr).is_some();
        let master = self.routes.write().register(
            said,
            connection.id(),
            self.clock.monotonic(),
            switches.delete_topic_with_broker_registration,
        )?;
        if connection.is_closed() {
            // Its end may have been handled before the registration was there.
            self.routes.write().disconnected(connection.id());
        }
        if known {
            debug!(broker = %name, %addr, topics, "registered again");
        } else {
            info!(broker = %name, %addr, topics, "registered");
        }
        let mut answer = done(request);
        if let Some(master) = master {
            answer = answer.with_field("haServerAddr", master.ha_addr).with_field("masterAddr", master.addr);
        }
        if switches.return_order_topic_config_to_broker {
            answer.body = self.kv.list(ORDER_TOPIC_CONFIG).map_or_else(Body::empty, Body::from);
        }
        Ok(answer)
    }

    fn unregister(&self, request: &Command) -> Answer {
        let fields = &request.fields;
        let (cluster, addr) = (fields.text("clusterName")?, fields.text("brokerAddr")?);
        let name = fields.text("brokerName")?;
        self.routes.write().unregister(cluster, addr, name);
        info!(broker = name, addr, "unregistered");
        Ok(done(request))
    }

    fn heartbeat(&self, request: &Command) -> Answer {
        let (cluster, addr) = (request.fields.text("clusterName")?, request.fields.text("brokerAddr")?);
        self.routes.write().touch(cluster, addr, self.clock.monotonic());
        Ok(done(request))
    }

    fn data_version(&self, request: &Command) -> Answer {
        let (cluster, addr) = (request.fields.text("clusterName")?, request.fields.text("brokerAddr")?);
        let said: DataVersion = json::read(&request.body.to_bytes())?;
        let mut routes = self.routes.write();
        let known = routes.version(cluster, addr);
        routes.touch(cluster, addr, self.clock.monotonic());
        drop(routes);
        let mut answer = done(request).with_field("changed", known != Some(said));
        if let Some(known) = known {
            answer.body = serde_json::to_vec(&known).map_err(Refusal::error)?.into();
        }
        Ok(answer)
    }

    fn put_kv(&self, request: &Command) -> Answer {
        let fields = &request.fields;
        let (Some(namespace), Some(key)) = (fields.get("namespace"), fields.get("key")) else {
            return Err(Refusal::error("namespace or key is null"));
        };
        self.kv.put(namespace, key, fields.text("value")?)?;
        Ok(done(request))
    }

    fn get_kv(&self, request: &Command) -> Answer {
        let (namespace, key) = (request.fields.text("namespace")?, request.fields.text("key")?);
        match self.kv.get(namespace, key) {
            Some(value) => Ok(done(request).with_field("value", value)),
            None => Err(not_found(format!("No config item, Namespace: {namespace} Key: {key}"))),
        }
    }

    fn delete_kv(&self, request: &Command) -> Answer {
        self.kv.delete(request.fields.text("namespace")?, request.fields.text("key")?)?;
        Ok(done(request))
    }

    fn list_kv(&self, request: &Command) -> Answer {
        let namespace = request.fields.text("namespace")?;
        match self.kv.list(namespace) {
            Some(body) => Ok(done(request).with_body(body)),
            None => Err(not_found(format!("No config item, Namespace: {namespace}"))),
        }
    }

    fn register_topic(&self, request: &Command) -> Answer {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct OnBroker {
            broker_name: String,
            #[serde(flatten)]
            topic: TopicConfig,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Route {
            queue_datas: Option<Vec<OnBroker>>,
        }
        let topic = request.fields.text("topic")?;
        let route: Route = json::read(&request.body.to_bytes())?;
        let queues = route.queue_datas.unwrap_or_default();
        let queues = queues.into_iter().map(|on| (on.broker_name, Queues::from(&on.topic))).collect();
        self.routes.write().register_topic(topic, queues);
        Ok(done(request))
    }

    fn delete_topic(&self, request: &Command) -> Answer {
        let cluster = request.fields.get("clusterName").filter(|cluster| !cluster.is_empty());
        self.routes.write().delete_topic(request.fields.text("topic")?, cluster);
        Ok(done(request))
    }

    fn set_writable(&self, request: &Command, writable: bool, count_field: &str) -> Answer {
        let broker = request.fields.text("brokerName")?;
        let count = self.routes.write().set_writable(broker, writable);
        info!(broker, writable, topics = count, "changed the right to write");
        Ok(done(request).with_field(count_field, count))
    }

    fn update_switches(&self, request: &Command) -> Answer {
        let body = request.body.to_bytes();
        let text = std::str::from_utf8(&body).map_err(|_| Refusal::error("the body is not UTF-8"))?;
        let pairs = parse_properties(text);
        self.switches
            .write()
            .set_all(&pairs)
            .map_err(|remark| Refusal { code: response::NO_PERMISSION, remark })?;
        info!(?pairs, "switched");
        Ok(done(request))
    }
}

impl Service for Desk {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for request in batch {
            let answer = self.answer(connection, &request).unwrap_or_else(|refusal| {
                debug!(peer = %connection.peer(), code = request.code, remark = refusal.remark, "refused");
                request.reply(refusal.code).with_remark(refusal.remark)
            });
            if !request.is_oneway() {
                connection.send(answer);
            }
        }
    }

    fn closed(&self, connection: &Arc<Connection>) {
        let registered = self.brokers.lock().remove(&connection.id()).is_some();
        if registered && self.routes.write().disconnected(connection.id()) > 0 {
            warn!(peer = %connection.peer(), "the connection of a broker ended: it is forgotten");
        }
    }
}

fn done(request: &Command) -> Command {
    request.reply(response::SUCCESS)
}

fn not_found(remark: String) -> Refusal {
    Refusal { code: response::QUERY_NOT_FOUND, remark }
}
