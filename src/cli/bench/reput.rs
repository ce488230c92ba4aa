//! The dispatcher: building queues and index from a log that has lost both.

use std::{rc::Rc, time::Duration, time::Instant};

use reput::{Store, vfs::process_cpu_time};

use super::{
    Failure,
    fixture::Fixture,
    lab::{Head, Lab, Sample, Work},
    place,
};

/// Building takes no longer than this, or something is wrong.
const LONGEST: Duration = Duration::from_secs(600);

/// Both ways: with two index entries a message, and queues only.
pub fn work(fixture: &Rc<Fixture>) -> Work {
    let limit = format!("memory/walk/{}", fixture.body());
    let heads = vec![
        Head::new("reput", "reput/index", "8 queues, 2 index entries a message", "msgs/s")
            .limited(limit.as_str()),
        Head::new("reput", "reput/queues", "8 queues, no index", "msgs/s").limited(limit),
    ];
    let fixture = Rc::clone(fixture);
    Work::several(heads, move |lab| Ok(vec![build(lab, &fixture, true)?, build(lab, &fixture, false)?]))
}

fn build(lab: &Lab, fixture: &Fixture, index: bool) -> Result<Sample, Failure> {
    lab.check()?;
    let (dir, messages) = fixture.log_alone(lab)?;
    for name in ["consumequeue", "index", "checkpoint", "abort"] {
        place::remove(&dir.join(name))?;
    }
    let config = fixture.config(lab, &dir)?.message_index(index);
    let (start, cpu) = (Instant::now(), process_cpu_time());
    let store = Store::open(config)?;
    let all = store.wait_dispatched(LONGEST)?;
    let took = start.elapsed().as_secs_f64();
    let cpu = process_cpu_time().saturating_sub(cpu);
    let found = store.recovery_report().records;
    if !all || found != messages {
        return Err(format!("of {messages} messages {found} were found again").into());
    }
    Ok(Sample { cpu: Some(cpu), ..Sample::rate(messages, took) })
}
