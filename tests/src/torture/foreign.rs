//! Frameworks of a run that our library does not carry: pymesos as it is, and plain HTTP. Each
//! is a Python process that says what it asks for and hears; the same checker judges it.

use super::history::{Expect, History};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{path::Path, process::Stdio, sync::Arc};
use tepui_scheduler_api::v1;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::watch,
};

/// One framework.
#[derive(Debug)]
pub struct Settings {
    /// `pymesos` or `http`.
    pub kind: &'static str,
    /// The interpreter that has what it needs.
    pub python: String,
    /// The masters' APIs.
    pub masters: Vec<String>,
    /// Tasks at a time.
    pub tasks: usize,
    /// Where a task leaves a line for each of its lives.
    pub lives: std::path::PathBuf,
    /// Draws kinds of tasks.
    pub seed: u64,
}

/// Runs a framework until it is told to stop and its tasks have ended.
///
/// # Errors
/// It ends before that.
pub async fn run(
    settings: Settings,
    history: Arc<History>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/torture_framework.py");
    let mut child = Command::new(&settings.python)
        .arg(script)
        .args([settings.kind, settings.kind])
        .arg(settings.masters.join(","))
        .arg(&settings.lives)
        .arg(settings.tasks.to_string())
        .arg(settings.seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", settings.python))?;
    let mut input = child.stdin.take().context("its input")?;
    let output = child.stdout.take().context("its output")?;
    let mut lines = BufReader::new(output).lines();
    let mut told = false;
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    if heard(settings.kind, &line, &history)? {
                        break;
                    }
                }
                None => bail!("the framework by {} ended by itself", settings.kind),
            },
            _ = stopped.changed(), if !told => {
                told = true;
                input.write_all(b"stop\n").await?;
                input.flush().await?;
            }
        }
    }
    let status = child.wait().await?;
    match status.success() {
        true => Ok(()),
        false => bail!("the framework by {} ended with {status}", settings.kind),
    }
}

/// Takes a line down; true when it is the last one.
fn heard(kind: &str, line: &str, history: &History) -> Result<bool> {
    let said: Value = serde_json::from_str(line).with_context(|| format!("{kind}: {line}"))?;
    if let Some(task) = said["launch"].as_str() {
        let expect = match said["expect"].as_str() {
            Some("killed") => Expect::Killed,
            Some(text) => Expect::Exit(text.trim_start_matches("exit ").parse()?),
            None => bail!("{kind}: {line}"),
        };
        history.launching(task, expect);
    } else if said["offers"].is_u64() {
        history.offers();
    } else if let Some(task) = said["task"].as_str() {
        history.update(&status(task, &said["update"])?);
    } else if said["error"].is_string() {
        history.unexpected(format!("{kind} was told an error: {}", said["error"]));
    }
    Ok(said["ended"].as_bool() == Some(true))
}

fn status(task: &str, update: &Value) -> Result<v1::TaskStatus> {
    let text = |field: &str| update[field].as_str().map(str::to_owned);
    let state = text("state").and_then(|it| v1::TaskState::from_str_name(&it));
    let reason = text("reason").and_then(|it| v1::task_status::Reason::from_str_name(&it));
    Ok(v1::TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        state: state.with_context(|| format!("a state: {update}"))? as i32,
        // Compared, not read.
        uuid: text("uuid").map(|it| it.into_bytes().into()),
        reason: reason.map(|it| it as i32),
        message: text("message"),
        ..v1::TaskStatus::default()
    })
}
