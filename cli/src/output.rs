//! Tables for people, JSON for programs.

use crate::{Context, api::text};
use comfy_table::{Attribute, Cell, Color, Table, presets};
use serde_json::Value;
use std::io::IsTerminal;

/// One column: its heading and what it shows of a row.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

/// Prints rows as a table, or as a JSON array when asked for.
pub(crate) fn print(context: &Context, rows: &[Value], columns: &[Column]) {
    if context.json {
        println!("{:#}", Value::Array(rows.to_vec()));
        return;
    }
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if !coloured {
        table.force_no_tty();
    }
    table.set_header(columns.iter().map(|(heading, _)| {
        let cell = Cell::new(heading);
        if coloured {
            cell.add_attribute(Attribute::Bold)
        } else {
            cell
        }
    }));
    for row in rows {
        table.add_row(columns.iter().map(|(_, show)| {
            let shown = show(row);
            let colour = if coloured { colour(&shown) } else { None };
            let cell = Cell::new(shown);
            match colour {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

fn colour(shown: &str) -> Option<Color> {
    match shown {
        "RUNNING" | "FINISHED" | "active" => Some(Color::Green),
        "STAGING" | "STARTING" | "KILLING" | "KILLED" | "UNREACHABLE" => Some(Color::Yellow),
        "FAILED" | "LOST" | "ERROR" | "DROPPED" | "GONE" => Some(Color::Red),
        _ => None,
    }
}

/// A task's state without its prefix.
pub(crate) fn state(task: &Value) -> String {
    let state = text(task, "state");
    state.strip_prefix("TASK_").unwrap_or(state).to_owned()
}

/// `used/total` of the resources of an agent or framework, in short: `0.5 cpus, 64 MB`.
pub(crate) fn resources(summary: &Value) -> String {
    let cpus = summary["cpus"].as_f64().unwrap_or_default();
    let mem = summary["mem"].as_f64().unwrap_or_default();
    format!("{cpus} cpus, {mem} MB")
}
