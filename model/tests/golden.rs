//! The model against exchanges recorded from a real Mesos.

use bytes::Bytes;
use prost::Message;
use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path};
use tepui_model::{
    AgentId, FrameworkId, Resource, Resources,
    agent::AgentCapabilities,
    attribute::Attributes,
    call::Call,
    resources::ResourceFormat,
    validation::{self, TaskContext},
    wire,
};
use tepui_proto::json;

fn exchanges(filter: &str) -> Vec<Json> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|it| it.unwrap().path())
        .filter(|it| it.to_string_lossy().ends_with(".jsonl"))
        .filter(|it| it.file_name().unwrap().to_string_lossy().contains(filter))
        .collect();
    files.sort();
    let text = files.iter().map(|it| fs::read_to_string(it).unwrap());
    text.flat_map(|it| {
        it.lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect::<Vec<Json>>()
    })
    .collect()
}

/// Calls `visit` with every array of objects under a key.
fn walk<'a>(json: &'a Json, visit: &mut impl FnMut(&'a str, &'a [Json])) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                if let Json::Array(all) = value {
                    visit(key, all);
                }
                walk(value, visit);
            }
        }
        Json::Array(all) => all.iter().for_each(|it| walk(it, visit)),
        _ => {}
    }
}

fn is_resource(json: &Json) -> bool {
    let kind = json["type"].as_str().map(str::to_lowercase);
    json["name"].is_string()
        && kind
            .is_some_and(|it| matches!(&*it, "scalar" | "ranges" | "set") && json[it].is_object())
}

#[test]
fn resources_are_printed_as_they_were_read() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for exchange in &exchanges("") {
        walk(&exchange["response"], &mut |key, all| {
            if key == "attributes" || all.is_empty() || !all.iter().all(is_resource) {
                return;
            }
            let messages: Vec<wire::Resource> =
                all.iter().map(|it| json::from_value(it).unwrap()).collect();
            let resources = Resources::from_wire(&messages).unwrap();
            let formats = [
                ("post", ResourceFormat::PostRefinement),
                ("pre", ResourceFormat::PreRefinement),
                ("endpoint", ResourceFormat::Endpoint),
            ];
            let mut fits = formats.iter().filter(|(_, format)| {
                let printed = resources.to_wire_for(*format);
                printed.iter().map(json::to_value).eq(all.iter().cloned())
            });
            let Some((name, _)) = fits.next() else {
                panic!("no format prints {all:?} of {}", exchange["name"]);
            };
            *seen.entry(name).or_default() += 1;
        });
    }
    assert!(seen["post"] > 10 && seen["pre"] > 10, "{seen:?}");
}

#[test]
fn attributes_are_printed_as_they_were_read() {
    let mut seen = 0;
    for exchange in &exchanges("") {
        walk(&exchange["response"], &mut |key, all| {
            if key == "attributes" && all.iter().all(|it| it["name"].is_string()) {
                let messages: Vec<wire::Attribute> =
                    all.iter().map(|it| json::from_value(it).unwrap()).collect();
                let attributes = Attributes::from_wire(&messages).unwrap();
                let printed = attributes.to_wire();
                assert!(printed.iter().map(json::to_value).eq(all.iter().cloned()));
                seen += 1;
            }
        });
    }
    assert!(seen > 3, "{seen}");
}

/// The scheduler calls that Mesos could read, with what it answered.
fn calls() -> Vec<(String, wire::scheduler::Call, Json)> {
    let all = exchanges("").into_iter().filter_map(|it| {
        let request = &it["request"];
        // Other content types are refused before the call is read.
        let scheduler = request["path"].as_str()?.contains("/api/v1/scheduler")
            && request["headers"]["Content-Type"] == "application/json";
        let call = json::from_value(&request["json"]).ok()?;
        let name = it["name"].as_str()?.to_owned();
        scheduler.then(|| (name, call, it["response"].clone()))
    });
    all.collect()
}

#[test]
fn calls_are_refused_as_mesos_refuses_them() {
    let (mut refused, mut taken) = (0, 0);
    for (name, call, response) in calls() {
        let status = response["status"].as_u64().unwrap();
        // The body that a protobuf client would have sent says the same.
        let raw = Bytes::from(call.encode_to_vec());
        let result = Call::from_wire(call.clone(), Some(raw));
        assert_eq!(result, Call::from_wire(call, None), "{name}");
        let Err(error) = result else {
            assert!(
                !(name.contains("without its body") && status == 400),
                "{name}"
            );
            taken += usize::from(status < 300);
            continue;
        };
        assert_eq!(status, 400, "{name}: {error}");
        for it in response["text_names"].as_array().unwrap() {
            let named = format!("'{}'", it.as_str().unwrap());
            assert!(error.message.contains(&named), "{name}: {error}");
        }
        refused += 1;
    }
    assert!(refused > 15 && taken > 50, "{refused} {taken}");
}

#[test]
fn subscriptions_are_refused_as_mesos_refuses_them() {
    let mut seen = [0, 0];
    for (name, call, response) in calls() {
        let Ok((_, Call::Subscribe(subscribe))) = Call::from_wire(call, None) else {
            continue;
        };
        if response["status"] != 200 {
            continue;
        }
        let first = &response["records"][0];
        // Streams of long recordings wrap their records.
        let first = if first["body"].is_object() {
            &first["body"]
        } else {
            first
        };
        // A framework that was torn down is refused by a table, not by its description.
        let refused =
            first["type"] == "ERROR" && !name.contains("torn") && !name.contains("teardown");
        let valid = subscribe.framework_info.validate();
        assert_eq!(valid.is_err(), refused, "{name}: {valid:?}");
        seen[usize::from(refused)] += 1;
    }
    assert!(seen[0] >= 2 && seen[1] >= 4, "{seen:?}");
}

/// What is wrong about each task of the recorded launches, as far as no table is needed.
#[test]
fn tasks_are_refused_as_mesos_refuses_them() {
    let mut seen = BTreeMap::new();
    for (name, call, _) in calls() {
        let Ok((Some(framework_id), Call::Accept { operations, .. })) = Call::from_wire(call, None)
        else {
            continue;
        };
        for operation in &operations {
            let fault = operation.fault();
            for task in operation.tasks() {
                let agent_id = if name.contains("valid and invalid") {
                    let mut all = operation.tasks().iter().map(|it| it.agent_id.clone());
                    all.find(|it| it.as_str().ends_with("-S0")).unwrap()
                } else {
                    task.agent_id.clone()
                };
                let result = check(task, &framework_id, &agent_id);
                let text = fault.clone().or(result.err().map(|it| it.message));
                seen.insert(task.task_id.as_str().to_owned(), text);
            }
        }
    }
    for (id, word) in [
        ("g-none", "exactly one"),
        ("g/slash", "task_id"),
        ("g-nores", "no resources"),
        ("g-both", "exactly one"),
        ("g-wrongagent", "agent_id"),
        ("g-neg", "cpus"),
        ("g-beside-neg", "cpus"),
    ] {
        let text = seen.remove(id).unwrap().unwrap_or_default();
        assert!(text.contains(word), "{id}: {text}");
    }
    for id in ["g-ok", "g-huge", "g-hc", "g-sig", "g-uri", "g-user", "g-x0"] {
        assert_eq!(seen[id], None, "{id}");
    }
}

fn check(
    task: &tepui_model::task::TaskInfo,
    framework_id: &FrameworkId,
    agent_id: &AgentId,
) -> Result<(), validation::Rejection> {
    let context = TaskContext {
        framework_id,
        agent_id,
        agent_capabilities: AgentCapabilities::all(),
    };
    validation::task_id(task)?;
    validation::task(task, &context)?;
    validation::launch(task, &context)
}

#[test]
fn requests_of_operators_are_read() {
    let mut seen = 0;
    for exchange in &exchanges("writes") {
        walk(&exchange["request"], &mut |_, all| {
            for it in all.iter().filter(|it| is_resource(it)) {
                let message: wire::Resource = json::from_value(it).unwrap();
                Resource::from_wire(&message).unwrap();
                seen += 1;
            }
        });
    }
    assert!(seen > 2, "{seen}");
}
