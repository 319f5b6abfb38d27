//! `/api/v1`: the operator's calls.

use super::{
    app::{App, Failure, disk},
    metrics,
};
use crate::endpoints::{containers::Filter, state};
use axum::{body::Body, response::Response};
use http::{StatusCode, header, request::Parts};
use std::{sync::Arc, time::Duration};
use tepui_agent_machine::model::wire::{
    self,
    agent::{Call, Response as Answer, call::Type, response},
};
use tepui_server::{
    auth::Realm,
    body::{self, Refusal},
    files, logging,
    proto::{json, media::ContentType},
    respond,
    respond::Shape,
    version,
};

/// Answers one call. The order of the checks is that of Mesos.
pub(crate) async fn http(app: &Arc<App>, parts: &Parts, content: Body) -> Response {
    match try_http(app, parts, content).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_http(app: &Arc<App>, parts: &Parts, content: Body) -> Result<Response, Refusal> {
    app.admit(Realm::ReadWrite, &parts.headers)?;
    if parts.method == http::Method::POST && wants_recordio(parts) {
        // The framing is only for a stream of ATTACH_CONTAINER_INPUT.
        return Err(Box::new(
            match parts.headers.contains_key("message-content-type") {
                true => super::unsupported("streams of calls are"),
                false => respond::bad_request("Expecting 'Message-Content-Type' to be present"),
            },
        ));
    }
    let call = body::call::<Call>(&parts.method, &parts.headers, content)
        .await?
        .message;
    let kind = check(&call).map_err(Failure::refusal)?;
    let accept = body::negotiate(&parts.headers)?;
    let Some(answer) = serve(app, kind, call).await.map_err(Failure::refusal)? else {
        return Ok(respond::empty(StatusCode::OK));
    };
    let shape = Shape::of(&parts.method, &parts.headers, None);
    if accept != ContentType::Json {
        return Ok(shape.message(accept, &answer));
    }
    // A thousand tasks take a while to write, and to compress.
    let work = move || {
        let mut value = json::to_value(&answer);
        state::with_empty_lists(&mut value);
        shape.json(value.to_string())
    };
    Ok(disk(work).await)
}

/// Whether the body claims to be a stream of calls.
fn wants_recordio(parts: &Parts) -> bool {
    parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes() == b"application/recordio")
}

fn bad_request(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, message)
}

/// The call's type, when what belongs to it is there.
///
/// # Errors
/// 400 naming the field; 501 for UNKNOWN.
fn check(call: &Call) -> Result<Type, Failure> {
    let missing = |field: &str| bad_request(format!("Expecting '{field}' to be present"));
    let kind = match call.r#type {
        None => return Err(missing("type")),
        Some(number) => Type::try_from(number).map_err(|_| missing("type"))?,
    };
    #[allow(deprecated)]
    let (field, present) = match kind {
        Type::Unknown => {
            let reason = "a call of type UNKNOWN cannot be served\n";
            return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, reason));
        }
        Type::GetMetrics => ("get_metrics", call.get_metrics.is_some()),
        Type::SetLoggingLevel => ("set_logging_level", call.set_logging_level.is_some()),
        Type::ListFiles => ("list_files", call.list_files.is_some()),
        Type::ReadFile => ("read_file", call.read_file.is_some()),
        Type::LaunchNestedContainer => match &call.launch_nested_container {
            Some(it) => (
                "launch_nested_container.container_id.parent",
                has_parent(&it.container_id),
            ),
            None => ("launch_nested_container", false),
        },
        Type::WaitNestedContainer => match &call.wait_nested_container {
            Some(it) => (
                "wait_nested_container.container_id.parent",
                has_parent(&it.container_id),
            ),
            None => ("wait_nested_container", false),
        },
        Type::KillNestedContainer => match &call.kill_nested_container {
            Some(it) => (
                "kill_nested_container.container_id.parent",
                has_parent(&it.container_id),
            ),
            None => ("kill_nested_container", false),
        },
        Type::RemoveNestedContainer => match &call.remove_nested_container {
            Some(it) => (
                "remove_nested_container.container_id.parent",
                has_parent(&it.container_id),
            ),
            None => ("remove_nested_container", false),
        },
        Type::LaunchNestedContainerSession => match &call.launch_nested_container_session {
            Some(it) => (
                "launch_nested_container_session.container_id.parent",
                has_parent(&it.container_id),
            ),
            None => ("launch_nested_container_session", false),
        },
        Type::AttachContainerInput => (
            "attach_container_input",
            call.attach_container_input.is_some(),
        ),
        Type::AttachContainerOutput => (
            "attach_container_output",
            call.attach_container_output.is_some(),
        ),
        Type::LaunchContainer => ("launch_container", call.launch_container.is_some()),
        Type::WaitContainer => ("wait_container", call.wait_container.is_some()),
        Type::KillContainer => ("kill_container", call.kill_container.is_some()),
        Type::RemoveContainer => ("remove_container", call.remove_container.is_some()),
        Type::AddResourceProviderConfig => (
            "add_resource_provider_config",
            call.add_resource_provider_config.is_some(),
        ),
        Type::UpdateResourceProviderConfig => (
            "update_resource_provider_config",
            call.update_resource_provider_config.is_some(),
        ),
        Type::RemoveResourceProviderConfig => (
            "remove_resource_provider_config",
            call.remove_resource_provider_config.is_some(),
        ),
        Type::MarkResourceProviderGone => (
            "mark_resource_provider_gone",
            call.mark_resource_provider_gone.is_some(),
        ),
        _ => ("", true),
    };
    match present {
        true => Ok(kind),
        false => Err(missing(field)),
    }
}

fn has_parent(id: &wire::ContainerId) -> bool {
    id.parent.is_some()
}

fn list_flags(app: &App) -> Vec<wire::Flag> {
    let flags = app.settings.flags.rendered().into_iter();
    flags
        .map(|(name, value)| wire::Flag {
            name,
            value: Some(value),
        })
        .collect()
}

/// Serves a call that [`check`] let pass; nothing where the status says it all.
async fn serve(app: &Arc<App>, kind: Type, call: Call) -> Result<Option<Answer>, Failure> {
    let answer = |kind: response::Type| Answer {
        r#type: Some(kind as i32),
        ..Default::default()
    };
    #[allow(deprecated)]
    Ok(Some(match kind {
        Type::GetHealth => Answer {
            get_health: Some(response::GetHealth { healthy: true }),
            ..answer(response::Type::GetHealth)
        },
        Type::GetFlags => Answer {
            get_flags: Some(response::GetFlags {
                flags: list_flags(app),
            }),
            ..answer(response::Type::GetFlags)
        },
        Type::GetVersion => Answer {
            get_version: Some(response::GetVersion {
                version_info: version::info(),
            }),
            ..answer(response::Type::GetVersion)
        },
        Type::GetMetrics => {
            let view = app.view().await?;
            let metrics = metrics::collect(app, &view).into_iter();
            let metrics = metrics.map(|(name, value)| wire::Metric {
                name,
                value: Some(value),
            });
            Answer {
                get_metrics: Some(response::GetMetrics {
                    metrics: metrics.collect(),
                }),
                ..answer(response::Type::GetMetrics)
            }
        }
        Type::GetLoggingLevel => Answer {
            get_logging_level: Some(response::GetLoggingLevel {
                level: logging::level(),
            }),
            ..answer(response::Type::GetLoggingLevel)
        },
        Type::SetLoggingLevel => {
            if let Some(it) = call.set_logging_level {
                let period = u64::try_from(it.duration.nanoseconds)
                    .map_err(|_| bad_request("'set_logging_level.duration' is negative\n"))?;
                logging::raise(it.level, Duration::from_nanos(period));
            }
            return Ok(None);
        }
        // There is no image store of our own that could be pruned.
        Type::PruneImages => return Ok(None),
        Type::ListFiles => {
            let path = call.list_files.map(|it| it.path).unwrap_or_default();
            let files = app.files.clone();
            let file_infos = disk(move || files.list(&path))
                .await
                .map_err(file_failure)?;
            Answer {
                list_files: Some(response::ListFiles { file_infos }),
                ..answer(response::Type::ListFiles)
            }
        }
        Type::ReadFile => {
            let read = call.read_file.unwrap_or_default();
            let files = app.files.clone();
            let length = read.length.unwrap_or(files::MAX_READ).min(files::MAX_READ);
            let part = disk(move || files.read(&read.path, read.offset, length));
            let part = part.await.map_err(file_failure)?;
            let read = response::ReadFile {
                size: part.size,
                data: part.data,
            };
            Answer {
                read_file: Some(read),
                ..answer(response::Type::ReadFile)
            }
        }
        Type::GetState => Answer {
            get_state: Some(state::get_state(&app.view().await?)),
            ..answer(response::Type::GetState)
        },
        Type::GetContainers => {
            let view = app.view().await?;
            let all = app.containers(&view, &Filter::default()).await;
            let containers: Vec<_> = all.into_iter().map(|it| it.v1()).collect();
            Answer {
                // Left out when there is none, as Mesos does.
                get_containers: (!containers.is_empty())
                    .then_some(response::GetContainers { containers }),
                ..answer(response::Type::GetContainers)
            }
        }
        Type::GetFrameworks => Answer {
            get_frameworks: Some(state::get_frameworks(&app.view().await?)),
            ..answer(response::Type::GetFrameworks)
        },
        Type::GetExecutors => Answer {
            get_executors: Some(state::get_executors(&app.view().await?)),
            ..answer(response::Type::GetExecutors)
        },
        Type::GetOperations => Answer {
            get_operations: Some(state::get_operations(&app.view().await?)),
            ..answer(response::Type::GetOperations)
        },
        Type::GetTasks => Answer {
            get_tasks: Some(state::get_tasks(&app.view().await?)),
            ..answer(response::Type::GetTasks)
        },
        Type::GetAgent => Answer {
            get_agent: Some(state::get_agent(&app.view().await?, &app.info)),
            ..answer(response::Type::GetAgent)
        },
        Type::GetResourceProviders => Answer {
            get_resource_providers: Some(response::GetResourceProviders::default()),
            ..answer(response::Type::GetResourceProviders)
        },
        // Containers that nobody can launch cannot be found either.
        Type::WaitContainer
        | Type::WaitNestedContainer
        | Type::KillContainer
        | Type::KillNestedContainer
        | Type::AttachContainerInput
        | Type::AttachContainerOutput => {
            let reason = "there is no such container: only tasks run on this agent yet\n";
            return Err(Failure::new(StatusCode::NOT_FOUND, reason));
        }
        Type::Unknown
        | Type::LaunchNestedContainer
        | Type::RemoveNestedContainer
        | Type::LaunchNestedContainerSession
        | Type::LaunchContainer
        | Type::RemoveContainer
        | Type::AddResourceProviderConfig
        | Type::UpdateResourceProviderConfig
        | Type::RemoveResourceProviderConfig
        | Type::MarkResourceProviderGone => {
            let reason = format!(
                "{} is not supported by this agent yet\n",
                kind.as_str_name()
            );
            return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, reason));
        }
    }))
}

fn file_failure(error: files::Error) -> Failure {
    Failure::new(error.status(), format!("{error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (u16, String) {
        let call: Call = json::decode(text.as_bytes()).unwrap();
        let failure = check(&call).unwrap_err();
        (failure.status.as_u16(), failure.message)
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, field) in [
            ("{}", "'type'"),
            (r#"{"type":"READ_FILE"}"#, "'read_file'"),
            (r#"{"type":"GET_METRICS"}"#, "'get_metrics'"),
            (
                r#"{"type":"REMOVE_NESTED_CONTAINER"}"#,
                "'remove_nested_container'",
            ),
            (
                r#"{"type":"LAUNCH_NESTED_CONTAINER","launch_nested_container":{"container_id":{"value":"x"}}}"#,
                "'launch_nested_container.container_id.parent'",
            ),
        ] {
            let (status, message) = refused(text);
            assert_eq!(status, 400, "{text}");
            assert!(message.contains(field), "{text}: {message}");
        }
        assert_eq!(refused(r#"{"type":"UNKNOWN"}"#).0, 501);
    }
}
