//! A directory that nothing is written to.
/// Placeholder until written.
#[derive(Debug)]
pub struct OverlayVfs;
