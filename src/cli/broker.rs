//! `reput broker`, and `reput` alone: a broker, with a name server in the same process unless one is named.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use reput::{
    Config,
    broker::{BrokerConfig, Running},
    namesrv::{NameServer, Options},
    vfs::{OsVfs, Vfs},
};

use super::Failure;

/// Bytes that a broker.conf may have.
const MAX_CONFIG_FILE: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  reput broker                                     over ./store, with a name server on 127.0.0.1:9876
  reput broker --store /var/lib/rmq/store          over another directory
  reput broker -c broker.conf                      as RocketMQ's own configuration file says
  reput broker -n 10.0.0.1:9876;10.0.0.2:9876      registered with these name servers, none of its own
  reput broker --set flushDiskType=SYNC_FLUSH      one key of RocketMQ's; goes before the file

Keys without effect are named in a warning, bad values are an error.
It listens on loopback unless bindAddress says otherwise: whoever reaches it may use it.";

/// What a broker is started with.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// RocketMQ's properties file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The store's directory [default: storePathRootDir of the file, or ./store].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Name servers as host:port, several separated by `;`. Without any, one runs in this process.
    #[arg(short, long, value_name = "ADDRS")]
    namesrv: Option<String>,

    /// The port of the name server in this process.
    #[arg(long, value_name = "PORT", default_value_t = 9876)]
    namesrv_port: u16,

    /// One key of RocketMQ's and its value; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs a broker until it is asked to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    let config = configure(&args)?;
    super::runtime()?.block_on(serve(config, args.namesrv_port))
}

fn configure(args: &Args) -> Result<BrokerConfig, Failure> {
    let mut config = BrokerConfig::new(Config::new("store"));
    if let Some(file) = &args.config {
        let bytes = OsVfs.read(file, MAX_CONFIG_FILE).map_err(|e| format!("{}: {e}", file.display()))?;
        let bytes = bytes.ok_or_else(|| format!("{}: no such file", file.display()))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", file.display()))?;
        for warning in config.read(&text).map_err(|e| format!("{}: {e}", file.display()))? {
            tracing::warn!("{}: {warning}", file.display());
        }
        config.file = Some(file.clone());
    } else {
        // Without a file nobody said what is wanted: let clients that trace do so.
        config.set("traceTopicEnable", "true")?;
    }
    for pair in &args.set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("--set {pair}: needed is KEY=VALUE"))?;
        if !config.set(key.trim(), value.trim())? {
            return Err(format!("--set {pair}: there is no such key").into());
        }
    }
    if let Some(addrs) = &args.namesrv {
        config.set("namesrvAddr", addrs)?;
    }
    if let Some(dir) = &args.store {
        config.set("storePathRootDir", &dir.to_string_lossy())?;
    }
    config.validate()?;
    Ok(config)
}

async fn serve(mut config: BrokerConfig, namesrv_port: u16) -> Result<(), Failure> {
    let root = std::path::absolute(config.root())?;
    let name_server = if config.name_servers.is_empty() {
        let server = start_name_server(&config, &root, namesrv_port).await?;
        let mut at = server.local_addr();
        if at.ip().is_unspecified() {
            at.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        config.name_servers = vec![at.to_string()];
        Some(server)
    } else {
        None
    };
    let title = format!("{} of {}", config.name, config.cluster);
    let name_servers = config.name_servers.join(";");
    let place = if name_server.is_some() { " in this process" } else { "" };
    let broker = Running::start(config).await?;
    println!("broker {title} on {}, name server{place}: {name_servers}", broker.address());
    println!("store: {}", root.display());
    println!();
    println!("Send and receive now with any RocketMQ client whose name server is {name_servers}.");
    println!("Topics are made by the first message. Ctrl-C stops the broker cleanly.");
    let asked = super::asked_to_stop().await;
    println!("stopping ...");
    let stopped = broker.stop().await;
    if let Some(name_server) = name_server {
        name_server.shutdown().await;
    }
    asked?;
    stopped?;
    println!("stopped, the store is closed");
    Ok(())
}

async fn start_name_server(config: &BrokerConfig, root: &Path, port: u16) -> Result<NameServer, Failure> {
    let at = SocketAddr::new(config.bind, port);
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
    let dir = root.join("config");
    vfs.create_dir_all(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
    let options = Options { kv_config_path: Some(dir.join("kvConfig.json")), vfs, ..Options::default() };
    let started = NameServer::start_with(at, options).await;
    started.map_err(|e| {
        format!("the name server cannot listen on {at}: {e}; name another one with -n, or a port with --namesrv-port")
            .into()
    })
}
