//! Reads of a master's and an agent's HTTP endpoints.

use crate::Context;
use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use std::time::Duration;

/// How long an endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A master that says nothing for so long stands still or is cut off: another is asked. More than
/// an election takes, for which followers wait with us.
const SILENCE: Duration = Duration::from_secs(8);

/// Asks a master that knows of no leader to wait for one, so many seconds.
const WAIT: &str = "tepui-wait";
const ELECTION: &str = "5";

/// A client of the cluster's HTTP endpoints; follows a follower's redirect to the leader.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    masters: Vec<String>,
}

impl Api {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        // Needed once in a process; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(SILENCE)
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            client,
            masters: context.masters(),
        })
    }

    /// GET of a master's endpoint.
    pub(crate) async fn master(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let answer = self
            .ask_masters(|master| Ok(self.client.get(url(master, path, query)?)))
            .await;
        json(answer?, path).await
    }

    /// The members as the leader sees them, or as somebody does who knows of none: a master that was
    /// removed or is cut off answers as well.
    pub(crate) async fn members(&self) -> Result<Value> {
        let path = "/tepui/v1/masters";
        let mut leaderless = None;
        for master in &self.masters {
            let one = Api {
                client: self.client.clone(),
                masters: vec![master.clone()],
            };
            match one.master(path, &[]).await {
                Ok(answer) if !answer["leader"].is_null() => return Ok(answer),
                Ok(answer) => drop(leaderless.get_or_insert(answer)),
                Err(_) => {}
            }
        }
        match leaderless {
            Some(answer) => Ok(answer),
            None => self.master(path, &[]).await,
        }
    }

    /// Asks the masters one after the other until one answers, itself or by sending us to the
    /// leader. During an election they wait for its end with us.
    async fn ask_masters(
        &self,
        request: impl Fn(&str) -> Result<RequestBuilder>,
    ) -> Result<Response> {
        let mut problem = anyhow!("--master names no master");
        // What a living master says tells more than that others do not answer.
        let mut said = None;
        for master in &self.masters {
            let request = request(master)?.header(WAIT, ELECTION);
            match request.send().await {
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    return Ok(answer);
                }
                Ok(answer) => {
                    let text = answer.text().await.unwrap_or_default();
                    said.get_or_insert(anyhow!("{master}: {}", text.trim()));
                }
                Err(error) => problem = error.into(),
            }
        }
        if let Some(said) = said {
            return Err(said);
        }
        let masters = self.masters.join(", ");
        Err(problem).with_context(|| {
            format!(
                "master {masters} cannot be asked; is it running? (`tepui local` starts one, --master or TEPUI_MASTER names another)"
            )
        })
    }

    /// GET of an agent's endpoint; `agent` is `host:port`.
    pub(crate) async fn agent(
        &self,
        agent: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value> {
        self.get(agent, path, query)
            .await
            .with_context(|| format!("agent {agent} cannot be asked"))
    }

    async fn get(&self, address: &str, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let request = self.client.get(url(address, path, query)?);
        json(request.send().await?, path).await
    }

    /// GET of what a master sends for as long as it takes.
    pub(crate) async fn stream(&self, path: &str) -> Result<Response> {
        let answer = self
            .ask_masters(|master| {
                let day = Duration::from_secs(24 * 3600);
                Ok(self.client.get(url(master, path, &[])?).timeout(day))
            })
            .await?;
        if !answer.status().is_success() {
            let text = answer.text().await?;
            bail!("{}", text.trim());
        }
        Ok(answer)
    }

    /// POST of a JSON body to a master; the answer's text on success.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<String> {
        let request = |master: &str| {
            let request = self.client.post(url(master, path, &[])?);
            Ok(request
                .header("content-type", "application/json")
                .body(body.to_string()))
        };
        let response = self.ask_masters(request).await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{}", text.trim());
        }
        Ok(text)
    }

    /// All tasks that the master remembers, newest first.
    pub(crate) async fn tasks(&self) -> Result<Vec<Value>> {
        let answer = self.master("/tasks", &[("limit", "1000000")]).await?;
        list(answer, "tasks")
    }

    /// The one task with this id, or a prefix of it that only one task has. Of several
    /// frameworks' tasks with the same id the newest is taken unless one still runs.
    pub(crate) async fn task(&self, id: &str) -> Result<Value> {
        let tasks = self.tasks().await?;
        let exact: Vec<&Value> = tasks.iter().filter(|task| task["id"] == id).collect();
        let candidates = if exact.is_empty() {
            tasks
                .iter()
                .filter(|task| task["id"].as_str().is_some_and(|it| it.starts_with(id)))
                .collect()
        } else {
            exact
        };
        let mut names: Vec<&str> = candidates.iter().map(|it| text(it, "id")).collect();
        names.dedup();
        match (candidates.as_slice(), names.len()) {
            ([], _) => bail!("no task {id:?}; `tepui ps --all` lists them"),
            (_, 2..) => bail!(
                "{id:?} is the beginning of several tasks: {}",
                names.join(", ")
            ),
            (several, _) => {
                let live = several
                    .iter()
                    .find(|task| !is_terminal(text(task, "state")));
                Ok((*live.unwrap_or(&several[0])).clone())
            }
        }
    }

    /// Where an agent listens, as `host:port`.
    pub(crate) async fn agent_address(&self, agent_id: &str) -> Result<String> {
        let agents = list(self.master("/slaves", &[]).await?, "slaves")?;
        let agent = agents
            .iter()
            .find(|agent| agent["id"] == agent_id)
            .with_context(|| format!("agent {agent_id} is not registered any more"))?;
        text(agent, "pid")
            .split_once('@')
            .map(|(_, address)| address.to_owned())
            .with_context(|| format!("agent {agent_id} has no address"))
    }
}

fn url(address: &str, path: &str, query: &[(&str, &str)]) -> Result<Url> {
    let mut url = Url::parse(&format!("http://{address}{path}"))
        .with_context(|| format!("{address:?} is not of the form host:port"))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

async fn json(response: Response, path: &str) -> Result<Value> {
    let status = response.status();
    let body = response.bytes().await?;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        bail!("{path} answered {status}: {}", text.trim());
    }
    serde_json::from_slice(&body).with_context(|| format!("{path} did not answer JSON"))
}

/// The array under `key`.
pub(crate) fn list(mut answer: Value, key: &str) -> Result<Vec<Value>> {
    match answer[key].take() {
        Value::Array(items) => Ok(items),
        _ => bail!("the answer has no {key:?}"),
    }
}

/// The string under `key`, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a task in this state has ended.
pub(crate) fn is_terminal(state: &str) -> bool {
    matches!(
        state,
        "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_KILLED"
            | "TASK_LOST"
            | "TASK_ERROR"
            | "TASK_DROPPED"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
    )
}
