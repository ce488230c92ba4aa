//! The name server: which topic lies on which broker, and where brokers are.
//!
//! Owns the route table (`routes`), the key-value table (`kv`) and the switches (`switches`); `requests` answers.
//! Brokers register every 30 s and are forgotten when they say so, when their connection
//! ends, or 120 s after they last registered. Nothing here is durable but the key-value table, if it has a file:
//! brokers tell the rest again. Started by `reput namesrv`, and by a broker that is to have its own.

mod json;
mod kv;
mod registration;
mod requests;
mod routes;
mod switches;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::ToSocketAddrs, task::JoinHandle};

use crate::{
    clock::{Clock, SystemClock},
    remoting::{Limits, Server},
    vfs::{OsVfs, Vfs},
};

pub use switches::Switches;

use requests::Desk;

/// How a name server is started, where it differs from the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bounds of its connections.
    pub limits: Limits,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where the files are.
    pub vfs: Arc<dyn Vfs>,
    /// The file that keeps the key-value table, RocketMQ's `kvConfigPath`; `None` keeps it in memory only.
    pub kv_config_path: Option<PathBuf>,
    /// How often brokers that are silent are looked for, RocketMQ's `scanNotActiveBrokerInterval`.
    pub scan_interval: Duration,
    /// What can be switched while it runs.
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            clock: Arc::new(SystemClock::new()),
            vfs: Arc::new(OsVfs),
            kv_config_path: None,
            scan_interval: Duration::from_secs(5),
            switches: Switches::default(),
        }
    }
}

/// A running name server. Dropping it ends it at once; [`Self::shutdown`] lets answers go out first.
#[derive(Debug)]
pub struct NameServer {
    server: Server,
    scan: JoinHandle<()>,
}

impl NameServer {
    /// Starts a name server on `addr`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When `addr` cannot be listened on.
    pub async fn start(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::start_with(addr, Options::default()).await
    }

    /// Starts a name server on `addr` as `options` say.
    ///
    /// # Errors
    /// When `addr` cannot be listened on, or the key-value file cannot be read.
    pub async fn start_with(addr: impl ToSocketAddrs, options: Options) -> io::Result<Self> {
        let Options { limits, clock, vfs, kv_config_path, scan_interval, switches } = options;
        let desk = Arc::new(Desk::new(clock, vfs, kv_config_path, switches)?);
        let server = Server::bind(addr, Arc::<Desk>::clone(&desk), limits).await?;
        desk.listening(server.local_addr());
        let scan = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(scan_interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                desk.forget_silent_brokers();
            }
        });
        Ok(Self { server, scan })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Stops taking requests and returns when the answers that wait are sent.
    pub async fn shutdown(self) {
        self.scan.abort();
        self.server.shutdown().await;
    }
}
