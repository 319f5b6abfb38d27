//! Logs on standard error, and their verbosity, which can be raised for a while.

use crate::{flags::value::parse_duration, routing};
use std::{
    fmt,
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tracing_subscriber::{
    Layer as _, Registry, filter::LevelFilter, fmt::layer, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

/// What a process logs now.
struct Verbosity {
    filter: reload::Handle<LevelFilter, Registry>,
    /// The level of `--logging_level`.
    original: LevelFilter,
    raised: Mutex<Raised>,
}

/// The last change.
#[derive(Debug, Default)]
struct Raised {
    level: u32,
    /// Counts the changes, so that the end of an earlier one does not undo a later one.
    change: u64,
}

static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

/// Starts logging at a level of Mesos' flag `--logging_level` (INFO, WARNING, ERROR; also
/// DEBUG and TRACE). A second call in one process changes nothing.
pub fn start(level: &str, quiet: bool) {
    let original = match level.to_ascii_uppercase().as_str() {
        _ if quiet => LevelFilter::OFF,
        "ERROR" => LevelFilter::ERROR,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let (filter, handle) = reload::Layer::new(original);
    let lines = layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true);
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    // Already started, as in a process with a whole cluster: the first one stays.
    if started.is_ok() {
        let _ = VERBOSITY.set(Verbosity {
            filter: handle,
            original,
            raised: Mutex::default(),
        });
    }
}

/// The verbosity in Mesos' numbers: 0 is what `--logging_level` says.
pub fn level() -> u32 {
    let raised = VERBOSITY.get().map(|it| &it.raised);
    raised.map_or(0, |it| {
        it.lock().unwrap_or_else(PoisonError::into_inner).level
    })
}

/// Logs more for a while (1: debugging, 2 and above: everything), as SET_LOGGING_LEVEL and
/// `/logging/toggle` ask; then `--logging_level` holds again. `--quiet` stays quiet. Needs a
/// runtime of tokio.
pub fn raise(level: u32, period: Duration) {
    let Some(verbosity) = VERBOSITY.get() else {
        return;
    };
    let change = verbosity.set(level, None);
    if let Some(change) = change.filter(|_| level > 0) {
        tokio::spawn(async move {
            tokio::time::sleep(period).await;
            verbosity.set(0, Some(change));
        });
    }
}

impl Verbosity {
    /// Sets the level, if `after` is still the last change; returns the number of this one.
    fn set(&self, level: u32, after: Option<u64>) -> Option<u64> {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if after.is_some_and(|it| it != raised.change) {
            return None;
        }
        raised.level = level;
        raised.change += 1;
        // The layer lives as long as the process.
        let _ = self.filter.reload(filter(self.original, level));
        Some(raised.change)
    }
}

fn filter(original: LevelFilter, level: u32) -> LevelFilter {
    let asked = match level {
        0 => original,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    match original {
        LevelFilter::OFF => original,
        _ => original.max(asked),
    }
}

/// Why `/logging/toggle` was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear(String);

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `/logging/toggle?level=N&duration=D`: without parameters the answer is the verbosity,
/// with both it is empty and the verbosity is changed.
///
/// # Errors
/// When one parameter is missing or cannot be read.
pub fn toggle(query: Option<&str>) -> Result<String, Unclear> {
    let (level_text, duration_text) = match (
        routing::parameter(query, "level"),
        routing::parameter(query, "duration"),
    ) {
        (None, None) => return Ok(format!("{}\n", level())),
        (Some(level), Some(duration)) => (level, duration),
        (None, _) => return Err(Unclear("Expecting 'level=value' in query.\n".into())),
        (_, None) => return Err(Unclear("Expecting 'duration=value' in query.\n".into())),
    };
    let Ok(level) = level_text.parse::<u32>() else {
        return Err(Unclear(format!(
            "Invalid 'level={level_text}': expected a number, 0 or above.\n"
        )));
    };
    let period = parse_duration(&duration_text)
        .map_err(|error| Unclear(format!("Invalid 'duration={duration_text}': {error}\n")))?;
    raise(level, period);
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_logged_and_never_less() {
        assert_eq!(filter(LevelFilter::INFO, 0), LevelFilter::INFO);
        assert_eq!(filter(LevelFilter::ERROR, 1), LevelFilter::DEBUG);
        assert_eq!(filter(LevelFilter::TRACE, 1), LevelFilter::TRACE);
        assert_eq!(filter(LevelFilter::INFO, 9), LevelFilter::TRACE);
        assert_eq!(filter(LevelFilter::OFF, 9), LevelFilter::OFF);
    }

    #[test]
    fn the_end_of_an_earlier_change_does_not_undo_a_later_one() {
        let (_layer, filter) = reload::Layer::<LevelFilter, Registry>::new(LevelFilter::INFO);
        let verbosity = Verbosity {
            filter,
            original: LevelFilter::INFO,
            raised: Mutex::default(),
        };
        let first = verbosity.set(1, None);
        let second = verbosity.set(2, None);
        assert_eq!(verbosity.set(0, first), None);
        assert_eq!(verbosity.raised.lock().unwrap().level, 2);
        assert!(verbosity.set(0, second).is_some());
        assert_eq!(verbosity.raised.lock().unwrap().level, 0);
    }

    #[test]
    fn toggling_needs_both_parameters() {
        assert_eq!(toggle(None).unwrap(), "0\n");
        for (query, named) in [
            ("level=1", "duration"),
            ("duration=5secs", "level"),
            ("level=-1&duration=5secs", "level=-1"),
            ("level=1&duration=soon", "duration=soon"),
        ] {
            let error = toggle(Some(query)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
