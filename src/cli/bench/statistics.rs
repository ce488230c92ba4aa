//! Medians, spreads, and whether two sets of measurements differ by more than noise.

/// The middle value; the mean of the middle two when their number is even. 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (len, half) if len % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The least and the greatest value. Zeros of nothing.
pub fn ends(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let greatest = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
    (least, greatest)
}

/// How likely two sets of `a` and `b` values of one and the same thing would lie as far apart in order as these do:
/// the two-sided Mann-Whitney test. Exact without ties; ties count as half, which makes the answer a little greater.
/// 1 when one side has no value.
pub fn chance_of_order(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    // Twice the statistic, so that a tie counts 1 and nothing is a fraction.
    let wins = |x: f64, y: f64| match x.total_cmp(&y) {
        std::cmp::Ordering::Greater => 2,
        std::cmp::Ordering::Equal => 1,
        std::cmp::Ordering::Less => 0,
    };
    let twice: usize = a.iter().map(|x| b.iter().map(|y| wins(*x, *y)).sum::<usize>()).sum();
    let most = 2 * a.len() * b.len();
    let extreme = twice.min(most - twice);
    let counts = orders(a.len(), b.len());
    let all: f64 = counts.iter().sum();
    let as_far: f64 =
        counts.iter().enumerate().filter(|(u, _)| 2 * u <= extreme).map(|(_, count)| count).sum();
    // A tie in the middle of the scale would round the tail down to nothing; it is never less than one order.
    (2.0 * as_far.max(1.0) / all).min(1.0)
}

/// In how many orders of `a` and `b` values the former win `u` times, for each `u`.
fn orders(a: usize, b: usize) -> Vec<f64> {
    // before[j]: the counts with the values of `a` seen so far and j of `b`.
    let mut before: Vec<Vec<f64>> = vec![vec![1.0]; b + 1];
    for i in 1..=a {
        let mut now: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=b {
            // The greatest value is of `a`, and wins j times, or of `b`, and wins nothing.
            let mut counts = vec![0.0; i * j + 1];
            for (u, count) in before[j].iter().enumerate() {
                counts[u + j] += count;
            }
            for (u, count) in now[j - 1].iter().enumerate() {
                counts[u] += count;
            }
            now.push(counts);
        }
        before = now;
    }
    before.pop().unwrap_or_default()
}

/// What a comparison of two sets of measurements says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better by more than noise.
    Better,
    /// Worse by more than noise.
    Worse,
    /// Not told apart.
    Same,
    /// Too few rounds to tell anything apart.
    TooFew,
}

/// When a difference counts.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The medians must differ by this many percent, …
    pub percent: f64,
    /// … and an order as clear as this must be this unlikely by chance.
    pub chance: f64,
}

impl Rule {
    /// Compares `new` with `old`.
    pub fn judge(self, old: &[f64], new: &[f64], lower_is_better: bool) -> Verdict {
        let best = orders(old.len(), new.len()).iter().sum::<f64>();
        if old.is_empty() || new.is_empty() || 2.0 / best > self.chance {
            return Verdict::TooFew;
        }
        let (before, after) = (median(old), median(new));
        let far = before != 0.0 && ((after / before - 1.0) * 100.0).abs() >= self.percent;
        if !far || chance_of_order(old, new) > self.chance {
            return Verdict::Same;
        }
        if (after < before) == lower_is_better { Verdict::Better } else { Verdict::Worse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { percent: 5.0, chance: 0.01 };

    #[test]
    fn medians_and_spreads_are_those_of_the_book() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(&[]).abs() < 1e-12);
        assert_eq!(ends(&[2.0, -1.0, 7.0]), (-1.0, 7.0));
    }

    #[test]
    fn the_orders_are_all_and_their_ends_are_one() {
        let counts = orders(5, 5);
        assert!((counts.iter().sum::<f64>() - 252.0).abs() < 1e-9, "10 choose 5");
        assert!((counts[0] - 1.0).abs() < 1e-12 && (counts[25] - 1.0).abs() < 1e-12);
        assert!((counts[1] - 1.0).abs() < 1e-12 && (counts[2] - 2.0).abs() < 1e-12);
        assert!((orders(3, 2).iter().sum::<f64>() - 10.0).abs() < 1e-12);
    }

    #[test]
    fn the_chance_is_that_of_the_tables() {
        let low = [1.0, 2.0, 3.0, 4.0, 5.0];
        let high = [6.0, 7.0, 8.0, 9.0, 10.0];
        assert!((chance_of_order(&low, &high) - 2.0 / 252.0).abs() < 1e-12);
        assert!((chance_of_order(&high, &low) - 2.0 / 252.0).abs() < 1e-12);
        // U = 2 of 25: 1 + 1 + 2 orders on either side.
        let one_step = [1.0, 2.0, 3.0, 4.0, 8.0];
        assert!((chance_of_order(&one_step, &[5.5, 6.0, 7.0, 9.0, 10.0]) - 14.0 / 252.0).abs() < 1e-12);
        assert!((chance_of_order(&low, &low) - 1.0).abs() < 1e-12);
        assert!((chance_of_order(&[], &low) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_clear_difference_counts_and_its_direction_is_that_of_the_unit() {
        let old = [100.0, 101.0, 102.0, 99.0, 98.0];
        let new = [120.0, 121.0, 122.0, 119.0, 118.0];
        assert_eq!(RULE.judge(&old, &new, false), Verdict::Better);
        assert_eq!(RULE.judge(&old, &new, true), Verdict::Worse);
        assert_eq!(RULE.judge(&new, &old, false), Verdict::Worse);
    }

    #[test]
    fn what_overlaps_or_is_small_does_not_count() {
        let old = [100.0, 101.0, 102.0, 99.0, 98.0];
        assert_eq!(RULE.judge(&old, &[110.0, 111.0, 101.5, 112.0, 113.0], false), Verdict::Same, "overlap");
        assert_eq!(RULE.judge(&old, &[103.0, 103.5, 104.0, 103.2, 103.1], false), Verdict::Same, "under 5 %");
        assert_eq!(RULE.judge(&old, &old, false), Verdict::Same);
    }

    #[test]
    fn three_rounds_tell_nothing_apart() {
        assert_eq!(RULE.judge(&[1.0, 1.1, 1.2], &[9.0, 9.1, 9.2], false), Verdict::TooFew);
        assert_eq!(RULE.judge(&[], &[9.0], false), Verdict::TooFew);
    }
}
