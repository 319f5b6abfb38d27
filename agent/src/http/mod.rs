//! The agent's port: Mesos' endpoints and the operator API.
//!
//! Every handler asks the machine's thread for a copy of what it knows and does the rest here,
//! so that a slow client, or an engine that does not answer, delays nobody else.

pub(crate) mod app;
pub(crate) mod metrics;
mod operator;
mod reads;

use app::App;
use axum::{Router, body::Body, extract::Request, response::Response};
use http::{Method, StatusCode, request::Parts};
use std::sync::Arc;
use tepui_agent_machine::model::wire;
use tepui_server::{body, respond, routing};

/// Everything that has a route. The longest one that is the request's path or a parent of
/// it answers.
const ROUTES: &[&str] = &[
    "api/v1",
    "api/v1/executor",
    "api/v1/resource_provider",
    "containerizer/debug",
    "containers",
    "files/browse",
    "files/debug",
    "files/download",
    "files/read",
    "flags",
    "health",
    "logging/toggle",
    "metrics/snapshot",
    "monitor/statistics",
    "state",
    "system/stats.json",
    "version",
];

/// Names of the actor that all routes belong to, plain and escaped.
const ACTORS: &[&str] = &["slave(1)", "slave%281%29"];

/// The router of the port.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new().fallback(move |request: Request| {
        let app = app.clone();
        async move { answer(&app, request).await }
    })
}

async fn answer(app: &Arc<App>, request: Request) -> Response {
    let Some(route) = routing::route(request.uri().path(), ACTORS) else {
        return respond::not_found();
    };
    let Some((known, rest)) = routing::longest(&route, ROUTES) else {
        return respond::not_found();
    };
    let (parts, body) = request.into_parts();
    match known {
        "api/v1" if rest.is_empty() => operator::http(app, &parts, body).await,
        "api/v1/executor" => executor(&parts, body).await,
        "api/v1/resource_provider" => unsupported("resource providers are"),
        _ if rest.is_empty() => reads::answer(app, known, &parts).await,
        _ => respond::not_found(),
    }
}

/// 501 for what does not exist yet.
fn unsupported(what: &str) -> Response {
    respond::text(
        StatusCode::NOT_IMPLEMENTED,
        format!("{what} not supported by this agent yet\n"),
    )
}

/// The executor API: calls are checked as Mesos checks them, and then refused, because tasks
/// are run by the agent itself.
async fn executor(parts: &Parts, content: Body) -> Response {
    use wire::executor::{Call, call::Type};
    if parts.method != Method::POST {
        return respond::method_not_allowed("POST", &parts.method);
    }
    let call = match body::call::<Call>(&parts.method, &parts.headers, content).await {
        Ok(decoded) => decoded.message,
        Err(refusal) => return *refusal,
    };
    let present = match call.r#type.map(Type::try_from) {
        Some(Ok(Type::Subscribe)) => ("subscribe", call.subscribe.is_some()),
        Some(Ok(Type::Update)) => ("update", call.update.is_some()),
        Some(Ok(Type::Message)) => ("message", call.message.is_some()),
        Some(Ok(Type::Heartbeat)) => return respond::empty(StatusCode::ACCEPTED),
        _ => ("type", false),
    };
    if let (field, false) = present {
        return respond::bad_request(format!("Expecting '{field}' to be present"));
    }
    // No executor was ever launched, so none is known.
    respond::bad_request("there is no such executor: tasks are run by the agent itself\n")
}
