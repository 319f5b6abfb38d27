//! The endpoints that are read with GET.

use crate::{
    endpoints::{agents, frameworks, json::Writer, maintenance, roles, state, tasks},
    shell::{
        door::{App, Failure, mark_stale, no_leader, settle},
        metrics,
    },
    view::View,
};
use axum::response::Response;
use http::{Method, StatusCode, request::Parts};
use std::sync::Arc;
use tepui_server::{
    auth::Realm, body::Refusal, flags::value, logging, proto::json, respond, respond::Shape,
    routing, system, version,
};

/// Runs what reads the disk, or works long, where that delays nobody.
///
/// # Panics
/// When `work` does.
pub(crate) async fn disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Answers the read endpoint `route`; `rest` is what the path has beyond it.
pub(crate) async fn answer(app: &Arc<App>, route: &str, rest: &str, parts: &Parts) -> Response {
    settle(try_answer(app, route, rest, parts).await)
}

async fn try_answer(
    app: &Arc<App>,
    route: &str,
    rest: &str,
    parts: &Parts,
) -> Result<Response, Refusal> {
    let query = parts.uri.query();
    let shape = Shape::of(&parts.method, &parts.headers, query);
    match route {
        "health" => return Ok(respond::empty(StatusCode::OK)),
        "version" => return Ok(shape.json(version::json())),
        "system/stats.json" => return Ok(shape.json(system::stats())),
        "redirect" if rest.is_empty() => {
            return Ok(match app.leader() {
                Some(leader) => respond::redirect(&format!("//{leader}")),
                None => no_leader(),
            });
        }
        "redirect" => return Ok(respond::not_found()),
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
    match route {
        "flags" => {
            let flags = app.settings.flags.rendered();
            let mut writer = Writer::new();
            writer.object(|it| {
                it.object_field("flags", |it| {
                    for (name, value) in &flags {
                        it.string_field(name, value);
                    }
                });
            });
            return Ok(shape.json(writer.finish()));
        }
        "metrics/snapshot" => {
            if let Some(timeout) = routing::parameter(query, "timeout")
                && let Err(problem) = value::parse_duration(&timeout)
            {
                return Err(Box::new(respond::bad_request(format!(
                    "timeout: {problem}"
                ))));
            }
            return Ok(shape.json(system::metrics_json(&metrics::collect(app).await)));
        }
        _ => {}
    }
    if let Some(action) = route.strip_prefix("files/") {
        let (files, action) = (app.files.clone(), action.to_owned());
        let (method, query) = (parts.method.clone(), query.map(str::to_owned));
        let answer = disk(move || files.answer(&action, &method, query.as_deref(), &shape)).await;
        return Ok(answer);
    }
    let stale = app.stale(&parts.uri, &parts.headers).await;
    if stale.is_none() {
        app.elsewhere(&parts.uri, &parts.headers).await?;
    }
    if route == "maintenance/status" && parts.method != Method::GET && parts.method != Method::HEAD
    {
        return Ok(respond::method_not_allowed("GET", &parts.method));
    }
    let work = of_view(app, route, query)?;
    // The JSON of a large cluster takes a while to write, and to compress.
    if let Some((past, view)) = stale {
        let request = format!("{route}?{} {shape:?}", query.unwrap_or_default());
        let answer = past.answer(request, move || shape.json(work(&view)));
        return Ok(mark_stale(answer.await));
    }
    let view = app.snapshot().await?;
    Ok(disk(move || shape.json(work(&view))).await)
}

type Work = Box<dyn FnOnce(&View) -> String + Send>;

/// What to write for an endpoint.
fn of_view(app: &App, route: &str, query: Option<&str>) -> Result<Work, Failure> {
    Ok(match route {
        "state" => {
            let identity = app.identity();
            Box::new(move |view| state::state(view, &identity))
        }
        "state-summary" => {
            let identity = app.identity();
            Box::new(move |view| state::summary(view, &identity))
        }
        "slaves" => {
            let only = routing::parameter(query, "slave_id");
            Box::new(move |view| agents::slaves(view, only.as_deref()))
        }
        "frameworks" => {
            let only = routing::parameter(query, "framework_id");
            Box::new(move |view| frameworks::frameworks(view, only.as_deref()))
        }
        "tasks" => {
            let query = tasks_query(query)?;
            Box::new(move |view| tasks::tasks(view, &query))
        }
        "roles" => Box::new(roles::roles),
        "weights" => Box::new(roles::weights),
        "quota" => Box::new(roles::quota),
        "maintenance/status" => Box::new(|view| json::encode(&maintenance::status(view))),
        "maintenance/schedule" => Box::new(|view| json::encode(&maintenance::schedule(view))),
        other => {
            return Err(Failure::new(
                StatusCode::NOT_FOUND,
                format!("{other} is not read"),
            ));
        }
    })
}

fn tasks_query(query: Option<&str>) -> Result<tasks::Query, Failure> {
    // Mesos takes what it cannot read for what was not said.
    let number = |name: &str| -> Option<usize> { routing::parameter(query, name)?.parse().ok() };
    Ok(tasks::Query {
        offset: number("offset").unwrap_or(0),
        limit: number("limit"),
        ascending: routing::parameter(query, "order").as_deref() == Some("asc"),
        framework_id: routing::parameter(query, "framework_id"),
        task_id: routing::parameter(query, "task_id"),
    })
}

/// GET of an endpoint that also takes writes.
pub(crate) async fn read(app: &Arc<App>, route: &str, parts: &Parts) -> Result<Response, Refusal> {
    let shape = Shape::of(&parts.method, &parts.headers, parts.uri.query());
    let work = of_view(app, route, parts.uri.query())?;
    let view = app.snapshot().await?;
    Ok(disk(move || shape.json(work(&view))).await)
}
