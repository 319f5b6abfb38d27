//! Tables for terminals.

use super::{
    format,
    result::{Growing, Metric, Results, Standing, Unit, Verdict},
    statistics::quantile,
    workload::{NO_BOUND, Workload},
};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

/// A table without lines, of these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|it| it.to_uppercase()));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The workloads that there are.
pub(crate) fn list(workloads: &[&Workload]) -> String {
    let mut text = String::new();
    for it in workloads {
        text += &format!("{}\n  {}\n", it.name, it.about);
        for parameter in it.parameters {
            let name = match it.size == Some(parameter.name) {
                true => format!("{} (--sizes)", parameter.name),
                false => parameter.name.to_owned(),
            };
            text += &format!(
                "    {name:24} {:32} {}\n",
                parameter.bounds(),
                parameter.help
            );
        }
        for goal in it.goals {
            let must = match goal.must == NO_BOUND {
                true => String::new(),
                false => format!(" must be {},", format::digits(goal.must)),
            };
            let aim = format::digits(goal.aim);
            text += &format!("    goal: {}:{must} aim {aim}\n", goal.name());
        }
        text += "\n";
    }
    text
}

/// What a run measured.
pub(crate) fn results(results: &Results) -> String {
    let size = results.size_parameter.as_deref().unwrap_or("size");
    let mut all = table(&["metric", size, "samples", "p10", "median", "p90", "max"]);
    for point in &results.points {
        for it in &point.metrics {
            let show = |fraction| format::value(quantile(&it.samples, fraction), it.unit);
            all.add_row([
                name(it),
                size_of(point.size),
                it.samples.len().to_string(),
                show(0.1),
                show(0.5),
                show(0.9),
                show(1.0),
            ]);
        }
    }
    let mut text = format!("{all}\n");
    text += &counts(results);
    // Counts that stay the same are in the table above.
    let grows = |it: &&Growing| !it.metric.contains(": ") || it.exponent.abs() >= 0.02;
    let growing: Vec<&Growing> = results.growth.iter().filter(grows).collect();
    if !growing.is_empty() {
        let mut all = table(&["growth", "exponent", "error"]);
        for it in growing {
            let error = it.error.map_or("-".to_owned(), |it| format!("{it:.2}"));
            all.add_row([it.metric.clone(), format!("{:.2}", it.exponent), error]);
        }
        text += &format!("\n{all}\n");
    }
    if !results.verdicts.is_empty() {
        text += &format!("\n{}", verdicts(std::slice::from_ref(results)));
    }
    for note in results.points.iter().flat_map(|it| &it.notes) {
        text += &format!("{note}\n");
    }
    let (machine, versions) = (&results.machine, &results.versions);
    text += &format!(
        "{} {} ({}), {} cores of {}, {} of memory, Linux {}, load {:.1}; seed {}, {:.1} s\n",
        versions.tepui,
        versions.commit,
        versions.profile,
        machine.cores,
        machine.cpu,
        format::bytes(machine.memory_bytes as f64),
        machine.kernel,
        machine.load,
        results.seed,
        results.seconds,
    );
    if versions.profile == "debug" {
        text += "a debug build: its times say nothing\n";
    }
    if results.interrupted {
        text += "interrupted: not everything was measured\n";
    }
    text
}

/// What is demanded of each, and how it stands; empty when nothing is.
pub(crate) fn verdicts(all: &[Results]) -> String {
    let mut goals = table(&["goal", "workload", "size", "measured", "must", "aim", ""]);
    let each = all
        .iter()
        .flat_map(|results| results.verdicts.iter().map(move |it| (results, it)));
    for (results, it) in each {
        goals.add_row([
            it.name.clone(),
            results.workload.clone(),
            it.size
                .map_or("all".to_owned(), |it| format::number(it as f64)),
            it.value
                .map_or("-".to_owned(), |value| goal(value, it.unit)),
            goal(it.must, it.unit),
            goal(it.aim, it.unit),
            standing(it).to_owned(),
        ]);
    }
    match goals.is_empty() {
        true => String::new(),
        false => format!("{goals}\n"),
    }
}

fn name(it: &Metric) -> String {
    match it.is_denominator {
        true => format!("({})", it.name),
        false => it.name.clone(),
    }
}

fn size_of(size: Option<u64>) -> String {
    size.map_or("-".to_owned(), |it| format::number(it as f64))
}

/// A number of a goal.
pub(crate) fn goal(value: f64, unit: Option<Unit>) -> String {
    match unit {
        _ if value == NO_BOUND => "-".to_owned(),
        None => format::digits(value),
        Some(unit) => format::value(value, unit),
    }
}

/// What does not depend on the clock, for one sample of each metric; empty when nothing counts.
fn counts(results: &Results) -> String {
    let mut names: Vec<&str> = Vec::new();
    let metrics = results.points.iter().flat_map(|it| &it.metrics);
    for name in metrics.flat_map(|it| it.counts.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let size = results.size_parameter.as_deref().unwrap_or("size");
    let mut all = table(&[&["a sample of", size], &names[..]].concat());
    for point in &results.points {
        for it in point.metrics.iter().filter(|it| !it.counts.is_empty()) {
            let counts = names.iter().map(|name| it.counts.get(*name));
            let counts = counts.map(|it| it.map_or(String::new(), |it| format::number(*it)));
            let row = [name(it), size_of(point.size)].into_iter();
            all.add_row(row.chain(counts));
        }
    }
    format!("\n{all}\n")
}

/// How a verdict reads.
pub(crate) fn standing(it: &Verdict) -> &'static str {
    match it.standing {
        Standing::Aim => "aim reached",
        Standing::Met if it.must == NO_BOUND => "aim not reached",
        Standing::Met => "met",
        Standing::Missed => "MISSED",
        Standing::Open => "not measured",
    }
}
