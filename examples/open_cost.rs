//! What opening costs, and what many queues cost: one case a run, in wall time, processor time and memory.
//!
//! ```text
//! open_cost DIR make SEGMENTS QUEUES [SEGMENT_BYTES [BODY]]   a store that was closed; DIR must not exist
//! open_cost DIR open [SEGMENT_BYTES]                   opens it and closes it again
//! open_cost DIR kill [SEGMENT_BYTES]                   opens it as after a kill
//! open_cost DIR new QUEUES                             the first message to each of many queues
//! open_cost DIR put QUEUES MESSAGES                    puts of 128 B over so many queues
//! open_cost DIR idle SECONDS                           an open store that nobody uses
//! ```

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use reput::{Config, Message, Queue, QueueOffset, Store, vfs::process_cpu_time};

type Outcome = Result<(), Box<dyn Error>>;

const LONGEST: Duration = Duration::from_secs(300);
const BODY: [u8; 128] = [b'x'; 128];

/// Memory of this process that no file backs, in KiB: now, or at its highest the whole resident set.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Processor time of this thread.
fn thread_cpu() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(times.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Wall time, processor time and memory since it was made.
struct Meter {
    start: Instant,
    cpu: Duration,
    thread: Duration,
    anonymous: u64,
}

impl Meter {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            cpu: process_cpu_time(),
            thread: thread_cpu(),
            anonymous: memory("RssAnon"),
        }
    }

    fn say(&self, what: &str) {
        let (wall, cpu) = (self.start.elapsed(), process_cpu_time().saturating_sub(self.cpu));
        println!(
            "{what}: {:.1} ms, CPU {:.1} ms ({:.1} of this thread), anonymous memory {} KiB ({:+} KiB), resident {} KiB",
            wall.as_secs_f64() * 1e3,
            cpu.as_secs_f64() * 1e3,
            thread_cpu().saturating_sub(self.thread).as_secs_f64() * 1e3,
            memory("RssAnon"),
            i128::from(memory("RssAnon")) - i128::from(self.anonymous),
            memory("VmRSS"),
        );
    }
}

fn queues(store: &Store, count: usize) -> Result<Vec<Queue>, Box<dyn Error>> {
    Ok((0..count).map(|n| store.queue(&format!("T{n:05}"), 0)).collect::<Result<_, _>>()?)
}

fn make(config: Config, segments: u64, count: usize, body: usize) -> Outcome {
    let body = vec![b'x'; body];
    let upto = segments.saturating_sub(1) * config.commit_log_file_size;
    let store = Store::open(config)?;
    let queues = queues(&store, count)?;
    let mut put = 0;
    while put < count || store.status().max_offset.since(reput::PhysicalOffset::ZERO) <= upto {
        store.put(&Message::new(queues[put % count], &body).keys(&format!("k{put}")))?.wait()?;
        put += 1;
    }
    store.wait_dispatched(LONGEST)?;
    println!("{put} messages");
    Ok(store.close()?)
}

fn open(config: Config) -> Outcome {
    let meter = Meter::start();
    let store = Store::open(config)?;
    meter.say("open");
    println!("{}", store.recovery_report());
    let meter = Meter::start();
    store.close()?;
    meter.say("close");
    Ok(())
}

/// Waits until the last of so many queues has its file: they are made in the order of the first messages.
fn wait_for_files(store: &Store, count: usize) -> Outcome {
    let last = store.config().path("consumequeue").join(format!("T{:05}/0/{:020}", count - 1, 0));
    let start = Instant::now();
    while !last.exists() {
        if start.elapsed() > LONGEST {
            return Err("the queues' files are not made".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn new(config: Config, count: usize) -> Outcome {
    let store = Store::open(config)?;
    let meter = Meter::start();
    for n in 0..count {
        let queue = store.queue(&format!("T{n:05}"), 0)?;
        store.put(&Message::new(queue, &BODY))?.wait()?;
    }
    meter.say("put");
    store.wait_dispatched(LONGEST)?;
    let last = queues(&store, count)?.pop().ok_or("no queue")?;
    let found = store.get(last, QueueOffset::ZERO)?.messages.len();
    meter.say(&format!("readable, {found} found"));
    wait_for_files(&store, count)?;
    meter.say("files made");
    let meter = Meter::start();
    store.close()?;
    meter.say("close");
    Ok(())
}

fn put(config: Config, count: usize, messages: usize) -> Outcome {
    let store = Store::open(config)?;
    let queues = queues(&store, count)?;
    for queue in &queues {
        store.put(&Message::new(*queue, &BODY))?.wait()?;
    }
    store.wait_dispatched(LONGEST)?;
    store.sync()?;
    wait_for_files(&store, count)?;
    // The flush that makes them syncs them as well.
    thread::sleep(Duration::from_secs(2));
    let meter = Meter::start();
    for n in 0..messages {
        // Not one after the other: a step that meets every queue, and no two neighbours.
        store.put(&Message::new(queues[n * 7919 % count], &BODY))?.wait()?;
    }
    meter.say(&format!("{messages} puts over {count} queues"));
    store.wait_dispatched(LONGEST)?;
    meter.say("dispatched");
    Ok(store.close()?)
}

fn idle(config: Config, seconds: u64) -> Outcome {
    let store = Store::open(config)?;
    thread::sleep(Duration::from_secs(2));
    let meter = Meter::start();
    thread::sleep(Duration::from_secs(seconds));
    meter.say("idle");
    Ok(store.close()?)
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sized = |dir: &str, bytes: Option<&&str>| -> Result<Config, Box<dyn Error>> {
        let config = Config::new(dir);
        Ok(match bytes {
            Some(bytes) => config.commit_log_file_size(bytes.parse::<u64>()?),
            None => config,
        })
    };
    match args[..] {
        [dir, "make", segments, queues, ref rest @ ..] if !Path::new(dir).exists() => {
            let body = rest.get(1).map_or(Ok(BODY.len()), |body| body.parse())?;
            make(sized(dir, rest.first())?, segments.parse()?, queues.parse()?, body)
        }
        [dir, "open", ref rest @ ..] => open(sized(dir, rest.first())?),
        [dir, "kill", ref rest @ ..] => {
            fs::write(Path::new(dir).join("abort"), "1")?;
            open(sized(dir, rest.first())?)
        }
        [dir, "new", count] => new(Config::new(dir), count.parse()?),
        [dir, "put", count, messages] => put(Config::new(dir), count.parse()?, messages.parse()?),
        [dir, "idle", seconds] => idle(Config::new(dir), seconds.parse()?),
        _ => Err("see the head of examples/open_cost.rs".into()),
    }
}
