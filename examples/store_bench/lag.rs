//! How long after a put its message can be read, while another thread puts at a rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reput::{GetRequest, Message, Queue, Store};
use serde_json::json;

use crate::{
    Failure, Options,
    measure::{Histogram, memory},
    wipe,
};

const TAGGED: &[u8] = b"TAGS\x01TagA\x02";
/// The other puts come in turns of this length.
const TURN: Duration = Duration::from_millis(1);

pub fn lag(options: &Options) -> Result<(), Failure> {
    wipe(&options.dir())?;
    let store = options.open()?;
    let (probe, others) = (store.queue("LAG", 0)?, store.queue("T00000", 0)?);
    let body = usize::try_from(options.number("body", 1024)?)?;
    for text in options.text("rates", "0,20000,100000").split(',') {
        let rate: u64 = text.parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let background = {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            std::thread::spawn(move || put_at(&store, others, body, rate, &stop))
        };
        std::thread::sleep(Duration::from_millis(100));
        let seen = probes(&store, probe, options.millis("ms", 3000)?);
        stop.store(true, Ordering::Relaxed);
        let actual = background.join().map_err(|_| "the putting thread panicked")??;
        let mut line = json!({
            "impl": "reput", "bench": "lag", "label": "default", "bg_rate": rate, "bg_actual": actual.round(),
        });
        seen?.tell(&mut line);
        memory(&mut line);
        println!("{line}");
    }
    options.end(&store, "wipe")
}

/// A put now and then, and each time a reader that asks for its message until it is there.
fn probes(store: &Store, queue: Queue, time: Duration) -> reput::Result<Histogram> {
    let (mut lag, start, mut random) = (Histogram::default(), Instant::now(), 7_u64);
    while start.elapsed() < time {
        let put = store.put(&Message::new(queue, &[0; 128]).properties_raw(TAGGED))?;
        let (back, at) = (Instant::now(), put.queue_offset());
        put.wait()?;
        let mut request = GetRequest::new(queue, at);
        request.max_messages = 1;
        while store.fetch_raw(&request)?.messages.is_empty() {
            std::hint::spin_loop();
        }
        lag.add(back.elapsed());
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(200 + (random >> 33) % 2_000));
    }
    Ok(lag)
}

/// Puts until told to stop; messages a second.
fn put_at(store: &Store, queue: Queue, body: usize, rate: u64, stop: &AtomicBool) -> reput::Result<f64> {
    let (body, start, mut done) = (vec![b'x'; body], Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(TURN);
        let due = start.elapsed().as_secs_f64() * rate as f64;
        while (done as f64) < due {
            store.put(&Message::new(queue, &body).properties_raw(TAGGED))?.wait()?;
            done += 1;
        }
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
