//! The life of the framework in the recordings, told again to our own cluster: its
//! calls in their order, with live ids in place of the recorded ones.
//!
//! A recorded call names ids that came in a recorded event: the offer that it accepts,
//! the update that it acknowledges. The story waits for the live event of the same kind
//! and puts its ids in their place.

use crate::{
    cluster::{Cluster, wait_for},
    golden::{self, Differences, Exchange},
    http,
    scheduler::{Scheduler, amount},
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// The id of the recorded master: the beginning of the ids that it gave out.
const MASTER: &str = "2ac423c5-14ad-4a7f-ac56-8fdfb83fb39a";

/// `--work_dir` of the recorded agent.
const WORK_DIR: &str = "/var/lib/mesos/a";

/// What an offer must have for the largest of the recorded launches.
const CPUS: f64 = 4.0;

/// Tasks of this name never were: the story asks for them to know how far it has read.
const MARK: &str = "story-mark-";

/// How long the event may take that a recorded call answers; tasks sleep two seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The framework, and what was found so far.
#[derive(Debug)]
pub struct Story<'a> {
    cluster: &'a Cluster,
    /// What an operator who subscribed before the framework is told.
    operator: http::Stream,
    /// The subscription that the recorded calls go through.
    pub scheduler: Scheduler,
    differences: Differences,
    replacements: BTreeMap<String, String>,
    /// The statuses of the recorded stream that have a uuid, by it.
    statuses: BTreeMap<String, Value>,
    /// Differences that nobody meant.
    pub findings: Vec<String>,
}

impl<'a> Story<'a> {
    /// Subscribes as the recorded framework did. The cluster has one agent.
    ///
    /// # Errors
    /// When the subscription is refused or the recording cannot be read.
    pub fn start(cluster: &'a Cluster) -> Result<Story<'a>> {
        let recorded = stream("streams-scheduler-json")?;
        let info = &recorded.request["json"]["subscribe"]["framework_info"];
        let operator = open(cluster, &stream("streams-operator-json")?.request)?;
        let scheduler = Scheduler::subscribe(cluster.master.address, info.clone())?;
        let slaves = http::get(cluster.master.address, "/slaves")?;
        let agent = slaves["slaves"][0]["id"].as_str().context("an agent")?;
        let work_dir = &cluster.agents.first().context("an agent")?.work_dir;
        let replacements = BTreeMap::from([
            (format!("{MASTER}-S0"), agent.to_owned()),
            (format!("{MASTER}-0000"), scheduler.framework_id.clone()),
            (stream_id(&recorded), scheduler.stream_id.clone()),
            (WORK_DIR.to_owned(), work_dir.display().to_string()),
        ]);
        let statuses = events(&recorded)
            .filter_map(|event| {
                let status = &event["update"]["status"];
                Some((status["uuid"].as_str()?.to_owned(), status.clone()))
            })
            .collect();
        Ok(Story {
            cluster,
            operator,
            scheduler,
            differences: Differences::load()?,
            replacements,
            statuses,
            findings: Vec::new(),
        })
    }

    /// Repeats recorded exchanges and notes what differs.
    ///
    /// # Errors
    /// When an event does not come that a recorded call answers, or there is no answer.
    pub fn replay(&mut self, exchanges: &[Exchange]) -> Result<()> {
        for exchange in exchanges {
            if self.differences.skip(&exchange.title()) {
                continue;
            }
            if let Err(error) = self.await_cause(&exchange.request) {
                let found = vec![format!("no event to answer: {error}")];
                let found = self.differences.remaining(&exchange.title(), found);
                self.findings.extend(found);
                continue;
            }
            let live = exchange.replaced(&self.replacements)?;
            let address = match exchange.server.as_str() {
                "agent" => self.cluster.agents[0].address,
                _ => self.cluster.master.address,
            };
            let answer = golden::replay(&live, address)?;
            let found = golden::check(&live, answer.as_ref(), &self.differences);
            self.findings.extend(found);
        }
        Ok(())
    }

    /// Waits for the event that made the recorded framework send this call.
    fn await_cause(&mut self, request: &Value) -> Result<()> {
        let call = &request["json"];
        if let Some(uuid) = call["acknowledge"]["uuid"].as_str() {
            let recorded = self.statuses.get(uuid).context("a recorded update")?;
            let live = self.update_like(&recorded.clone())?;
            let mut ids = vec![(uuid.to_owned(), live["uuid"].clone())];
            let container =
                |status: &Value| status["container_status"]["container_id"]["value"].clone();
            if let Some(id) = container(&self.statuses[uuid]).as_str() {
                ids.push((id.to_owned(), container(&live)));
            }
            for (recorded, live) in ids {
                let live = live.as_str().context("an id in the update")?.to_owned();
                self.replacements.insert(recorded, live);
            }
        }
        if let Some(offer) = call["accept"]["offer_ids"][0]["value"].as_str()
            && !self.replacements.contains_key(offer)
        {
            let live = self.offer()?;
            self.replacements.insert(offer.to_owned(), live);
        }
        Ok(())
    }

    /// The live update of the same task to the same state.
    fn update_like(&mut self, recorded: &Value) -> Result<Value> {
        let what = format!("{} of {}", recorded["state"], recorded["task_id"]);
        let event = self.scheduler.event(&what, PATIENCE, |event| {
            let status = &event["update"]["status"];
            status["uuid"].is_string()
                && ["task_id", "state"]
                    .iter()
                    .all(|field| status[field] == recorded[field])
        })?;
        Ok(event["update"]["status"].clone())
    }

    /// Reads every event that the master has sent so far: up to the answer to a question.
    fn catch_up(&mut self) -> Result<()> {
        let task = format!("{MARK}{}", self.scheduler.seen.len());
        let tasks = json!([{ "task_id": { "value": task } }]);
        let reconcile = json!({ "type": "RECONCILE", "reconcile": { "tasks": tasks } });
        self.scheduler.accepted(reconcile)?;
        self.scheduler.event(&task, PATIENCE, |event| {
            event["update"]["status"]["task_id"]["value"] == task.as_str()
        })?;
        Ok(())
    }

    /// The id of an offer that is large enough and still stands.
    fn offer(&mut self) -> Result<String> {
        self.catch_up()?;
        loop {
            let event = self
                .scheduler
                .event("offers", PATIENCE, |it| it["type"] == "OFFERS")?;
            for offer in event["offers"]["offers"].as_array().into_iter().flatten() {
                let rescinded = self
                    .scheduler
                    .seen
                    .iter()
                    .any(|event| event["rescind"]["offer_id"] == offer["id"]);
                if rescinded {
                    continue;
                }
                if amount(offer, "cpus") >= CPUS {
                    let id = offer["id"]["value"].as_str().context("an offer's id")?;
                    return Ok(id.to_owned());
                }
                self.scheduler.decline(offer, 0.0)?;
            }
        }
    }

    /// Sends a scheduler call that the recording shows only by its effect.
    ///
    /// # Errors
    /// When the master does not answer 202.
    pub fn call(&self, call: &Value) -> Result<()> {
        let call = self.live(&call.to_string());
        self.scheduler.accepted(serde_json::from_str(&call)?)
    }

    /// The text with live ids in place of the recorded ones.
    fn live(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, live) in &self.replacements {
            text = text.replace(recorded, live);
        }
        text
    }

    /// Another framework subscribes, and goes for good.
    ///
    /// # Errors
    /// When it is refused or stays.
    pub fn visit(&self, info: &Value) -> Result<()> {
        let visitor = Scheduler::subscribe(self.cluster.master.address, info.clone())?;
        let id = visitor.framework_id.clone();
        drop(visitor);
        wait_for("the framework's end", http::PATIENCE, || {
            let frameworks = http::get(self.cluster.master.address, "/frameworks")?;
            let completed = frameworks["completed_frameworks"].as_array();
            let gone = completed
                .into_iter()
                .flatten()
                .any(|it| it["id"] == id.as_str());
            Ok(gone.then_some(()))
        })
    }

    /// Sends an operator's write that the recording shows only by its effect.
    ///
    /// # Errors
    /// When it is refused.
    pub fn write(&self, method: &str, path: &str, body: &str) -> Result<()> {
        let body = self.live(body);
        let kind = match body.starts_with(['{', '[']) {
            true => "application/json",
            false => "application/x-www-form-urlencoded",
        };
        let headers = [("Content-Type", kind)];
        let address = self.cluster.master.address;
        let answer = http::send(address, method, path, &headers, body.as_bytes())?;
        if !(200..300).contains(&answer.status) {
            bail!(
                "{method} {path} answered {}: {}",
                answer.status,
                answer.text()
            );
        }
        Ok(())
    }

    /// Subscribes again with the same id, as the recorded framework did, and returns the
    /// first subscription with all of its events.
    ///
    /// # Errors
    /// When the new subscription is refused or the old one does not end.
    pub fn fail_over(&mut self) -> Result<Scheduler> {
        let recorded =
            stream("streams-scheduler-json-failed-over")?.replaced(&self.replacements)?;
        let info = &recorded.request["json"]["subscribe"]["framework_info"];
        let second = Scheduler::subscribe(self.cluster.master.address, info.clone())?;
        let live = second.stream_id.clone();
        self.replacements.insert(stream_id(&recorded), live);
        let mut first = std::mem::replace(&mut self.scheduler, second);
        first.read_to_end()?;
        Ok(first)
    }

    /// Waits for an offer and leaves it where it is.
    ///
    /// # Errors
    /// When none comes.
    pub fn await_offer(&mut self) -> Result<()> {
        let offers = |event: &Value| event["type"] == "OFFERS";
        self.scheduler.event("offers", PATIENCE, offers).map(drop)
    }

    /// Repeats the recorded subscription of `file` and returns its events, which the
    /// server ends.
    ///
    /// # Errors
    /// When it is refused with a status or does not end.
    pub fn whole_stream(&self, file: &str) -> Result<Vec<Value>> {
        let recorded = stream(file)?.replaced(&self.replacements)?;
        let mut stream = open(self.cluster, &recorded.request)?;
        let mut events = Vec::new();
        while let Some(record) = stream.record()? {
            events.push(serde_json::from_slice(&record)?);
        }
        Ok(events)
    }

    /// What the operator was told until this framework was gone.
    ///
    /// # Errors
    /// When the stream ends before.
    pub fn operator_events(&mut self, framework: &str) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            let record = self
                .operator
                .record()?
                .context("the operator's stream ended")?;
            let event: Value = serde_json::from_slice(&record)?;
            let gone = event["framework_removed"]["framework_info"]["name"] == framework;
            events.push(event);
            if gone {
                return Ok(events);
            }
        }
    }

    /// Learns the live containers of the executors that a recorded agent shows: those of
    /// tasks that never ran are in no update.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn learn_containers(&mut self, recorded: &[Exchange]) -> Result<()> {
        let containers = |state: &Value| -> BTreeMap<String, String> {
            let frameworks = state["frameworks"].as_array().into_iter().flatten();
            let lists = frameworks.flat_map(|it| [&it["executors"], &it["completed_executors"]]);
            lists
                .flat_map(|it| it.as_array().into_iter().flatten())
                .filter_map(|executor| {
                    let text = |name: &str| executor[name].as_str().map(str::to_owned);
                    Some((text("id")?, text("container")?))
                })
                .collect()
        };
        let live = containers(&http::get(self.cluster.agents[0].address, "/state")?);
        let state = recorded.iter().find(|it| it.name == "GET /state");
        let state = state.context("a recorded state")?;
        for (executor, container) in containers(&state.response["json"]) {
            if let Some(live) = live.get(&executor) {
                self.replacements.insert(container, live.clone());
            }
        }
        Ok(())
    }

    /// Notes where a stream's events differ from those of a recorded one.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn compare_stream(&mut self, file: &str, live: &[Value]) -> Result<()> {
        let recorded: Vec<Value> = events(&stream(file)?).cloned().collect();
        let ends = |events: &[Value]| {
            let mut ends: Vec<String> = events.iter().take(2).map(kind).collect();
            ends.extend(events.last().filter(|it| it["type"] == "ERROR").map(kind));
            ends.join(", ")
        };
        if ends(&recorded) != ends(live) {
            let found = format!("ends {} / {}", ends(&recorded), ends(live));
            let found = self.differences.remaining(file, vec![found]);
            self.findings.extend(found);
        }
        let (recorded, live) = (by_subject(&recorded), by_subject(live));
        for (subject, recorded) in &recorded {
            let title = format!("{file}: {subject}");
            if self.differences.skip(&title) {
                continue;
            }
            let Some(live) = live.get(subject) else {
                let found = vec!["no such event".to_owned()];
                self.findings
                    .extend(self.differences.remaining(&title, found));
                continue;
            };
            // Of the others, how many come depends on the moment.
            let counted = subject.contains(' ');
            let found = compare_events(recorded, live, counted);
            self.findings
                .extend(self.differences.remaining(&title, found));
        }
        for subject in live.keys().filter(|it| !recorded.contains_key(*it)) {
            let found = vec!["not in the recording".to_owned()];
            let title = format!("{file}: {subject}");
            self.findings
                .extend(self.differences.remaining(&title, found));
        }
        Ok(())
    }
}

/// What the events of one subject must have in common: when they are `counted` the order
/// and the shape of each, otherwise the shape of all together.
fn compare_events(recorded: &[&Value], live: &[&Value], counted: bool) -> Vec<String> {
    let summary = |events: &[&Value]| -> Vec<String> { events.iter().map(|it| kind(it)).collect() };
    let (before, after) = (summary(recorded), summary(live));
    if !counted {
        return golden::compare(&json!(recorded), &json!(live));
    }
    if before != after {
        return vec![format!(
            "order {} / {}",
            before.join(", "),
            after.join(", ")
        )];
    }
    let pairs = recorded.iter().zip(live);
    pairs
        .flat_map(|(recorded, live)| golden::compare(recorded, live))
        .collect()
}

/// The type of an event, and for what tells of a task its state, source and reason.
fn kind(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut kind = text(&event["type"]);
    for part in ["update", "task_updated"] {
        let status = &event[part]["status"];
        for field in ["state", "source", "reason"] {
            if status[field].is_string() {
                kind = format!("{kind} {}", text(&status[field]));
            }
        }
    }
    kind
}

/// The events by the task or framework that they tell of, or else by their type.
fn by_subject(events: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut subjects: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for event in events {
        let marked = event["update"]["status"]["task_id"]["value"].as_str();
        if marked.is_some_and(|it| it.starts_with(MARK)) {
            continue;
        }
        let task = [
            &event["update"]["status"]["task_id"]["value"],
            &event["task_updated"]["status"]["task_id"]["value"],
            &event["task_added"]["task"]["task_id"]["value"],
        ]
        .into_iter()
        .find_map(Value::as_str);
        let framework = [
            &event["framework_added"]["framework"]["framework_info"]["name"],
            &event["framework_updated"]["framework"]["framework_info"]["name"],
            &event["framework_removed"]["framework_info"]["name"],
        ]
        .into_iter()
        .find_map(Value::as_str);
        let subject = match (task, framework) {
            (Some(task), _) => format!("task {task}"),
            (None, Some(framework)) => format!("framework {framework}"),
            (None, None) => event["type"].as_str().unwrap_or_default().to_owned(),
        };
        subjects.entry(subject).or_default().push(event);
    }
    subjects
}

/// The one exchange of a file of streams.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn stream(file: &str) -> Result<Exchange> {
    let exchanges = golden::load(file, &BTreeMap::new())?;
    exchanges.into_iter().next().context("one exchange")
}

/// Sends a recorded subscription and reads the head of its answer.
fn open(cluster: &Cluster, request: &Value) -> Result<http::Stream> {
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    let path = request["path"].as_str().unwrap_or_default();
    let body = request["json"].to_string();
    let request = http::request_bytes("POST", path, &headers, body.as_bytes());
    let stream = http::Stream::open(cluster.master.address, &request)?;
    if stream.status != 200 {
        bail!("{path} answered {}", stream.status);
    }
    Ok(stream)
}

fn stream_id(exchange: &Exchange) -> String {
    let id = exchange.response["headers"]["Mesos-Stream-Id"].as_str();
    id.unwrap_or_default().to_owned()
}

/// The events of a recorded stream.
fn events(exchange: &Exchange) -> impl Iterator<Item = &Value> {
    let records = exchange.response["records"].as_array();
    records.into_iter().flatten().map(|record| &record["body"])
}
