//! Rounds: every workload once in each, the first one rotating, so that what drifts on the machine drifts for all.

use std::time::{Duration, Instant};

use super::{
    Failure,
    lab::{Head, Lab, Sample, Work},
    results::{CellResult, Latencies, Latency, Round, latencies},
    stages, statistics,
};

/// Runs the workloads. A stop that was asked for ends it between or within cells; what rounds there are counts. With a
/// `limit` no round is begun that would end behind it, but for the first.
pub fn run(
    lab: &Lab,
    works: &mut [Work],
    rounds: usize,
    limit: Option<Duration>,
) -> Result<Vec<CellResult>, Failure> {
    let whole = Instant::now();
    let mut samples: Vec<Vec<Vec<Sample>>> = works.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let (start, so_far) = (Instant::now(), whole.elapsed());
        // The first round is the longest: it fills what the others read.
        if round > 0 && limit.is_some_and(|limit| so_far + so_far / u32::try_from(round).unwrap_or(1) > limit)
        {
            break;
        }
        for n in 0..works.len() {
            let turn = (n + round) % works.len();
            let (work, kept) = (&mut works[turn], &mut samples[turn]);
            let title =
                work.heads.last().map_or_else(String::new, |head| format!("{}: {}", head.group, head.title));
            lab.progress.measuring(&title);
            let began = Instant::now();
            let got = lab.check().and_then(|()| (work.run)(lab));
            tracing::debug!(
                "{title}: {:.0} ms with what it takes to prepare",
                began.elapsed().as_secs_f64() * 1e3
            );
            match got {
                Ok(got) => kept.push(got),
                // A stop shows as any error where a system call was under way.
                Err(_) if lab.stop.asked() => break,
                Err(error) => return Err(format!("{title}: {error}").into()),
            }
            lab.progress.done();
        }
        if lab.stop.asked() {
            break;
        }
        lab.progress.round(round + 1, rounds, start.elapsed());
    }
    Ok(gather(works, samples))
}

/// Results out of samples: `samples[work][round][head]`.
fn gather(works: &[Work], samples: Vec<Vec<Vec<Sample>>>) -> Vec<CellResult> {
    let mut cells: Vec<(Head, Vec<Sample>)> = Vec::new();
    for (work, rounds) in works.iter().zip(samples) {
        for (n, head) in work.heads.iter().enumerate() {
            let own: Vec<Sample> = rounds.iter().filter_map(|samples| samples.get(n).cloned()).collect();
            if !own.is_empty() {
                cells.push((head.clone(), own));
            }
        }
    }
    let mut results: Vec<CellResult> = cells.iter().map(|(head, samples)| result(head, samples)).collect();
    shares(&cells, &mut results);
    for n in 0..results.len() {
        let spent: Vec<_> = cells[n].1.iter().filter_map(|sample| sample.spent).collect();
        if let (Some(spent), "put" | "sync") = (stages::average(&spent), cells[n].0.group) {
            let copied_by = results[n].limit.clone().filter(|id| id.starts_with("memory/copy/"));
            results[n].stages = stages::of_put(&results, &results[n].id, copied_by.as_deref(), &spent);
        }
    }
    for result in &mut results {
        result.summarise();
    }
    results
}

fn result(head: &Head, samples: &[Sample]) -> CellResult {
    let mut merged: Option<Latencies> = None;
    let (mut over_time, mut before) = (Vec::new(), 0.0);
    for sample in samples {
        if let Some(times) = &sample.latency {
            // All histograms have the same bounds.
            let _ = merged.get_or_insert_with(latencies).add(times);
        }
        over_time.extend(sample.over_time.iter().map(|(at, rate)| (before + at, *rate)));
        before += sample.over_time.last().map_or(0.0, |(at, _)| *at);
    }
    let last = samples.last();
    let latency = merged.filter(|times| !times.is_empty()).map(|times| {
        Latency::of(&times, last.map_or(1, |s| s.timed_every), last.is_some_and(|s| s.from_intended_start))
    });
    let rounds = samples.iter().map(round).collect();
    let mut result = CellResult {
        id: head.id.clone(),
        group: head.group.into(),
        title: head.title.clone(),
        unit: head.unit.into(),
        lower_is_better: head.lower_is_better,
        limit: head.limit.as_ref().map(|(id, _)| id.clone()),
        median: 0.0,
        least: 0.0,
        greatest: 0.0,
        share: None,
        latency,
        stages: Vec::new(),
        rounds,
        over_time,
    };
    result.median = statistics::median(&result.values());
    result
}

fn round(sample: &Sample) -> Round {
    let percentile = |percent: f64| {
        let times = sample.latency.as_ref().filter(|times| !times.is_empty())?;
        Some(times.value_at_percentile(percent) as f64 / 1e3)
    };
    let cpu = sample.cpu.filter(|_| sample.operations > 0);
    Round {
        value: sample.value,
        seconds: sample.seconds,
        operations: sample.operations,
        cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / sample.operations as f64),
        p50_us: percentile(50.0),
        p99_us: percentile(99.0),
        followed: sample.followed,
        fairness: sample.fairness,
        share: None,
    }
}

/// Each round's share of its limit, measured in the same round.
fn shares(cells: &[(Head, Vec<Sample>)], results: &mut [CellResult]) {
    for (n, (head, samples)) in cells.iter().enumerate() {
        let Some((id, factor)) = &head.limit else { continue };
        let Some((limit, limits)) = cells.iter().find(|(other, _)| other.id == *id) else { continue };
        for (round, (own, most)) in samples.iter().zip(limits).enumerate() {
            let share = match (head.lower_is_better, limit.lower_is_better) {
                (true, _) => most.value * factor / own.value,
                (false, _) => own.value * factor / most.value,
            };
            results[n].rounds[round].share = Some(share).filter(|share| share.is_finite());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_round_by_round_and_turned_where_less_is_better() {
        let sample = |value: f64| Sample { value, operations: 1, ..Sample::default() };
        let works = [
            Work::one(Head::new("limits", "l", "", "x/s"), |_| Ok(Sample::default())),
            Work::one(Head::new("g", "a", "", "x/s").limited_by("l", 2.0), |_| Ok(Sample::default())),
            Work::one(Head::new("limits", "t", "", "us").lower(), |_| Ok(Sample::default())),
            Work::one(Head::new("g", "b", "", "us").lower().limited("t"), |_| Ok(Sample::default())),
            Work::one(Head::new("g", "c", "", "us").lower().limited("absent"), |_| Ok(Sample::default())),
        ];
        let of = |values: [f64; 3]| values.iter().map(|v| vec![sample(*v)]).collect::<Vec<_>>();
        let samples = vec![
            of([100.0, 200.0, 100.0]),
            of([10.0, 10.0, 20.0]),
            of([5.0, 5.0, 5.0]),
            of([10.0, 20.0, 50.0]),
            of([1.0, 1.0, 1.0]),
        ];
        let cells = gather(&works, samples);
        assert_eq!(cells[1].shares(), [0.2, 0.1, 0.4]);
        assert!((cells[1].share.unwrap() - 0.2).abs() < 1e-12 && (cells[1].median - 10.0).abs() < 1e-12);
        assert_eq!(cells[3].shares(), [0.5, 0.25, 0.1]);
        assert_eq!(cells[4].share, None);
    }

    #[test]
    fn a_run_that_was_cut_keeps_the_rounds_there_are() {
        let works = [
            Work::one(Head::new("g", "a", "", "x/s"), |_| Ok(Sample::default())),
            Work::one(Head::new("g", "b", "", "x/s"), |_| Ok(Sample::default())),
        ];
        let cells = gather(&works, vec![vec![vec![Sample::rate(4, 2.0)]], Vec::new()]);
        assert_eq!((cells.len(), cells[0].id.as_str(), cells[0].rounds.len()), (1, "a", 1));
        assert!((cells[0].median - 2.0).abs() < 1e-12);
    }
}
