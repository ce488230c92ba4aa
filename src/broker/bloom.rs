//! The Bloom filter behind the bitmaps of ConsumeQueueExt units: which of a topic's filters let a message pass.
//!
//! Pure. Each filter has a name and by it some bits; a message's bitmap has the bits of those filters that let it pass.
//! Size and number of bits follow from RocketMQ's `expectConsumerNumUseFilter` and `maxErrorRateOfBloomFilter`; names
//! become bits by MurmurHash3 (x64, 128 bits, seed 0), whose first half yields two hashes that are combined.

/// How many bits a bitmap has, and how many of them a name has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bloom {
    hashes: i32,
    bits: i32,
}

impl Bloom {
    /// For `names` names, of which `percent` in a hundred may seem to be there when they are not.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are small for every percentage and number allowed"
    )]
    pub(crate) fn new(percent: i32, names: i32) -> Self {
        let rate = f64::from(percent) / 100.0;
        let log = |base: f64, of: f64| of.ln() / base.ln();
        let hashes = log(0.5, rate).ceil() as i32;
        let bits = (f64::from(names) * log(2.0, 1.0 / rate) * log(2.0, std::f64::consts::E)).ceil();
        Self { hashes, bits: 8 * (bits / 8.0).ceil() as i32 }
    }

    /// Bits of a bitmap, a multiple of 8.
    pub(crate) const fn bits(&self) -> i32 {
        self.bits
    }

    /// The bits of a name; one may come twice.
    pub(crate) fn positions(&self, name: &str) -> Vec<i32> {
        let [a, b, c, d, e, f, g, h] = murmur3_x64_128(name.as_bytes()).to_be_bytes();
        let (high, low) = (i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes([e, f, g, h]));
        let combined = (1..=self.hashes).map(|n| low.wrapping_add(n.wrapping_mul(high)));
        combined.map(|hash| if hash < 0 { !hash } else { hash } % self.bits).collect()
    }

    /// Whether such positions are of this size and number.
    pub(crate) fn owns(&self, positions: &[i32], bits: i32) -> bool {
        let count = usize::try_from(self.hashes).unwrap_or(0);
        bits == self.bits
            && positions.len() == count
            && positions.iter().all(|at| (0..self.bits).contains(at))
    }

    /// An empty bitmap.
    pub(crate) fn bitmap(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.bits / 8).unwrap_or(0)]
    }

    /// Sets bits. Those beyond the bitmap are left out.
    pub(crate) fn set(bitmap: &mut [u8], positions: &[i32]) {
        for (byte, bit) in positions.iter().copied().map(place) {
            if let Some(byte) = bitmap.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// Whether all these bits are set. A bitmap of another size says nothing: it holds.
    pub(crate) fn holds(&self, bitmap: &[u8], positions: &[i32]) -> bool {
        i32::try_from(bitmap.len() * 8) != Ok(self.bits)
            || positions
                .iter()
                .copied()
                .map(place)
                .all(|(byte, bit)| bitmap.get(byte).is_none_or(|byte| byte & bit != 0))
    }
}

/// Byte and bit of a position.
fn place(position: i32) -> (usize, u8) {
    (usize::try_from(position / 8).unwrap_or(usize::MAX), 1 << (position % 8).unsigned_abs())
}

/// The first half of MurmurHash3 for 64-bit machines with seed 0.
fn murmur3_x64_128(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix_first = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix_second = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0u64, 0u64);
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(block);
        h1 = (h1 ^ mix_first(k1)).rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix_second(k2)).rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut tail = [0; 16];
    tail[..rest.len()].copy_from_slice(rest);
    let (k1, k2) = halves(&tail);
    let len = bytes.len() as u64;
    h1 = (h1 ^ mix_first(k1)) ^ len;
    h2 = (h2 ^ mix_second(k2)) ^ len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

fn halves(block: &[u8; 16]) -> (u64, u64) {
    // The hash is defined on little-endian words.
    let word = |half: Option<&[u8; 8]>| half.map_or(0, |half| u64::from_be_bytes(*half).swap_bytes());
    (word(block.first_chunk()), word(block.last_chunk()))
}

const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn names_get_the_bits_that_rocketmq_gives_them() {
        let answers = include_str!("../../tests/sql92/answers.tsv");
        let mut count = 0;
        for line in answers.lines().filter(|line| line.starts_with("B ")) {
            let columns: Vec<_> = line.split('\t').collect();
            let mut question = columns[0].splitn(4, ' ').skip(1);
            let mut number = || question.next().unwrap().parse().unwrap();
            let bloom = Bloom::new(number(), number());
            assert_eq!(
                (bloom.hashes.to_string().as_str(), bloom.bits().to_string().as_str()),
                (columns[1], columns[2])
            );
            let positions = bloom.positions(question.next().unwrap());
            let expected: Vec<i32> = columns[3].split_whitespace().map(|at| at.parse().unwrap()).collect();
            assert_eq!(positions, expected, "{line}");
            let mut bitmap = bloom.bitmap();
            Bloom::set(&mut bitmap, &positions);
            let hex = bitmap.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            assert_eq!(hex, columns[4], "{line}");
            assert!(bloom.holds(&bitmap, &positions) && bloom.owns(&positions, bloom.bits()));
            assert!(!bloom.holds(&bloom.bitmap(), &positions));
            assert!(
                bloom.holds(&[0], &positions) || bloom.bits() == 8,
                "a bitmap of another size says nothing"
            );
            count += 1;
        }
        assert_eq!(count, 12);
    }
}
