//! Message ids that say where a message lies: the store host and the physical offset in upper-case hex.
//!
//! 32 digits with an IPv4 host, 56 with an IPv6 host. Callers: the store's answers, the broker's lookups by id.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use crate::{error::Corruption, types::PhysicalOffset};

/// Where a message lies: on which broker and where in its log.
///
/// ```
/// use reput::format::message_id::MessageId;
/// let id: MessageId = "7F00000100002A9F00000000000000BA".parse()?;
/// assert_eq!(id.host, "127.0.0.1:10911".parse().unwrap());
/// assert_eq!(id.offset.get(), 186);
/// assert_eq!(id.to_string(), "7F00000100002A9F00000000000000BA");
/// # Ok::<(), reput::Corruption>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The store host of the record.
    pub host: SocketAddr,
    /// The record's first byte.
    pub offset: PhysicalOffset,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 56];
        let ip = match self.host.ip() {
            IpAddr::V4(ip) => hex(&ip.octets(), &mut digits),
            IpAddr::V6(ip) => hex(&ip.octets(), &mut digits),
        };
        let port = ip + hex(&u32::from(self.host.port()).to_be_bytes(), &mut digits[ip..]);
        let end = port + hex(&self.offset.0.to_be_bytes(), &mut digits[port..]);
        f.write_str(std::str::from_utf8(&digits[..end]).map_err(|_| fmt::Error)?)
    }
}

/// Writes two digits a byte to the front of `out`; how many those are. A broker makes an id for every message that it
/// stores; by number formatting those of batches took 4 % of its time.
fn hex(bytes: &[u8], out: &mut [u8]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    2 * bytes.len()
}

impl FromStr for MessageId {
    type Err = Corruption;

    fn from_str(text: &str) -> Result<Self, Corruption> {
        const BAD: Corruption = Corruption::Text { what: "message id" };
        let bytes = text.as_bytes();
        if !bytes.iter().all(u8::is_ascii_hexdigit) {
            return Err(BAD);
        }
        let (ip_digits, rest) = match bytes.len() {
            32 => text.split_at(8),
            56 => text.split_at(32),
            _ => return Err(BAD),
        };
        let ip = u128::from_str_radix(ip_digits, 16).map_err(|_| BAD)?;
        let ip = match u32::try_from(ip) {
            Ok(bits) if ip_digits.len() == 8 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(ip)),
        };
        let (port, offset) = rest.split_at(8);
        let port = u32::from_str_radix(port, 16).ok().and_then(|port| u16::try_from(port).ok()).ok_or(BAD)?;
        let offset = u64::from_str_radix(offset, 16).map_err(|_| BAD)?;
        Ok(Self { host: SocketAddr::new(ip, port), offset: PhysicalOffset(offset.cast_signed()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_is_no_message_id_is_refused() {
        for bad in
            ["", "7F", &"G".repeat(32), &"é".repeat(16), &"+".repeat(56), "7F0000010001000000000000000000BA"]
        {
            assert!(bad.parse::<MessageId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_comes_back_as_written(ip: IpAddr, port: u16, offset: i64) {
            let id = MessageId { host: SocketAddr::new(ip, port), offset: PhysicalOffset(offset) };
            let text = id.to_string();
            prop_assert_eq!(text.len(), if ip.is_ipv4() { 32 } else { 56 });
            prop_assert_eq!(text.parse(), Ok(id));
            prop_assert_eq!(text.to_lowercase().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<MessageId>();
        }
    }
}
