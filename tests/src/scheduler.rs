//! A scheduler written from the public description of the v1 HTTP API, in JSON, that
//! shares no code with the product: what a stranger's client sees.

use crate::http::{self, Response, Stream};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A subscribed framework.
#[derive(Debug)]
pub struct Scheduler {
    /// The master.
    pub master: SocketAddr,
    /// The framework's id.
    pub framework_id: String,
    /// `Mesos-Stream-Id` of the subscription.
    pub stream_id: String,
    stream: Stream,
    /// Events that came while another was waited for.
    kept: VecDeque<Value>,
    /// Every event of the stream so far, in order.
    pub seen: Vec<Value>,
}

impl Scheduler {
    /// Subscribes with this `FrameworkInfo`.
    ///
    /// # Errors
    /// When the first event is not SUBSCRIBED.
    pub fn subscribe(master: SocketAddr, info: Value) -> Result<Scheduler> {
        let mut call = json!({ "type": "SUBSCRIBE", "subscribe": { "framework_info": info } });
        if let Some(id) = info.get("id") {
            call["framework_id"] = id.clone();
        }
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ];
        let body = call.to_string();
        let request = http::request_bytes("POST", "/api/v1/scheduler", &headers, body.as_bytes());
        let stream = Stream::open(master, &request)?;
        if stream.status != 200 {
            bail!("SUBSCRIBE answered {}", stream.status);
        }
        let stream_id = stream
            .header("mesos-stream-id")
            .context("Mesos-Stream-Id")?
            .to_owned();
        let mut scheduler = Scheduler {
            master,
            framework_id: String::new(),
            stream_id,
            stream,
            kept: VecDeque::new(),
            seen: Vec::new(),
        };
        let first = scheduler.next()?;
        if first["type"] != "SUBSCRIBED" {
            bail!("the first event is {first}");
        }
        let id = first["subscribed"]["framework_id"]["value"].as_str();
        scheduler.framework_id = id.context("framework_id")?.to_owned();
        scheduler.kept.push_back(first);
        Ok(scheduler)
    }

    /// A framework with nothing special about it.
    ///
    /// # Errors
    /// As [`Scheduler::subscribe`].
    pub fn plain(master: SocketAddr, name: &str) -> Result<Scheduler> {
        Self::subscribe(master, json!({ "user": "root", "name": name }))
    }

    fn next(&mut self) -> Result<Value> {
        let record = self.stream.record()?.context("the stream ended")?;
        let event: Value = serde_json::from_slice(&record).context("an event is JSON")?;
        self.seen.push(event.clone());
        Ok(event)
    }

    /// Reads until the server ends the stream.
    ///
    /// # Errors
    /// When it does not within [`http::PATIENCE`] of silence.
    pub fn read_to_end(&mut self) -> Result<()> {
        self.stream.set_patience(http::PATIENCE)?;
        while let Some(record) = self.stream.record()? {
            self.seen
                .push(serde_json::from_slice(&record).context("an event is JSON")?);
        }
        Ok(())
    }

    /// The next event for which `wanted` holds; others are kept for later calls.
    ///
    /// # Errors
    /// When the stream ends or nothing fits within `patience`.
    pub fn event(
        &mut self,
        what: &str,
        patience: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        if let Some(position) = self.kept.iter().position(&mut wanted) {
            return self.kept.remove(position).context("it was there");
        }
        let started = Instant::now();
        loop {
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                bail!("no {what} within {patience:?}; kept: {}", self.kept());
            }
            self.stream.set_patience(left)?;
            let event = self.next().with_context(|| format!("waiting for {what}"))?;
            if wanted(&event) {
                return Ok(event);
            }
            if event["type"] != "HEARTBEAT" {
                self.kept.push_back(event);
            }
        }
    }

    /// The events that nobody waited for so far, as one line.
    fn kept(&self) -> String {
        let kept: Vec<String> = self.kept.iter().map(Value::to_string).collect();
        kept.join(" ")
    }

    /// The next offer for which `fits` holds, with the others of its event declined.
    ///
    /// # Errors
    /// As [`Scheduler::event`].
    pub fn offer(&mut self, mut fits: impl FnMut(&Value) -> bool) -> Result<Value> {
        loop {
            let event = self.event("offers", http::PATIENCE, |it| it["type"] == "OFFERS")?;
            let offers = event["offers"]["offers"].as_array().context("offers")?;
            let mut chosen = None;
            for offer in offers {
                if chosen.is_none() && fits(offer) {
                    chosen = Some(offer.clone());
                } else {
                    self.decline(offer, 0.0)?;
                }
            }
            if let Some(offer) = chosen {
                return Ok(offer);
            }
        }
    }

    /// Declines an offer.
    ///
    /// # Errors
    /// When the master does not answer 202.
    pub fn decline(&self, offer: &Value, refuse_seconds: f64) -> Result<()> {
        self.accepted(json!({
            "type": "DECLINE",
            "decline": {
                "offer_ids": [offer["id"]],
                "filters": { "refuse_seconds": refuse_seconds }
            }
        }))
    }

    /// The next update of a task, acknowledged when it wants to be.
    ///
    /// # Errors
    /// As [`Scheduler::event`].
    pub fn update(&mut self, task: &str, patience: Duration) -> Result<Value> {
        let event = self.event(&format!("update of {task}"), patience, |it| {
            it["type"] == "UPDATE" && it["update"]["status"]["task_id"]["value"] == task
        })?;
        let status = event["update"]["status"].clone();
        if !status["uuid"].is_null() {
            self.acknowledge(&status)?;
        }
        Ok(status)
    }

    /// Updates of a task until `state`, acknowledged; the states seen on the way.
    ///
    /// # Errors
    /// When another terminal state comes first, or none in time.
    pub fn wait_for_state(&mut self, task: &str, state: &str) -> Result<Value> {
        loop {
            let status = self.update(task, http::PATIENCE)?;
            if status["state"] == state {
                return Ok(status);
            }
            let passing = [
                "TASK_STAGING",
                "TASK_STARTING",
                "TASK_RUNNING",
                "TASK_KILLING",
            ];
            if !passing.iter().any(|it| status["state"] == *it) {
                bail!("{task}: waited for {state}, got {status}");
            }
        }
    }

    /// Acknowledges a status.
    ///
    /// # Errors
    /// When the master does not answer 202.
    pub fn acknowledge(&self, status: &Value) -> Result<()> {
        self.accepted(json!({
            "type": "ACKNOWLEDGE",
            "acknowledge": {
                "agent_id": status["agent_id"],
                "task_id": status["task_id"],
                "uuid": status["uuid"]
            }
        }))
    }

    /// Launches tasks on an offer.
    ///
    /// # Errors
    /// When the master does not answer 202.
    pub fn launch(&self, offer: &Value, tasks: Vec<Value>) -> Result<()> {
        self.accepted(json!({
            "type": "ACCEPT",
            "accept": {
                "offer_ids": [offer["id"]],
                "operations": [{ "type": "LAUNCH", "launch": { "task_infos": tasks } }],
                "filters": { "refuse_seconds": 0 }
            }
        }))
    }

    /// Sends a call that must be accepted.
    ///
    /// # Errors
    /// When the master does not answer 202.
    pub fn accepted(&self, call: Value) -> Result<()> {
        let response = self.call(call.clone())?;
        if response.status != 202 {
            bail!("{call} answered {}: {}", response.status, response.text());
        }
        Ok(())
    }

    /// Sends a call with the framework's and the stream's id.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn call(&self, mut call: Value) -> Result<Response> {
        call["framework_id"] = json!({ "value": self.framework_id });
        let headers = [("Mesos-Stream-Id", self.stream_id.as_str())];
        http::post(self.master, "/api/v1/scheduler", &headers, &call)
    }
}

/// A command task for an offer's agent.
pub fn task(id: &str, offer: &Value, cpus: f64, mem: f64, command: &str) -> Value {
    json!({
        "name": id,
        "task_id": { "value": id },
        "agent_id": offer["agent_id"],
        "resources": [
            { "name": "cpus", "type": "SCALAR", "scalar": { "value": cpus } },
            { "name": "mem", "type": "SCALAR", "scalar": { "value": mem } }
        ],
        "command": { "value": command }
    })
}

/// The amount of a scalar in an offer.
pub fn amount(offer: &Value, name: &str) -> f64 {
    let resources = offer["resources"].as_array().into_iter().flatten();
    resources
        .filter(|resource| resource["name"] == name)
        .filter_map(|resource| resource["scalar"]["value"].as_f64())
        .sum()
}
