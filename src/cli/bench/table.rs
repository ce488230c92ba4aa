//! The results as a table for people.

use std::fmt::Write;

use super::{
    results::{CellResult, Run},
    statistics, units,
};

/// What the groups are called, in the order in which they stand.
pub const GROUPS: &[(&str, &str)] = &[
    ("limits", "What the machine can do"),
    ("put", "Put, ASYNC_FLUSH"),
    ("sync", "Put, SYNC_FLUSH"),
    ("reput", "Reput: queues and index from the log"),
    ("lag", "Dispatch lag"),
    ("pull", "Pull"),
    ("query", "Query"),
    ("recover", "Recovery"),
    ("topics", "New topics"),
    ("retention", "Retention"),
    ("backlog", "Backlog"),
    ("java", "Apache RocketMQ's Java store 5.5.0"),
];

/// Widths: title, value, spread, p50, p99, max, processor, share.
const TITLE: usize = 58;

/// The table.
pub fn table(run: &Run) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = head(&mut out, run);
    for (group, title) in GROUPS {
        let cells: Vec<&CellResult> = run.cells.iter().filter(|cell| cell.group == *group).collect();
        if cells.is_empty() {
            continue;
        }
        let _ = writeln!(
            out,
            "\n{:<TITLE$} {:>15} {:>17} {:>8} {:>8} {:>8} {:>8} {:>8}",
            title, "median", "least to greatest", "p50", "p99", "max", "CPU/op", "of limit"
        );
        for cell in cells {
            let _ = line(&mut out, cell);
        }
    }
    let _ = tail(&mut out, run);
    out
}

fn head(out: &mut String, run: &Run) -> std::fmt::Result {
    let machine = &run.machine;
    writeln!(
        out,
        "{} of {}, {} memory, {}",
        units::plural(machine.processors, "processor"),
        machine.processor,
        units::bytes(machine.memory_bytes),
        machine.kernel
    )?;
    writeln!(
        out,
        "{}: {}, {} free of {}",
        machine.directory,
        machine.file_system,
        units::bytes(machine.disk_free_bytes),
        units::bytes(machine.disk_bytes)
    )
}

fn line(out: &mut String, cell: &CellResult) -> std::fmt::Result {
    let latency = |of: fn(&super::results::Latency) -> f64| {
        cell.latency.as_ref().map_or_else(String::new, |latency| units::micros(of(latency)))
    };
    let bare = |value: f64| match cell.unit.as_str() {
        "us" | "ns" | "s" => units::with_unit(value, &cell.unit),
        _ => units::short(value),
    };
    let spread = if cell.rounds.len() > 1 {
        format!("{} to {}", bare(cell.least), bare(cell.greatest))
    } else {
        String::new()
    };
    writeln!(
        out,
        "  {:<width$} {:>15} {:>17} {:>8} {:>8} {:>8} {:>8} {:>8}",
        shortened(&cell.title, TITLE - 2),
        units::with_unit(cell.median, &cell.unit),
        spread,
        latency(|l| l.p50),
        latency(|l| l.p99),
        latency(|l| l.max),
        cell.cpu_us().map_or_else(String::new, units::micros),
        cell.share.map_or_else(String::new, |share| format!("{share:.2}")),
        width = TITLE - 2
    )
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn tail(out: &mut String, run: &Run) -> std::fmt::Result {
    let staged: Vec<&CellResult> = run.cells.iter().filter(|cell| !cell.stages.is_empty()).collect();
    if !staged.is_empty() {
        writeln!(out, "\nWhere the time of a put goes")?;
        for cell in staged {
            let total: f64 = cell.stages.iter().map(|stage| stage.nanos).sum();
            let parts: Vec<String> = cell
                .stages
                .iter()
                .filter(|stage| stage.nanos >= total / 200.0)
                .map(|stage| format!("{} {}", stage.name, units::with_unit(stage.nanos, "ns")))
                .collect();
            let title =
                if cell.group == "sync" { format!("SYNC {}", cell.title) } else { cell.title.clone() };
            writeln!(out, "  {:<40} {} = {}", title, units::with_unit(total, "ns"), parts.join(", "))?;
        }
    }
    shares_of_threads(out, run)?;
    beside_java(out, run)?;
    fell_behind(out, run)?;
    writeln!(
        out,
        "\n{:.0} s; others kept {:.2} processors busy meanwhile{}",
        run.seconds,
        run.machine.others_busy,
        if run.machine.others_busy > 0.2 {
            ": figures are too low, run it again on a quiet machine"
        } else {
            ""
        }
    )?;
    if run.interrupted {
        writeln!(out, "Stopped before its end: some cells have fewer rounds.")?;
    }
    Ok(())
}

/// One line for all workloads of several threads: whether they were served alike.
fn shares_of_threads(out: &mut String, run: &Run) -> std::fmt::Result {
    let of = |cell: &CellResult| {
        let all: Vec<f64> = cell.rounds.iter().filter_map(|round| round.fairness).collect();
        (!all.is_empty()).then(|| format!("{} {:.2}", cell.title, statistics::median(&all)))
    };
    let wanted = |cell: &&CellResult| matches!(cell.group.as_str(), "put" | "sync" | "pull");
    let all: Vec<String> = run.cells.iter().filter(wanted).filter_map(of).collect();
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nHow evenly threads were served, 1 being all alike (Jain): {}", all.join("; "))
}

fn beside_java(out: &mut String, run: &Run) -> std::fmt::Result {
    for (n, beside) in run.beside_java().into_iter().enumerate() {
        if n == 0 {
            writeln!(
                out,
                "\n{:<TITLE$} {:>15} {:>15} {:>8} {:>15} {:>8}",
                "Ours by Java's, round by round", "ours", "Java", "ratio", "least to most", "CPU"
            )?;
        }
        writeln!(
            out,
            "  {:<width$} {:>15} {:>15} {:>8.2} {:>15} {:>8}",
            shortened(&beside.java.title, TITLE - 2),
            units::with_unit(beside.ours.median, &beside.ours.unit),
            units::with_unit(beside.java.median, &beside.java.unit),
            beside.ratio,
            format!("{:.2} to {:.2}", beside.least, beside.greatest),
            beside.cpu.map_or_else(String::new, |cpu| format!("{cpu:.3}")),
            width = TITLE - 2
        )?;
    }
    Ok(())
}

fn fell_behind(out: &mut String, run: &Run) -> std::fmt::Result {
    let behind = run.cells.iter().filter_map(|cell| {
        let followed: Vec<f64> = cell.rounds.iter().filter_map(|round| round.followed).collect();
        let share = statistics::median(&followed) / cell.median;
        (!followed.is_empty() && share < 0.9).then_some((cell, statistics::median(&followed)))
    });
    for (n, (cell, rate)) in behind.enumerate() {
        if n == 0 {
            writeln!(
                out,
                "\nQueues and index fell behind these puts; with the time until they had followed it was"
            )?;
        }
        writeln!(out, "  {:<40} {}", cell.title, units::with_unit(rate, &cell.unit))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::results::tests::run_of;

    #[test]
    fn every_cell_has_a_line_with_its_figures() {
        let text = table(&run_of("a", &[1_000_000.0, 1_200_000.0, 1_100_000.0]));
        let line = text.lines().find(|line| line.contains("128 B, 1 thread")).unwrap();
        for part in ["1.10M msgs/s", "1.00M to 1.20M", "0.50"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(text.contains("encode 20.0 ns"), "{text}");
    }

    #[test]
    fn long_titles_are_cut_at_a_letter() {
        assert_eq!(shortened("µµµµ", 3), "µµ…");
        assert_eq!(shortened("abc", 3), "abc");
    }
}
