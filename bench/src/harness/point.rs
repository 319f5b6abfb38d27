//! Where a workload puts what it measures.

use super::{
    memory,
    parameters::Values,
    random::Random,
    result::{Metric, Point, Unit},
    stop,
};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use std::{
    hint::black_box,
    io::IsTerminal,
    time::{Duration, Instant},
};

/// One size of one run.
pub(crate) struct Measure {
    /// What is set.
    pub(crate) values: Values,
    /// What is drawn is drawn from it.
    pub(crate) seed: u64,
    /// Samples of each metric that does not say otherwise.
    pub(crate) repeats: u64,
    point: Point,
    progress: ProgressBar,
}

/// What one call took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// Time.
    pub(crate) time: Duration,
    /// Memory, on this thread.
    pub(crate) memory: memory::Counts,
}

/// Runs it with a stopwatch and a counter of what it allocates.
///
/// It waits for nothing, so that its time is the processor time of this thread: what others do on
/// the machine meanwhile does not count (but for caches that they empty). Where the clock on the
/// wall shows less, that is taken: asking for processor time costs a part of a microsecond.
pub(crate) fn take<T>(run: impl FnOnce() -> T) -> (Took, T) {
    let before = memory::counts();
    let on_processor = thread_time();
    let start = Instant::now();
    let result = black_box(run());
    let on_wall = start.elapsed();
    let on_processor = thread_time().saturating_sub(on_processor);
    let memory = memory::counts().since(before);
    let time = on_wall.min(on_processor);
    (Took { time, memory }, result)
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos)
}

impl Measure {
    /// Nothing measured yet.
    pub(crate) fn new(values: Values, size: Option<u64>, seed: u64, repeats: u64) -> Measure {
        let progress = match std::io::stderr().is_terminal() {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        progress.enable_steady_tick(Duration::from_millis(200));
        Measure {
            point: Point {
                size,
                parameters: values.to_json(),
                ..Point::default()
            },
            values,
            seed,
            repeats,
            progress,
        }
    }

    /// The number among the parameters.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.values.number(name)
    }

    /// Random numbers of this run, for one purpose.
    pub(crate) fn random(&self, stream: u64) -> Random {
        Random::new(self.seed, stream)
    }

    /// Adds a sample to a metric, which is new if need be.
    pub(crate) fn sample(&mut self, name: &str, unit: Unit, value: f64) {
        match self.point.metrics.iter_mut().find(|it| it.name == name) {
            Some(it) => it.samples.push(value),
            None => self.point.metrics.push(Metric {
                name: name.to_owned(),
                unit,
                is_denominator: false,
                samples: vec![value],
                counts: Default::default(),
            }),
        }
    }

    /// Adds a time.
    pub(crate) fn time(&mut self, name: &str, took: Duration) {
        self.sample(name, Unit::Seconds, took.as_secs_f64());
    }

    /// Adds the time of one of `calls` that took so long together, and the bytes that one asked
    /// for; nothing for none.
    pub(crate) fn each(&mut self, name: &str, took: Took, calls: u64) {
        if calls > 0 {
            self.sample(name, Unit::Seconds, took.time.as_secs_f64() / calls as f64);
            self.count(
                name,
                "bytes allocated",
                took.memory.bytes as f64 / calls as f64,
            );
        }
    }

    /// Says what a sample of the metric counts beside its value; the last one stays.
    pub(crate) fn count(&mut self, name: &str, what: &str, value: f64) {
        if let Some(it) = self.point.metrics.iter_mut().find(|it| it.name == name) {
            it.counts.insert(what.to_owned(), value);
        }
    }

    /// The metric is what the machine can do.
    pub(crate) fn is_denominator(&mut self, name: &str) {
        if let Some(it) = self.point.metrics.iter_mut().find(|it| it.name == name) {
            it.is_denominator = true;
        }
    }

    /// Says something that is no number.
    pub(crate) fn note(&mut self, text: String) {
        self.point.notes.push(text);
    }

    /// Begins a part of the run of so many steps.
    pub(crate) fn begin(&self, name: &str, steps: u64) {
        let style =
            ProgressStyle::with_template("{msg:30} {bar:30} {pos}/{len} {per_sec:12} {eta} to go");
        if let Ok(style) = style {
            self.progress.set_style(style);
        }
        self.progress.reset();
        self.progress.set_length(steps);
        self.progress.set_message(name.to_owned());
    }

    /// So many steps are done.
    pub(crate) fn reached(&self, steps: u64) {
        self.progress.set_position(steps);
    }

    /// One step is done: whether to go on with the next. It is not when the run was interrupted.
    pub(crate) fn step(&self) -> bool {
        self.progress.inc(1);
        !stop::asked()
    }

    /// What was measured.
    pub(crate) fn finish(self) -> Point {
        self.progress.finish_and_clear();
        self.point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_counted() {
        let (waited, ()) = take(|| {
            let (_keep, nothing) = std::sync::mpsc::channel::<()>();
            let _ = nothing.recv_timeout(Duration::from_millis(50));
        });
        assert!(waited.time < Duration::from_millis(40), "{waited:?}");
        let (worked, _) = take(|| (0..200_000_u64).fold(1_u64, |a, b| black_box(a ^ b)));
        assert!(!worked.time.is_zero());
    }
}
