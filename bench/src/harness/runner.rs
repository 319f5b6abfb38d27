//! `run`: checks what is asked for, measures, writes what was measured.

use super::{
    format,
    machine::{Machine, Versions},
    memory,
    parameters::{self, Kind, Values},
    point::Measure,
    result::{FORMAT, Point, Results, Standing, Verdict},
    stop, table,
    workload::{By, Goal, NO_BOUND, Workload},
};
use anyhow::{Context, Result, bail};
use std::{
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Part of the memory at hand that a run may take: the rest is for what it starts and for others.
const MEMORY_SHARE: f64 = 0.85;
/// More samples tell nothing more and take for ever.
const MAX_REPEATS: u64 = 1_000_000;

/// Options of `tepui-bench run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Which workload; `tepui-bench list` says which there are
    name: String,
    /// Sets a parameter; may be repeated
    #[arg(long = "param", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Sizes to measure, of the parameter that `list` marks, such as 1000,10k,1M
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// Samples of each metric that does not have its own number
    #[arg(long)]
    repeats: Option<u64>,
    /// What is drawn is drawn from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the results there, also those of a run that is interrupted
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints the results as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Ends with status 1 when something is not as good as it must be
    #[arg(long)]
    check: bool,
}

/// A checked request.
struct Plan {
    workload: &'static Workload,
    points: Vec<(Option<u64>, Values)>,
    repeats: u64,
}

/// Runs the workload: the status to end with.
///
/// # Errors
/// What is asked for makes no sense or does not fit the memory; the workload failed before it
/// measured anything.
pub(crate) fn run(workloads: &[&'static Workload], options: &Options) -> Result<i32> {
    let plan = plan(workloads, options, memory::available())?;
    let out = options.out.as_deref();
    if let Some(path) = out {
        check_writable(path)?;
    }
    let (results, failed) = measure(&plan, options.seed, |so_far| match out {
        Some(path) => so_far.write(path),
        None => Ok(()),
    })?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&results)?),
        false => print!("{}", table::results(&results)),
    }
    if let Some(error) = failed {
        return Err(error.context("what was measured before this is whole"));
    }
    let missed = results
        .verdicts
        .iter()
        .any(|it| it.standing == Standing::Missed);
    Ok(match results.interrupted {
        true => stop::INTERRUPTED,
        false => i32::from(options.check && missed),
    })
}

/// Runs a workload with defaults but for these parameters and sizes, for a report.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(
    workload: &'static Workload,
    parameters: &[&str],
    sizes: &[&str],
    repeats: Option<u64>,
) -> Result<Results> {
    let options = options(workload, parameters, sizes, repeats);
    let plan = plan(&[workload], &options, memory::available())?;
    let (results, failed) = measure(&plan, options.seed, |_| Ok(()))?;
    match failed {
        Some(error) => Err(error),
        None => Ok(results),
    }
}

fn options(
    workload: &Workload,
    parameters: &[&str],
    sizes: &[&str],
    repeats: Option<u64>,
) -> Options {
    let owned = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect();
    Options {
        name: workload.name.to_owned(),
        parameters: owned(parameters),
        sizes: owned(sizes),
        repeats,
        seed: 1,
        ..Options::default()
    }
}

/// Whether a workload takes these, on a machine with memory enough.
#[cfg(test)]
pub(crate) fn check(
    workload: &'static Workload,
    parameters: &[&str],
    sizes: &[&str],
) -> Result<()> {
    plan(
        &[workload],
        &options(workload, parameters, sizes, None),
        None,
    )
    .map(drop)
}

fn check_writable(path: &std::path::Path) -> Result<()> {
    let folder = match path.parent() {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => std::path::Path::new("."),
    };
    tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    if path.is_dir() {
        bail!(
            "{} is a folder; expected the name of a file",
            path.display()
        );
    }
    Ok(())
}

fn plan(
    workloads: &[&'static Workload],
    options: &Options,
    available: Option<u64>,
) -> Result<Plan> {
    let Some(workload) = workloads.iter().find(|it| it.name == options.name) else {
        let names: Vec<&str> = workloads.iter().map(|it| it.name).collect();
        bail!(
            "no workload {:?}; there are {}",
            options.name,
            names.join(", ")
        );
    };
    let repeats = options.repeats.unwrap_or(workload.repeats);
    if !(1..=MAX_REPEATS).contains(&repeats) {
        bail!("--repeats is {repeats}; expected 1 to {MAX_REPEATS}");
    }
    let values = Values::read(workload.parameters, &options.parameters)?;
    let points = points(workload, options, &values)?;
    if let Some(available) = available {
        for (size, values) in &points {
            check_memory(workload, *size, values, available)?;
        }
    }
    Ok(Plan {
        workload,
        points,
        repeats,
    })
}

fn points(
    workload: &'static Workload,
    options: &Options,
    values: &Values,
) -> Result<Vec<(Option<u64>, Values)>> {
    let Some(parameter) = workload.size_parameter() else {
        if !options.sizes.is_empty() {
            bail!("{} has no size to vary; use --param", workload.name);
        }
        return Ok(vec![(None, values.clone())]);
    };
    let is_given = |it: &String| it.split('=').next().map(str::trim) == Some(parameter.name);
    let is_given = options.parameters.iter().any(is_given);
    if is_given && !options.sizes.is_empty() {
        bail!(
            "{} is given twice, by --param and by --sizes",
            parameter.name
        );
    }
    let mut sizes = match (options.sizes.is_empty(), is_given) {
        (true, true) => vec![values.number(parameter.name)],
        (true, false) => workload.default_sizes(),
        (false, _) => {
            let read = |text: &String| {
                parameters::whole(text.trim())
                    .with_context(|| format!("--sizes has {text:?}; expected whole numbers"))
            };
            options
                .sizes
                .iter()
                .map(read)
                .collect::<Result<Vec<u64>>>()?
        }
    };
    sizes.sort_unstable();
    sizes.dedup();
    let point = |size: u64| Ok((Some(size), values.with(parameter, size)?));
    sizes.into_iter().map(point).collect()
}

/// Refuses what would not fit, with what would.
fn check_memory(
    workload: &Workload,
    size: Option<u64>,
    values: &Values,
    available: u64,
) -> Result<()> {
    let budget = (available as f64 * MEMORY_SHARE) as u64;
    let need = (workload.memory)(values);
    if need <= budget {
        return Ok(());
    }
    let mut text = format!(
        "{}{} needs about {} of memory; {} are at hand, of which a run may take {}",
        workload.name,
        size.map_or(String::new(), |it| format!(" at size {it}")),
        format::bytes(need as f64),
        format::bytes(available as f64),
        format::bytes(budget as f64),
    );
    if let Some(parameter) = workload.size_parameter()
        && let Kind::Number { min, .. } = parameter.kind
        && let Some(size) = size
    {
        let fits = |size: u64| {
            let values = values.with(parameter, size);
            values.is_ok_and(|it| (workload.memory)(&it) <= budget)
        };
        let (mut low, mut high) = (min, size);
        if fits(min) {
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if fits(middle) {
                    low = middle
                } else {
                    high = middle
                }
            }
            text += &format!("; {}={low} would fit", parameter.name);
        }
    }
    bail!(text)
}

/// Measures all points, and tells `keep` of what there is after each. A workload that fails
/// ends the run; what was measured before is kept, unless it is nothing.
fn measure(
    plan: &Plan,
    seed: u64,
    mut keep: impl FnMut(&Results) -> Result<()>,
) -> Result<(Results, Option<anyhow::Error>)> {
    stop::listen();
    let workload = plan.workload;
    let started = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut results = Results {
        format: FORMAT,
        workload: workload.name.to_owned(),
        about: workload.about.to_owned(),
        seed,
        repeats: plan.repeats,
        size_parameter: workload.size.map(str::to_owned),
        machine: Machine::this(),
        versions: Versions::this(),
        started_at: since_epoch.map_or(0, |it| it.as_secs()),
        ..Results::default()
    };
    for (size, values) in &plan.points {
        let mut measure = Measure::new(values.clone(), *size, seed, plan.repeats);
        let ran = (workload.run)(&mut measure);
        let point = measure.finish();
        if !point.metrics.is_empty() {
            results.points.push(point);
        }
        results.interrupted = stop::asked() || ran.is_err();
        results.seconds = started.elapsed().as_secs_f64();
        results.fit();
        results.verdicts = verdicts(workload.goals, &results);
        if !results.points.is_empty() {
            keep(&results)?;
        }
        if let Err(error) = ran {
            return match results.points.is_empty() {
                true => Err(error),
                false => Ok((results, Some(error))),
            };
        }
        if results.interrupted {
            break;
        }
    }
    Ok((results, None))
}

fn verdicts(goals: &[Goal], results: &Results) -> Vec<Verdict> {
    let mut all = Vec::new();
    for goal in goals {
        let verdict = |size: Option<u64>, value: Option<f64>| {
            let metric = results.points.iter().find_map(|it| it.metric(goal.metric));
            let by_value = matches!(goal.by, By::Value | By::Ratio(_));
            let more = by_value && metric.is_some_and(|it| it.unit.more_is_better());
            let reaches = |bound: f64, it: f64| match more {
                true => it >= bound || bound == NO_BOUND,
                false => it <= bound,
            };
            let standing = match value {
                None => Standing::Open,
                Some(it) if reaches(goal.aim, it) => Standing::Aim,
                Some(it) if reaches(goal.must, it) => Standing::Met,
                Some(_) => Standing::Missed,
            };
            Verdict {
                name: goal.name(),
                size,
                unit: metric
                    .map(|it| it.unit)
                    .filter(|_| matches!(goal.by, By::Value)),
                value,
                must: goal.must,
                aim: goal.aim,
                standing,
            }
        };
        if let By::Exponent = goal.by {
            let grows = results.growth.iter().find(|it| it.metric == goal.metric);
            all.push(verdict(None, grows.map(|it| it.exponent)));
            continue;
        }
        let is_meant = |it: &&Point| {
            it.size
                .is_none_or(|it| (goal.sizes.0..=goal.sizes.1).contains(&it))
        };
        for point in results.points.iter().filter(is_meant) {
            let median = |name| point.metric(name).map(|it| it.median());
            let value = match goal.by {
                By::Ratio(other) => median(goal.metric).and_then(|it| Some(it / median(other)?)),
                _ => median(goal.metric),
            };
            all.push(verdict(point.size, value.filter(|it| it.is_finite())));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{parameters::number, result::Unit, workload::ANY};

    static SQUARES: Workload = Workload {
        name: "squares",
        about: "for tests",
        parameters: &[number("edge", 4, 1, 1000, "how long")],
        size: Some("edge"),
        sizes: &[2, 4, 8],
        repeats: 3,
        goals: &[
            Goal {
                metric: "area",
                by: By::Exponent,
                must: 1.0,
                aim: 0.5,
                sizes: ANY,
            },
            Goal {
                metric: "area",
                by: By::Ratio("edge"),
                must: 4.0,
                aim: 2.0,
                sizes: ANY,
            },
        ],
        memory: |values| values.number("edge") * 1000,
        run: |measure| {
            let edge = measure.number("edge") as f64;
            for _ in 0..measure.repeats {
                measure.sample("area", Unit::Count, edge * edge);
                measure.sample("edge", Unit::Count, edge);
            }
            match edge == 13.0 {
                true => bail!("bad luck"),
                false => Ok(()),
            }
        },
    };

    fn options(parameters: &[&str], sizes: &[&str]) -> Options {
        let owned = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect();
        Options {
            name: "squares".into(),
            parameters: owned(parameters),
            sizes: owned(sizes),
            ..Options::default()
        }
    }

    fn refusal(options: &Options) -> String {
        match plan(&[&SQUARES], options, Some(100_000)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_runs() {
        for (options, says) in [
            (options(&[], &["x"]), "expected whole numbers"),
            (options(&[], &["0"]), "from 1 to 1000"),
            (options(&[], &["1M"]), "from 1 to 1000"),
            (options(&["edge=3"], &["4"]), "given twice"),
            (options(&["edge=200"], &[]), "edge=85 would fit"),
            (
                options(&[], &["1", "100"]),
                "at size 100 needs about 100 kB",
            ),
            (
                Options {
                    repeats: Some(0),
                    ..options(&[], &[])
                },
                "expected 1 to",
            ),
            (
                Options {
                    name: "circles".into(),
                    ..options(&[], &[])
                },
                "there are squares",
            ),
        ] {
            let text = refusal(&options);
            assert!(text.contains(says), "{options:?}: {text:?}");
        }
        assert_eq!(refusal(&options(&[], &["85"])), "");
    }

    #[test]
    fn goals_are_judged_by_value_ratio_and_growth() {
        let plan = plan(&[&SQUARES], &options(&[], &[]), None).unwrap();
        let (results, _) = measure(&plan, 1, |_| Ok(())).unwrap();
        let standings: Vec<_> = results.verdicts.iter().map(|it| it.standing).collect();
        use Standing::{Aim, Met, Missed};
        assert_eq!(standings, [Missed, Aim, Met, Missed]);
        assert!((results.growth[0].exponent - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_measured_before_a_failure_is_kept() {
        let plan = plan(&[&SQUARES], &options(&[], &["2", "13", "14"]), None).unwrap();
        let mut kept = Vec::new();
        let (results, failed) = measure(&plan, 1, |it| {
            kept.push(it.points.len());
            Ok(())
        })
        .unwrap();
        assert!(failed.is_some() && results.interrupted);
        assert_eq!(kept, [1, 2]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.json");
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        std::fs::write(&path, "{").unwrap();
        assert!(Results::read(&path).is_err());
    }
}
