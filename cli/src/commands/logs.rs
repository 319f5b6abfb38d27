//! `tepui logs`: what a task wrote.

use crate::{
    Context,
    api::{Api, is_terminal, text},
    output,
    sandbox::Follower,
};
use anyhow::Result;
use std::{process::ExitCode, time::Duration};

/// Options of `tepui logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Task id, or an unambiguous beginning of it
    task: String,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Print what the task wrote to standard error instead
    #[arg(long)]
    stderr: bool,
    /// Start at the last so many bytes
    #[arg(long, value_name = "BYTES")]
    tail: Option<u64>,
}

/// How often a followed file is looked at: a person does not notice the difference, an
/// agent hardly notices the request.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Prints the task's output from the agent that ran it.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let api = Api::new(context)?;
    let task = api.task(&options.task).await?;
    let agent = api.agent_address(text(&task, "slave_id")).await?;
    let file = if options.stderr { "stderr" } else { "stdout" };
    let mut follower = Follower::of_task(&agent, &task, file);
    if let Some(bytes) = options.tail {
        follower.tail(&api, bytes).await?;
    }
    let mut output = std::io::stdout();
    if context.json {
        let mut text = Vec::new();
        follower.copy(&api, &mut text).await?;
        let data = String::from_utf8_lossy(&text);
        output::line(format_args!(
            "{:#}",
            serde_json::json!({ "task": task["id"], "data": data })
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    follower.copy(&api, &mut output).await?;
    let mut ended = is_terminal(text(&task, "state"));
    while options.follow && !ended {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // Looked at before the copy, so that nothing written before the end is missed.
        let now = api.task(text(&task, "id")).await?;
        ended = is_terminal(text(&now, "state"));
        follower.copy(&api, &mut output).await?;
    }
    Ok(ExitCode::SUCCESS)
}
