//! Message number `n`: everything about it follows from the number, so that an audit needs nothing but what it reads.

use std::fmt::Write as _;

/// Topics that messages are spread over, and queues of each.
const TOPICS: u64 = 3;
const QUEUES: u64 = 2;
const KEY: &str = "key-";

/// One message.
pub struct Letter {
    pub topic: String,
    pub queue: i32,
    pub tag: String,
    pub key: String,
    pub body: Vec<u8>,
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Letter {
    /// The message with this number.
    pub fn new(number: u64) -> Self {
        let dice = mix(number);
        let mut body = Vec::new();
        // The length is in the number too: low bits decide whether the message is tiny, common or larger than a page.
        let length = match dice % 16 {
            0 => 0,
            1..=3 => 4 + dice / 16 % 9000,
            _ => 4 + dice / 16 % 700,
        };
        let mut at = number;
        while (body.len() as u64) < length {
            at = mix(at);
            body.extend_from_slice(&at.to_be_bytes());
        }
        body.truncate(usize::try_from(length).unwrap_or(0));
        let mut key = String::from(KEY);
        let _ = write!(key, "{number}");
        Self {
            topic: format!("crash-{}", dice / 7 % TOPICS),
            queue: i32::try_from(dice / 5 % QUEUES).unwrap_or(0),
            tag: format!("tag{}", dice % 5),
            key,
            body,
        }
    }

    /// The number that a message's key carries.
    pub fn number_of(key: &str) -> Option<u64> {
        key.strip_prefix(KEY)?.parse().ok()
    }
}
