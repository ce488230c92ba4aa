//! What the integration tests share: golden stores, and the configuration to open one with.

use reput::Config;

mod archive;

#[allow(unused_imports, reason = "each test crate uses its own part of this module")]
pub use archive::*;

#[allow(dead_code, reason = "each test crate uses its own part of this module")]
impl Golden {
    /// The configuration to open the store with. Keys that the store does not know are Java's own business.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.store_dir());
        for (key, value) in self.settings() {
            config.set(&key, &value).expect("a golden store's setting");
        }
        config
    }
}
