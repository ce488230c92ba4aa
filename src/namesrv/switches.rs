//! What can be switched while a name server runs: RocketMQ's keys, a fixed list of them.
//!
//! Only these may be set over the network. Nothing among them is a path, so that no request can make the server
//! read or write a file of the sender's choice.

/// RocketMQ's switches of a name server, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// `orderMessageEnable`: routes carry the order configuration of their topic.
    pub order_message_enable: bool,
    /// `returnOrderTopicConfigToBroker`: brokers get the order configurations when they register.
    pub return_order_topic_config_to_broker: bool,
    /// `enableAllTopicList`: the list of all topics may be asked for.
    pub enable_all_topic_list: bool,
    /// `enableTopicList`: lists of topics by cluster and unit may be asked for.
    pub enable_topic_list: bool,
    /// `supportActingMaster`: a slave stands in as the master of a broker that has none.
    pub support_acting_master: bool,
    /// `deleteTopicWithBrokerRegistration`: a registration removes the broker's topics that it does not name.
    pub delete_topic_with_broker_registration: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            order_message_enable: false,
            return_order_topic_config_to_broker: true,
            enable_all_topic_list: true,
            enable_topic_list: true,
            support_acting_master: false,
            delete_topic_with_broker_registration: false,
        }
    }
}

impl Switches {
    fn entries(&mut self) -> [(&'static str, &mut bool); 6] {
        [
            ("deleteTopicWithBrokerRegistration", &mut self.delete_topic_with_broker_registration),
            ("enableAllTopicList", &mut self.enable_all_topic_list),
            ("enableTopicList", &mut self.enable_topic_list),
            ("orderMessageEnable", &mut self.order_message_enable),
            ("returnOrderTopicConfigToBroker", &mut self.return_order_topic_config_to_broker),
            ("supportActingMaster", &mut self.support_acting_master),
        ]
    }

    /// Sets the switch that RocketMQ calls `key`; whether there is one.
    ///
    /// # Errors
    /// When `value` is neither `true` nor `false`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let mut entries = self.entries();
        let Some((_, switch)) = entries.iter_mut().find(|(name, _)| *name == key) else { return Ok(false) };
        **switch = value.trim().parse().map_err(|_| format!("{key} is true or false, not {value:?}"))?;
        Ok(true)
    }

    /// Sets all of `pairs`, or none when one of them cannot be set; the error is fit for a remark.
    pub(super) fn set_all(&mut self, pairs: &[(String, String)]) -> Result<(), String> {
        let mut new = *self;
        for (key, value) in pairs {
            if !new.set(key, value)? {
                return Err(format!("Can not update config {key}: it cannot be set over the network"));
            }
        }
        *self = new;
        Ok(())
    }

    /// The switches as the text of a properties file.
    pub(super) fn to_properties(mut self) -> String {
        self.entries().into_iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        crate::parse_properties(text)
    }

    #[test]
    fn switches_are_set_all_or_none() {
        let mut switches = Switches::default();
        switches.set_all(&pairs("orderMessageEnable=true\nenableTopicList=false")).unwrap();
        assert!(switches.order_message_enable && !switches.enable_topic_list);
        assert!(switches.set_all(&pairs("enableTopicList=true\nenableAllTopicList=yes")).is_err());
        assert!(!switches.enable_topic_list);
    }

    #[test]
    fn nothing_but_switches_can_be_set() {
        for key in
            ["kvConfigPath", "configStorePath", "configStorePathName", "rocketmqHome", "configBlackList", "x"]
        {
            let mut switches = Switches::default();
            assert!(switches.set_all(&pairs(&format!("{key}=/tmp/x"))).is_err(), "{key}");
        }
    }

    #[test]
    fn the_text_of_switches_sets_them_again() {
        let set = Switches { order_message_enable: true, enable_topic_list: false, ..Switches::default() };
        let mut read = Switches::default();
        read.set_all(&pairs(&set.to_properties())).unwrap();
        assert_eq!(read, set);
    }
}
