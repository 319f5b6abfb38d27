//! Tables for people, JSON for programs.
//!
//! What reads our output may go away before its end, as `head` does: lines are written
//! with [`line`], whose error ends a command without a word.

use crate::{Context, api::text};
use comfy_table::{Attribute, Cell, Color, Table, presets};
use serde_json::Value;
use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

/// One column: its heading and what it shows of a row.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

/// Writes a line to standard output.
///
/// # Errors
/// When nobody reads it any more, or the disk behind it is full.
pub(crate) fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// [`line`] where the work goes on whether it is read or not. Formats as `println!` does.
macro_rules! tell {
    ($($text:tt)*) => {
        // Whoever stopped reading does not want to know.
        drop($crate::output::line(format_args!($($text)*)))
    };
}
pub(crate) use tell;

/// Prints what a command did: a sentence, or JSON when asked for.
///
/// # Errors
/// As [`line`].
pub(crate) fn tell_answer(context: &Context, answer: &Value, sentence: &str) -> anyhow::Result<()> {
    match context.json {
        true => line(format_args!("{answer:#}"))?,
        false => line(format_args!("{sentence}"))?,
    }
    Ok(())
}

/// Prints rows as a table, or as a JSON array when asked for.
pub(crate) fn print(context: &Context, rows: &[Value], columns: &[Column]) -> io::Result<()> {
    if context.json {
        return line(format_args!("{:#}", Value::Array(rows.to_vec())));
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
    for row in table.lines() {
        line(format_args!("{}", row.trim_end()))?;
    }
    Ok(())
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
    let revocable = |name: &str| {
        let amount = &summary[format!("{name}_revocable").as_str()];
        amount.as_f64().unwrap_or_default()
    };
    match (revocable("cpus"), revocable("mem")) {
        (0.0, 0.0) => format!("{cpus} cpus, {mem} MB"),
        (more, mb) => format!("{cpus} cpus, {mem} MB; revocable {more} cpus, {mb} MB"),
    }
}
