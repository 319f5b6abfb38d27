//! The one port: gRPC to its services, everything else by its route, as Mesos has them.

use crate::shell::{door::App, explain, http_scheduler, members, operator, reads, writes};
use axum::{Router, extract::Request, response::Response};
use http::header;
use std::sync::Arc;
use tepui_server::{respond, routing};
use tower::ServiceExt;

/// Everything that has a route. The longest one that is the request's path or a parent of
/// it answers.
const ROUTES: &[&str] = &[
    "agents",
    "allocator/explain",
    "api/v1",
    "api/v1/scheduler",
    "create-volumes",
    "destroy-volumes",
    "files/browse",
    "files/debug",
    "files/download",
    "files/read",
    "flags",
    "frameworks",
    "health",
    "logging/toggle",
    "machine/down",
    "machine/up",
    "maintenance/schedule",
    "maintenance/status",
    "metrics/snapshot",
    "quota",
    "redirect",
    "reserve",
    "roles",
    "slaves",
    "state",
    "state-summary",
    "system/stats.json",
    "tasks",
    "teardown",
    "tepui/v1/backup",
    "tepui/v1/kill",
    "tepui/v1/masters",
    "tepui/v1/panic",
    "unreserve",
    "version",
    "weights",
];

/// The router of the port.
pub(crate) fn router(app: Arc<App>, grpc: Router) -> Router {
    Router::new().fallback(move |request: Request| {
        let (app, grpc) = (app.clone(), grpc.clone());
        async move {
            let is_grpc = request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
            if is_grpc {
                // Its error type has no values.
                return grpc
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {});
            }
            answer(&app, request).await
        }
    })
}

async fn answer(app: &Arc<App>, request: Request) -> Response {
    let Some(route) = routing::route(request.uri().path(), &["master"]) else {
        return respond::not_found();
    };
    let Some((known, rest)) = routing::longest(&route, ROUTES) else {
        return respond::not_found();
    };
    let (parts, body) = request.into_parts();
    match known {
        "api/v1/scheduler" => http_scheduler::call(app, &parts, body).await,
        "api/v1" => operator::http(app, &parts, body).await,
        "create-volumes" | "destroy-volumes" | "machine/down" | "machine/up" | "reserve"
        | "teardown" | "tepui/v1/kill" | "tepui/v1/panic" | "unreserve" => {
            writes::answer(app, known, &parts, body).await
        }
        "tepui/v1/backup" | "tepui/v1/masters" => {
            members::answer(app, known, rest, &parts, body).await
        }
        "maintenance/schedule" | "quota" | "weights" => {
            writes::either(app, known, rest, &parts, body).await
        }
        "allocator/explain" => explain::http(app, &parts).await,
        // Both names are in use; there is one answer.
        "agents" => reads::answer(app, "slaves", rest, &parts).await,
        _ => reads::answer(app, known, rest, &parts).await,
    }
}
