//! `compare`: whether two results, or two binaries, differ by more than noise.
//!
//! Two files hold samples of two runs: they are compared by ranks, and since a machine is not the
//! same at two times, differences under [`APART`] are not claimed, nor such as the denominators,
//! which are the same code on both sides, show too. Two binaries are run in
//! turn, so that whatever else the machine does concerns both: each round is a pair, and
//! differences down to [`PAIRED`] count.

use super::{
    format,
    result::{Metric, Results, Unit},
    statistics::{self, Interval},
    stop, table,
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How unlikely what is seen must be if nothing differed.
const LEVEL: f64 = 0.01;
/// The least difference that is claimed between runs at two times.
const APART: f64 = 0.05;
/// The least that is claimed between runs in turn.
const PAIRED: f64 = 0.01;
/// With fewer samples on a side ranks cannot be uneven enough for [`LEVEL`].
const FEWEST: usize = 5;
/// With fewer rounds the same holds for pairs.
const FEWEST_ROUNDS: usize = 8;

/// Options of `tepui-bench compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Two results; or, with --a and --b, the workload to run
    #[arg(required = true, num_args = 1..=2, value_name = "A.json B.json | NAME")]
    what: Vec<String>,
    /// A `tepui-bench` to compare, run in turn with the other
    #[arg(long, requires = "b", value_name = "BINARY")]
    a: Option<PathBuf>,
    /// The other one
    #[arg(long, requires = "a", value_name = "BINARY")]
    b: Option<PathBuf>,
    /// Runs of each binary
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Sets a parameter of the workload; may be repeated
    #[arg(long = "param", short, value_name = "NAME=VALUE", requires = "a")]
    parameters: Vec<String>,
    /// Sizes to measure
    #[arg(long, requires = "a")]
    sizes: Option<String>,
    /// Samples in each round
    #[arg(long, requires = "a")]
    repeats: Option<u64>,
    /// Draws the comparison there, as SVG
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// Prints the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// What is to be said of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// B needs less, or does more.
    Better,
    /// B needs more, or does less.
    Worse,
    /// Nothing beyond noise.
    NoneSeen,
    /// Too few samples to say anything.
    TooFew,
}

/// One metric of both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// Which.
    pub(crate) metric: String,
    /// At which size.
    pub(crate) size: Option<u64>,
    pub(crate) unit: Unit,
    pub(crate) is_denominator: bool,
    /// Medians.
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// `b / a`.
    pub(crate) ratio: f64,
    /// Where the ratio is in 95 % of cases.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How likely as much would be seen if nothing differed.
    pub(crate) probability: f64,
    pub(crate) finding: Finding,
}

/// Everything that both sides measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Names of the sides.
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) workload: String,
    pub(crate) comparisons: Vec<Comparison>,
    /// What speaks against comparing them.
    pub(crate) warnings: Vec<String>,
}

/// Compares.
///
/// # Errors
/// The two have nothing in common, or a binary failed.
pub(crate) fn run(options: &Options) -> Result<i32> {
    let report = match (&options.a, &options.b, options.what.as_slice()) {
        (Some(a), Some(b), [name]) => interleaved(a, b, name, options)?,
        (None, None, [a, b]) => {
            let read = |path: &String| Results::read(Path::new(path));
            files(&read(a)?, &read(b)?, a, b)?
        }
        (None, None, _) => bail!("expected two results, or --a and --b and a workload"),
        _ => bail!("expected the name of one workload behind --a and --b"),
    };
    if let Some(path) = &options.out {
        super::result::write_whole(path, &super::plot::comparison(&report))?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", print(&report)),
    }
    Ok(if stop::asked() { stop::INTERRUPTED } else { 0 })
}

/// Compares two results.
///
/// # Errors
/// They are of different workloads, or share no metric at any size.
pub(crate) fn files(a: &Results, b: &Results, a_name: &str, b_name: &str) -> Result<Report> {
    if a.workload != b.workload {
        bail!("{a_name} is of {}, {b_name} of {}", a.workload, b.workload);
    }
    let mut warnings = Vec::new();
    let mut warn = |differs: bool, text: String| {
        if differs {
            warnings.push(text);
        }
    };
    let (on_a, on_b) = (&a.machine, &b.machine);
    let is_same = (&on_a.cpu, on_a.cores, on_a.memory_bytes, &on_a.kernel)
        == (&on_b.cpu, on_b.cores, on_b.memory_bytes, &on_b.kernel);
    warn(!is_same, "they were measured on different machines".into());
    let profiles = (&a.versions.profile, &b.versions.profile);
    warn(
        profiles.0 != profiles.1,
        format!(
            "one is a {} build, the other a {} build",
            profiles.0, profiles.1
        ),
    );
    warn(
        a.seed != b.seed,
        format!("their seeds are {} and {}", a.seed, b.seed),
    );
    for (it, name) in [(a, a_name), (b, b_name)] {
        warn(it.interrupted, format!("{name} was interrupted"));
    }
    let mut comparisons = Vec::new();
    for point in &a.points {
        let Some(other) = b.points.iter().find(|it| it.size == point.size) else {
            continue;
        };
        if point.parameters != other.parameters {
            let names = point.parameters.keys().chain(other.parameters.keys());
            let differs =
                |name: &&String| point.parameters.get(*name) != other.parameters.get(*name);
            let mut names: Vec<&str> = names.filter(differs).map(String::as_str).collect();
            names.dedup();
            warnings.push(format!("their parameters differ: {}", names.join(", ")));
        }
        for metric in &point.metrics {
            let same = other.metric(&metric.name);
            if let Some(same) = same.filter(|it| it.unit == metric.unit) {
                comparisons.push(of_samples(metric, same, point.size));
            }
        }
    }
    if comparisons.is_empty() {
        bail!("{a_name} and {b_name} share no metric at any size");
    }
    let moved = machine_moved(&comparisons);
    if moved > APART {
        warnings.push(format!(
            "the denominators, which both have alike, differ by {:.0} %: the machine was not the \
             same, and no smaller difference is claimed",
            moved * 100.0
        ));
        for it in &mut comparisons {
            let is_claimed = matches!(it.finding, Finding::Better | Finding::Worse);
            if is_claimed && !it.is_denominator && apart(it.ratio) <= moved {
                it.finding = Finding::NoneSeen;
            }
        }
    }
    warnings.push(format!(
        "two runs at two times: differences under {:.0} % are taken for the machine's; \
         --a and --b with the binaries see smaller ones",
        APART * 100.0
    ));
    Ok(Report::new(
        a_name,
        b_name,
        &a.workload,
        comparisons,
        warnings,
    ))
}

/// How far two values in this ratio are apart, whichever is larger.
fn apart(ratio: f64) -> f64 {
    ratio.ln().abs().exp() - 1.0
}

/// How far the machine's own speed moved between two runs: what the denominators that are long
/// enough to be timed well differ by at most.
fn machine_moved(comparisons: &[Comparison]) -> f64 {
    const LONG: f64 = 1e-5;
    let differs = |it: &&Comparison| {
        it.is_denominator && it.a > LONG && matches!(it.finding, Finding::Better | Finding::Worse)
    };
    let moved = comparisons.iter().filter(differs).map(|it| apart(it.ratio));
    moved.fold(0.0, f64::max)
}

impl Report {
    fn new(
        a: &str,
        b: &str,
        workload: &str,
        comparisons: Vec<Comparison>,
        warnings: Vec<String>,
    ) -> Report {
        Report {
            a: a.to_owned(),
            b: b.to_owned(),
            workload: workload.to_owned(),
            comparisons,
            warnings,
        }
    }
}

fn of_samples(a: &Metric, b: &Metric, size: Option<u64>) -> Comparison {
    let probability = statistics::mann_whitney(&a.samples, &b.samples);
    let enough = a.samples.len().min(b.samples.len()) >= FEWEST;
    let interval = statistics::ratio_of_medians(&a.samples, &b.samples);
    let ratio = b.median() / a.median();
    conclude(a, b, size, (ratio, interval, probability), enough, APART)
}

/// Medians of the rounds, in pairs.
fn of_pairs(a: &Metric, b: &Metric, size: Option<u64>) -> Comparison {
    let pairs = a.samples.iter().zip(&b.samples);
    let ratios: Vec<f64> = pairs
        .map(|(a, b)| b / a)
        .filter(|it| it.is_finite() && *it > 0.0)
        .collect();
    let logarithms: Vec<f64> = ratios.iter().map(|it| it.ln()).collect();
    let probability = statistics::wilcoxon(&logarithms);
    let interval = statistics::median_of(&ratios);
    let ratio = statistics::median(&ratios);
    let enough = ratios.len() >= FEWEST_ROUNDS;
    conclude(a, b, size, (ratio, interval, probability), enough, PAIRED)
}

fn conclude(
    a: &Metric,
    b: &Metric,
    size: Option<u64>,
    (ratio, Interval { low, high }, probability): (f64, Interval, f64),
    enough: bool,
    least: f64,
) -> Comparison {
    let is_same = a.samples == b.samples;
    let is_apart = low > 1.0 || high < 1.0;
    let finding = if is_same {
        Finding::NoneSeen
    } else if !enough || !ratio.is_finite() {
        Finding::TooFew
    } else if probability >= LEVEL || !is_apart || (ratio - 1.0).abs() < least {
        Finding::NoneSeen
    } else if (ratio > 1.0) == a.unit.more_is_better() {
        Finding::Better
    } else {
        Finding::Worse
    };
    Comparison {
        metric: a.name.clone(),
        size,
        unit: a.unit,
        is_denominator: a.is_denominator,
        a: a.median(),
        b: b.median(),
        ratio,
        low,
        high,
        probability,
        finding,
    }
}

/// Runs both binaries in turn, in alternating order.
fn interleaved(a: &Path, b: &Path, name: &str, options: &Options) -> Result<Report> {
    stop::listen();
    let progress = ProgressBar::new(u64::from(options.rounds));
    let style = "{msg:30} {bar:30} {pos}/{len} {per_sec:12} {eta} to go";
    progress.set_style(ProgressStyle::with_template(style)?);
    progress.set_message(format!("rounds of {name}"));
    let mut gathered: [Vec<(Option<u64>, Metric)>; 2] = Default::default();
    'rounds: for round in 0..options.rounds {
        let mut pair = [None, None];
        for turn in 0..2 {
            let side = (turn + round as usize) % 2;
            let results = one_run([a, b][side], name, options)?;
            if results.interrupted || stop::asked() {
                break 'rounds;
            }
            pair[side] = Some(results);
        }
        for (gathered, results) in gathered.iter_mut().zip(pair.into_iter().flatten()) {
            gather(gathered, &results);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let [of_a, of_b] = gathered;
    let mut comparisons = Vec::new();
    for (size, metric) in &of_a {
        let mut others = of_b.iter();
        let is_same =
            |(other, it): &&(Option<u64>, Metric)| other == size && it.name == metric.name;
        if let Some((_, other)) = others.find(is_same) {
            comparisons.push(of_pairs(metric, other, *size));
        }
    }
    if comparisons.is_empty() {
        bail!("no round was finished, or the binaries share no metric");
    }
    let name_of = |it: &Path| it.display().to_string();
    Ok(Report::new(
        &name_of(a),
        &name_of(b),
        name,
        comparisons,
        Vec::new(),
    ))
}

/// Adds the medians of one run.
fn gather(gathered: &mut Vec<(Option<u64>, Metric)>, results: &Results) {
    for point in &results.points {
        for metric in &point.metrics {
            let median = metric.median();
            let mut known = gathered.iter_mut();
            match known.find(|(size, it)| *size == point.size && it.name == metric.name) {
                Some((_, it)) => it.samples.push(median),
                None => {
                    let samples = vec![median];
                    let metric = Metric {
                        samples,
                        ..metric.clone()
                    };
                    gathered.push((point.size, metric));
                }
            }
        }
    }
}

fn one_run(binary: &Path, name: &str, options: &Options) -> Result<Results> {
    let mut command = Command::new(binary);
    command.args(["run", name, "--json"]);
    for it in &options.parameters {
        command.args(["--param", it]);
    }
    if let Some(it) = &options.sizes {
        command.args(["--sizes", it]);
    }
    if let Some(it) = options.repeats {
        command.args(["--repeats", &it.to_string()]);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("starting {}", binary.display()))?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{} run {name}: {}", binary.display(), said.trim())
    })
}

fn print(report: &Report) -> String {
    let mut all = table::table(&["metric", "size", "a", "b", "b / a", "95 %", "p", "finding"]);
    for it in &report.comparisons {
        all.add_row([
            it.metric.clone(),
            it.size
                .map_or("-".to_owned(), |it| format::number(it as f64)),
            format::value(it.a, it.unit),
            format::value(it.b, it.unit),
            format!("{:.3}", it.ratio),
            format!("{:.3} to {:.3}", it.low, it.high),
            format!("{:.4}", it.probability),
            words(it),
        ]);
    }
    let mut text = format!(
        "{}: a = {}, b = {}\n{all}\n",
        report.workload, report.a, report.b
    );
    for it in &report.warnings {
        text += &format!("note: {it}\n");
    }
    text
}

/// The finding as a sentence.
pub(crate) fn words(it: &Comparison) -> String {
    let percent = (it.ratio - 1.0).abs() * 100.0;
    let (less, more) = match it.unit {
        Unit::Seconds => ("faster", "slower"),
        Unit::Bytes | Unit::Count => ("less", "more"),
        Unit::PerSecond => ("lower", "higher"),
    };
    let direction = if it.ratio < 1.0 { less } else { more };
    match it.finding {
        Finding::Better => format!("b is {percent:.1} % {direction} (better)"),
        Finding::Worse => format!("b is {percent:.1} % {direction} (worse)"),
        Finding::NoneSeen => "no difference seen".to_owned(),
        Finding::TooFew => "too few samples to say".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{random::Random, result::Point};

    fn results(median: f64, count: usize, stream: u64) -> Results {
        let mut random = Random::new(5, stream);
        let samples = (0..count).map(|_| random.log_normal(median, 0.1)).collect();
        let metric = Metric {
            name: "cycle".into(),
            unit: Unit::Seconds,
            is_denominator: false,
            samples,
            counts: Default::default(),
        };
        Results {
            workload: "w".into(),
            points: vec![Point {
                metrics: vec![metric],
                ..Point::default()
            }],
            ..Results::default()
        }
    }

    fn finding(a: &Results, b: &Results) -> Finding {
        files(a, b, "a", "b").unwrap().comparisons[0].finding
    }

    #[test]
    fn noise_is_no_difference_and_a_difference_is_one() {
        let a = results(1.0, 30, 1);
        assert_eq!(finding(&a, &a), Finding::NoneSeen);
        assert_eq!(finding(&a, &results(1.0, 30, 2)), Finding::NoneSeen);
        assert_eq!(finding(&a, &results(2.0, 30, 3)), Finding::Worse);
        assert_eq!(finding(&a, &results(0.5, 30, 4)), Finding::Better);
        assert_eq!(finding(&a, &results(2.0, 3, 5)), Finding::TooFew);
        let mut other = results(1.0, 30, 1);
        other.workload = "v".into();
        assert!(files(&a, &other, "a", "b").is_err());
    }

    #[test]
    fn what_the_machine_did_to_the_denominator_too_is_no_finding() {
        let with_loop = |cycle: f64, of_loop: f64, stream: u64| {
            let mut it = results(cycle, 30, stream);
            let mut denominator = results(of_loop, 30, stream + 10).points[0].metrics[0].clone();
            denominator.name = "loop".into();
            denominator.is_denominator = true;
            it.points[0].metrics.push(denominator);
            it
        };
        let a = with_loop(1.0, 1.0, 1);
        assert_eq!(finding(&a, &with_loop(1.5, 1.6, 2)), Finding::NoneSeen);
        assert_eq!(finding(&a, &with_loop(1.5, 1.0, 3)), Finding::Worse);
        assert_eq!(finding(&a, &with_loop(3.0, 1.6, 4)), Finding::Worse);
    }

    #[test]
    fn pairs_see_through_drift() {
        // The machine gets twice as slow meanwhile; b is 5 % faster throughout.
        let metric = |scale: f64| Metric {
            samples: (0..12)
                .map(|it| scale * (1.0 + f64::from(it) / 12.0))
                .collect(),
            ..results(1.0, 1, 1).points[0].metrics[0].clone()
        };
        let (a, b) = (metric(1.0), metric(0.95));
        assert_eq!(of_samples(&a, &b, None).finding, Finding::NoneSeen);
        assert_eq!(of_pairs(&a, &b, None).finding, Finding::Better);
    }
}
