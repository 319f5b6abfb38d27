//! What samples say: medians, tests that know noise, exponents of growth.
//!
//! Times of a machine that others use too are skewed and have outliers, so nothing here assumes
//! a normal distribution: medians, ranks and resampling.

use super::random::Random;
use std::{cmp::Ordering, time::Duration};

/// Resamples of a bootstrap: its 95 % bounds move by less than their last digit shown.
const RESAMPLES: usize = 2000;
/// Samples of each side up to which ranks are counted out exactly.
const EXACT: usize = 20;

/// The samples by rising value; what is no number is left out.
pub(crate) fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|it| !it.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value below which this fraction of the samples lies, between two of them in proportion;
/// not a number for none.
pub(crate) fn quantile(samples: &[f64], fraction: f64) -> f64 {
    of_sorted(&sorted(samples), fraction)
}

fn of_sorted(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = fraction.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// [`quantile`] of times, in seconds; zero for none.
pub(crate) fn quantile_of_times(times: &[Duration], fraction: f64) -> f64 {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    match seconds.is_empty() {
        true => 0.0,
        false => quantile(&seconds, fraction),
    }
}

/// The middle of the samples; not a number for none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// An interval that holds the true value in 95 % of cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    /// Its lower end.
    pub(crate) low: f64,
    /// Its upper end.
    pub(crate) high: f64,
}

/// Bounds for the ratio of medians, `b` to `a`, by resampling both.
pub(crate) fn ratio_of_medians(a: &[f64], b: &[f64]) -> Interval {
    let (a, b) = (sorted(a), sorted(b));
    bootstrap(|random| median(&resample(&b, random)) / median(&resample(&a, random)))
}

/// Bounds for the median of ratios that were measured in pairs.
pub(crate) fn median_of(ratios: &[f64]) -> Interval {
    let ratios = sorted(ratios);
    bootstrap(|random| median(&resample(&ratios, random)))
}

fn bootstrap(mut draw: impl FnMut(&mut Random) -> f64) -> Interval {
    // Always the same seed: a verdict does not change when it is looked at again.
    let mut random = Random::new(1, 95);
    let drawn: Vec<f64> = (0..RESAMPLES).map(|_| draw(&mut random)).collect();
    let drawn = sorted(&drawn);
    Interval {
        low: of_sorted(&drawn, 0.025),
        high: of_sorted(&drawn, 0.975),
    }
}

fn resample(samples: &[f64], random: &mut Random) -> Vec<f64> {
    let count = samples.len();
    let draw = |_| samples[random.below(count as u64) as usize];
    (0..count).map(draw).collect()
}

/// Mann and Whitney's test: how likely ranks at least this uneven are if both came from one
/// distribution. Exact for few samples without ties, by the normal approximation otherwise.
pub(crate) fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (sorted(a), sorted(b));
    let (m, n) = (a.len(), b.len());
    if m == 0 || n == 0 {
        return 1.0;
    }
    let mut above = 0.0; // Pairs in which the one of `a` is larger; half for ties.
    let mut has_ties = false;
    for x in &a {
        for y in &b {
            match x.total_cmp(y) {
                Ordering::Greater => above += 1.0,
                Ordering::Equal => {
                    above += 0.5;
                    has_ties = true;
                }
                Ordering::Less => {}
            }
        }
    }
    let extreme = f64::min(above, (m * n) as f64 - above);
    if !has_ties && m <= EXACT && n <= EXACT {
        let ways = ways_of_pairs(m, n);
        let total: f64 = ways.iter().sum();
        let tail: f64 = ways.iter().take(extreme as usize + 1).sum();
        return (2.0 * tail / total).min(1.0);
    }
    let (m, n) = (m as f64, n as f64);
    let all: Vec<f64> = sorted(&[a, b].concat());
    let mut ties = 0.0;
    for group in all.chunk_by(|x, y| x == y) {
        let count = group.len() as f64;
        ties += count.powi(3) - count;
    }
    let sum = m + n;
    let variance = m * n / 12.0 * (sum + 1.0 - ties / (sum * (sum - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((m * n / 2.0 - extreme).abs() - 0.5).max(0.0) / variance.sqrt();
    two_sided(distance)
}

/// In how many orders of `m` and `n` samples each number of pairs is the wrong way round.
fn ways_of_pairs(m: usize, n: usize) -> Vec<f64> {
    // Choosing places: the Gaussian binomial coefficient, one factor after the other.
    let mut ways = vec![0.0; m * n + 1];
    ways[0] = 1.0;
    for i in 1..=n {
        for at in (m + i..ways.len()).rev() {
            ways[at] -= ways[at - m - i];
        }
        for at in i..ways.len() {
            ways[at] += ways[at - i];
        }
    }
    ways
}

/// Wilcoxon's test of pairs: how likely differences at least this one-sided are if there is none.
pub(crate) fn wilcoxon(differences: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = differences
        .iter()
        .copied()
        .filter(|it| *it != 0.0)
        .collect();
    sizes.sort_by(|x, y| x.abs().total_cmp(&y.abs()));
    let count = sizes.len();
    if count == 0 {
        return 1.0;
    }
    let positive = sizes.iter().zip(1..).filter(|(it, _)| **it > 0.0);
    let positive: usize = positive.map(|(_, rank)| rank).sum();
    let all = count * (count + 1) / 2;
    let extreme = positive.min(all - positive);
    if count <= EXACT {
        // How many sets of ranks have each sum.
        let mut sets = vec![0.0; all + 1];
        sets[0] = 1.0;
        for rank in 1..=count {
            for sum in (rank..=all).rev() {
                sets[sum] += sets[sum - rank];
            }
        }
        let tail: f64 = sets.iter().take(extreme + 1).sum();
        return (2.0 * tail / 2_f64.powi(count as i32)).min(1.0);
    }
    let n = count as f64;
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0;
    two_sided((all as f64 / 2.0 - extreme as f64 - 0.5).max(0.0) / variance.sqrt())
}

/// How likely a normal variable is at least so many deviations away from its mean.
fn two_sided(deviations: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26: off by less than 1.5e-7.
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    (polynomial * (-x * x).exp()).clamp(0.0, 1.0)
}

/// A power law through points: `value = factor * size ^ exponent`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// The slope in a plot with logarithms on both axes.
    pub(crate) exponent: f64,
    /// Its standard error; not a number for two points, which a line always meets.
    pub(crate) error: f64,
    /// The value for size one.
    pub(crate) factor: f64,
}

/// Fits a power law by least squares of logarithms; none for fewer than two different sizes.
/// Points that are not positive say nothing.
pub(crate) fn growth(points: &[(f64, f64)]) -> Option<Growth> {
    let usable = points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let logarithms: Vec<(f64, f64)> = usable.map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logarithms.len() as f64;
    let mean_x = logarithms.iter().map(|it| it.0).sum::<f64>() / n;
    let mean_y = logarithms.iter().map(|it| it.1).sum::<f64>() / n;
    let spread: f64 = logarithms.iter().map(|it| (it.0 - mean_x).powi(2)).sum();
    if logarithms.len() < 2 || spread <= 0.0 {
        return None;
    }
    let both = |it: &(f64, f64)| (it.0 - mean_x) * (it.1 - mean_y);
    let exponent = logarithms.iter().map(both).sum::<f64>() / spread;
    let rest = |it: &(f64, f64)| (it.1 - mean_y - exponent * (it.0 - mean_x)).powi(2);
    let rest: f64 = logarithms.iter().map(rest).sum();
    Some(Growth {
        exponent,
        error: (rest / (n - 2.0) / spread).sqrt(),
        factor: (mean_y - exponent * mean_x).exp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[f64::NAN, 4.0]), 4.0);
    }

    #[test]
    fn ranks_are_counted_out() {
        // From the tables: of 4 and 4 samples that do not overlap, 2 of 70 orders.
        let low = [1.0, 2.0, 3.0, 4.0];
        let high = [5.0, 6.0, 7.0, 8.0];
        assert!((mann_whitney(&low, &high) - 2.0 / 70.0).abs() < 1e-12);
        assert!((mann_whitney(&low, &low) - 1.0).abs() < 1e-6);
        // Five against five with U = 5: p = 0.1508 (two-sided).
        let (a, b) = ([1.0, 2.0, 3.0, 5.0, 8.5], [4.0, 6.0, 7.0, 8.0, 9.0]);
        assert!(
            (mann_whitney(&a, &b) - 0.1508).abs() < 1e-3,
            "{}",
            mann_whitney(&a, &b)
        );
        // Wilcoxon: eight differences of one sign, 2 of 256.
        let same_sign = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert!((wilcoxon(&same_sign) - 2.0 / 256.0).abs() < 1e-12);
        assert_eq!(wilcoxon(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn the_approximation_meets_the_exact_count() {
        let mut random = Random::new(3, 0);
        let a: Vec<f64> = (0..20).map(|_| random.unit()).collect();
        let b: Vec<f64> = (0..20).map(|_| random.unit() + 0.2).collect();
        let exact = mann_whitney(&a, &b);
        // One more sample each goes over the limit; it changes little.
        let more = |it: &[f64]| [it, &[median(it)]].concat();
        let near = mann_whitney(&more(&a), &more(&b));
        assert!((exact - near).abs() < 0.03, "{exact} {near}");
        assert!((two_sided(1.96) - 0.05).abs() < 1e-3);
    }

    #[test]
    fn equal_distributions_differ_seldom() {
        let mut random = Random::new(1, 1);
        let mut found = 0;
        for _ in 0..400 {
            let mut draw = || {
                (0..12)
                    .map(|_| random.log_normal(1.0, 0.5))
                    .collect::<Vec<_>>()
            };
            let (a, b) = (draw(), draw());
            found += u32::from(mann_whitney(&a, &b) < 0.01);
        }
        assert!(found <= 12, "{found} of 400 at the level 0.01");
    }

    #[test]
    fn intervals_hold_the_ratio() {
        let mut random = Random::new(2, 1);
        let a: Vec<f64> = (0..50).map(|_| random.log_normal(10.0, 0.1)).collect();
        let b: Vec<f64> = (0..50).map(|_| random.log_normal(20.0, 0.1)).collect();
        let it = ratio_of_medians(&a, &b);
        assert!(
            it.low < 2.0 && 2.0 < it.high && it.high - it.low < 0.3,
            "{it:?}"
        );
    }

    #[test]
    fn exponents_are_found_again() {
        let points: Vec<_> = [1e3, 1e4, 1e5]
            .map(|it: f64| (it, 3.0 * it.powf(1.5)))
            .into();
        let it = growth(&points).unwrap();
        assert!((it.exponent - 1.5).abs() < 1e-9 && (it.factor - 3.0).abs() < 1e-6);
        assert!(it.error < 1e-6);
        assert_eq!(growth(&points[..1]), None);
        assert_eq!(growth(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(growth(&[(1.0, 0.0), (2.0, 3.0)]), None);
    }
}
