//! `tepui frameworks`: who runs tasks.

use crate::{
    Context,
    api::{self, Api, text},
    output::{self, Column},
};
use anyhow::Result;
use serde_json::Value;
use std::process::ExitCode;

/// Options of `tepui frameworks`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also list frameworks that have ended
    #[arg(short, long)]
    all: bool,
}

const COLUMNS: &[Column] = &[
    ("FRAMEWORK", |framework| text(framework, "id").to_owned()),
    ("NAME", |framework| text(framework, "name").to_owned()),
    ("STATE", |framework| {
        let flag = |key: &str| framework[key].as_bool().unwrap_or_default();
        let ended = framework["unregistered_time"].as_f64().unwrap_or_default() > 0.0;
        match (ended, flag("connected"), flag("active")) {
            (true, ..) => "ended",
            (_, true, true) => "active",
            (_, true, false) => "inactive",
            (_, false, _) => "disconnected",
        }
        .to_owned()
    }),
    ("ROLES", |framework| match &framework["roles"] {
        Value::Array(roles) => {
            let names = roles.iter().filter_map(Value::as_str);
            names.collect::<Vec<_>>().join(",")
        }
        _ => text(framework, "role").to_owned(),
    }),
    ("TASKS", |framework| {
        framework["tasks"]
            .as_array()
            .map_or(0, Vec::len)
            .to_string()
    }),
    ("USED", |framework| {
        output::resources(&framework["used_resources"])
    }),
    ("OFFERED", |framework| {
        output::resources(&framework["offered_resources"])
    }),
];

/// Lists the frameworks.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let mut answer = Api::new(context)?.master("/frameworks", &[]).await?;
    let completed = answer["completed_frameworks"].take();
    let mut frameworks = api::list(answer, "frameworks")?;
    if let (true, Value::Array(completed)) = (options.all, completed) {
        frameworks.extend(completed);
    }
    output::print(context, &frameworks, COLUMNS)?;
    Ok(ExitCode::SUCCESS)
}
