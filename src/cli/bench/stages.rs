//! Where the time of a put goes.
//!
//! Encoding, the copy and a page fault are measured on their own in the same run. How long the putting threads were on
//! a processor, ready without one, or asleep, and how many pages they faulted, the kernel counts for each thread. What
//! they wait for the disk is timed within the call. The rest of their time on a processor is the lock, the queue's
//! offset, the checks before and the publishing after.

use super::{
    lab::Spent,
    results::{CellResult, Stage},
};

/// What the parts cost by themselves, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    encode: f64,
    copy: f64,
    fault: f64,
}

/// The stages of a message's put in a cell like `put/128/t4`, from what its threads spent.
pub fn of_put(cells: &[CellResult], id: &str, copied_by: Option<&str>, spent: &Spent) -> Vec<Stage> {
    let each = |id: &str| {
        // Processor time: on a busy machine the rate says how long such a thing takes, not what it costs.
        cells.iter().find(|cell| cell.id == id).and_then(CellResult::cpu_us).map_or(0.0, |us| us * 1e3)
    };
    let body = id.split('/').nth(1).unwrap_or_default();
    let costs = Costs {
        encode: each(&format!("memory/encode/{body}")),
        copy: copied_by.map_or(0.0, each),
        fault: each("disk/map/fault"),
    };
    split(costs, spent)
}

/// Copies that cost most when a record's bytes go to memory; in a put they are part of the encoding.
fn split(costs: Costs, spent: &Spent) -> Vec<Stage> {
    let messages = spent.messages.max(1.0);
    let wall = spent.wall / messages;
    let mut left =
        if spent.flush > 0.0 { (spent.wall - spent.flush) / messages } else { spent.running / messages };
    // Parts measured by themselves are never more than the whole they are a part of.
    let mut part = |nanos: f64| {
        let part = nanos.min(left).max(0.0);
        left -= part;
        part
    };
    let encode = part(costs.encode);
    let faults = part(costs.fault * spent.faults / messages);
    let copy = part(costs.copy);
    let mut stages = vec![("encode", encode), ("copy", copy), ("page faults", faults)];
    if spent.flush > 0.0 {
        stages.push(("lock and bookkeeping", left));
        stages.push(("flush wait", spent.flush / messages));
    } else {
        stages.push(("lock and bookkeeping", left));
        stages.push(("lock wait, asleep", (wall - (spent.running + spent.queued) / messages).max(0.0)));
        stages.push(("no processor free", spent.queued / messages));
    }
    stages.into_iter().map(|(name, nanos)| Stage { name: name.into(), nanos }).collect()
}

/// The middle of what several rounds spent.
pub fn average(all: &[Spent]) -> Option<Spent> {
    let count = all.len() as f64;
    let mean = |of: fn(&Spent) -> f64| all.iter().map(of).sum::<f64>() / count;
    (!all.is_empty()).then(|| Spent {
        wall: mean(|s| s.wall),
        running: mean(|s| s.running),
        queued: mean(|s| s.queued),
        flush: mean(|s| s.flush),
        faults: mean(|s| s.faults),
        messages: mean(|s| s.messages),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { encode: 20.0, copy: 10.0, fault: 500.0 };

    fn sum(stages: &[Stage]) -> f64 {
        stages.iter().map(|stage| stage.nanos).sum()
    }

    #[test]
    fn the_stages_of_an_asynchronous_put_are_all_of_its_time() {
        let spent =
            Spent { wall: 200.0, running: 90.0, queued: 30.0, faults: 0.02, messages: 1.0, flush: 0.0 };
        let stages = split(COSTS, &spent);
        assert!((sum(&stages) - 200.0).abs() < 1e-9, "{stages:?}");
        let want = [20.0, 10.0, 10.0, 50.0, 80.0, 30.0];
        assert!(stages.iter().zip(want).all(|(stage, want)| (stage.nanos - want).abs() < 1e-9), "{stages:?}");
        assert_eq!(stages.len(), want.len());
    }

    #[test]
    fn the_stages_of_a_synchronous_put_end_with_the_disk() {
        let spent = Spent {
            wall: 100_000.0,
            running: 9_000.0,
            queued: 1.0,
            flush: 99_000.0,
            faults: 0.0,
            messages: 1.0,
        };
        let stages = split(COSTS, &spent);
        assert!((sum(&stages) - 100_000.0).abs() < 1e-6);
        let last = stages.last().unwrap();
        assert!(last.name == "flush wait" && (last.nanos - 99_000.0).abs() < 1e-6, "{stages:?}");
    }

    #[test]
    fn parts_that_cost_more_alone_do_not_make_the_whole_longer() {
        let spent = Spent { wall: 25.0, running: 25.0, messages: 1.0, ..Spent::default() };
        let stages = split(COSTS, &spent);
        assert!((sum(&stages) - 25.0).abs() < 1e-9 && stages.iter().all(|stage| stage.nanos >= 0.0));
    }

    #[test]
    fn a_batch_is_told_for_each_of_its_messages() {
        let spent = Spent { wall: 3_200.0, running: 3_200.0, messages: 32.0, ..Spent::default() };
        assert!((sum(&split(COSTS, &spent)) - 100.0).abs() < 1e-9);
    }
}
