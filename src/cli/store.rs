//! `reput store`.

use super::Failure;

/// What is asked about a store directory.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Looks at a store directory.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err("the store tools are not part of this build yet".into())
}
