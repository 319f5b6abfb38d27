//! JSON that a real Mesos read and wrote: what it accepted decodes, what it refused does
//! not, and what it wrote comes out again, key for key in the same order.

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt};
use tepui_proto::json;

/// JSON that remembers the order of its keys.
#[derive(Debug, Clone, PartialEq)]
enum Ordered {
    Object(Vec<(String, Ordered)>),
    Array(Vec<Ordered>),
    Scalar(Value),
}

impl Ordered {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else {
            return None;
        };
        entries.iter().find(|it| it.0 == key).map(|it| &it.1)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Self::Scalar(value) => value.as_str(),
            _ => None,
        }
    }

    fn plain(&self) -> Value {
        match self {
            Self::Object(entries) => entries
                .iter()
                .map(|(key, value)| (key.clone(), value.plain()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Self::Array(elements) => elements.iter().map(Self::plain).collect(),
            Self::Scalar(value) => value.clone(),
        }
    }

    /// Empty lists, which Mesos prints for GET_STATE and its parts only, are no contract.
    fn without_empty_lists(&self) -> Self {
        match self {
            Self::Object(entries) => Self::Object(
                entries
                    .iter()
                    .filter(|(_, value)| *value != Self::Array(Vec::new()))
                    .map(|(key, value)| (key.clone(), value.without_empty_lists()))
                    .collect(),
            ),
            Self::Array(elements) => {
                Self::Array(elements.iter().map(Self::without_empty_lists).collect())
            }
            Self::Scalar(value) => Self::Scalar(value.clone()),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Scalar(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Ordered, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = access.next_element()? {
                    elements.push(element);
                }
                Ok(Ordered::Array(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered::Object(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Every line of every file, with the file's name.
fn lines() -> Vec<(String, Ordered)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let entries = std::fs::read_dir(folder).expect(folder);
    let paths: BTreeSet<_> = entries.map(|it| it.expect(folder).path()).collect();
    let mut lines = Vec::new();
    for path in paths {
        if path.extension().is_some_and(|it| it == "jsonl") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let name = path.file_stem().expect("a name").to_string_lossy();
            for line in text.lines() {
                let line = serde_json::from_str(line).expect("a line is JSON");
                lines.push((name.to_string(), line));
            }
        }
    }
    assert!(lines.len() > 500, "{}", lines.len());
    lines
}

/// What is sent to a path of the v1 API, and what comes back: one answer, or events.
struct Messages {
    call: &'static str,
    answer: &'static str,
    event: &'static str,
}

/// `None` for paths that are not of the v1 API.
fn messages(file: &str, exchange: &Ordered) -> Option<Messages> {
    let request = exchange.get("request")?;
    let path = request.text("path")?.split('?').next()?;
    let of_agent = exchange.text("server") == Some("agent")
        || file.contains("attach")
        || file.contains("session");
    let (call, answer, event) = match path {
        "/api/v1/scheduler" => (
            "mesos.v1.scheduler.Call",
            "mesos.v1.scheduler.Response",
            "mesos.v1.scheduler.Event",
        ),
        "/api/v1/executor" => (
            "mesos.v1.executor.Call",
            "no answer",
            "mesos.v1.executor.Event",
        ),
        "/api/v1" if of_agent => (
            "mesos.v1.agent.Call",
            "mesos.v1.agent.Response",
            "mesos.v1.agent.ProcessIO",
        ),
        "/api/v1" => (
            "mesos.v1.master.Call",
            "mesos.v1.master.Response",
            "mesos.v1.master.Event",
        ),
        _ => return None,
    };
    Some(Messages {
        call,
        answer,
        event,
    })
}

/// To wire bytes and back.
fn again(message: &str, text: &str) -> Result<Ordered, json::Error> {
    let bytes = json::decode_wire(message, text.as_bytes())?;
    let mut written = String::new();
    json::encode_wire(message, &bytes, &mut written)?;
    Ok(serde_json::from_str(&written).expect("we write JSON"))
}

/// Where two texts differ, order of keys included.
fn differences(path: &str, recorded: &Ordered, ours: &Ordered, found: &mut Vec<String>) {
    match (recorded, ours) {
        (Ordered::Object(recorded), Ordered::Object(ours)) => {
            let keys = |entries: &[(String, Ordered)], others: &[(String, Ordered)]| {
                let both = |key: &&String| others.iter().any(|it| it.0 == **key);
                let keys = entries.iter().map(|it| &it.0);
                keys.filter(both).cloned().collect::<Vec<_>>()
            };
            let (one, other) = (keys(recorded, ours), keys(ours, recorded));
            if one != other {
                found.push(format!("{path}: order {one:?} {other:?}"));
            }
            for (key, value) in recorded {
                match ours.iter().find(|it| it.0 == *key) {
                    Some(it) => differences(&format!("{path}.{key}"), value, &it.1, found),
                    None => found.push(format!("{path}.{key}: lost")),
                }
            }
            for (key, value) in ours {
                if !one.contains(key) {
                    found.push(format!("{path}.{key}: added {}", value.plain()));
                }
            }
        }
        (Ordered::Array(recorded), Ordered::Array(ours)) if recorded.len() == ours.len() => {
            for (index, (one, other)) in recorded.iter().zip(ours).enumerate() {
                differences(&format!("{path}[{index}]"), one, other, found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => found.push(format!("{path}: {} became {}", one.plain(), other.plain())),
    }
}

/// Compares what Mesos wrote with what we make of it.
fn check_written(message: &str, recorded: &Ordered, found: &mut Vec<String>) {
    let recorded = recorded.without_empty_lists();
    match again(message, &recorded_text(&recorded)) {
        Ok(ours) => differences(message, &recorded, &ours.without_empty_lists(), found),
        Err(error) => found.push(format!("{message}: {error}")),
    }
}

fn recorded_text(recorded: &Ordered) -> String {
    recorded.plain().to_string()
}

#[test]
fn what_mesos_wrote_comes_out_again() {
    let mut found = Vec::new();
    let mut checked = 0;
    for (file, line) in lines() {
        if let Some(event) = line.text("event") {
            let event = serde_json::from_str(event).expect("an event is JSON");
            check_written("mesos.v1.executor.Event", &event, &mut found);
            checked += 1;
        }
        let Some(messages) = messages(&file, &line) else {
            continue;
        };
        let response = line.get("response").expect("a response");
        if let Some(answer) = response.get("json") {
            check_written(messages.answer, answer, &mut found);
            checked += 1;
        }
        let Some(Ordered::Array(records)) = response.get("records") else {
            continue;
        };
        for record in records {
            let event = record.get("body").unwrap_or(record);
            // One recording is of protobuf records.
            if matches!(event, Ordered::Object(_)) {
                check_written(messages.event, event, &mut found);
                checked += 1;
            }
        }
    }
    found.retain(|it| !is_known_difference(it));
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(checked > 200, "{checked}");
}

/// Where Mesos writes what its v1 messages cannot say.
fn is_known_difference(difference: &str) -> bool {
    // Left over from the v0 message that the answer was made from.
    difference.ends_with("agent_info.checkpoint: lost")
        // The entries of a map come in the order of a hash there, sorted here.
        || difference.contains(".limits: order")
}

#[test]
fn what_mesos_accepted_decodes_and_what_it_refused_as_json_does_not() {
    let mut accepted = 0;
    let mut refused = BTreeSet::new();
    for (file, line) in lines() {
        if let Some(call) = line.get("call") {
            again("mesos.v1.executor.Call", &recorded_text(call)).expect("was accepted");
            accepted += 1;
        }
        let Some(messages) = messages(&file, &line) else {
            continue;
        };
        let Some(Ordered::Scalar(Value::Number(status))) =
            line.get("response").and_then(|it| it.get("status"))
        else {
            continue;
        };
        let request = line.get("request").expect("a request");
        let type_of_body = request
            .get("headers")
            .and_then(|it| it.text("Content-Type"));
        if request.text("method") != Some("POST") || type_of_body != Some("application/json") {
            continue;
        }
        let Some(body) = request.get("json") else {
            continue;
        };
        let outcome = again(messages.call, &recorded_text(body));
        if status.as_u64().is_some_and(|it| it < 300) {
            assert!(
                outcome.is_ok(),
                "{file}: {:?}: {outcome:?}",
                line.text("name")
            );
            accepted += 1;
        } else if let Err(error) = outcome {
            let name = line.text("name").unwrap_or_default();
            refused.insert(format!("{name}: {error}"));
        }
    }
    assert!(accepted > 200, "{accepted}");
    // All the others that Mesos refused are refused for what they mean, not for their form.
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    assert_eq!(
        refused,
        [
            "executor: empty object: executor_id: required field is missing",
            "executor: no ids: executor_id: required field is missing",
            "executor: unknown type: executor_id: required field is missing",
            "scheduler: JSON array: expected an object, found an array",
            "scheduler: JSON null: expected an object, found null",
            "scheduler: JSON string: expected an object, found a string",
            "scheduler: KILL, no task_id: kill.task_id: required field is missing",
            "scheduler: KILL, task_id a string: kill.task_id: expected an object, found a string",
            "scheduler: SUBSCRIBE without framework_info: subscribe.framework_info: \
             required field is missing",
            "scheduler: SUBSCRIBE without name: subscribe.framework_info.name: \
             required field is missing",
            "scheduler: SUBSCRIBE without user: subscribe.framework_info.user: \
             required field is missing",
            "scheduler: SUBSCRIBE, user a number: subscribe.framework_info.user: \
             expected a string, found a number",
            "scheduler: type as number: type: \
             expected a name of mesos.v1.scheduler.Call.Type, found a number",
        ],
    );
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let mut refused = 0;
    for (file, line) in lines() {
        let Some(messages) = messages(&file, &line) else {
            continue;
        };
        let request = line.get("request").expect("a request");
        let headers = request.get("headers");
        let of_json = headers.and_then(|it| it.text("Content-Type")) == Some("application/json");
        if let (true, Some(body)) = (of_json, request.text("body")) {
            let outcome = json::decode_wire(messages.call, body.as_bytes());
            assert!(outcome.is_err(), "{file}: {:?}", line.text("name"));
            refused += 1;
        }
    }
    assert!(refused >= 4, "{refused}");
}
