//! `tepui ps`: the tasks.

use crate::{
    Context,
    api::{Api, is_terminal, text},
    output::{self, Column},
};
use anyhow::Result;
use std::process::ExitCode;

/// Options of `tepui ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also list tasks that have ended
    #[arg(short, long)]
    all: bool,
}

const COLUMNS: &[Column] = &[
    ("TASK", |task| text(task, "id").to_owned()),
    ("NAME", |task| text(task, "name").to_owned()),
    ("STATE", output::state),
    ("RESOURCES", |task| output::resources(&task["resources"])),
    ("AGENT", |task| text(task, "slave_id").to_owned()),
    ("FRAMEWORK", |task| text(task, "framework_id").to_owned()),
];

/// Lists the tasks.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let mut tasks = Api::new(context)?.tasks().await?;
    if !options.all {
        tasks.retain(|task| !is_terminal(text(task, "state")));
    }
    output::print(context, &tasks, COLUMNS)?;
    Ok(ExitCode::SUCCESS)
}
