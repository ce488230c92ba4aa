//! `reput bench compare`: what changed between runs, and whether it is more than noise.

use std::{collections::BTreeMap, fmt::Write, process::ExitCode};

use serde::Serialize;

use super::{
    Failure,
    args::{By, Compare},
    html,
    results::{CellResult, Run},
    statistics::{self, Rule, Verdict},
    table::GROUPS,
    units,
};

/// The exit code when something is worse.
const WORSE: u8 = 3;

/// One cell in two runs.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The cell.
    pub id: String,
    /// Its part of the report.
    pub group: String,
    /// What it is.
    pub title: String,
    /// Of both medians.
    pub unit: String,
    /// The run that is compared.
    pub run: String,
    /// The median of the first run.
    pub before: f64,
    /// The median of this one.
    pub after: f64,
    /// `after` by `before`.
    pub ratio: f64,
    /// The ratio at the least: the worst round by the best.
    pub ratio_least: f64,
    /// At the most.
    pub ratio_most: f64,
    /// How likely the order of the rounds is by chance.
    pub chance: f64,
    /// `better`, `worse`, `same`, `too few rounds`.
    pub verdict: &'static str,
    #[serde(skip)]
    judged: Option<Verdict>,
}

/// Compares files of results.
pub fn run(args: &Compare) -> Result<ExitCode, Failure> {
    let runs = args.files.iter().map(|file| Run::read(file)).collect::<Result<Vec<_>, _>>()?;
    let runs = told_apart(runs);
    let rule = Rule { percent: args.percent, chance: args.chance };
    let (first, others) = runs.split_first().ok_or("needed are two files")?;
    let found: Vec<Difference> =
        others.iter().flat_map(|other| differences(first, other, args.by, rule)).collect();
    if found.is_empty() {
        return Err("the runs have no cell in common that can be compared so".into());
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print!("{}", table(first, others, &found, rule, args.by));
    }
    if let Some(file) = &args.html {
        super::write(file, &html::page(&runs))?;
        eprintln!("page: {}", file.display());
    }
    let worse = found.iter().any(|difference| difference.judged == Some(Verdict::Worse));
    Ok(if worse { ExitCode::from(WORSE) } else { ExitCode::SUCCESS })
}

/// Gives runs of one name numbers.
fn told_apart(mut runs: Vec<Run>) -> Vec<Run> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for run in &mut runs {
        let count = seen.entry(run.label.clone()).or_default();
        *count += 1;
        if *count > 1 {
            run.label = format!("{} ({count})", run.label);
        }
    }
    runs
}

/// Every cell that both runs have. Limits are compared too: when they differ, the machine does.
pub fn differences(first: &Run, other: &Run, by: By, rule: Rule) -> Vec<Difference> {
    let pairs = first.cells.iter().filter_map(|before| Some((before, other.cell(&before.id)?)));
    let all = pairs.filter_map(|(before, after)| difference(before, after, other, by, rule));
    all.collect()
}

fn difference(before: &CellResult, after: &CellResult, run: &Run, by: By, rule: Rule) -> Option<Difference> {
    let (old, new, lower, unit) = match by {
        By::Value if before.unit != after.unit => return None,
        By::Value => (before.values(), after.values(), before.lower_is_better, before.unit.clone()),
        By::Share => (before.shares(), after.shares(), false, "of limit".into()),
    };
    if old.is_empty() || new.is_empty() {
        return None;
    }
    let ((old_least, old_most), (new_least, new_most)) = (statistics::ends(&old), statistics::ends(&new));
    let (old_median, new_median) = (statistics::median(&old), statistics::median(&new));
    let judged = rule.judge(&old, &new, lower);
    Some(Difference {
        id: before.id.clone(),
        group: before.group.clone(),
        title: before.title.clone(),
        unit,
        run: run.label.clone(),
        before: old_median,
        after: new_median,
        ratio: new_median / old_median,
        ratio_least: new_least / old_most,
        ratio_most: new_most / old_least,
        chance: statistics::chance_of_order(&old, &new),
        verdict: match judged {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "same",
            Verdict::TooFew => "too few rounds",
        },
        judged: Some(judged),
    })
}

fn table(first: &Run, others: &[Run], found: &[Difference], rule: Rule, by: By) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    for other in others {
        let _ = writeln!(
            out,
            "{} compared with {}{}",
            other.label,
            first.label,
            if by == By::Share { ", shares of the limit" } else { "" }
        );
        for (group, title) in GROUPS {
            let own: Vec<&Difference> =
                found.iter().filter(|d| d.run == other.label && d.group == *group).collect();
            if own.is_empty() {
                continue;
            }
            let _ = writeln!(
                out,
                "\n{title:<58} {:>15} {:>15} {:>7} {:>15} {:>7}",
                "before", "after", "ratio", "least to most", "chance"
            );
            for d in own {
                let _ = writeln!(
                    out,
                    "  {:<56} {:>15} {:>15} {:>7.3} {:>15} {:>7.3}  {}",
                    d.title,
                    units::with_unit(d.before, &d.unit),
                    units::with_unit(d.after, &d.unit),
                    d.ratio,
                    format!("{:.2} to {:.2}", d.ratio_least, d.ratio_most),
                    d.chance,
                    match d.judged {
                        Some(Verdict::Better) => "BETTER",
                        Some(Verdict::Worse) => "WORSE",
                        Some(Verdict::TooFew) => "too few rounds",
                        _ => "",
                    }
                );
            }
        }
        let _ = writeln!(out);
    }
    let count = |verdict| found.iter().filter(|d| d.judged == Some(verdict)).count();
    let _ = writeln!(
        out,
        "{} better, {} worse, {} not told apart, {} with too few rounds; real is what differs by {} % in the median and \
         is ordered as clearly as chance does it less often than {}.",
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::Same),
        count(Verdict::TooFew),
        rule.percent,
        rule.chance
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::results::tests::run_of;

    const RULE: Rule = Rule { percent: 5.0, chance: 0.01 };
    const OLD: [f64; 5] = [100.0, 101.0, 102.0, 103.0, 104.0];

    #[test]
    fn a_run_is_the_same_as_itself() {
        let run = run_of("a", &OLD);
        for by in [By::Value, By::Share] {
            let found = differences(&run, &run, by, RULE);
            assert!(found.iter().all(|d| d.verdict == "same" && (d.ratio - 1.0).abs() < 1e-12), "{found:?}");
            assert_eq!(found.len(), if by == By::Value { 2 } else { 1 });
        }
    }

    #[test]
    fn a_slower_run_is_worse_and_the_table_says_so() {
        let (a, b) = (run_of("a", &OLD), run_of("b", &OLD.map(|v| v * 0.8)));
        let found = differences(&a, &b, By::Value, RULE);
        let put = found.iter().find(|d| d.id == "put/128/t1").unwrap();
        assert_eq!(put.verdict, "worse");
        assert!((put.ratio - 0.8).abs() < 1e-9 && put.ratio_least < 0.8 && put.ratio_most > 0.8);
        let text = table(&a, std::slice::from_ref(&b), &found, RULE, By::Value);
        assert!(
            text.contains("WORSE") && text.contains("b compared with a") && text.contains("2 worse"),
            "{text}"
        );
    }

    #[test]
    fn shares_take_the_machines_mood_out() {
        // Everything 20 % slower, the limit too: the shares are as they were.
        let (a, b) = (run_of("a", &OLD), run_of("b", &OLD.map(|v| v * 0.8)));
        assert!(differences(&a, &b, By::Share, RULE).iter().all(|d| d.verdict == "same"));
    }

    #[test]
    fn runs_of_one_name_are_told_apart() {
        let runs = told_apart(vec![run_of("a", &OLD), run_of("a", &OLD), run_of("b", &OLD)]);
        let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
        assert_eq!(labels, ["a", "a (2)", "b"]);
    }
}
