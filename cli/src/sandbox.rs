//! Follows the files in a task's sandbox through its agent.

use crate::api::{Api, text};
use anyhow::Result;
use serde_json::Value;
use std::io::Write;

/// Position in one file of a sandbox.
#[derive(Debug)]
pub(crate) struct Follower {
    agent: String,
    path: String,
    offset: u64,
}

impl Follower {
    /// Follows `file` (`stdout` or `stderr`) of a command task; `agent` is `host:port`.
    pub(crate) fn new(agent: &str, framework: &str, executor: &str, file: &str) -> Self {
        Self {
            agent: agent.to_owned(),
            path: format!("/frameworks/{framework}/executors/{executor}/runs/latest/{file}"),
            offset: 0,
        }
    }

    /// As [`Follower::new`], of a task as the master's `/tasks` shows it.
    pub(crate) fn of_task(agent: &str, task: &Value, file: &str) -> Self {
        let executor = match text(task, "executor_id") {
            "" => text(task, "id"),
            executor => executor,
        };
        Self::new(agent, text(task, "framework_id"), executor, file)
    }

    /// Copies what was written since the last call. False when there was nothing.
    pub(crate) async fn copy(&mut self, api: &Api, to: &mut impl Write) -> Result<bool> {
        let mut copied = false;
        loop {
            let offset = self.offset.to_string();
            let query = [("path", self.path.as_str()), ("offset", &offset)];
            let answer = api.agent(&self.agent, "/files/read", &query).await?;
            let data = text(&answer, "data");
            if data.is_empty() {
                to.flush()?;
                return Ok(copied);
            }
            to.write_all(data.as_bytes())?;
            self.offset += data.len() as u64;
            copied = true;
        }
    }

    /// Starts at the last `bytes` of the file.
    pub(crate) async fn tail(&mut self, api: &Api, bytes: u64) -> Result<()> {
        let query = [("path", self.path.as_str()), ("offset", "-1")];
        let answer = api.agent(&self.agent, "/files/read", &query).await?;
        let size = answer["offset"].as_u64().unwrap_or_default();
        self.offset = size.saturating_sub(bytes);
        Ok(())
    }
}
