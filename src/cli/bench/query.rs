//! Looking up messages by key.

use std::{rc::Rc, time::Instant};

use reput::Store;

use super::{
    Failure,
    drive::{Caller, Load, drive},
    fixture::Fixture,
    lab::{Head, TOPIC, Work},
    memory::Random,
    units,
};

/// Memory that a query cannot do without reading, one after the other: slot, entry, record.
const READS: f64 = 3.0;

/// Queries for keys at random, each of which one message has.
pub fn work(fixture: &Rc<Fixture>, threads: usize) -> Work {
    let title = format!("by key, {}", units::plural(threads, "thread"));
    let head = Head::new("query", format!("query/t{threads}"), title.clone(), "queries/s")
        .limited_by("memory/chase", READS);
    let fixture = Rc::clone(fixture);
    Work::one(head, move |lab| {
        let (store, messages) = fixture.store(lab)?;
        let load = Load {
            title: &title,
            unit: "queries/s",
            rate: None,
            units_per_call: 1,
            timed_every: 1,
            unit_bytes: 0,
            most_bytes: u64::MAX,
            time: None,
        };
        let callers = (0..threads)
            .map(|n| Query {
                store: store.clone(),
                messages,
                random: Random::new(n as u64 + 1),
                key: String::new(),
            })
            .collect();
        drive(lab, &load, callers)
    })
}

struct Query {
    store: Store,
    messages: u64,
    random: Random,
    key: String,
}

impl Caller for Query {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        use std::fmt::Write;
        let number = self.random.below(self.messages);
        self.key.clear();
        write!(self.key, "k{number}")?;
        let found = self.store.query(TOPIC, &self.key)?.len();
        if found == 1 {
            Ok(1)
        } else {
            Err(format!("the key {} has {found} messages, not 1", self.key).into())
        }
    }
}
