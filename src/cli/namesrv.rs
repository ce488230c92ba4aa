//! `reput namesrv`: a name server alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reput::namesrv::NameServer;

use super::Failure;

const EXAMPLES: &str = "\
Examples:
  reput namesrv                          listen on 127.0.0.1:9876
  reput namesrv -p 9976                  another port
  reput namesrv --listen 0.0.0.0         reachable from other machines: anyone who reaches it may use it

Brokers name it as namesrvAddr=127.0.0.1:9876, and so do clients.";

/// What a name server is started with.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The port to listen on.
    #[arg(short, long, default_value_t = 9876)]
    port: u16,

    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
}

/// Runs a name server until it is asked to stop.
pub fn run(args: &Args) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let addr = SocketAddr::new(args.listen, args.port);
        let server = NameServer::start(addr).await.map_err(|e| format!("cannot listen on {addr}: {e}"))?;
        println!("name server on {}, Ctrl-C stops it", server.local_addr());
        super::asked_to_stop().await?;
        server.shutdown().await;
        Ok(())
    })
}
