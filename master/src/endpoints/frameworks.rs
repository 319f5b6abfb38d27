//! Frameworks: `/frameworks`, and their part of `/state` and `/state-summary`.

use super::{json::Writer, resources, state, tasks};
use crate::view::{FrameworkLink, View, totals};
use prost::Message;
use tepui_master_machine::model::{
    Resources, Role,
    id::FrameworkId,
    log,
    resources::ResourceFormat,
    wire::{self, framework_info::capability},
};
use tepui_server::proto::json;

/// `/frameworks`, of one framework when `only` names it.
pub(crate) fn frameworks(view: &View, only: Option<&str>) -> String {
    let mut writer = Writer::new();
    writer.object(|it| {
        lists(it, view, only);
        it.array_field("unregistered_frameworks", |_| {});
    });
    writer.finish()
}

/// The fields `frameworks` and `completed_frameworks`.
pub(crate) fn lists(it: &mut Writer, view: &View, only: Option<&str>) {
    let wanted = |id: &FrameworkId| only.is_none_or(|only| id.as_str() == only);
    it.array_field("frameworks", |it| {
        for (id, row) in view.state().frameworks().filter(|(id, _)| wanted(id)) {
            framework(it, view, id, row);
        }
    });
    it.array_field("completed_frameworks", |it| {
        for (id, row) in view
            .state()
            .completed_frameworks()
            .filter(|(id, _)| wanted(id))
        {
            framework(it, view, id, row);
        }
    });
}

/// What the framework said of itself.
pub(crate) fn info(row: &log::Framework) -> wire::FrameworkInfo {
    wire::FrameworkInfo::decode(row.info_payload.clone()).unwrap_or_default()
}

fn is_multi_role(info: &wire::FrameworkInfo) -> bool {
    info.capabilities
        .iter()
        .any(|it| it.r#type == Some(capability::Type::MultiRole as i32))
}

/// The roles that it subscribes to.
pub(crate) fn roles(row: &log::Framework) -> Vec<Role> {
    let info = info(row);
    if is_multi_role(&info) {
        info.roles
            .iter()
            .map(|it| Role::from(it.as_str()))
            .collect()
    } else {
        vec![Role::from(info.role())]
    }
}

/// What `/state` and `/state-summary` have in common.
pub(crate) fn outline(
    it: &mut Writer,
    row: &log::Framework,
    info: &wire::FrameworkInfo,
    link: FrameworkLink,
    recovered: bool,
    sums: &totals::Use,
) {
    it.string_field("id", &row.framework_id);
    it.string_field("name", &info.name);
    resources::summary(it.key("used_resources"), &sums.used);
    resources::summary(it.key("offered_resources"), &sums.offered);
    it.array_field("capabilities", |it| {
        for capability in &info.capabilities {
            it.string(capability.r#type().as_str_name());
        }
    });
    it.string_field("hostname", info.hostname());
    it.string_field("webui_url", info.webui_url());
    it.bool_field("active", link.active);
    it.bool_field("connected", link.connected);
    it.bool_field("recovered", recovered);
}

/// Whether a framework of the live list waits for its scheduler since an earlier term.
pub(crate) fn is_recovered(view: &View, id: &FrameworkId, row: &log::Framework) -> bool {
    !row.completed && view.is_recovered(id)
}

fn framework(writer: &mut Writer, view: &View, id: &FrameworkId, row: &log::Framework) {
    let info = info(row);
    let sums = totals::of_framework(view, id);
    let cluster = view.state();
    writer.object(|it| {
        let recovered = is_recovered(view, id, row);
        outline(it, row, &info, view.framework_link(id), recovered, &sums);
        it.string_field("user", &info.user);
        it.double_field("failover_timeout", info.failover_timeout());
        it.bool_field("checkpoint", info.checkpoint());
        it.double_field("registered_time", row.wall_registered);
        it.double_field("unregistered_time", row.wall_unregistered.unwrap_or(0.0));
        if let Some(time) = row
            .wall_reregistered
            .filter(|it| *it != row.wall_registered)
        {
            it.double_field("reregistered_time", time);
        }
        if let Some(principal) = info.principal.as_deref().filter(|it| !it.is_empty()) {
            it.string_field("principal", principal);
        }
        let mut both = sums.used.clone();
        both.add(&sums.offered);
        resources::summary(it.key("resources"), &both);
        if is_multi_role(&info) {
            it.array_field("roles", |it| {
                info.roles.iter().for_each(|role| it.string(role))
            });
        } else {
            it.string_field("role", info.role());
        }
        it.array_field("tasks", |it| {
            for (_, row) in cluster
                .tasks_of_framework(id)
                .filter(|(_, it)| !it.unreachable)
            {
                tasks::task(it, row);
            }
        });
        it.array_field("unreachable_tasks", |it| {
            for row in cluster.unreachable_tasks(id) {
                tasks::task(it, row);
            }
        });
        it.array_field("completed_tasks", |it| {
            for row in cluster.completed_tasks(id) {
                tasks::task(it, row);
            }
        });
        it.array_field("offers", |it| {
            for offer in view.offers_of_framework(id) {
                it.object(|it| {
                    it.string_field("id", offer.id.as_str());
                    it.string_field("framework_id", offer.framework_id.as_str());
                    it.object_field("allocation_info", |it| {
                        it.string_field("role", offer.role.as_str());
                    });
                    it.string_field("slave_id", offer.agent_id.as_str());
                    resources::summary(it.key("resources"), &offer.resources);
                });
            }
        });
        it.array_field("executors", |it| {
            for row in cluster.executors_of_framework(id) {
                executor(it, row);
            }
        });
        if let Some(labels) = &info.labels {
            tasks::labels(it, &labels.encode_to_vec());
        }
        let constraints = &row.offer_constraints_payload;
        it.key("offer_constraints")
            .wire("mesos.v1.scheduler.OfferConstraints", constraints);
    });
}

fn executor(writer: &mut Writer, row: &log::Executor) {
    let info = wire::ExecutorInfo::decode(row.executor_info_payload.clone()).unwrap_or_default();
    writer.object(|it| {
        it.string_field("executor_id", &row.executor_id);
        it.string_field("name", info.name());
        it.string_field("framework_id", &row.framework_id);
        command(it, info.command.as_ref());
        resources::summary(it.key("resources"), &totals::resources(&row.resources));
        let role = row
            .resources
            .first()
            .and_then(|it| it.allocation_info.as_ref());
        if let Some(role) = role {
            it.string_field("role", role.role());
        }
        if let Some(labels) = &info.labels {
            tasks::labels(it, &labels.encode_to_vec());
        }
        if info.r#type.is_some() {
            it.string_field("type", info.r#type().as_str_name());
        }
        it.string_field("slave_id", &row.agent_id);
    });
}

fn command(it: &mut Writer, command: Option<&wire::CommandInfo>) {
    it.object_field("command", |it| {
        let Some(command) = command else { return };
        if let Some(shell) = command.shell {
            it.bool_field("shell", shell);
        }
        if let Some(value) = &command.value {
            it.string_field("value", value);
        }
        it.array_field("argv", |it| {
            command.arguments.iter().for_each(|word| it.string(word));
        });
        if let Some(environment) = &command.environment {
            it.key("environment").raw(&json::encode(environment));
        }
        it.array_field("uris", |it| {
            for uri in &command.uris {
                it.object(|it| {
                    it.string_field("value", &uri.value);
                    it.bool_field("executable", uri.executable());
                });
            }
        });
    });
}

/// GET_FRAMEWORKS.
pub(crate) fn get_frameworks(view: &View) -> wire::master::response::GetFrameworks {
    wire::master::response::GetFrameworks {
        frameworks: view
            .state()
            .frameworks()
            .map(|(id, row)| framework_v1(view, id, row))
            .collect(),
        completed_frameworks: view
            .state()
            .completed_frameworks()
            .map(|(id, row)| framework_v1(view, id, row))
            .collect(),
        ..Default::default()
    }
}

/// FrameworkInfo with the id that the master gave.
pub(crate) fn info_v1(row: &log::Framework) -> wire::FrameworkInfo {
    wire::FrameworkInfo {
        id: Some(wire::FrameworkId {
            value: row.framework_id.clone(),
        }),
        ..info(row)
    }
}

/// One framework as events tell of it: what it is, without what it has.
pub(crate) fn framework_event(
    view: &View,
    id: &FrameworkId,
    row: &log::Framework,
) -> wire::master::response::get_frameworks::Framework {
    let link = view.framework_link(id);
    wire::master::response::get_frameworks::Framework {
        framework_info: info_v1(row),
        active: link.active,
        connected: link.connected,
        recovered: is_recovered(view, id, row),
        registered_time: Some(state::time(row.wall_registered)),
        reregistered_time: Some(state::time(
            row.wall_reregistered.unwrap_or(row.wall_registered),
        )),
        // Zero stands for a framework that has not gone.
        unregistered_time: Some(state::time(row.wall_unregistered.unwrap_or_default())),
        ..Default::default()
    }
}

/// One framework for the v1 API.
pub(crate) fn framework_v1(
    view: &View,
    id: &FrameworkId,
    row: &log::Framework,
) -> wire::master::response::get_frameworks::Framework {
    let sums = totals::of_framework(view, id);
    let full = |resources: &Resources| resources.to_wire_for(ResourceFormat::Endpoint);
    wire::master::response::get_frameworks::Framework {
        unregistered_time: row.wall_unregistered.map(state::time),
        offers: view
            .offers_of_framework(id)
            .map(|it| it.to_wire(resources::FORMAT))
            .collect(),
        allocated_resources: full(&sums.used),
        offered_resources: full(&sums.offered),
        offer_constraints: Some(
            wire::scheduler::OfferConstraints::decode(row.offer_constraints_payload.clone())
                .unwrap_or_default(),
        ),
        ..framework_event(view, id, row)
    }
}

/// GET_EXECUTORS.
pub(crate) fn get_executors(view: &View) -> wire::master::response::GetExecutors {
    let executors = view.state().executors().map(|row| {
        let info =
            wire::ExecutorInfo::decode(row.executor_info_payload.clone()).unwrap_or_default();
        wire::master::response::get_executors::Executor {
            executor_info: info,
            agent_id: wire::AgentId {
                value: row.agent_id.clone(),
            },
        }
    });
    wire::master::response::GetExecutors {
        executors: executors.collect(),
        ..Default::default()
    }
}
