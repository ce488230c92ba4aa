//! Which workloads a command runs, and which limits they need beside them.

use std::rc::Rc;

use super::{
    Failure,
    args::{How, What},
    backlog, disk,
    fixture::Fixture,
    java,
    lab::Work,
    lag, memory,
    memory::record_len,
    pull, put, query, recover, reput, retention, topics, wire,
};

/// The workloads of a command, limits first, Java's last.
pub fn of(what: Option<&What>, how: &How) -> Result<Vec<Work>, Failure> {
    let (works, fixture) = match what {
        None | Some(What::Compare(_)) => everything(how.quick)?,
        Some(what) => part(what, how.quick)?,
    };
    let peers = if how.against_java { java::beside(&works, fixture.as_ref()) } else { Vec::new() };
    if how.against_java && peers.is_empty() {
        return Err("--against-java: the Java store is measured in put, sync, reput and pull only".into());
    }
    let mut all = complete(works)?;
    all.extend(peers);
    Ok(all)
}

/// Workloads, and the store that Java reads a copy of, if they have one.
type Planned = (Vec<Work>, Option<Rc<Fixture>>);

/// Messages of a filled store; few for a quick look.
const fn filled(messages: usize, quick: bool) -> u64 {
    if quick && messages > 20_000 { 20_000 } else { messages as u64 }
}

/// What `reput bench` alone measures.
fn everything(quick: bool) -> Result<Planned, Failure> {
    let fixture = Fixture::new(filled(1_000_000, quick), 128);
    let recovered = Fixture::new(filled(400_000, quick), 1024);
    let mut works = vec![disk::sequential(), disk::mapped(), disk::sync(1, record_len(1024)?)];
    for cell in [
        put::Cell::new(128, 1),
        put::Cell::new(128, 4),
        put::Cell::new(1024, 1),
        put::Cell::new(1024, 4),
        put::Cell::new(16 << 10, 1),
        put::Cell { batch: 32, ..put::Cell::new(128, 1) },
        put::Cell { rate: Some(100_000), ..put::Cell::new(1024, 1) },
        put::Cell::sync(1024, 1),
        put::Cell::sync(1024, 16),
        put::Cell::sync(1024, 64),
        put::Cell { window: 64, ..put::Cell::sync(1024, 4) },
    ] {
        works.push(cell.work()?);
    }
    works.push(reput::work(&fixture));
    works.extend([lag::work(0, 1024), lag::work(20_000, 1024)]);
    for (threads, how) in [(1, pull::How::Reference), (1, pull::How::Tag), (1, pull::How::Copy)] {
        works.push(pull::Cell { threads, batch: 32, how }.work(&fixture)?);
    }
    works.push(wire::pulls(&fixture)?);
    works.push(pull::cold(&fixture));
    works.push(query::work(&fixture, 1));
    works.push(recover::work(&recovered));
    works.push(topics::work(if quick { 50 } else { 1_000 }, 128));
    works.push(retention::work());
    Ok((works, Some(fixture)))
}

fn part(what: &What, quick: bool) -> Result<Planned, Failure> {
    let (mut works, mut read) = (Vec::new(), None);
    match what {
        What::Disk(args) => {
            works = vec![disk::sequential(), disk::mapped(), memory::read(), memory::chase(), memory::wake()];
            for size in &args.size {
                let len = record_len(*size)?;
                works.extend([disk::sync(1, len), disk::sync(64, len), memory::copy(len)]);
                works.extend([memory::encoding(*size), memory::walk(*size)]);
            }
        }
        What::Put(args) => {
            for (size, threads, batch, topics) in four(&args.size, &args.threads, &args.batch, &args.topics) {
                for rate in or_none(&args.rate) {
                    works.push(put::Cell { batch, topics, rate, ..put::Cell::new(size, threads) }.work()?);
                }
            }
        }
        What::Sync(args) => {
            for (size, threads, batch, window) in four(&args.size, &args.threads, &args.batch, &args.window) {
                if window > 0 && batch > 1 {
                    return Err("--window counts single messages: give it or --batch".into());
                }
                for rate in or_none(&args.rate) {
                    works.push(put::Cell { batch, window, rate, ..put::Cell::sync(size, threads) }.work()?);
                }
            }
        }
        What::Reput(args) => {
            let fixture = Fixture::new(filled(args.messages, quick), args.size);
            works.push(reput::work(&fixture));
            read = Some(fixture);
        }
        What::Lag(args) => works.extend(args.rate.iter().map(|rate| lag::work(*rate, args.size))),
        What::Pull(args) => {
            let fixture = Fixture::new(filled(args.messages, quick), args.size);
            works = pulls(args, &fixture)?;
            read = args.store.is_none().then_some(fixture);
        }
        What::Query(args) => {
            let fixture = Fixture::new(filled(args.messages, quick), args.size);
            works.extend(args.threads.iter().map(|threads| query::work(&fixture, *threads)));
        }
        What::Recover(args) => works.push(match &args.store {
            Some(dir) => recover::own(dir.clone()),
            None => recover::work(&Fixture::new(filled(args.messages, quick), args.size)),
        }),
        What::Topics(args) => works.extend(args.topics.iter().map(|count| topics::work(*count, args.size))),
        What::Backlog(args) => {
            let bytes = if quick { args.bytes.min(64 << 20) } else { args.bytes };
            works.push(backlog::work(bytes, args.size, args.threads));
        }
        What::Retention(_) => works.push(retention::work()),
        What::Compare(_) => {}
    }
    Ok((works, read))
}

fn pulls(args: &super::args::Pull, fixture: &Rc<Fixture>) -> Result<Vec<Work>, Failure> {
    let mut works = Vec::new();
    for threads in &args.threads {
        for how in [pull::How::Reference, pull::How::Tag, pull::How::Copy] {
            let cell = pull::Cell { threads: *threads, batch: args.batch, how };
            works.push(match &args.store {
                Some(_) if how == pull::How::Tag => continue,
                Some(dir) => pull::own(dir.clone(), cell)?,
                None => cell.work(fixture)?,
            });
        }
    }
    if args.store.is_none() {
        works.push(wire::pulls(fixture)?);
        works.push(pull::cold(fixture));
    }
    Ok(works)
}

fn four(a: &[usize], b: &[usize], c: &[usize], d: &[usize]) -> Vec<(usize, usize, usize, usize)> {
    let mut all = Vec::new();
    for a in a {
        for b in b {
            for c in c {
                all.extend(d.iter().map(|d| (*a, *b, *c, *d)));
            }
        }
    }
    all
}

fn or_none(rates: &[u64]) -> Vec<Option<u64>> {
    if rates.is_empty() { vec![None] } else { rates.iter().copied().map(Some).collect() }
}

/// Adds the limits that workloads name and nobody measures, and what a put's stages are told from.
fn complete(works: Vec<Work>) -> Result<Vec<Work>, Failure> {
    let mut wanted: Vec<String> = Vec::new();
    for head in works.iter().flat_map(|work| &work.heads) {
        wanted.extend(head.limit.iter().map(|(id, _)| id.clone()));
        if matches!(head.group, "put" | "sync")
            && let Some(body) = head.id.split('/').nth(1)
        {
            wanted.extend([format!("memory/encode/{body}"), "disk/map/fault".into()]);
        }
    }
    let mut all: Vec<Work> = Vec::new();
    for id in wanted {
        let known = |works: &[Work]| works.iter().flat_map(|work| &work.heads).any(|head| head.id == id);
        if !known(&all) && !known(&works) {
            all.push(limit(&id).ok_or_else(|| format!("nobody measures {id}"))?);
        }
    }
    // Those that a workload brings itself come first too.
    let (limits, rest): (Vec<_>, Vec<_>) =
        works.into_iter().partition(|work| work.heads.iter().all(|head| head.group == memory::LIMITS));
    Ok(limits.into_iter().chain(all).chain(rest).collect())
}

/// The workload of a limit by its name.
fn limit(id: &str) -> Option<Work> {
    let parts: Vec<&str> = id.split('/').collect();
    Some(match parts[..] {
        ["memory", "copy", len] => memory::copy(len.parse().ok()?),
        ["memory", "encode", body] => memory::encoding(body.parse().ok()?),
        ["memory", "walk", body] => memory::walk(body.parse().ok()?),
        ["memory", "read"] => memory::read(),
        ["memory", "entries"] => memory::entries(),
        ["memory", "chase"] => memory::chase(),
        ["memory", "wake"] => memory::wake(),
        ["wire", "write", len] => wire::write(len.parse().ok()?),
        ["disk", "sync", many] => {
            let (records, len) = many.split_once('x')?;
            disk::sync(records.parse().ok()?, len.parse().ok()?)
        }
        ["disk", "read" | "write"] => disk::sequential(),
        ["disk", "map", _] => disk::mapped(),
        ["disk", "files", count] => disk::files(count.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_is_named_is_measured_once() {
        for quick in [true, false] {
            let works = complete(everything(quick).unwrap().0).unwrap();
            let ids: Vec<&str> =
                works.iter().flat_map(|work| &work.heads).map(|head| head.id.as_str()).collect();
            for head in works.iter().flat_map(|work| &work.heads) {
                assert_eq!(ids.iter().filter(|id| **id == head.id).count(), 1, "{}", head.id);
                if let Some((limit, _)) = &head.limit {
                    assert!(ids.contains(&limit.as_str()), "{limit}");
                }
            }
        }
    }

    #[test]
    fn lists_are_combined_each_with_each() {
        assert_eq!(
            four(&[1, 2], &[3], &[4, 5], &[6]),
            [(1, 3, 4, 6), (1, 3, 5, 6), (2, 3, 4, 6), (2, 3, 5, 6)]
        );
        assert_eq!(or_none(&[]), [None]);
        assert_eq!(or_none(&[5]), [Some(5)]);
    }
}
