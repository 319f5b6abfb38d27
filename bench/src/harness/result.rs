//! Results as they are written and read: one JSON file a run.

use super::{
    machine::{Machine, Versions},
    statistics,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

/// Changes when older readers would misread newer files.
pub(crate) const FORMAT: u32 = 1;
/// Larger files are no results: a million samples of twenty metrics fit.
const MAX_BYTES: u64 = 512 << 20;

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Time; less is better.
    Seconds,
    /// Memory; less is better.
    Bytes,
    /// A rate; more is better.
    PerSecond,
    /// How many; less is better.
    Count,
}

impl Unit {
    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        self == Unit::PerSecond
    }
}

/// One thing that was measured, at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metric {
    /// What it is.
    pub(crate) name: String,
    /// What its samples count.
    pub(crate) unit: Unit,
    /// Whether it is what the machine can do, which others are set in proportion to.
    #[serde(default)]
    pub(crate) is_denominator: bool,
    /// In the order in which they were taken.
    pub(crate) samples: Vec<f64>,
    /// What does not depend on the clock, for one sample.
    #[serde(default)]
    pub(crate) counts: BTreeMap<String, f64>,
}

impl Metric {
    /// The middle of the samples.
    pub(crate) fn median(&self) -> f64 {
        statistics::median(&self.samples)
    }
}

/// What was measured at one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The value of the parameter that makes the size; none where there is none.
    pub(crate) size: Option<u64>,
    /// All parameters.
    pub(crate) parameters: Map<String, Value>,
    /// In the order in which they were first measured.
    pub(crate) metrics: Vec<Metric>,
    /// What else is to be said.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

impl Point {
    /// The metric of this name.
    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|it| it.name == name)
    }
}

/// How a number stands to what is demanded of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// As good as is aimed at.
    Aim,
    /// As good as it must be.
    Met,
    /// Not as good as it must be.
    Missed,
    /// Not measured in this run.
    Open,
}

/// A number that is demanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What of what.
    pub(crate) name: String,
    /// At which size; none for all together.
    pub(crate) size: Option<u64>,
    /// What the number counts; none for a ratio or an exponent.
    #[serde(default)]
    pub(crate) unit: Option<Unit>,
    /// What was measured.
    pub(crate) value: Option<f64>,
    /// What it must be, at most (at least where more is better).
    pub(crate) must: f64,
    /// What is aimed at.
    pub(crate) aim: f64,
    /// Whether it is.
    pub(crate) standing: Standing,
}

/// How a metric grows with the size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growing {
    /// Which metric, or `metric: count` of it.
    pub(crate) metric: String,
    /// The exponent: 1 for twice as much at twice the size.
    pub(crate) exponent: f64,
    /// Its standard error; none for two sizes only.
    pub(crate) error: Option<f64>,
    /// The value at size one, by the fit.
    pub(crate) factor: f64,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Which workload.
    pub(crate) workload: String,
    /// What it does.
    pub(crate) about: String,
    /// What is drawn is drawn from it.
    pub(crate) seed: u64,
    /// Samples that were asked for.
    pub(crate) repeats: u64,
    /// The parameter that makes the size.
    pub(crate) size_parameter: Option<String>,
    /// Where.
    pub(crate) machine: Machine,
    /// With what.
    pub(crate) versions: Versions,
    /// When it began, in seconds of the Unix epoch.
    pub(crate) started_at: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// It was ended before all was measured; what is here is whole.
    pub(crate) interrupted: bool,
    /// By rising size.
    pub(crate) points: Vec<Point>,
    /// Over the sizes.
    #[serde(default)]
    pub(crate) growth: Vec<Growing>,
    /// What is demanded.
    #[serde(default)]
    pub(crate) verdicts: Vec<Verdict>,
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no result, or one of another format.
    pub(crate) fn read(path: &Path) -> Result<Results> {
        let name = path.display();
        let size = fs::metadata(path).with_context(|| format!("reading {name}"))?;
        if size.len() > MAX_BYTES {
            bail!(
                "{name} has {} bytes; results have at most {MAX_BYTES}",
                size.len()
            );
        }
        let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        let results: Results = serde_json::from_str(&text)
            .with_context(|| format!("{name} is no result of `tepui-bench run`"))?;
        if results.format != FORMAT {
            bail!(
                "{name} has format {}; this harness reads {FORMAT}",
                results.format
            );
        }
        Ok(results)
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_whole(path, &text)
    }

    /// Fits a power law to each metric that was measured at several sizes, and to its counts.
    pub(crate) fn fit(&mut self) {
        let mut all: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        let mut add =
            |name: String, size: f64, value: f64| match all.iter_mut().find(|it| it.0 == name) {
                Some((_, points)) => points.push((size, value)),
                None => all.push((name, vec![(size, value)])),
            };
        for point in &self.points {
            let Some(size) = point.size else { continue };
            for it in &point.metrics {
                add(it.name.clone(), size as f64, it.median());
                for (count, value) in &it.counts {
                    add(format!("{}: {count}", it.name), size as f64, *value);
                }
            }
        }
        let fit = |(metric, points): &(String, Vec<(f64, f64)>)| {
            let it = statistics::growth(points)?;
            Some(Growing {
                metric: metric.clone(),
                exponent: it.exponent,
                error: Some(it.error).filter(|it| it.is_finite()),
                factor: it.factor,
            })
        };
        self.growth = all.iter().filter_map(fit).collect();
    }
}

/// Writes a file so that nobody ever sees half of it.
///
/// # Errors
/// The folder is not there, or may not be written.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let folder = match path.parent() {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => Path::new("."),
    };
    let written = (|| -> Result<()> {
        // As any other new file: temporary ones are for their owner alone.
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    })();
    written.with_context(|| format!("writing {}", path.display()))
}
