//! `reput namesrv`: a name server alone.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use reput::{
    namesrv::{NameServer, Options},
    parse_properties,
    vfs::{OsVfs, Vfs},
};

use super::Failure;

/// Bytes that a configuration file may have.
const MAX_CONFIG_FILE: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  reput namesrv                          listen on 127.0.0.1:9876
  reput namesrv -p 9976                  another port
  reput namesrv -c namesrv.conf          as RocketMQ's configuration file says
  reput namesrv --listen 0.0.0.0         reachable from other machines: whoever reaches it may use it

Brokers and clients then name it as 127.0.0.1:9876. Routes live in memory: brokers register every 30 s.";

/// What a name server is started with.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// RocketMQ's properties file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The port to listen on [default: listenPort of the file, or 9876].
    #[arg(short, long)]
    port: Option<u16>,

    /// The address to listen on [default: bindAddress of the file, or 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    listen: Option<IpAddr>,

    /// The file that keeps the key-value table [default: kvConfigPath of the file; without any, memory].
    #[arg(long, value_name = "FILE")]
    kv_config: Option<PathBuf>,
}

/// What the configuration file says.
struct Settings {
    addr: SocketAddr,
    options: Options,
}

/// Runs a name server until it is asked to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut settings =
        Settings { addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9876), options: Options::default() };
    if let Some(file) = &args.config {
        read(file, &mut settings).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let Settings { mut addr, mut options } = settings;
    addr.set_port(args.port.unwrap_or(addr.port()));
    addr.set_ip(args.listen.unwrap_or(addr.ip()));
    options.kv_config_path = args.kv_config.or(options.kv_config_path);
    super::runtime()?.block_on(async {
        let server = NameServer::start_with(addr, options).await;
        let server = server.map_err(|e| format!("the name server cannot start on {addr}: {e}"))?;
        println!("name server on {}, Ctrl-C stops it", server.local_addr());
        super::asked_to_stop().await?;
        server.shutdown().await;
        Ok(())
    })
}

fn read(file: &Path, settings: &mut Settings) -> Result<(), Failure> {
    let bytes = OsVfs.read(file, MAX_CONFIG_FILE)?.ok_or("no such file")?;
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    for (key, value) in parse_properties(&text) {
        if !set(&key, &value, settings).map_err(|e| format!("{key}={value}: {e}"))? {
            tracing::warn!("{}: {key} has no effect here", file.display());
        }
    }
    Ok(())
}

/// Sets one key; whether it has a meaning.
fn set(key: &str, value: &str, settings: &mut Settings) -> Result<bool, Failure> {
    match key {
        "listenPort" => settings.addr.set_port(value.parse()?),
        "bindAddress" => settings.addr.set_ip(value.parse()?),
        "kvConfigPath" => settings.options.kv_config_path = Some(value.into()),
        "scanNotActiveBrokerInterval" => {
            let ms: u64 = value.parse()?;
            settings.options.scan_interval = std::time::Duration::from_millis(ms.max(1));
        }
        _ => return Ok(settings.options.switches.set(key, value)?),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9876), options: Options::default() }
    }

    #[test]
    fn the_configuration_file_is_rocketmqs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("namesrv.conf");
        std::fs::write(
            &file,
            "listenPort=9999\nbindAddress=::1\norderMessageEnable=true\nkvConfigPath=/k\n#x\ny=1\n",
        )
        .unwrap();
        let mut read_in = settings();
        read(&file, &mut read_in).unwrap();
        assert_eq!(read_in.addr, "[::1]:9999".parse().unwrap());
        assert_eq!(read_in.options.kv_config_path, Some("/k".into()));
        assert!(read_in.options.switches.order_message_enable);
        assert!(read(&dir.path().join("absent"), &mut settings()).is_err());
    }

    #[test]
    fn a_bad_value_is_an_error_and_an_unknown_key_is_not() {
        for (key, value) in [("listenPort", "70000"), ("bindAddress", "here"), ("enableTopicList", "yes")] {
            assert!(set(key, value, &mut settings()).is_err(), "{key}");
        }
        assert!(!set("productEnvName", "center", &mut settings()).unwrap());
    }
}
