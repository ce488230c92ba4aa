//! What people see while a run goes on: how far it is, what is being measured, its rate and latency. On standard
//! error, and only where that is a terminal; elsewhere a line a round.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::units;

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts with so many measurements ahead.
    pub fn start(measurements: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new(measurements as u64);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:24.cyan/dim} {pos}/{len} {elapsed}<{eta}  {msg}")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    /// Tells what is measured now.
    pub fn measuring(&self, title: &str) {
        self.bar.set_message(title.to_owned());
    }

    /// Tells how it goes.
    pub fn going(&self, title: &str, rate: f64, unit: &str, p99_us: f64) {
        let latency = if p99_us > 0.0 { format!(", p99 {}", units::micros(p99_us)) } else { String::new() };
        self.bar.set_message(format!("{title}: {}{latency}", units::with_unit(rate, unit)));
    }

    /// One measurement is done.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// A round is done.
    pub fn round(&self, number: usize, of: usize, took: Duration) {
        if self.bar.is_hidden() {
            eprintln!("round {number} of {of} took {:.1} s", took.as_secs_f64());
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
