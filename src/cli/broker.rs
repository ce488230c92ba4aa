//! `reput broker`.

use super::Failure;

/// What a broker is started with.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs a broker until it is asked to stop.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err("the broker is not part of this build yet".into())
}
