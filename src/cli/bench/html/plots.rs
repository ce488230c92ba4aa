//! The plots, as SVG within the page. Each has a title for what the mouse is over; sizes are in units of the view box.

use std::fmt::Write;

use super::{COLOURS, escape};
use crate::cli::bench::{
    results::CellResult,
    statistics,
    units::{micros, short, with_unit},
};

/// The area that a plot draws in, within its view box.
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Area {
    fn x(&self, share: f64) -> f64 {
        self.left + self.width * share
    }

    fn y(&self, share: f64) -> f64 {
        self.top + self.height * (1.0 - share)
    }
}

/// A bar of how much of the limit is reached, with its number.
pub fn share(share: f64) -> String {
    let full = share.clamp(0.0, 1.0) * 120.0;
    format!(
        "<svg viewBox=\"0 0 180 14\" width=\"180\" height=\"14\" role=\"img\"><rect class=\"track\" x=\"0\" y=\"3\" width=\"120\" height=\"8\" rx=\"4\"/>\
         <rect class=\"bar\" x=\"0\" y=\"3\" width=\"{full:.1}\" height=\"8\" rx=\"4\"/>\
         <text class=\"ink\" x=\"128\" y=\"11\">{share:.2}</text></svg>"
    )
}

/// Names with their colours.
pub fn legend(names: &[String]) -> String {
    let mut out = String::from("<div class=\"legend\">");
    for (n, name) in names.iter().enumerate() {
        let _ = write!(out, "<span><i class=\"k{}\"></i>{}</span>", n % COLOURS, escape(name));
    }
    out + "</div>\n"
}

/// Round figures from 0 up to about `most`: four or five.
fn ticks(most: f64) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0];
    }
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|n| n * power)
        .into_iter()
        .find(|step| most / step <= 5.0)
        .unwrap_or(most);
    let mut all = vec![0.0];
    while let Some(last) = all.last().filter(|last| **last + step <= most * 1.0001) {
        all.push(last + step);
    }
    all
}

/// The rate of a cell over time, with its limit.
pub fn over_time(cell: &CellResult, limit: Option<f64>) -> String {
    let area = Area { left: 46.0, top: 8.0, width: 300.0, height: 104.0 };
    let highest = statistics::ends(&cell.over_time.iter().map(|(_, rate)| *rate).collect::<Vec<_>>()).1;
    // A limit far above would press the curve to the floor; its share is in the table.
    let limit = limit.filter(|limit| limit.is_finite() && *limit <= highest * 4.0);
    let most = (highest.max(limit.unwrap_or(0.0)) * 1.05).max(1e-9);
    let end = cell.over_time.last().map_or(0.0, |(at, _)| *at).max(1e-9);
    let mut svg = String::from("<svg viewBox=\"0 0 360 134\" role=\"img\">");
    for tick in ticks(most) {
        let y = area.y(tick / most);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"40\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            area.x(0.0),
            area.x(1.0),
            y + 4.0,
            if tick == 0.0 { "0".into() } else { short(tick) }
        );
    }
    for tick in ticks(end) {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"128\" text-anchor=\"middle\">{}</text>",
            area.x(tick / end),
            if tick == 0.0 { "0".into() } else { format!("{} s", short(tick)) }
        );
    }
    let points: Vec<String> = cell
        .over_time
        .iter()
        .map(|(at, rate)| format!("{:.1},{:.1}", area.x(at / end), area.y((rate / most).clamp(0.0, 1.0))))
        .collect();
    let points = points.join(" ");
    let _ = write!(
        svg,
        "<polygon class=\"area f0\" points=\"{:.1},{:.1} {points} {:.1},{:.1}\"/>\
         <polyline class=\"curve thin s0\" points=\"{points}\"/>",
        area.x(0.0),
        area.y(0.0),
        area.x(1.0),
        area.y(0.0)
    );
    if let Some(limit) = limit {
        let y = area.y(limit / most);
        let _ = write!(
            svg,
            "<path class=\"limit\" d=\"M{:.1} {y:.1}H{:.1}\"><title>limit: {}</title></path>",
            area.x(0.0),
            area.x(1.0),
            escape(&with_unit(limit, &cell.unit))
        );
    }
    let rates = if matches!(cell.unit.as_str(), "us" | "s") { "calls/s" } else { cell.unit.as_str() };
    let shown = if rates == cell.unit {
        format!("median {}", with_unit(cell.median, &cell.unit))
    } else {
        rates.to_owned()
    };
    let limited = limit.map_or_else(String::new, |limit| format!(", limit {}", short(limit)));
    format!(
        "<div class=\"card\">\n<h3>{}</h3>\n<div class=\"sub\">{}, {}{}</div>\n{svg}</svg>\n</div>\n",
        escape(&cell.title),
        escape(&cell.group),
        escape(&shown),
        escape(&limited)
    )
}

/// The curves of several cells: how long, by how rare.
pub fn latencies(title: &str, cells: &[&CellResult]) -> String {
    let area = Area { left: 56.0, top: 8.0, width: 990.0, height: 210.0 };
    let curves: Vec<&[(f64, f64)]> = cells
        .iter()
        .filter_map(|cell| cell.latency.as_ref())
        .map(|latency| latency.curve.as_slice())
        .collect();
    let times =
        curves.iter().flat_map(|curve| curve.iter().map(|(_, time)| *time)).filter(|time| *time > 0.0);
    let (least, most) =
        times.fold((f64::MAX, 0.0_f64), |(least, most), time| (least.min(time), most.max(time)));
    let (low, high) = if most > 0.0 { (least.log10().floor(), most.log10().ceil()) } else { (0.0, 1.0) };
    let high = high.max(low + 1.0);
    // The number of nines that the rarest call has, over all curves.
    let nines = |percent: f64| -(1.0 - percent / 100.0).max(1e-9).log10();
    let longest =
        curves.iter().map(|curve| curve.iter().rev().nth(1).map_or(0.0, |(percent, _)| nines(*percent)));
    let rarest = longest.fold(1.0_f64, f64::max) + 0.3;
    let mut svg = String::from("<svg viewBox=\"0 0 1056 246\" role=\"img\">");
    let mut power = low;
    while power <= high {
        let y = area.y((power - low) / (high - low));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"50\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            area.x(0.0),
            area.x(1.0),
            y + 4.0,
            escape(&round_time(10_f64.powf(power)))
        );
        power += 1.0;
    }
    for (percent, name) in [
        (0.0, "least"),
        (50.0, "p50"),
        (90.0, "p90"),
        (99.0, "p99"),
        (99.9, "p99.9"),
        (99.99, "p99.99"),
        (99.999, "p99.999"),
    ] {
        let at = nines(percent) / rarest;
        if at <= 1.0 {
            let x = area.x(at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"238\" text-anchor=\"middle\">{name}</text>",
                area.y(0.0),
                area.y(1.0)
            );
        }
    }
    for (n, (cell, curve)) in cells.iter().zip(&curves).enumerate() {
        let place = |(percent, time): &(f64, f64)| {
            // The longest of all stands at the edge.
            let x = if *percent >= 100.0 { 1.0 } else { (nines(*percent) / rarest).min(1.0) };
            let y = ((time.max(1e-6).log10() - low) / (high - low)).clamp(0.0, 1.0);
            format!("{:.1},{:.1}", area.x(x), area.y(y))
        };
        let points: Vec<String> = curve.iter().map(place).collect();
        let _ = write!(
            svg,
            "<polyline class=\"curve s{}\" points=\"{}\"><title>{}</title></polyline>",
            n % COLOURS,
            points.join(" "),
            escape(&cell.title)
        );
    }
    let names: Vec<String> = cells.iter().map(|cell| cell.title.clone()).collect();
    format!("<div class=\"card wide\">\n<h3>{}</h3>\n{}{svg}</svg>\n</div>\n", escape(title), legend(&names))
}

/// A power of ten of microseconds, short.
fn round_time(time: f64) -> String {
    micros(time).replace(".00", "").replace(".0 ", " ")
}

/// What the parts of a call are, each in its colour; the bars are shares of the whole.
pub fn stages(cells: &[&CellResult]) -> String {
    let mut names: Vec<String> = Vec::new();
    for stage in cells.iter().flat_map(|cell| &cell.stages) {
        if !names.contains(&stage.name) {
            names.push(stage.name.clone());
        }
    }
    let height = cells.len() as f64 * 26.0 + 6.0;
    let mut svg = format!("<svg viewBox=\"0 0 1056 {height:.0}\" role=\"img\">");
    for (row, cell) in cells.iter().enumerate() {
        let y = row as f64 * 26.0 + 4.0;
        let title = if cell.group == "sync" { format!("SYNC, {}", cell.title) } else { cell.title.clone() };
        let total: f64 = cell.stages.iter().map(|stage| stage.nanos).sum();
        let _ = write!(
            svg,
            "<text class=\"ink\" x=\"0\" y=\"{:.1}\">{}</text><text class=\"ink\" x=\"1052\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            y + 13.0,
            escape(&title),
            y + 13.0,
            escape(&with_unit(total, "ns"))
        );
        let mut x = 290.0;
        for stage in &cell.stages {
            let width = if total > 0.0 { stage.nanos / total * 680.0 } else { 0.0 };
            let colour = names.iter().position(|name| *name == stage.name).unwrap_or(0) % COLOURS;
            let _ = write!(
                svg,
                "<rect class=\"f{colour}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"18\"><title>{}: {}</title></rect>",
                escape(&stage.name),
                escape(&with_unit(stage.nanos, "ns"))
            );
            x += width;
        }
    }
    format!("<div class=\"card wide\">\n{}{svg}</svg>\n</div>\n", legend(&names))
}

/// Cells of several runs as ratios to the first; one row a cell.
pub fn ratios(title: &str, rows: &[Vec<Option<&CellResult>>]) -> String {
    let runs = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (bar, gap, left, width) = (9.0, 12.0, 320.0, 570.0);
    let step = runs as f64 * (bar + 2.0) + gap;
    // Ratios: the median and both ends, turned where less is better.
    let ratio = |cell: &CellResult, base: f64| {
        let all = [cell.median, cell.least, cell.greatest].map(|value| {
            let ratio = if cell.lower_is_better { base / value } else { value / base };
            if ratio.is_finite() { ratio } else { 0.0 }
        });
        (all[0], all[1].min(all[2]), all[1].max(all[2]))
    };
    let base = |row: &[Option<&CellResult>]| row.first().copied().flatten().map_or(0.0, |cell| cell.median);
    let all = rows.iter().flat_map(|row| row.iter().flatten().map(|cell| ratio(cell, base(row)).2));
    let most = all.fold(1.2_f64, f64::max).min(3.0);
    let height = rows.len() as f64 * step + 24.0;
    let mut svg = format!("<svg viewBox=\"0 0 1056 {height:.0}\" role=\"img\">");
    for tick in ticks(most) {
        let x = left + tick / most * width;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 20.0,
            height - 6.0,
            short(tick)
        );
    }
    for (n, row) in rows.iter().enumerate() {
        let y = n as f64 * step + 4.0;
        let name = row.iter().flatten().next().map_or("", |cell| cell.title.as_str());
        let _ = write!(
            svg,
            "<text class=\"ink\" x=\"0\" y=\"{:.1}\">{}</text>",
            y + step / 2.0 - 3.0,
            escape(&cut(name))
        );
        for (run, cell) in row.iter().enumerate() {
            let Some(cell) = cell else { continue };
            let (middle, least, greatest) = ratio(cell, base(row));
            let (y, at) = (y + run as f64 * (bar + 2.0), |ratio: f64| ratio.clamp(0.0, most) / most * width);
            let _ = write!(
                svg,
                "<rect class=\"f{}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{bar}\" rx=\"2\"><title>{}</title></rect>\
                 <line class=\"axis\" style=\"stroke:var(--ink)\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{middle:.2} · {}</text>",
                run % COLOURS,
                at(middle),
                escape(&with_unit(cell.median, &cell.unit)),
                left + at(least),
                left + at(greatest),
                y + bar / 2.0,
                y + bar / 2.0,
                left + width + 8.0,
                y + bar,
                escape(&with_unit(cell.median, &cell.unit))
            );
        }
    }
    let one = left + 1.0 / most * width;
    let _ = write!(svg, "<path class=\"limit\" d=\"M{one:.1} 0V{:.1}\"/>", height - 20.0);
    format!("<div class=\"card wide\">\n<h3>{}</h3>\n{svg}</svg>\n</div>\n", escape(title))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= 52 { text.to_owned() } else { text.chars().take(51).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(7.0), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(ticks(0.0), [0.0]);
        for most in [0.003, 1.7, 42.0, 9_999.0, 5.3e9] {
            let all = ticks(most);
            assert!((3..=6).contains(&all.len()), "{most}: {all:?}");
        }
    }
}
