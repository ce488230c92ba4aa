//! The writer. Its lines, each written at once and whole:
//!
//! ```text
//! opening                                   before the store is opened
//! open RECORDS                              it is open; the records that recovery found
//! ack N OFFSET QUEUE-OFFSET SIZE            message N was acknowledged, and where it stands
//! durable OFFSET                            a sync has returned: everything acknowledged below OFFSET is on the disk
//! refused N KIND: TEXT                      message N was not taken
//! closed                                    the store was closed without an error
//! failed TEXT                               the store takes no more, or could not be closed
//! ```

use std::{
    io::{Write as _, stdout},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use reput::{Config, Error, Message, PutStatus, Store};

use crate::{Failure, Options, letter::Letter};

/// Puts that are tried on a store that has said that it takes no more: none may be acknowledged.
const AFTER_THE_END: u64 = 25;

struct Writer {
    store: Store,
    next: AtomicU64,
    end: u64,
    pause: Duration,
    retry: Option<Duration>,
    sync_every: u64,
    failed: AtomicBool,
}

fn say(line: &str) {
    let mut out = stdout().lock();
    // Whoever listens may be gone; the writer goes on as a broker would.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

/// Writes until the count is reached, the store takes no more, or the process is killed.
pub fn write(config: Config, mut options: Options) -> Result<u8, Failure> {
    let (from, count) = (options.number("from", 0)?, options.number("count", u64::MAX / 2)?);
    let threads = options.number("threads", 1)?;
    let pause = Duration::from_micros(options.number("pause-us", 0)?);
    let retry = match options.number("retry-ms", 0)? {
        0 => None,
        ms => Some(Duration::from_millis(ms)),
    };
    let sync_every = options.number("sync-every", 0)?;
    options.end()?;
    say("opening");
    let store = match Store::open(config) {
        Ok(store) => store,
        Err(error) => {
            say(&format!("failed {error}"));
            return Ok(3);
        }
    };
    say(&format!("open {}", store.recovery_report().records));
    let writer = Writer {
        store,
        next: AtomicU64::new(from),
        end: from + count,
        pause,
        retry,
        sync_every,
        failed: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| writer.run());
        }
    });
    let closed = writer.store.close();
    match &closed {
        Ok(()) => say("closed"),
        Err(error) => say(&format!("failed {error}")),
    }
    Ok(if closed.is_err() || writer.failed.load(Ordering::Relaxed) { 3 } else { 0 })
}

impl Writer {
    fn run(&self) {
        let mut left = AFTER_THE_END;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.end || left == 0 {
                return;
            }
            match self.put(number) {
                Ok(()) => {}
                Err(error) => {
                    let full = matches!(error, Error::NoSpace { .. } | Error::DiskFull { .. });
                    let kind = if full { "full" } else { "error" };
                    say(&format!("refused {number} {kind}: {error}"));
                    match self.retry {
                        Some(retry) if full => thread::sleep(retry),
                        _ => {
                            self.failed.store(true, Ordering::Relaxed);
                            left -= 1;
                        }
                    }
                }
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
            if self.sync_every > 0 && number.is_multiple_of(self.sync_every) {
                self.sync();
            }
        }
    }

    fn put(&self, number: u64) -> Result<(), Error> {
        let letter = Letter::new(number);
        let queue = self.store.queue(&letter.topic, letter.queue)?;
        let message = Message::new(queue, &letter.body).tags(&letter.tag).keys(&letter.key);
        let appended = self.store.put(&message)?;
        let (offset, queue_offset, size) =
            (appended.physical_offset(), appended.queue_offset(), appended.size());
        // A put that was not on the disk in time is stored and promised nothing.
        if appended.wait()? == PutStatus::Ok {
            say(&format!("ack {number} {offset} {queue_offset} {size}"));
        }
        Ok(())
    }

    fn sync(&self) {
        let upto = self.store.status().max_offset;
        match self.store.sync() {
            Ok(()) => say(&format!("durable {upto}")),
            Err(error) => say(&format!("refused sync error: {error}")),
        }
    }
}
