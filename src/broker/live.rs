//! The settings that UPDATE_BROKER_CONFIG changes while the broker runs: one table of keys and where they stand.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use super::BrokerConfig;

macro_rules! live {
    ($($key:literal $name:ident: $atomic:ident;)*) => {
        /// Keys that may change while the broker runs.
        pub(crate) const CHANGEABLE: &[&str] = &[$($key),*];

        /// What [`CHANGEABLE`] keys stand at.
        #[derive(Debug)]
        pub(crate) struct Live { $(pub(crate) $name: $atomic,)* }

        impl Live {
            pub(crate) const fn new(config: &BrokerConfig) -> Self {
                Self { $($name: $atomic::new(config.$name),)* }
            }

            /// Takes over the changeable keys of `config`.
            pub(crate) fn apply(&self, config: &BrokerConfig) {
                $(self.$name.store(config.$name, Relaxed);)*
            }

            /// `config` as it stands now.
            pub(crate) fn merged(&self, config: &BrokerConfig) -> BrokerConfig {
                BrokerConfig { $($name: self.$name.load(Relaxed),)* ..config.clone() }
            }
        }
    };
}

live! {
    "autoCreateSubscriptionGroup" auto_create_group: AtomicBool;
    "autoCreateTopicEnable" auto_create_topic: AtomicBool;
    "brokerFastFailureEnable" fast_failure: AtomicBool;
    "brokerPermission" permission: AtomicI32;
    "osPageCacheBusyTimeOutMills" busy_after_ms: AtomicU64;
    "traceOn" trace_on: AtomicBool;
    "waitTimeMillsInAckQueue" ack_wait_ms: AtomicU64;
    "waitTimeMillsInSendQueue" send_wait_ms: AtomicU64;
    "waitTimeMillsInTransactionQueue" transaction_wait_ms: AtomicU64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_changed_setting_is_what_the_configuration_then_says() {
        let config = BrokerConfig::new(Config::new("/x"));
        let live = Live::new(&config);
        for key in CHANGEABLE {
            let mut changed = live.merged(&config);
            let other = match changed.get(key).unwrap().as_str() {
                "true" => "false",
                "false" => "true",
                _ => "4",
            };
            assert!(changed.set(key, other).unwrap(), "{key}");
            live.apply(&changed);
            assert_eq!(live.merged(&config).get(key).as_deref(), Some(other), "{key}");
        }
    }
}
