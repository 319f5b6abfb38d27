//! `tepui kill`: ends a task of any framework.

use crate::{
    Context,
    api::{Api, text},
    output,
};
use anyhow::{Result, bail};
use serde_json::json;
use std::process::ExitCode;

/// Options of `tepui kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Task ids, or unambiguous beginnings of them
    #[arg(required = true)]
    tasks: Vec<String>,
}

/// Asks the master to kill the tasks; the framework is told as of any other end.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let api = Api::new(context)?;
    let mut killed = Vec::new();
    for wanted in &options.tasks {
        let task = api.task(wanted).await?;
        let (id, framework) = (text(&task, "id"), text(&task, "framework_id"));
        if crate::api::is_terminal(text(&task, "state")) {
            bail!("task {id} has already ended ({})", text(&task, "state"));
        }
        let body = json!({ "framework_id": framework, "task_id": id });
        api.post("/tepui/v1/kill", &body).await?;
        if !context.json {
            output::line(format_args!("killing {id}"))?;
        }
        killed.push(body);
    }
    if context.json {
        output::line(format_args!("{:#}", serde_json::Value::Array(killed)))?;
    }
    Ok(ExitCode::SUCCESS)
}
