//! The endpoints that are read with GET. As Mesos', they take any method.

use super::{
    app::{App, disk},
    metrics,
};
use crate::endpoints::{containers::Filter, state};
use axum::response::Response;
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};
use std::sync::Arc;
use tepui_server::{
    auth::Realm, body::Refusal, flags::value, logging, respond, respond::Shape, routing, system,
    version,
};

/// Answers the read endpoint `route`.
pub(crate) async fn answer(app: &Arc<App>, route: &str, parts: &Parts) -> Response {
    match try_answer(app, route, parts).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_answer(app: &Arc<App>, route: &str, parts: &Parts) -> Result<Response, Refusal> {
    let query = parts.uri.query();
    let shape = Shape::of(&parts.method, &parts.headers, query);
    match route {
        "health" => return Ok(respond::empty(StatusCode::OK)),
        "version" => return Ok(shape.json(version::json())),
        "system/stats.json" => return Ok(shape.json(system::stats())),
        _ => {}
    }
    if route == "logging/toggle" {
        app.admit(Realm::ReadWrite, &parts.headers)?;
        return Ok(match logging::toggle(query) {
            Ok(text) => respond::text(StatusCode::OK, text),
            Err(unclear) => respond::bad_request(unclear.to_string()),
        });
    }
    app.admit(Realm::ReadOnly, &parts.headers)?;
    if let Some(action) = route.strip_prefix("files/") {
        let (files, action) = (app.files.clone(), action.to_owned());
        let (method, query) = (parts.method.clone(), query.map(str::to_owned));
        let work = move || files.answer(&action, &method, query.as_deref(), &shape);
        return Ok(disk(work).await);
    }
    let value = match route {
        "flags" => json!({"flags": app.settings.flags.rendered()}),
        "containerizer/debug" => json!({"pending": []}),
        "metrics/snapshot" => {
            if let Some(timeout) = routing::parameter(query, "timeout")
                && let Err(problem) = value::parse_duration(&timeout)
            {
                return Err(Box::new(respond::bad_request(format!(
                    "timeout: {problem}"
                ))));
            }
            let view = app.view().await.map_err(|it| it.refusal())?;
            return Ok(shape.json(system::metrics_json(&metrics::collect(app, &view))));
        }
        "state" => {
            let view = app.view().await.map_err(|it| it.refusal())?;
            let app = app.clone();
            // A thousand tasks take a while to write, and to compress.
            let work = move || shape.json(state::state(&view, &app.about()).to_string());
            return Ok(disk(work).await);
        }
        "containers" => containers(app, query).await?,
        "monitor/statistics" => {
            let view = app.view().await.map_err(|it| it.refusal())?;
            let all = app.containers(&view, &Filter::default()).await;
            all.iter().filter_map(|it| it.statistics()).collect()
        }
        _ => return Ok(respond::not_found()),
    };
    Ok(shape.json(value.to_string()))
}

async fn containers(app: &App, query: Option<&str>) -> Result<Value, Refusal> {
    let parameter = |name: &str| routing::parameter(query, name).filter(|it| !it.is_empty());
    let filter = Filter {
        container_id: parameter("container_id"),
        framework_id: parameter("framework_id"),
        executor_id: parameter("executor_id"),
    };
    if filter.executor_id.is_some() && filter.framework_id.is_none() {
        let reason = "expecting 'framework_id' beside 'executor_id' in the query\n";
        return Err(Box::new(respond::bad_request(reason)));
    }
    let view = app.view().await.map_err(|it| it.refusal())?;
    let all = app.containers(&view, &filter).await;
    Ok(all.iter().map(|it| it.json()).collect())
}
