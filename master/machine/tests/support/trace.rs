//! Outputs as text, one line each.

use prost::Message as _;
use std::fmt::Write as _;
use tepui_master_machine::output::{Destination, Message, Needs, Output, ViewChange};
use tepui_model::event::Event;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::operator;
use tepui_model::resources::Resources;
use tepui_model::wire::task_status::{Reason, Source};
use tepui_model::wire::{self, OperationState, TaskState};

use super::World;

pub fn output(world: &World, output: &Output) -> String {
    let mut text = String::new();
    for operation in &output.log {
        if let Some(kind) = &operation.kind {
            let _ = writeln!(text, "log {}", fact(kind));
        }
    }
    if output.log.is_empty() && output.stamp {
        text.push_str("log nothing\n");
    }
    for outgoing in &output.send {
        let to = match outgoing.to {
            Destination::Scheduler(connection) | Destination::Agent(connection) => {
                world.connection_name(connection)
            }
            Destination::Reply(request) => format!("reply {}", request.0),
            Destination::Watch(connection) => format!("watch {}", connection.0),
        };
        let needs = match outgoing.needs {
            Needs::Committed => "",
            Needs::Leadership => " (leadership)",
        };
        let _ = writeln!(text, "-> {to}: {}{needs}", message(&outgoing.message));
    }
    for change in &output.view {
        let _ = writeln!(text, "view {}", view(change));
    }
    text
}

fn fact(kind: &Kind) -> String {
    match kind {
        Kind::FormCluster(it) => format!(
            "FormCluster {} incarnation={}",
            it.cluster_id, it.incarnation
        ),
        Kind::SetClusterVersion(it) => format!("SetClusterVersion {}", it.version),
        Kind::Synthetic(_) => "Synthetic".to_owned(),
        Kind::BeginTerm(it) => format!("BeginTerm {} {}", it.term, it.master_id),
        Kind::PutAgent(it) => {
            let row = it.agent.clone().unwrap_or_default();
            format!(
                "PutAgent {} at {} boot={} total={}",
                row.agent_id,
                row.address,
                row.boot_id,
                resources(&row.total)
            )
        }
        Kind::AgentConnected(it) => format!("AgentConnected {}", it.agent_id),
        Kind::AgentDisconnected(it) => format!("AgentDisconnected {}", it.agent_id),
        Kind::MarkUnreachable(it) => format!("MarkUnreachable {}", it.agent_id),
        Kind::MarkGone(it) => format!("MarkGone {}", it.agent_id),
        Kind::RemoveAgent(it) => format!("RemoveAgent {}", it.agent_id),
        Kind::SetAgentResources(it) => {
            format!("SetAgentResources {} {}", it.agent_id, resources(&it.total))
        }
        Kind::ConfirmCommands(it) => format!("ConfirmCommands {} up_to={}", it.agent_id, it.up_to),
        Kind::SetAgentActivation(it) => format!(
            "SetAgentActivation {} deactivated={} drain={:?}",
            it.agent_id,
            it.deactivated,
            it.drain.as_ref().map(|drain| drain.state)
        ),
        Kind::AddCommand(it) => format!(
            "AddCommand {} {}",
            it.agent_id,
            it.command.as_ref().map(command).unwrap_or_default()
        ),
        Kind::PutFramework(it) => {
            let row = it.framework.clone().unwrap_or_default();
            format!(
                "PutFramework {} suppressed={:?}",
                row.framework_id, row.suppressed_roles
            )
        }
        Kind::FrameworkConnected(it) => format!("FrameworkConnected {}", it.framework_id),
        Kind::FrameworkDisconnected(it) => format!("FrameworkDisconnected {}", it.framework_id),
        Kind::RemoveFramework(it) => format!("RemoveFramework {}", it.framework_id),
        Kind::SetSuppressed(it) => format!(
            "SetSuppressed {} {:?}",
            it.framework_id, it.suppressed_roles
        ),
        Kind::LaunchTask(it) => {
            let mut text = "LaunchTask".to_owned();
            if let Some(task) = &it.task {
                let _ = write!(
                    text,
                    " {}/{} on {} {}",
                    task.framework_id,
                    task.task_id,
                    task.agent_id,
                    resources(&task.resources)
                );
            }
            if let Some(executor) = &it.executor {
                let _ = write!(
                    text,
                    " executor={} {}",
                    executor.executor_id,
                    resources(&executor.resources)
                );
            }
            if let Some(it) = &it.command {
                let _ = write!(text, " #{}", it.sequence);
            }
            text
        }
        Kind::UpdateTask(it) => {
            let status = it.status.clone().unwrap_or_default();
            let latest = it
                .latest_state
                .map(|state| format!(" latest={}", task_state(state)))
                .unwrap_or_default();
            let unreachable = if it.unreachable { " unreachable" } else { "" };
            format!(
                "UpdateTask {}/{} {}{latest}{unreachable}",
                it.framework_id,
                it.task_id,
                task_state(status.state)
            )
        }
        Kind::AcknowledgeTask(it) => format!(
            "AcknowledgeTask {}/{} {}",
            it.framework_id,
            it.task_id,
            uuid(&it.uuid)
        ),
        Kind::RemoveTask(it) => format!("RemoveTask {}/{}", it.framework_id, it.task_id),
        Kind::KillTask(it) => format!(
            "KillTask {}/{} {}",
            it.framework_id,
            it.task_id,
            it.command.as_ref().map(command).unwrap_or_default()
        ),
        Kind::RemoveExecutor(it) => format!(
            "RemoveExecutor {}/{} on {}",
            it.framework_id, it.executor_id, it.agent_id
        ),
        Kind::PutOperation(it) => {
            let row = it.operation.clone().unwrap_or_default();
            format!(
                "PutOperation {} of {} on {}",
                row.operation_id, row.framework_id, row.agent_id
            )
        }
        Kind::UpdateOperation(it) => format!("UpdateOperation {}", operation_state(it.state)),
        Kind::RemoveOperation(_) => "RemoveOperation".to_owned(),
        Kind::SetWeights(it) => format!(
            "SetWeights {:?}",
            it.weights
                .iter()
                .map(|it| (it.role.as_str(), it.micro))
                .collect::<Vec<_>>()
        ),
        Kind::SetQuotas(it) => format!(
            "SetQuotas {:?}",
            it.quotas
                .iter()
                .map(|it| it.role.as_str())
                .collect::<Vec<_>>()
        ),
        Kind::PutVariable(it) => format!("PutVariable {:?}", it.variable),
        Kind::RemoveVariable(it) => format!("RemoveVariable {} at {}", it.name, it.revision),
        Kind::PutLease(it) => format!("PutLease {:?}", it.lease),
        Kind::RemoveLease(it) => format!("RemoveLease {} at {}", it.lease_id, it.revision),
        Kind::SetMaintenance(it) => format!(
            "SetMaintenance {:?}",
            it.machines
                .iter()
                .map(|it| (it.hostname.as_str(), it.ip.as_str(), it.mode))
                .collect::<Vec<_>>()
        ),
    }
}

fn command(command: &log::Command) -> String {
    use log::command::Kind;
    let text = match &command.kind {
        Some(Kind::RunTask(it)) => format!("RunTask {}/{}", it.framework_id, it.task_id),
        Some(Kind::RunTaskGroup(it)) => format!(
            "RunTaskGroup {} {:?}",
            it.framework_id,
            it.tasks
                .iter()
                .map(|it| it.task_id.as_str())
                .collect::<Vec<_>>()
        ),
        Some(Kind::Kill(it)) => {
            let grace = wire::KillPolicy::decode(it.kill_policy_payload.clone())
                .ok()
                .and_then(|policy| policy.grace_period)
                .map(|grace| format!(" grace={}ns", grace.nanoseconds))
                .unwrap_or_default();
            format!("Kill {}/{}{grace}", it.framework_id, it.task_id)
        }
        Some(Kind::ShutdownFramework(it)) => format!("ShutdownFramework {}", it.framework_id),
        Some(Kind::ShutdownExecutor(it)) => {
            format!("ShutdownExecutor {}/{}", it.framework_id, it.executor_id)
        }
        Some(Kind::ApplyOperation(it)) => format!("ApplyOperation total={}", resources(&it.total)),
        Some(Kind::SetResources(it)) => format!("SetResources {}", resources(&it.total)),
        Some(Kind::Drain(it)) => format!(
            "Drain grace={:?} gone={} cancel={}",
            it.max_grace_period_ns, it.mark_gone, it.cancel
        ),
        None => "nothing".to_owned(),
    };
    format!("#{} {text}", command.sequence)
}

/// Agents looked at of all; then each client with its place, what it gets and why not more.
fn explanation(it: &operator::Explanation) -> String {
    let mut text = format!(
        "explained by {} of {} agents",
        it.agents_looked_at, it.agents
    );
    if !it.complete {
        text.push_str(", incomplete");
    }
    for client in &it.clients {
        let (id, role) = (&client.framework_id.value, &client.role);
        let _ = write!(text, "; {id} in {role}");
        if let Some(place) = client.place {
            let _ = write!(text, " place={place}");
        }
        if client.dormant {
            text.push_str(" dormant");
        }
        if let Some(silent) = &client.silent {
            let _ = write!(text, " silent={silent:?}");
        }
        for it in &client.gets {
            let _ = write!(
                text,
                " gets {} {}",
                it.agent_id.value,
                resources(&it.resources)
            );
        }
        for it in &client.reasons {
            let (reason, example) = (&it.reason, &it.example.value);
            let _ = write!(text, " {}x{reason}({example}", it.agents);
            if let Some(by) = &it.by_framework_id {
                let _ = write!(text, " by {}", by.value);
            }
            text.push(')');
        }
    }
    text
}

fn message(message: &Message) -> String {
    match message {
        Message::Event { event: it, .. } => event(it),
        Message::Turn => "TURN".to_owned(),
        Message::Close { status, reason } => format!("CLOSE {status:?}: {reason}"),
        Message::Answer { status, message } if message.is_empty() => {
            format!("{}", status.http_code())
        }
        Message::Answer { status, message } => format!("{}: {message}", status.http_code()),
        Message::Explanation(it) => explanation(it),
        Message::State(answer) => format!("{answer:?}"),
        Message::StateEvent(event) => format!("{event:?}"),
        Message::ToAgent(it) => match &it.kind {
            Some(ToAgent::Registered(it)) => format!(
                "Registered {} again={} total={}",
                it.agent_id,
                it.reregistered,
                resources(&it.total)
            ),
            Some(ToAgent::Refused(it)) => {
                format!("Refused shutdown={}: {}", it.shutdown, it.message)
            }
            Some(ToAgent::Ping(it)) => format!("Ping connected={}", it.connected),
            Some(ToAgent::Command(it)) => command(it),
            Some(ToAgent::AcknowledgeUpdate(it)) => format!(
                "AcknowledgeUpdate {}/{} {}",
                it.framework_id,
                it.task_id,
                uuid(&it.uuid)
            ),
            Some(ToAgent::AcknowledgeOperation(it)) => {
                format!("AcknowledgeOperation {}", uuid(&it.uuid))
            }
            Some(ToAgent::UpdateFramework(it)) => format!("UpdateFramework {}", it.framework_id),
            Some(ToAgent::SchedulerMessage(it)) => format!(
                "SchedulerMessage {}/{} {} bytes",
                it.framework_id,
                it.executor_id,
                it.data.len()
            ),
            Some(ToAgent::Shutdown(it)) => format!("Shutdown: {}", it.message),
            Some(ToAgent::Leader(it)) => format!("Leader {}", it.address),
            Some(ToAgent::KillUnknown(it)) => {
                format!("KillUnknown {}/{}", it.framework_id, it.task_id)
            }
            Some(ToAgent::RegisterAgain(_)) => "RegisterAgain".to_owned(),
            None => "nothing".to_owned(),
        },
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::Subscribed {
            framework_id,
            heartbeat_interval_seconds,
            ..
        } => {
            format!("SUBSCRIBED {framework_id} heartbeat={heartbeat_interval_seconds}")
        }
        Event::Offers(offers) => {
            let mut text = "OFFERS".to_owned();
            for offer in offers {
                let maintenance = if offer.unavailability.is_some() {
                    " unavailable"
                } else {
                    ""
                };
                let _ = write!(
                    text,
                    " [{} {} role={} {}{maintenance}]",
                    offer.id,
                    offer.agent_id,
                    offer.role,
                    offer.allocated()
                );
            }
            text
        }
        Event::InverseOffers(offers) => {
            let mut text = "INVERSE_OFFERS".to_owned();
            for offer in offers {
                let agent = offer
                    .agent_id
                    .as_ref()
                    .map(|id| id.value.as_str())
                    .unwrap_or_default();
                let _ = write!(text, " [{} {agent}]", offer.id.value);
            }
            text
        }
        Event::Rescind(id) => format!("RESCIND {id}"),
        Event::RescindInverseOffer(id) => format!("RESCIND_INVERSE_OFFER {id}"),
        Event::Update(status) => update(status),
        Event::UpdateOperationStatus(status) => format!(
            "UPDATE_OPERATION_STATUS {} {} '{}' {}",
            status
                .operation_id
                .as_ref()
                .map(|id| id.value.as_str())
                .unwrap_or_default(),
            operation_state(status.state),
            status.message(),
            status
                .uuid
                .as_ref()
                .map(|it| uuid(&it.value))
                .unwrap_or_default(),
        ),
        Event::Message {
            agent_id,
            executor_id,
            data,
        } => format!("MESSAGE {agent_id} {executor_id} {} bytes", data.len()),
        Event::Failure {
            agent_id,
            executor_id,
            status,
        } => format!("FAILURE {agent_id:?} {executor_id:?} {status:?}"),
        Event::Error(message) => format!("ERROR {message}"),
        Event::Heartbeat => "HEARTBEAT".to_owned(),
    }
}

fn update(status: &wire::TaskStatus) -> String {
    let source = status
        .source
        .and_then(|it| Source::try_from(it).ok())
        .map(|it| it.as_str_name());
    let reason = status
        .reason
        .and_then(|it| Reason::try_from(it).ok())
        .map(|it| it.as_str_name());
    let mut text = format!(
        "UPDATE {} {}",
        status.task_id.value,
        task_state(status.state)
    );
    for part in [source, reason].into_iter().flatten() {
        let _ = write!(text, " {part}");
    }
    if let Some(agent_id) = &status.agent_id {
        let _ = write!(text, " agent={}", agent_id.value);
    }
    if let Some(executor_id) = &status.executor_id {
        let _ = write!(text, " executor={}", executor_id.value);
    }
    if status.unreachable_time.is_some() {
        text.push_str(" unreachable_time");
    }
    if let Some(it) = &status.uuid {
        let _ = write!(text, " {}", uuid(it));
    }
    if let Some(message) = &status.message {
        let _ = write!(text, " '{message}'");
    }
    text
}

fn view(change: &ViewChange) -> String {
    match change {
        ViewChange::OfferAdded(offer) => format!("+offer {}", offer.id),
        ViewChange::OfferRemoved(id) => format!("-offer {id}"),
        ViewChange::Framework {
            framework_id,
            connected,
            active,
            ..
        } => {
            format!("framework {framework_id} connected={connected} active={active}")
        }
        ViewChange::FrameworkRemoved(id) => format!("-framework {id}"),
        ViewChange::Agent {
            agent_id,
            connected,
            active,
        } => {
            format!("agent {agent_id} connected={connected} active={active}")
        }
        ViewChange::AgentRemoved(id) => format!("-agent {id}"),
        ViewChange::Oversubscribed {
            agent_id,
            resources,
        } => format!("agent {agent_id} oversubscribes {resources}"),
        ViewChange::InverseOfferAdded(offer) => format!("+inverse offer {}", offer.id.value),
        ViewChange::InverseOfferRemoved(id) => format!("-inverse offer {id}"),
        ViewChange::InverseOfferAnswered {
            agent_id,
            framework_id,
            accepted,
        } => {
            format!("inverse offer answered {framework_id} {agent_id} accepted={accepted}")
        }
    }
}

fn resources(all: &[wire::Resource]) -> String {
    Resources::from_wire(all)
        .map(|it| it.to_string())
        .unwrap_or_else(|error| error.to_string())
}

fn task_state(state: i32) -> &'static str {
    TaskState::try_from(state).map_or("?", |it| it.as_str_name())
}

fn operation_state(state: i32) -> &'static str {
    OperationState::try_from(state).map_or("?", |it| it.as_str_name())
}

/// Test uuids are one number sixteen times.
fn uuid(bytes: &[u8]) -> String {
    match bytes.first() {
        Some(first) if bytes.len() == 16 => format!("u{first}"),
        _ => format!("u?{}", bytes.len()),
    }
}
