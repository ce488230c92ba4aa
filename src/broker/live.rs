//! The settings that UPDATE_BROKER_CONFIG changes while the broker runs: one table of keys and where they stand.
//!
//! Owns [`Live`], which every handler reads for these keys instead of the configuration that the broker was started
//! with. Called by `settings`, which changes it, and by whoever goes by one of the keys.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::BrokerConfig;

macro_rules! live {
    (
        broker: $($key:literal $name:ident: $atomic:ident;)*
        store: $($of_store:literal $store:ident: $number:ident;)*
    ) => {
        /// Keys that may change while the broker runs.
        pub(crate) const CHANGEABLE: &[&str] = &[$($key,)* $($of_store,)* "deleteWhen"];

        /// What [`CHANGEABLE`] keys stand at.
        #[derive(Debug)]
        pub(crate) struct Live {
            $(pub(crate) $name: $atomic,)*
            $(pub(crate) $store: $number,)*
            delete_when: Mutex<String>,
        }

        impl Live {
            pub(crate) fn new(config: &BrokerConfig) -> Self {
                Self {
                    $($name: $atomic::new(config.$name),)*
                    $($store: $number::new(config.store.$store),)*
                    delete_when: Mutex::new(config.store.delete_when.clone()),
                }
            }

            /// Takes over the changeable keys of `config`.
            pub(crate) fn apply(&self, config: &BrokerConfig) {
                $(self.$name.store(config.$name, Relaxed);)*
                $(self.$store.store(config.store.$store, Relaxed);)*
                self.delete_when.lock().clone_from(&config.store.delete_when);
            }

            /// `config` as it stands now.
            pub(crate) fn merged(&self, config: &BrokerConfig) -> BrokerConfig {
                let mut merged = BrokerConfig { $($name: self.$name.load(Relaxed),)* ..config.clone() };
                $(merged.store.$store = self.$store.load(Relaxed);)*
                merged.store.delete_when.clone_from(&self.delete_when.lock());
                merged
            }
        }
    };
}

live! {
    broker:
    "allowRecallWhenBrokerNotWriteable" recall_when_not_writeable: AtomicBool;
    "autoCreateSubscriptionGroup" auto_create_group: AtomicBool;
    "autoCreateTopicEnable" auto_create_topic: AtomicBool;
    "brokerFastFailureEnable" fast_failure: AtomicBool;
    "brokerPermission" permission: AtomicI32;
    "defaultTopicQueueNums" default_topic_queues: AtomicI32;
    "enablePropertyFilter" property_filter: AtomicBool;
    "longPollingEnable" long_polling: AtomicBool;
    "maxTransferBytesOnMessageInMemory" max_pull_bytes: AtomicI32;
    "maxTransferCountOnMessageInMemory" max_pull_messages: AtomicI32;
    "notifyConsumerIdsChangedEnable" notify_consumer_ids_changed: AtomicBool;
    "osPageCacheBusyTimeOutMills" busy_after_ms: AtomicU64;
    "recallMessageEnable" recall_messages: AtomicBool;
    "rejectTransactionMessage" reject_transactions: AtomicBool;
    "shortPollingTimeMills" short_polling_ms: AtomicU64;
    "storeReplyMessageEnable" store_replies: AtomicBool;
    "traceOn" trace_on: AtomicBool;
    "transactionCheckInterval" transaction_check_interval_ms: AtomicU64;
    "transactionCheckMax" transaction_check_max: AtomicI32;
    "transactionTimeOut" transaction_timeout_ms: AtomicU64;
    "validateSystemTopicWhenUpdateTopic" validate_system_topic: AtomicBool;
    "waitTimeMillsInAckQueue" ack_wait_ms: AtomicU64;
    "waitTimeMillsInSendQueue" send_wait_ms: AtomicU64;
    "waitTimeMillsInTransactionQueue" transaction_wait_ms: AtomicU64;
    store:
    "diskMaxUsedSpaceRatio" disk_max_used_percent: AtomicU32;
    "fileReservedTime" file_reserved_hours: AtomicU64;
    "maxMessageSize" max_message_size: AtomicUsize;
}

impl Live {
    /// `transactionTimeOut` to reckon with.
    pub(crate) fn transaction_timeout_ms(&self) -> i64 {
        i64::try_from(self.transaction_timeout_ms.load(Relaxed)).unwrap_or(i64::MAX)
    }
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
                "04" => "05;17",
                "6" => "4",
                // In the range of every other number.
                _ => "80",
            };
            assert!(changed.set(key, other).unwrap(), "{key}");
            live.apply(&changed);
            assert_eq!(live.merged(&config).get(key).as_deref(), Some(other), "{key}");
        }
    }
}
