//! A disk that remembers everything that was done to it, so that the power can be cut afterwards, at any point.
//!
//! ```text
//! reput-powercut serve BASE MOUNTPOINT LOG CONTROL     a FUSE file `disk` with the bytes of BASE; until it is unmounted
//! reput-powercut cut BASE LOG OUT EVENTS SEED KEEP LIE the image that a cut after EVENTS events may leave
//! ```
//!
//! `serve` writes each write and each flush to LOG. CONTROL is a file of 272 bytes that both sides map: the number of
//! events so far (8 bytes, big-endian like all that follows); what the disk is to do (1 byte): 0 work, 1 fail writes and
//! flushes with EIO; and from byte 16 on 16 ranges of bytes that cannot be read, first and end as u64: each read that
//! touches one fails with EIO. Put a loop device on the file and a file system on that. `cut` keeps what was flushed, and of what was written later each 512-byte sector with a
//! chance of KEEP in 100; of the flushed writes it drops LIE in 1000, which no honest disk does: a rig that does not
//! notice that is no rig.

mod disk;
mod log;

use std::{error::Error, process::ExitCode};

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reput-powercut: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", base, mountpoint, log, control] => disk::serve(base, mountpoint, log, control),
        ["cut", base, log, out, events, seed, keep, lie] => {
            let cut = log::Cut {
                events: events.parse()?,
                seed: seed.parse()?,
                keep: keep.parse()?,
                lie: lie.parse()?,
            };
            log::cut(base, log, out, &cut)
        }
        _ => Err("serve BASE MOUNTPOINT LOG CONTROL | cut BASE LOG OUT EVENTS SEED KEEP LIE".into()),
    }
}
