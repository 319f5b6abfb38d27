//! A page of results: tables and plots in one HTML file that needs nothing else.

use super::{
    format,
    plot::{distributions, growth_curves},
    result::{Results, Standing, Verdict, write_whole},
    statistics::quantile,
    table::{goal, standing},
};
use anyhow::Result;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Options of `tepui-bench report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Results of `tepui-bench run --out`
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

/// Writes a page of results that are there.
///
/// # Errors
/// A file is no result; the page cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let all: Vec<Results> = options
        .files
        .iter()
        .map(|it| Results::read(it))
        .collect::<Result<_>>()?;
    write(&options.out, &all, &[])
}

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; max-width: 980px; margin: 2em auto; padding: 0 1em;
  color: #1a1a1a; background: #fff }
h1 { font-size: 1.6em } h2 { margin-top: 2.2em; border-top: 1px solid #ddd; padding-top: .8em }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums }
th { text-align: right; font-weight: 600; color: #555; font-size: .85em }
td { text-align: right } th:first-child, td:first-child { text-align: left }
th, td { padding: .2em .9em .2em 0; border-bottom: 1px solid #eee }
td.aim { color: #00704f; font-weight: 600 } td.met { color: #00704f }
td.missed { color: #b03a00; font-weight: 600 } td.open { color: #777 }
.scroll { overflow-x: auto } svg { max-width: 100%; height: auto } .quiet { color: #666 }
";

/// Writes the page: what is demanded first, then a part for each result. `failures` are workloads
/// of which there is no result, and why.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(path: &Path, all: &[Results], failures: &[(String, String)]) -> Result<()> {
    write_whole(path, &page(all, failures))
}

fn page(all: &[Results], failures: &[(String, String)]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Tepui: measured</title><style>{STYLE}</style></head><body>\n\
         <h1>Tepui: measured</h1>\n"
    );
    if let Some(first) = all.first() {
        out += &circumstances(first);
    }
    out += &summary(all);
    for (name, error) in failures {
        let _ = writeln!(
            out,
            "<p class=\"missed\">{} was not measured: {}</p>",
            escape(name),
            escape(error)
        );
    }
    for it in all {
        out += &part(it);
    }
    out += "</body></html>\n";
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn circumstances(it: &Results) -> String {
    let (machine, versions) = (&it.machine, &it.versions);
    let mut text = format!(
        "<p class=\"quiet\">Version {} {} ({} build) on {} cores of {}, {} of memory, Linux {}; \
         load {:.1} when it began.</p>\n",
        escape(&versions.tepui),
        escape(&versions.commit),
        escape(&versions.profile),
        machine.cores,
        escape(&machine.cpu),
        format::bytes(machine.memory_bytes as f64),
        escape(&machine.kernel),
        machine.load,
    );
    if versions.profile == "debug" {
        text += "<p class=\"missed\">A debug build: its times say nothing.</p>\n";
    }
    text += "<p class=\"quiet\">Names in brackets are denominators: what the machine can do at \
             least, measured in the same run. Ratios to them say something, absolute times depend \
             on the machine and on who else used it.</p>\n";
    text
}

/// A table with a header; cells are escaped, the class of the last one is given.
fn table(columns: &[&str], rows: impl Iterator<Item = (Vec<String>, &'static str)>) -> String {
    let mut out = "<div class=\"scroll\"><table><tr>".to_owned();
    for it in columns {
        let _ = write!(out, "<th>{}</th>", escape(it));
    }
    out += "</tr>\n";
    for (cells, class) in rows {
        out += "<tr>";
        let last = cells.len().saturating_sub(1);
        for (at, it) in cells.iter().enumerate() {
            let class = match at == last && !class.is_empty() {
                true => format!(" class=\"{class}\""),
                false => String::new(),
            };
            let _ = write!(out, "<td{class}>{}</td>", escape(it));
        }
        out += "</tr>\n";
    }
    out + "</table></div>\n"
}

fn verdict(it: &Verdict) -> (Vec<String>, &'static str) {
    let class = match it.standing {
        Standing::Aim => "aim",
        Standing::Met => "met",
        Standing::Missed => "missed",
        Standing::Open => "open",
    };
    let cells = vec![
        it.name.clone(),
        it.size
            .map_or("all".to_owned(), |it| format::number(it as f64)),
        it.value
            .map_or("-".to_owned(), |value| goal(value, it.unit)),
        goal(it.must, it.unit),
        goal(it.aim, it.unit),
        standing(it).to_owned(),
    ];
    (cells, class)
}

fn summary(all: &[Results]) -> String {
    let rows = all.iter().flat_map(|results| {
        results.verdicts.iter().map(move |it| {
            let (mut cells, class) = verdict(it);
            cells.insert(0, results.workload.clone());
            (cells, class)
        })
    });
    let columns = ["workload", "number", "size", "measured", "must", "aim", ""];
    format!("<h2>What is demanded</h2>\n{}", table(&columns, rows))
}

fn part(it: &Results) -> String {
    let mut out = format!(
        "<h2>{}</h2>\n<p>{}.</p>\n",
        escape(&it.workload),
        escape(&it.about)
    );
    if let Some(point) = it.points.last() {
        let size = it.size_parameter.as_deref();
        let parameters = point.parameters.iter();
        let parameters: Vec<String> = parameters
            .filter(|(name, _)| it.points.len() == 1 || Some(name.as_str()) != size)
            .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"')))
            .collect();
        let _ = writeln!(
            out,
            "<p class=\"quiet\">{}, seed {}, {:.1} s{}</p>",
            escape(&parameters.join(", ")),
            it.seed,
            it.seconds,
            if it.interrupted {
                "; interrupted: not everything was measured"
            } else {
                ""
            },
        );
    }
    let size = it.size_parameter.as_deref().unwrap_or("size");
    let rows = it.points.iter().flat_map(|point| {
        point.metrics.iter().map(move |metric| {
            let show = |fraction| format::value(quantile(&metric.samples, fraction), metric.unit);
            let counts = metric.counts.iter().filter(|(_, it)| **it != 0.0);
            let counts: Vec<String> = counts
                .map(|(name, it)| format!("{} {name}", format::number(*it)))
                .collect();
            let name = match metric.is_denominator {
                true => format!("({})", metric.name),
                false => metric.name.clone(),
            };
            let cells = vec![
                name,
                point
                    .size
                    .map_or("-".to_owned(), |it| format::number(it as f64)),
                metric.samples.len().to_string(),
                show(0.5),
                show(0.9),
                show(1.0),
                counts.join(", "),
            ];
            (cells, "quiet")
        })
    });
    let columns = [
        "metric",
        size,
        "samples",
        "median",
        "p90",
        "max",
        "counted, for one sample",
    ];
    out += &table(&columns, rows);
    for note in it.points.iter().flat_map(|it| &it.notes) {
        let _ = writeln!(out, "<p>{}</p>", escape(note));
    }
    let this = [(it.workload.clone(), it.clone())];
    out += &match it.points.len() {
        0 | 1 => distributions(&this),
        _ => growth_curves(&this),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::result::{Metric, Point, Unit};

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let metric = Metric {
            name: "cycle <1>".into(),
            unit: Unit::Seconds,
            is_denominator: false,
            samples: vec![1.0, 2.0],
            counts: [("agents".to_owned(), 3.0)].into(),
        };
        let results = Results {
            workload: "w".into(),
            points: vec![Point {
                metrics: vec![metric],
                ..Point::default()
            }],
            ..Results::default()
        };
        let page = page(&[results], &[("x".into(), "a & b".into())]);
        assert!(page.contains("<svg") && page.ends_with("</html>\n"));
        assert!(page.contains("cycle &lt;1&gt;") && page.contains("a &amp; b"));
        // The only addresses are names of formats.
        assert_eq!(
            page.matches("http").count(),
            page.matches("http://www.w3.org/2000/svg").count()
        );
        for tag in ["table", "svg", "html", "body", "div", "p", "h2"] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
