//! The log of a disk, and the images that a power cut may leave.
//!
//! An event is a line of fixed fields: kind (1 write, 2 flush), offset as u64, length as u32, big-endian, then the bytes.

use std::{
    fs::File,
    io::{BufReader, BufWriter, ErrorKind, Read, Write},
    os::unix::fs::FileExt,
};

use crate::Failure;

const WRITE: u8 = 1;
const FLUSH: u8 = 2;
/// What a disk writes whole.
const SECTOR: usize = 512;
/// A request of the kernel is never longer.
const LONGEST: usize = 4 << 20;
const BLOCK: usize = 4096;

/// Appends events.
pub struct Log(BufWriter<File>);

impl Log {
    pub fn create(path: &str) -> Result<Self, Failure> {
        Ok(Self(BufWriter::with_capacity(1 << 20, File::create(path)?)))
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.head(WRITE, offset, bytes.len())?;
        self.0.write_all(bytes)
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        self.head(FLUSH, 0, 0)
    }

    pub fn end(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }

    fn head(&mut self, kind: u8, offset: u64, length: usize) -> std::io::Result<()> {
        let length = u32::try_from(length).map_err(|_| std::io::Error::from(ErrorKind::InvalidInput))?;
        self.0.write_all(&[kind])?;
        self.0.write_all(&offset.to_be_bytes())?;
        self.0.write_all(&length.to_be_bytes())
    }
}

/// Where and how the power goes.
pub struct Cut {
    pub events: u64,
    pub seed: u64,
    pub keep: u64,
    pub lie: u64,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Writes the image to `out`, with holes where it is zero.
pub fn cut(base: &str, log: &str, out: &str, cut: &Cut) -> Result<(), Failure> {
    let mut image = std::fs::read(base)?;
    let mut log = BufReader::with_capacity(1 << 20, File::open(log)?);
    let mut dice = Dice(cut.seed);
    let mut unflushed: Vec<(usize, Vec<u8>)> = Vec::new();
    for _ in 0..cut.events {
        let Some((kind, offset, bytes)) = read(&mut log)? else { break };
        if kind == FLUSH {
            for (offset, bytes) in unflushed.drain(..) {
                if cut.lie == 0 || dice.below(1000) >= cut.lie {
                    put(&mut image, offset, &bytes)?;
                }
            }
        } else {
            unflushed.push((offset, bytes));
        }
    }
    for (offset, bytes) in unflushed {
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            if dice.below(100) < cut.keep {
                put(&mut image, offset + number * SECTOR, sector)?;
            }
        }
    }
    let file = File::create(out)?;
    file.set_len(image.len() as u64)?;
    for (number, block) in image.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (number * BLOCK) as u64)?;
        }
    }
    Ok(())
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) -> Result<(), Failure> {
    let end = offset.checked_add(bytes.len()).ok_or("an event past all disks")?;
    image.get_mut(offset..end).ok_or("an event behind the end of the disk")?.copy_from_slice(bytes);
    Ok(())
}

fn read(log: &mut impl Read) -> Result<Option<(u8, usize, Vec<u8>)>, Failure> {
    let mut head = [0; 13];
    match log.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let [kind, rest @ ..] = head;
    let (offset, length) = rest.split_at(8);
    let offset = usize::try_from(u64::from_be_bytes(offset.try_into()?))?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into()?))?;
    if length > LONGEST || !matches!(kind, WRITE | FLUSH) {
        return Err("not a log of this program".into());
    }
    let mut bytes = vec![0; length];
    log.read_exact(&mut bytes)?;
    Ok(Some((kind, offset, bytes)))
}
