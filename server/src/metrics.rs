//! Timers under Mesos' names, and the flat map that metrics are shown as.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Metrics by name.
pub type Metrics = BTreeMap<String, f64>;

/// Samples that a timer remembers, as many as in Mesos.
const SAMPLES: usize = 1000;

/// The newest durations of something that happens again and again.
#[derive(Debug, Clone, Default)]
pub struct Timer {
    /// Milliseconds, oldest first.
    samples: VecDeque<f64>,
}

impl Timer {
    /// A timer without samples.
    pub const fn new() -> Timer {
        Timer {
            samples: VecDeque::new(),
        }
    }

    /// Adds a sample.
    pub fn record(&mut self, duration: Duration) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(duration.as_secs_f64() * 1e3);
    }

    /// Shows the newest sample as `<name>_ms` and, as soon as there are two, their number,
    /// extremes and percentiles as `<name>_ms/count` and so on.
    pub fn put(&self, name: &str, metrics: &mut Metrics) {
        let Some(last) = self.samples.back() else {
            return;
        };
        metrics.insert(format!("{name}_ms"), *last);
        if self.samples.len() < 2 {
            return;
        }
        let mut sorted: Vec<f64> = self.samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        for (suffix, value) in [
            ("count", sorted.len() as f64),
            ("min", percentile(&sorted, 0.0)),
            ("max", percentile(&sorted, 1.0)),
            ("p50", percentile(&sorted, 0.5)),
            ("p90", percentile(&sorted, 0.9)),
            ("p95", percentile(&sorted, 0.95)),
            ("p99", percentile(&sorted, 0.99)),
            ("p999", percentile(&sorted, 0.999)),
            ("p9999", percentile(&sorted, 0.9999)),
        ] {
            metrics.insert(format!("{name}_ms/{suffix}"), value);
        }
    }
}

/// Between the two samples around the place, in proportion; `sorted` is not empty.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}

/// A part of a metric's name: what separates parts is percent-encoded.
pub fn escape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_with_the_second_sample() {
        let mut timer = Timer::new();
        let shown = |timer: &Timer| {
            let mut metrics = Metrics::new();
            timer.put("a/run", &mut metrics);
            metrics
        };
        assert!(shown(&timer).is_empty());
        timer.record(Duration::from_millis(3));
        assert_eq!(shown(&timer), Metrics::from([("a/run_ms".into(), 3.0)]));
        timer.record(Duration::from_millis(1));
        let metrics = shown(&timer);
        assert_eq!(metrics["a/run_ms"], 1.0);
        assert_eq!(metrics["a/run_ms/count"], 2.0);
        assert_eq!(metrics["a/run_ms/min"], 1.0);
        assert_eq!(metrics["a/run_ms/p50"], 2.0);
        assert_eq!(metrics["a/run_ms/max"], 3.0);
        assert_eq!(metrics.len(), 10);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let mut timer = Timer::new();
        for milliseconds in 0..2000 {
            timer.record(Duration::from_millis(milliseconds));
        }
        let mut metrics = Metrics::new();
        timer.put("t", &mut metrics);
        assert_eq!(metrics["t_ms/count"], 1000.0);
        assert_eq!(metrics["t_ms/min"], 1000.0);
    }

    #[test]
    fn names_keep_their_parts() {
        assert_eq!(escape("a b/c-1.2_~"), "a%20b%2Fc-1.2_~");
    }
}
