//! `plot`: results as SVG. Growth over sizes, distributions of samples, two results side by side.

mod chart;
mod ratios;

use super::{
    compare, format,
    result::{Metric, Results, Unit, write_whole},
    statistics::{growth, sorted},
};
use anyhow::{Result, bail};
use chart::{Chart, Scale, Series, Style};
use std::path::PathBuf;

/// More lines cannot be told apart.
const MOST_SERIES: usize = 10;

/// Options of `tepui-bench plot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Results of `tepui-bench run --out`
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Where the plot goes
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
    /// What to draw; `auto` draws growth for several sizes, else two results side by side, else
    /// distributions
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    kind: Kind,
    /// Only metrics whose name contains this
    #[arg(long, default_value = "")]
    metric: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Auto,
    Growth,
    Distribution,
    Compare,
}

/// Draws.
///
/// # Errors
/// A file is no result, or holds nothing of the kind.
pub(crate) fn run(options: &Options) -> Result<()> {
    let read = |path: &PathBuf| Ok((path.display().to_string(), Results::read(path)?));
    let mut all: Vec<(String, Results)> = options.files.iter().map(read).collect::<Result<_>>()?;
    for (_, results) in &mut all {
        for point in &mut results.points {
            point.metrics.retain(|it| it.name.contains(&options.metric));
        }
    }
    let has_sizes = all.iter().any(|(_, it)| it.points.len() > 1);
    let kind = match options.kind {
        Kind::Auto if has_sizes => Kind::Growth,
        Kind::Auto if all.len() == 2 => Kind::Compare,
        Kind::Auto => Kind::Distribution,
        it => it,
    };
    let svg = match kind {
        Kind::Compare => match &all[..] {
            [(a_name, a), (b_name, b)] => comparison(&compare::files(a, b, a_name, b_name)?),
            _ => bail!("--kind compare takes two results, not {}", all.len()),
        },
        Kind::Growth => growth_curves(&all),
        _ => distributions(&all),
    };
    if svg.is_empty() {
        bail!("nothing to draw: no metric with samples left");
    }
    write_whole(&options.out, &svg)
}

/// The names of a metric in a plot of one result, or of several.
fn label(all: &[(String, Results)], file: &str, metric: &Metric) -> String {
    match all.len() {
        1 => metric.name.clone(),
        _ => format!("{file}: {}", metric.name),
    }
}

fn heading(all: &[(String, Results)]) -> String {
    let mut names: Vec<&str> = all.iter().map(|(_, it)| it.workload.as_str()).collect();
    names.dedup();
    names.join(", ")
}

fn machine(all: &[(String, Results)]) -> String {
    let Some((_, it)) = all.first() else {
        return String::new();
    };
    let (machine, versions) = (&it.machine, &it.versions);
    format!(
        "{} {} ({}), {} cores of {}",
        versions.tepui, versions.commit, versions.profile, machine.cores, machine.cpu
    )
}

/// Medians over the sizes on logarithmic axes, with the fitted power law of each; empty when
/// there is nothing. One chart for times, others below it for what is not time.
pub(crate) fn growth_curves(all: &[(String, Results)]) -> String {
    let mut charts = Vec::new();
    for unit in [Unit::Seconds, Unit::PerSecond, Unit::Bytes, Unit::Count] {
        let mut series: Vec<Series> = Vec::new();
        for (file, results) in all {
            for (name, points) in curves(results, unit) {
                let fit = growth(&points);
                let exponent = fit.map_or(String::new(), |it| match it.error.is_finite() {
                    true => format!(", size^{:.2} ± {:.2}", it.exponent, it.error),
                    false => format!(", size^{:.2}", it.exponent),
                });
                let name = match all.len() {
                    1 => format!("{name}{exponent}"),
                    _ => format!("{file}: {name}{exponent}"),
                };
                let line = fit.map(|it| {
                    let at = |x: f64| (x, it.factor * x.powf(it.exponent));
                    vec![at(points[0].0), at(points[points.len() - 1].0)]
                });
                series.push(Series {
                    name,
                    points,
                    fit: line.unwrap_or_default(),
                    style: Style::Dots,
                });
            }
        }
        series.truncate(MOST_SERIES);
        let size = all.first().and_then(|(_, it)| it.size_parameter.clone());
        if !series.is_empty() {
            charts.push(Chart {
                title: format!("{}: growth", heading(all)),
                subtitle: machine(all),
                x: (
                    size.unwrap_or_else(|| "size".into()),
                    Scale::Logarithmic,
                    Unit::Count,
                ),
                y: ("median".into(), Scale::Logarithmic, unit),
                series,
            });
        }
    }
    chart::render(&charts)
}

/// The medians of each metric of the unit, by rising size.
fn curves(results: &Results, unit: Unit) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut all: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for point in &results.points {
        let Some(size) = point.size else { continue };
        let metrics = point.metrics.iter().filter(|it| it.unit == unit);
        for it in metrics.filter(|it| it.median() > 0.0) {
            let at = (size as f64, it.median());
            match all.iter_mut().find(|(name, _)| *name == it.name) {
                Some((_, points)) => points.push(at),
                None => all.push((it.name.clone(), vec![at])),
            }
        }
    }
    all.retain(|(_, points)| points.len() > 1);
    all
}

/// Which part of the samples is at most how large, at the largest size; empty when there is
/// nothing with several samples.
pub(crate) fn distributions(all: &[(String, Results)]) -> String {
    let mut charts = Vec::new();
    for unit in [Unit::Seconds, Unit::PerSecond, Unit::Bytes, Unit::Count] {
        let mut series = Vec::new();
        for (file, results) in all {
            let metrics = results.points.last().into_iter().flat_map(|it| &it.metrics);
            for it in metrics.filter(|it| it.unit == unit) {
                let samples = sorted(&it.samples);
                let positive: Vec<f64> = samples.into_iter().filter(|it| *it > 0.0).collect();
                if positive.len() < 2 {
                    continue;
                }
                let count = positive.len() as f64;
                let part = |(at, it): (usize, &f64)| (*it, (at + 1) as f64 / count);
                series.push(Series {
                    name: format!(
                        "{}, median {}",
                        label(all, file, it),
                        format::value(it.median(), unit)
                    ),
                    points: positive.iter().enumerate().map(part).collect(),
                    fit: Vec::new(),
                    style: Style::Steps,
                });
            }
        }
        series.truncate(MOST_SERIES);
        if !series.is_empty() {
            let size = all.first().and_then(|(_, it)| it.points.last()?.size);
            let size = size.map_or(String::new(), |it| {
                format!(" at {}", format::number(it as f64))
            });
            charts.push(Chart {
                title: format!("{}: distribution{size}", heading(all)),
                subtitle: machine(all),
                x: ("sample".into(), Scale::Logarithmic, unit),
                y: ("part of the samples".into(), Scale::Linear, Unit::Count),
                series,
            });
        }
    }
    chart::render(&charts)
}

/// The ratios of two sides with what is known of them.
pub(crate) fn comparison(report: &compare::Report) -> String {
    ratios::render(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::result::Point;

    fn results(sizes: &[u64]) -> Results {
        let point = |size: &u64| Point {
            size: Some(*size),
            metrics: vec![Metric {
                name: "cycle <&> \"all\"".into(),
                unit: Unit::Seconds,
                is_denominator: false,
                samples: (1..20).map(|it| (size * it) as f64 * 1e-6).collect(),
                counts: Default::default(),
            }],
            ..Point::default()
        };
        Results {
            workload: "w".into(),
            points: sizes.iter().map(point).collect(),
            ..Results::default()
        }
    }

    /// Tags are closed in order, and no number is lost.
    fn check(svg: &str) {
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let name: &str = tag.split([' ', '>', '\n']).next().unwrap();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.split('>').next().unwrap().ends_with('/') => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn all_kinds_are_whole_documents() {
        let all = [("a".to_owned(), results(&[10, 100, 1000]))];
        let curves = growth_curves(&all);
        check(&curves);
        assert!(curves.contains("size^1.00") && curves.contains("&lt;&amp;&gt;"));
        check(&distributions(&all));
        let report = compare::files(&all[0].1, &results(&[10, 100]), "a", "b").unwrap();
        check(&comparison(&report));
        assert_eq!(growth_curves(&[("a".into(), results(&[10]))]), "");
        assert_eq!(distributions(&[("a".into(), Results::default())]), "");
    }
}
