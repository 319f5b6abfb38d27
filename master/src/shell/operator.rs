//! `/api/v1`: the operators' calls, by HTTP and by gRPC.

use crate::{
    endpoints::{agents, frameworks, maintenance, operations, roles, state, tasks, v1},
    shell::{
        door::{App, Failure},
        explain, metrics, operator_stream,
        reads::disk,
    },
};
use axum::{body::Body, response::Response};
use http::{StatusCode, request::Parts};
use std::{sync::Arc, time::Duration};
use tepui_master_machine::{
    input::OperatorRequest,
    model::{
        AgentId, FrameworkId, Principal,
        wire::{
            self,
            master::{Call, call::Type, response},
        },
    },
};
use tepui_server::{
    auth::Realm, body, files, logging, proto::media::ContentType, respond, respond::Shape, version,
};

/// What a call gives.
#[derive(Debug)]
pub(crate) enum Reply {
    /// 200 with a message.
    Message(Box<wire::master::Response>),
    /// A status alone.
    Status(StatusCode),
}

/// Answers one call over HTTP. The order of the checks is that of Mesos.
pub(crate) async fn http(app: &Arc<App>, parts: &Parts, content: Body) -> Response {
    match try_http(app, parts, content).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_http(app: &Arc<App>, parts: &Parts, content: Body) -> Result<Response, body::Refusal> {
    let principal = app.admit(Realm::ReadWrite, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    let decoded = body::call::<Call>(&parts.method, &parts.headers, content).await?;
    let refuse = |failure: Failure| Box::new(failure.response());
    let kind = check(&decoded.message).map_err(refuse)?;
    let accept = body::negotiate(&parts.headers)?;
    if kind == Type::Subscribe {
        return operator_stream::http(app, accept).map_err(refuse);
    }
    match call(app, principal, kind, decoded.message).await {
        Ok(Reply::Message(message)) => {
            let shape = Shape::of(&parts.method, &parts.headers, parts.uri.query());
            Ok(disk(move || match accept {
                ContentType::Json => shape.body(accept.as_str(), v1::response(&message).into()),
                _ => shape.message(accept, message.as_ref()),
            })
            .await)
        }
        Ok(Reply::Status(status)) => Ok(respond::empty(status)),
        Err(failure) => Err(refuse(failure)),
    }
}

/// The call's type, when what belongs to it is there.
///
/// # Errors
/// 400 naming the field; 501 for UNKNOWN.
pub(crate) fn check(call: &Call) -> Result<Type, Failure> {
    let missing = |field: &str| Failure::bad_request(format!("Expecting '{field}' to be present"));
    let kind = match call.r#type {
        None => return Err(missing("type")),
        Some(number) => Type::try_from(number).map_err(|_| missing("type"))?,
    };
    #[expect(deprecated, reason = "clients of Mesos still use the older calls")]
    let (field, present) = match kind {
        Type::Unknown => {
            let reason = "a call of type UNKNOWN cannot be served";
            return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, reason));
        }
        Type::GetMetrics => ("get_metrics", call.get_metrics.is_some()),
        Type::SetLoggingLevel => ("set_logging_level", call.set_logging_level.is_some()),
        Type::ListFiles => ("list_files", call.list_files.is_some()),
        Type::ReadFile => ("read_file", call.read_file.is_some()),
        Type::UpdateWeights => ("update_weights", call.update_weights.is_some()),
        Type::ReserveResources => ("reserve_resources", call.reserve_resources.is_some()),
        Type::UnreserveResources => ("unreserve_resources", call.unreserve_resources.is_some()),
        Type::CreateVolumes => ("create_volumes", call.create_volumes.is_some()),
        Type::DestroyVolumes => ("destroy_volumes", call.destroy_volumes.is_some()),
        Type::GrowVolume => ("grow_volume", call.grow_volume.is_some()),
        Type::ShrinkVolume => ("shrink_volume", call.shrink_volume.is_some()),
        Type::UpdateMaintenanceSchedule => (
            "update_maintenance_schedule",
            call.update_maintenance_schedule.is_some(),
        ),
        Type::StartMaintenance => ("start_maintenance", call.start_maintenance.is_some()),
        Type::StopMaintenance => ("stop_maintenance", call.stop_maintenance.is_some()),
        Type::DrainAgent => ("drain_agent", call.drain_agent.is_some()),
        Type::DeactivateAgent => ("deactivate_agent", call.deactivate_agent.is_some()),
        Type::ReactivateAgent => ("reactivate_agent", call.reactivate_agent.is_some()),
        Type::UpdateQuota => ("update_quota", call.update_quota.is_some()),
        Type::SetQuota => ("set_quota", call.set_quota.is_some()),
        Type::RemoveQuota => ("remove_quota", call.remove_quota.is_some()),
        Type::Teardown => ("teardown", call.teardown.is_some()),
        Type::MarkAgentGone => ("mark_agent_gone", call.mark_agent_gone.is_some()),
        Type::Explain => ("explain", call.explain.is_some()),
        _ => ("", true),
    };
    match present {
        true => Ok(kind),
        false => Err(missing(field)),
    }
}

/// Serves a call that [`check`] let pass, other than SUBSCRIBE.
///
/// # Errors
/// With the status of Mesos.
pub(crate) async fn call(
    app: &Arc<App>,
    principal: Option<Principal>,
    kind: Type,
    call: Call,
) -> Result<Reply, Failure> {
    if let Some(request) = write(app, kind, &call).await? {
        let status = app.operate(principal, request).await;
        // To Mesos an agent that is not there is a bad request, except when it is to be gone.
        let status = status.map_err(|failure| match failure.status {
            StatusCode::NOT_FOUND if kind != Type::MarkAgentGone => {
                Failure::bad_request(failure.message)
            }
            _ => failure,
        });
        return status.map(Reply::Status);
    }
    if let (Type::SetLoggingLevel, Some(it)) = (kind, &call.set_logging_level) {
        let nanoseconds = it.duration.nanoseconds;
        let duration = u64::try_from(nanoseconds)
            .map_err(|_| Failure::bad_request("'set_logging_level.duration' is negative"))?;
        logging::raise(it.level, Duration::from_nanos(duration));
        return Ok(Reply::Status(StatusCode::OK));
    }
    read(app, kind, call)
        .await
        .map(|answer| Reply::Message(Box::new(answer)))
}

/// The write that a call means; nothing for reads.
#[expect(deprecated, reason = "clients of Mesos still use the older calls")]
async fn write(app: &App, kind: Type, call: &Call) -> Result<Option<OperatorRequest>, Failure> {
    let agent = |id: &wire::AgentId| AgentId::from_wire(id);
    Ok(match kind {
        Type::Teardown => call.teardown.as_ref().map(|it| OperatorRequest::Teardown {
            framework_id: FrameworkId::from_wire(&it.framework_id),
        }),
        Type::MarkAgentGone => call.mark_agent_gone.as_ref().map(|it| {
            let agent_id = agent(&it.agent_id);
            OperatorRequest::MarkAgentGone { agent_id }
        }),
        Type::DeactivateAgent => call.deactivate_agent.as_ref().map(|it| {
            let agent_id = agent(&it.agent_id);
            OperatorRequest::DeactivateAgent { agent_id }
        }),
        Type::ReactivateAgent => call.reactivate_agent.as_ref().map(|it| {
            let agent_id = agent(&it.agent_id);
            OperatorRequest::ReactivateAgent { agent_id }
        }),
        Type::DrainAgent => match &call.drain_agent {
            Some(it) => Some(OperatorRequest::DrainAgent {
                agent_id: agent(&it.agent_id),
                max_grace_period_ns: it.max_grace_period.as_ref().map(grace).transpose()?,
                mark_gone: it.mark_gone(),
            }),
            None => None,
        },
        Type::UpdateWeights => match &call.update_weights {
            Some(it) => Some(weights(&it.weight_infos)?),
            None => None,
        },
        Type::UpdateQuota => call
            .update_quota
            .as_ref()
            .map(|it| OperatorRequest::UpdateQuota {
                force: it.force(),
                configs: it.quota_configs.clone(),
            }),
        Type::SetQuota => match &call.set_quota {
            Some(it) => Some(set_quota(app, &it.quota_request).await?),
            None => None,
        },
        Type::RemoveQuota => match &call.remove_quota {
            Some(it) => Some(remove_quota(app, &it.role).await?),
            None => None,
        },
        Type::UpdateMaintenanceSchedule => call.update_maintenance_schedule.as_ref().map(|it| {
            let schedule = it.schedule.clone();
            OperatorRequest::UpdateMaintenanceSchedule { schedule }
        }),
        Type::StartMaintenance => call.start_maintenance.as_ref().map(|it| {
            let machines = it.machines.clone();
            OperatorRequest::StartMaintenance { machines }
        }),
        Type::StopMaintenance => call.stop_maintenance.as_ref().map(|it| {
            let machines = it.machines.clone();
            OperatorRequest::StopMaintenance { machines }
        }),
        Type::ReserveResources
        | Type::UnreserveResources
        | Type::CreateVolumes
        | Type::DestroyVolumes
        | Type::GrowVolume
        | Type::ShrinkVolume => resources(kind, call)?,
        _ => None,
    })
}

fn grace(duration: &prost_types::Duration) -> Result<u64, Failure> {
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u64::try_from(duration.nanos).ok();
    seconds
        .and_then(|it| it.checked_mul(1_000_000_000)?.checked_add(nanos?))
        .ok_or_else(|| {
            Failure::bad_request("'drain_agent.max_grace_period' is negative or too long")
        })
}

/// UPDATE_WEIGHTS with the weights in millionths.
pub(crate) fn weights(infos: &[wire::WeightInfo]) -> Result<OperatorRequest, Failure> {
    let weights = infos.iter().map(|info| {
        let role = info.role().to_owned();
        match crate::config::micro(info.weight) {
            Some(micro) => Ok((role, micro)),
            None => Err(Failure::bad_request(format!(
                "the weight of role '{role}' is '{}': expected 0.000001 to 1000000000",
                info.weight
            ))),
        }
    });
    Ok(OperatorRequest::UpdateWeights {
        weights: weights.collect::<Result<_, _>>()?,
    })
}

/// The older way to set quota: guarantees, which are limits too; only for a role without.
pub(crate) async fn set_quota(
    app: &App,
    request: &wire::quota::QuotaRequest,
) -> Result<OperatorRequest, Failure> {
    let role = request.role.clone().filter(|it| !it.is_empty());
    let role = role.ok_or_else(|| Failure::bad_request("Expecting 'role' to be present"))?;
    if app.snapshot().await?.state().quota(&role).is_some() {
        return Err(Failure::bad_request(format!(
            "there is quota for role '{role}' already: remove it first"
        )));
    }
    let mut amounts = std::collections::BTreeMap::new();
    for resource in &request.guarantee {
        let Some(scalar) = resource.scalar else {
            return Err(Failure::bad_request(format!(
                "guarantee: '{}' is no scalar",
                resource.name
            )));
        };
        if amounts.insert(resource.name.clone(), scalar).is_some() {
            return Err(Failure::bad_request(format!(
                "guarantee: '{}' is named twice",
                resource.name
            )));
        }
    }
    Ok(OperatorRequest::UpdateQuota {
        force: request.force(),
        configs: vec![wire::quota::QuotaConfig {
            role,
            guarantees: amounts.clone(),
            limits: amounts,
        }],
    })
}

/// Quota back to nothing; only for a role that has some.
pub(crate) async fn remove_quota(app: &App, role: &str) -> Result<OperatorRequest, Failure> {
    if app.snapshot().await?.state().quota(role).is_none() {
        return Err(Failure::bad_request(format!(
            "there is no quota for role '{role}'"
        )));
    }
    Ok(OperatorRequest::UpdateQuota {
        force: true,
        configs: vec![wire::quota::QuotaConfig {
            role: role.to_owned(),
            ..Default::default()
        }],
    })
}

/// RESERVE_RESOURCES and its kin as an operation on an agent.
fn resources(kind: Type, call: &Call) -> Result<Option<OperatorRequest>, Failure> {
    use wire::offer::{Operation, operation};
    let mut operation = Operation::default();
    let mut set = |kind: operation::Type| operation.r#type = Some(kind as i32);
    let missing = |field: &str| Failure::bad_request(format!("Expecting '{field}' to be present"));
    let agent_id = match kind {
        Type::ReserveResources => {
            set(operation::Type::Reserve);
            call.reserve_resources.as_ref().map(|it| {
                operation.reserve = Some(operation::Reserve {
                    source: it.source.clone(),
                    resources: it.resources.clone(),
                });
                it.agent_id.clone()
            })
        }
        Type::UnreserveResources => {
            set(operation::Type::Unreserve);
            call.unreserve_resources.as_ref().map(|it| {
                let resources = it.resources.clone();
                operation.unreserve = Some(operation::Unreserve { resources });
                it.agent_id.clone()
            })
        }
        Type::CreateVolumes => {
            set(operation::Type::Create);
            call.create_volumes.as_ref().map(|it| {
                let volumes = it.volumes.clone();
                operation.create = Some(operation::Create { volumes });
                it.agent_id.clone()
            })
        }
        Type::DestroyVolumes => {
            set(operation::Type::Destroy);
            call.destroy_volumes.as_ref().map(|it| {
                let volumes = it.volumes.clone();
                operation.destroy = Some(operation::Destroy { volumes });
                it.agent_id.clone()
            })
        }
        Type::GrowVolume => {
            set(operation::Type::GrowVolume);
            let it = call
                .grow_volume
                .as_ref()
                .ok_or_else(|| missing("grow_volume"))?;
            operation.grow_volume = Some(operation::GrowVolume {
                volume: it.volume.clone(),
                addition: it.addition.clone(),
            });
            let agent = it.agent_id.clone();
            Some(agent.ok_or_else(|| missing("grow_volume.agent_id"))?)
        }
        _ => {
            set(operation::Type::ShrinkVolume);
            let it = call
                .shrink_volume
                .as_ref()
                .ok_or_else(|| missing("shrink_volume"))?;
            operation.shrink_volume = Some(operation::ShrinkVolume {
                volume: it.volume.clone(),
                subtract: it.subtract,
            });
            let agent = it.agent_id.clone();
            Some(agent.ok_or_else(|| missing("shrink_volume.agent_id"))?)
        }
    };
    Ok(agent_id.map(|agent_id| OperatorRequest::AgentOperation {
        agent_id: AgentId::from_wire(&agent_id),
        operation: Box::new(operation),
    }))
}

fn file_failure(error: &files::Error) -> Failure {
    Failure::new(error.status(), error.to_string())
}

async fn read(app: &Arc<App>, kind: Type, call: Call) -> Result<wire::master::Response, Failure> {
    let mut answer = wire::master::Response {
        r#type: response::Type::from_str_name(kind.as_str_name()).map(|it| it as i32),
        ..Default::default()
    };
    match kind {
        Type::GetHealth => answer.get_health = Some(response::GetHealth { healthy: true }),
        Type::GetFlags => {
            let flags = app.settings.flags.rendered().into_iter();
            answer.get_flags = Some(response::GetFlags {
                flags: flags
                    .map(|(name, value)| wire::Flag {
                        name,
                        value: Some(value),
                    })
                    .collect(),
            });
        }
        Type::GetVersion => {
            let version_info = version::info();
            answer.get_version = Some(response::GetVersion { version_info });
        }
        Type::GetMetrics => {
            let metrics = metrics::collect(app).await.into_iter();
            answer.get_metrics = Some(response::GetMetrics {
                metrics: metrics
                    .map(|(name, value)| wire::Metric {
                        name,
                        value: Some(value),
                    })
                    .collect(),
            });
        }
        Type::GetLoggingLevel => {
            answer.get_logging_level = Some(response::GetLoggingLevel {
                level: logging::level(),
            });
        }
        Type::ListFiles => {
            let path = call.list_files.map(|it| it.path).unwrap_or_default();
            let files = app.files.clone();
            let file_infos = disk(move || files.list(&path))
                .await
                .map_err(|error| file_failure(&error))?;
            answer.list_files = Some(response::ListFiles { file_infos });
        }
        Type::ReadFile => {
            let it = call.read_file.unwrap_or_default();
            let files = app.files.clone();
            let length = it.length.unwrap_or(files::MAX_READ).min(files::MAX_READ);
            let part = disk(move || files.read(&it.path, it.offset, length))
                .await
                .map_err(|error| file_failure(&error))?;
            answer.read_file = Some(response::ReadFile {
                size: part.size,
                data: part.data,
            });
        }
        Type::Explain => {
            let asked = call.explain.unwrap_or_default();
            answer.explain = Some(explain::call(app, &asked).await?);
        }
        Type::GetMaster => {
            answer.get_master = Some(response::GetMaster {
                master_info: Some(app.master_info()),
                start_time: Some(app.start_time),
                elected_time: Some(app.shared.status().elected_time),
            });
        }
        _ => from_view(app, kind, &mut answer).await?,
    }
    Ok(answer)
}

/// Reads of the cluster's state.
async fn from_view(
    app: &App,
    kind: Type,
    answer: &mut wire::master::Response,
) -> Result<(), Failure> {
    let view = app.snapshot().await?;
    match kind {
        Type::GetState => answer.get_state = Some(state::get_state(&view)),
        Type::GetAgents => answer.get_agents = Some(agents::get_agents(&view)),
        Type::GetFrameworks => answer.get_frameworks = Some(frameworks::get_frameworks(&view)),
        Type::GetExecutors => answer.get_executors = Some(frameworks::get_executors(&view)),
        Type::GetOperations => answer.get_operations = Some(operations::get_operations(&view)),
        Type::GetTasks => answer.get_tasks = Some(tasks::get_tasks(&view)),
        Type::GetRoles => answer.get_roles = Some(roles::get_roles(&view)),
        Type::GetWeights => answer.get_weights = roles::get_weights(&view),
        Type::GetQuota => {
            let status = roles::quota_status(&view);
            answer.get_quota = Some(response::GetQuota { status });
        }
        Type::GetMaintenanceStatus => {
            let status = maintenance::status(&view);
            answer.get_maintenance_status = Some(response::GetMaintenanceStatus { status });
        }
        Type::GetMaintenanceSchedule => {
            let schedule = maintenance::schedule(&view);
            answer.get_maintenance_schedule = Some(response::GetMaintenanceSchedule { schedule });
        }
        other => {
            let reason = format!("a call of type {} cannot be served", other.as_str_name());
            return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, reason));
        }
    }
    Ok(())
}
