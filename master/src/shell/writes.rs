//! The endpoints that change something: forms and JSON, as the older interface has them.

use crate::shell::{
    door::{App, Failure, settle},
    intake::Class,
    operator, reads,
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tepui_master_machine::{
    input::{Input, OperatorRequest},
    model::{AgentId, FrameworkId, TaskId, wire},
};
use tepui_server::{
    auth::Realm,
    body::{self, Refusal},
    proto::json,
    respond, routing,
};

/// Answers an endpoint that takes POST alone.
pub(crate) async fn answer(app: &Arc<App>, route: &str, parts: &Parts, content: Body) -> Response {
    settle(post(app, route, parts, content).await.map(respond::empty))
}

async fn post(
    app: &Arc<App>,
    route: &str,
    parts: &Parts,
    content: Body,
) -> Result<StatusCode, Refusal> {
    let principal = app.admit(Realm::ReadWrite, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    if parts.method != Method::POST {
        return Err(Box::new(respond::method_not_allowed("POST", &parts.method)));
    }
    let body = body::read(&parts.headers, content).await?;
    if route == "tepui/v1/panic" {
        return Ok(panic(app, &parts.headers).await?);
    }
    let request = match route {
        "machine/down" => {
            machines(&body).map(|machines| OperatorRequest::StartMaintenance { machines })
        }
        "machine/up" => {
            machines(&body).map(|machines| OperatorRequest::StopMaintenance { machines })
        }
        "tepui/v1/kill" => kill(&body),
        _ => form(route, &body),
    };
    Ok(app.operate(principal, request?).await?)
}

/// Answers `/weights`, `/quota` and `/maintenance/schedule`, which are read and written at
/// the same place.
pub(crate) async fn either(
    app: &Arc<App>,
    route: &str,
    rest: &str,
    parts: &Parts,
    content: Body,
) -> Response {
    settle(try_either(app, route, rest, parts, content).await)
}

async fn try_either(
    app: &Arc<App>,
    route: &str,
    rest: &str,
    parts: &Parts,
    content: Body,
) -> Result<Response, Refusal> {
    let principal = app.admit(Realm::ReadWrite, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    let (allowed, writes): (&'static str, &[Method]) = match route {
        "weights" => ("GET, PUT", &[Method::PUT]),
        "quota" => ("GET, POST, DELETE", &[Method::POST, Method::DELETE]),
        _ => ("GET, POST", &[Method::POST]),
    };
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return reads::read(app, route, parts).await;
    }
    if !writes.contains(&parts.method) {
        return Err(Box::new(respond::method_not_allowed(
            allowed,
            &parts.method,
        )));
    }
    let body = body::read(&parts.headers, content).await?;
    let request = match (route, &parts.method) {
        ("weights", _) => weights(&body),
        ("quota", &Method::DELETE) => {
            // The role is the rest of the path, which may have slashes of its own.
            let role = percent_decoded(rest);
            operator::remove_quota(app, &role).await.map_err(|failure| {
                let path = parts.uri.path();
                Failure::new(
                    failure.status,
                    format!("DELETE {path}: {}", failure.message),
                )
            })
        }
        ("quota", _) => match decode::<wire::quota::QuotaRequest>(&body) {
            Ok(request) => operator::set_quota(app, &request).await,
            Err(failure) => Err(failure),
        },
        _ => decode(&body).map(|schedule| OperatorRequest::UpdateMaintenanceSchedule { schedule }),
    };
    let request = request?;
    let is_new_quota = route == "quota" && parts.method == Method::POST;
    let status = app.operate(principal, request).await;
    // Here Mesos calls a guarantee beyond the cluster's capacity a conflict.
    let status = status.map_err(|failure| {
        match is_new_quota && failure.message.starts_with("guarantees of all") {
            true => Failure::new(
                StatusCode::CONFLICT,
                format!("{}; 'force' skips this check", failure.message),
            ),
            false => failure,
        }
    });
    Ok(respond::empty(status?))
}

fn percent_decoded(text: &str) -> String {
    routing::pairs(&text.replace('+', "%2B"))
        .next()
        .map(|(key, _)| key)
        .unwrap_or_default()
}

fn decode<M: prost::Message + prost::Name + Default>(body: &[u8]) -> Result<M, Failure> {
    json::decode(body).map_err(|error| Failure::bad_request(error.to_string()))
}

/// A JSON array of messages.
fn array<M: prost::Message + prost::Name + Default>(
    name: &str,
    text: &[u8],
) -> Result<Vec<M>, Failure> {
    let bad = |problem: String| Failure::bad_request(format!("{name}: {problem}"));
    let value: Value = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    let Value::Array(items) = value else {
        return Err(bad("expected a JSON array".to_owned()));
    };
    let items = items.iter().enumerate();
    items
        .map(|(index, item)| {
            json::from_value(item).map_err(|error| bad(format!("[{index}]: {error}")))
        })
        .collect()
}

fn weights(body: &[u8]) -> Result<OperatorRequest, Failure> {
    operator::weights(&array("weights", body)?)
}

fn machines(body: &[u8]) -> Result<Vec<wire::MachineId>, Failure> {
    array("machines", body)
}

/// `{"framework_id": "...", "task_id": "..."}`.
fn kill(body: &[u8]) -> Result<OperatorRequest, Failure> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| Failure::bad_request(error.to_string()))?;
    let field = |name: &str| match value.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Failure::bad_request(format!(
            "Expecting '{name}' to be a string"
        ))),
    };
    Ok(OperatorRequest::KillTask {
        framework_id: FrameworkId::from(field("framework_id")?),
        task_id: TaskId::from(field("task_id")?),
    })
}

/// Teardown, reservations and volumes: forms with ids and JSON arrays.
fn form(route: &str, body: &[u8]) -> Result<OperatorRequest, Failure> {
    use wire::offer::{Operation, operation};
    let text = String::from_utf8_lossy(body);
    let form: BTreeMap<String, String> = routing::pairs(&text).collect();
    let missing = |name: &str| {
        Failure::bad_request(format!(
            "Missing '{name}' in the body: expecting {name}=value"
        ))
    };
    let field = |name: &str| {
        form.get(name)
            .filter(|it| !it.is_empty())
            .ok_or_else(|| missing(name))
    };
    if route == "teardown" {
        let framework_id = FrameworkId::from(field("frameworkId")?.as_str());
        return Ok(OperatorRequest::Teardown { framework_id });
    }
    let agent_id = AgentId::from(field("slaveId")?.as_str());
    let list = |name: &str| array(name, field(name)?.as_bytes());
    let mut operation = Operation::default();
    let kind = match route {
        "reserve" => {
            let source = match form.contains_key("source") {
                true => list("source")?,
                false => Vec::new(),
            };
            let resources = list("resources")?;
            operation.reserve = Some(operation::Reserve { source, resources });
            operation::Type::Reserve
        }
        "unreserve" => {
            let resources = list("resources")?;
            operation.unreserve = Some(operation::Unreserve { resources });
            operation::Type::Unreserve
        }
        "create-volumes" => {
            let volumes = list("volumes")?;
            operation.create = Some(operation::Create { volumes });
            operation::Type::Create
        }
        _ => {
            let volumes = list("volumes")?;
            operation.destroy = Some(operation::Destroy { volumes });
            operation::Type::Destroy
        }
    };
    operation.r#type = Some(kind as i32);
    Ok(OperatorRequest::AgentOperation {
        agent_id,
        operation: Box::new(operation),
    })
}

/// For tests of the recovery: 202, and the machine panics over an input of the subscription
/// that `Mesos-Stream-Id` names, or of a client of its own.
async fn panic(app: &App, headers: &HeaderMap) -> Result<StatusCode, Failure> {
    if !app.settings.inject_panics {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "panics are not injected here\n",
        ));
    }
    let stream_id = headers.get("mesos-stream-id");
    let producer = match stream_id.and_then(|it| it.to_str().ok()) {
        Some(stream_id) => app.sessions.of(Some(stream_id)),
        None => {
            let client = app.destinations.connection();
            Arc::new(app.intake.connect(client, Class::Client))
        }
    };
    let source = producer.source();
    producer
        .send(Input::InjectPanic {
            connection: Some(source),
        })
        .await;
    Ok(StatusCode::ACCEPTED)
}
