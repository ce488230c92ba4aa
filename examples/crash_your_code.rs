//! Crashes a program that uses the store: a cashier, who books orders once and keeps beside the store how far it is.
//!
//! `cargo run --features sim --example crash_your_code` tests it; with `-- --careless` it says that an order is paid
//! before the books are durable, and the test says which crash shows it. `-- --careless --only 0:17.3` makes that one
//! again.

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use reput::{
    Config, ManualClock, Message, QueueOffset, Steps, Store, StoreTimestamp,
    sim::{CrashTest, SimDisk},
    vfs::Vfs,
};

/// Orders that come in.
const ORDERS: i64 = 3;
/// Where the cashier keeps how many orders it has booked.
const BOOKED: &str = "/cashier";

/// What the world was told.
#[derive(Clone, Default)]
struct Told {
    orders: i64,
    paid: i64,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn open(disk: &SimDisk) -> reput::Result<(Store, Steps)> {
    // Small files: each image of the disk is made and looked at whole.
    let config = Config::new("/store").commit_log_file_size(16_384u64).consume_queue_file_size(400u64);
    Store::open_stepped(config, Arc::new(disk.clone()), Arc::new(ManualClock::new(StoreTimestamp(1))))
}

/// How many orders are booked. A file that is not there yet, or that a crash left without its bytes, says none.
fn booked(disk: &SimDisk) -> Outcome<i64> {
    let bytes = disk.read(Path::new(BOOKED), 8)?.unwrap_or_default();
    Ok(bytes.first_chunk().map_or(0, |number| i64::from_be_bytes(*number)))
}

/// Takes orders and books each into the queue `paid`.
fn cashier(disk: &SimDisk, told: &Mutex<Told>, careless: bool) -> Outcome<()> {
    let (store, mut steps) = open(disk)?;
    let (orders, paid) = (store.queue("orders", 0)?, store.queue("paid", 0)?);
    for number in 0..ORDERS {
        drop(store.put(&Message::new(orders, &number.to_be_bytes()))?);
        store.sync()?;
        lock(told).orders = number + 1;
        while steps.reput()? {}
        // An order is booked once: what is in `paid` already counts, wherever a crash has left the number beside it.
        for next in store.max_offset(paid).0..number + 1 {
            let order = store.get(orders, QueueOffset(next))?;
            drop(store.put(&Message::new(paid, order.messages[0].body()))?);
        }
        if careless {
            lock(told).paid = number + 1;
        }
        store.sync()?;
        lock(told).paid = number + 1;
        while steps.reput()? {}
        disk.replace(Path::new(BOOKED), &(number + 1).to_be_bytes())?;
    }
    steps.close(&store)?;
    Ok(())
}

/// Opens what a crash left. Told orders are there, told payments are booked, none twice and none ahead of its order, and
/// the number beside the store is not ahead of the store.
fn audit(disk: &SimDisk, told: &Told) -> Outcome<()> {
    let (store, mut steps) = open(disk)?;
    while steps.reput()? {}
    let count = |topic: &str| store.find_queue(topic, 0).map_or(0, |queue| store.max_offset(queue).0);
    let (orders, paid, booked) = (count("orders"), count("paid"), booked(disk)?);
    if orders < told.orders || paid < told.paid {
        let Told { orders: due, paid: due_paid } = told;
        return Err(format!("{orders} orders of {due} are there, {paid} payments of {due_paid}").into());
    }
    if paid > orders || booked > paid {
        return Err(format!("{orders} orders, {paid} payments, {booked} in the book").into());
    }
    for (n, topic) in (0..orders).map(|n| (n, "orders")).chain((0..paid).map(|n| (n, "paid"))) {
        let queue = store.queue(topic, 0)?;
        let got = store.get(queue, QueueOffset(n))?;
        if got.messages.first().is_none_or(|message| message.body() != n.to_be_bytes()) {
            return Err(format!("number {n} of {topic} is another one").into());
        }
    }
    Ok(())
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(|error| error.into_inner())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let careless = words.iter().any(|word| word == "--careless");
    let mut test =
        CrashTest::new(1).images_per_point(2).exhaustive(2).within(2).failing_runs(6).store_stride(7);
    if let Some(place) = words.iter().position(|word| word == "--only").and_then(|at| words.get(at + 1)) {
        test = match test.only(place) {
            Ok(test) => test,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        };
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let ran = test.run(
        &told,
        |disk| cashier(disk, &told, careless).map_err(|error| error.to_string()),
        |disk, told| audit(disk, told).map_err(|error| error.to_string()),
    );
    match ran {
        Ok(tally) => {
            println!(
                "ran {} images of {} crash points in {} runs: no promise breaks",
                tally.images, tally.points, tally.seeds
            );
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            ExitCode::FAILURE
        }
    }
}
