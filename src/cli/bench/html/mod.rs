//! The results as one page that needs nothing else: no network, no script, light and dark.
//!
//! [`page`] puts it together; [`plots`] draws. All text goes through [`escape`].

mod plots;

use std::fmt::Write;

use super::{
    results::{CellResult, Run},
    table::GROUPS,
    units,
};

const STYLE: &str = include_str!("page.css");

/// Colours that tell things apart; a ninth thing starts over.
pub const COLOURS: usize = 8;

/// A page of one run, or of several beside each other: the first is what the others are held against.
pub fn page(runs: &[Run]) -> String {
    let mut out = String::new();
    let Some(first) = runs.first() else { return out };
    let title =
        if runs.len() > 1 { "Runs compared".to_owned() } else { format!("reput bench: {}", first.label) };
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        escape(&title),
        escape(&title)
    );
    for run in runs {
        facts(&mut out, run, runs.len() > 1);
    }
    if runs.len() > 1 {
        compared(&mut out, runs);
    }
    for run in runs {
        if runs.len() > 1 {
            let _ = writeln!(out, "<h2>{}</h2>", escape(&run.label));
        }
        one(&mut out, run);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Text as it may stand in the page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What XML has no way to write.
            c if c.is_control() && c != '\n' => {}
            c => out.push(c),
        }
    }
    out
}

fn facts(out: &mut String, run: &Run, named: bool) {
    let machine = &run.machine;
    let mut all = vec![
        ("Processor", format!("{} × {}", machine.processors, machine.processor)),
        ("Memory", units::bytes(machine.memory_bytes)),
        ("Kernel", machine.kernel.clone()),
        ("File system", machine.file_system.clone()),
        ("Directory", format!("{}, {} free", machine.directory, units::bytes(machine.disk_free_bytes))),
        ("Started (UTC)", utc(run.started_ms)),
        (
            "Took",
            format!("{:.0} s{}", run.seconds, if run.interrupted { ", stopped before its end" } else { "" }),
        ),
        ("Command", format!("reput {}", run.arguments.join(" "))),
        ("Version", run.version.clone()),
    ];
    if named {
        all.insert(0, ("Run", run.label.clone()));
    }
    out.push_str("<div class=\"facts\">\n");
    for (name, value) in all {
        let _ = writeln!(out, "<div><b>{name}</b>{}</div>", escape(&value));
    }
    let busy = machine.others_busy;
    let _ = writeln!(
        out,
        "<div{}><b>Other processes kept busy</b>{busy:.2} processors{}</div>\n</div>",
        if busy > 0.2 { " class=\"warn\"" } else { "" },
        if busy > 0.2 { ": figures are too low" } else { "" }
    );
}

/// A time of day in UTC, as `2026-11-27 01:02`.
fn utc(ms: u64) -> String {
    let (days, minutes) = (ms / 86_400_000, ms / 60_000 % 1_440);
    // Days from 0000-03-01, in eras of 400 years (Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{date:02} {:02}:{:02}", minutes / 60, minutes % 60)
}

fn one(out: &mut String, run: &Run) {
    beside_java(out, run);
    tables(out, run);
    let cards = |out: &mut String, title: &str, text: &str, cards: Vec<String>| {
        if !cards.is_empty() {
            let _ = write!(
                out,
                "<h2>{title}</h2>\n<p>{text}</p>\n<div class=\"cards\">\n{}</div>\n",
                cards.concat()
            );
        }
    };
    let over_time = run.cells.iter().filter(|cell| cell.over_time.len() > 1);
    cards(
        out,
        "Throughput over time",
        "All rounds one after the other. The dashed line is the limit, where it is not far above.",
        over_time.map(|cell| plots::over_time(cell, limit_of(run, cell))).collect(),
    );
    let with_times = |group: &str| -> Vec<&CellResult> {
        run.cells.iter().filter(|cell| cell.group == group && cell.latency.is_some()).collect()
    };
    let latencies = GROUPS.iter().filter_map(|(group, title)| {
        let cells = with_times(group);
        (!cells.is_empty()).then(|| plots::latencies(title, &cells))
    });
    cards(
        out,
        "Latency by percentile",
        "To the right it is rarer. A cell with a rate counts from when a call was due, the others from when it was made.",
        latencies.collect(),
    );
    let staged: Vec<&CellResult> = run.cells.iter().filter(|cell| !cell.stages.is_empty()).collect();
    let split = if staged.is_empty() { Vec::new() } else { vec![plots::stages(&staged)] };
    cards(
        out,
        "Where the time of a put goes",
        "Encoding, copy and page faults are measured by themselves in the same run; what the threads waited, the kernel counted.",
        split,
    );
}

/// The limit's value in the cell's unit, where one unit stands for one.
fn limit_of(run: &Run, cell: &CellResult) -> Option<f64> {
    let share = cell.share.filter(|share| *share > 0.0)?;
    run.cell(cell.limit.as_deref()?).map(|_| cell.median / share)
}

fn tables(out: &mut String, run: &Run) {
    for (group, title) in GROUPS {
        let cells: Vec<&CellResult> = run.cells.iter().filter(|cell| cell.group == *group).collect();
        if cells.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "<h2>{title}</h2>\n<div class=\"card scroll\">\n<table>\n<tr><th></th><th>median</th><th>least to greatest</th>\
             <th>p50</th><th>p99</th><th>longest</th><th>CPU each</th><th>of limit</th></tr>\n"
        );
        for cell in cells {
            row(out, cell);
        }
        out.push_str("</table>\n</div>\n");
    }
}

/// Ours by Java's.
fn beside_java(out: &mut String, run: &Run) {
    let all = run.beside_java();
    if all.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<h2>Ours by Java's</h2>\n<p>Measured in turn, round by round; the ratio is the middle of the rounds' ratios.</p>\n\
         <div class=\"card scroll\">\n<table>\n<tr><th></th><th>ours</th><th>Java</th><th>ratio</th><th>least to greatest</th><th>CPU, ours by Java's</th></tr>\n"
    );
    for beside in all {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{}\">{:.2}</td><td class=\"range\">{:.2} to {:.2}</td><td>{}</td></tr>",
            escape(&beside.java.title),
            units::with_unit(beside.ours.median, &beside.ours.unit),
            units::with_unit(beside.java.median, &beside.java.unit),
            if beside.ratio >= 1.0 { "better" } else { "worse" },
            beside.ratio,
            beside.least,
            beside.greatest,
            beside.cpu.map_or_else(String::new, |cpu| format!("{cpu:.3}"))
        );
    }
    out.push_str("</table>\n</div>\n");
}

fn row(out: &mut String, cell: &CellResult) {
    let time = |of: fn(&super::results::Latency) -> f64| {
        cell.latency.as_ref().map_or_else(String::new, |latency| units::micros(of(latency)))
    };
    let bare = |value: f64| match cell.unit.as_str() {
        "us" | "ns" | "s" => units::with_unit(value, &cell.unit),
        _ => units::short(value),
    };
    // Of one round there is nothing to say.
    let range = if cell.rounds.len() > 1 {
        format!("{} to {}", bare(cell.least), bare(cell.greatest))
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "<tr><td>{}</td><td>{}</td><td class=\"range\">{range}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td class=\"share\">{}</td></tr>",
        escape(&cell.title),
        units::with_unit(cell.median, &cell.unit),
        time(|l| l.p50),
        time(|l| l.p99),
        time(|l| l.max),
        cell.cpu_us().map_or_else(String::new, units::micros),
        cell.share.map_or_else(String::new, plots::share)
    );
}

/// What several runs have in common, beside each other.
fn compared(out: &mut String, runs: &[Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.label.clone()).collect();
    out.push_str("<h2>Beside each other</h2>\n<p>Medians by that of the first run; the thin line is from the least to the greatest round. Where less is better the ratio is turned, so that longer is better.</p>\n");
    out.push_str(&plots::legend(&names));
    out.push_str("<div class=\"cards\">\n");
    for (group, title) in GROUPS {
        let ids = runs[0].cells.iter().filter(|cell| cell.group == *group).map(|cell| cell.id.as_str());
        let rows: Vec<Vec<Option<&CellResult>>> =
            ids.map(|id| runs.iter().map(|run| run.cell(id)).collect()).collect();
        if !rows.is_empty() {
            out.push_str(&plots::ratios(title, &rows));
        }
    }
    out.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::results::tests::run_of;

    /// Every tag of the page that is opened is closed, in order; attributes are quoted; no `&` or `<` stands bare.
    fn check_well_formed(page: &str) {
        let body = page.strip_prefix("<!doctype html>\n").unwrap();
        let mut open: Vec<&str> = Vec::new();
        let mut rest = body;
        while let Some(at) = rest.find('<') {
            check_text(&rest[..at], open.last().copied());
            let end = at + rest[at..].find('>').unwrap();
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "</{name}>");
            } else if !tag.ends_with('/') && !tag.starts_with("meta") {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?} stay open");
        assert!(rest.trim().is_empty());
    }

    fn check_text(text: &str, within: Option<&str>) {
        if within == Some("style") {
            return;
        }
        for (at, _) in text.match_indices('&') {
            let entity = text[at..].split_once(';').map_or("", |(entity, _)| entity);
            assert!(["&amp", "&lt", "&gt", "&quot", "&#39"].contains(&entity), "{:.30}", &text[at..]);
        }
    }

    fn check(page: &str) {
        check_well_formed(page);
        for far in ["http:", "https:", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(far), "{far}: the page must need nothing else");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "a figure that is none");
    }

    #[test]
    fn the_page_of_a_run_is_well_formed_and_needs_nothing_else() {
        let mut run = run_of("a <b> & \"c\"", &[10.0, 11.0, 12.0]);
        run.arguments = vec!["bench".into(), "--label".into(), "<script>alert('&')</script>".into()];
        let page = page(&[run]);
        check(&page);
        for part in [
            "Throughput over time",
            "Latency by percentile",
            "Where the time of a put goes",
            "class=\"limit\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn a_page_of_several_runs_holds_them_beside_each_other() {
        let runs = ["a", "b", "c"].map(|label| run_of(label, &[10.0, 11.0, 12.0]));
        let page = page(&runs);
        check(&page);
        assert!(page.contains("Beside each other"));
    }

    #[test]
    fn a_run_of_nothing_and_figures_of_nothing_make_a_page() {
        let mut run = run_of("empty", &[0.0]);
        run.cells[0].over_time = vec![(0.0, 0.0), (0.0, 0.0)];
        run.cells[1].latency = Some(super::super::results::Latency::default());
        run.cells[1].stages[0].nanos = 0.0;
        check(&page(std::slice::from_ref(&run)));
        run.cells.clear();
        check(&page(&[run.clone(), run]));
    }

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(utc(1_795_741_020_000), "2026-11-27 00:57");
    }
}
