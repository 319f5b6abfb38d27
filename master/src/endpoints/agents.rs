//! Agents: `/slaves`, and their part of `/state` and `/state-summary`.

use super::{json::Writer, resources};
use crate::view::{AgentLink, View, totals};
use prost::Message;
use tepui_master_machine::model::{id::AgentId, log, resources::ResourceFormat, wire};
use tepui_server::proto::json;

/// How much is said of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// As in `/state`.
    Plain,
    /// As in `/slaves`: with the `*_full` keys.
    Full,
}

/// `/slaves`, of one agent when `only` names it.
pub(crate) fn slaves(view: &View, only: Option<&str>) -> String {
    let wanted = |id: &AgentId| only.is_none_or(|only| id.as_str() == only);
    let mut writer = Writer::new();
    writer.object(|it| {
        it.array_field("slaves", |it| {
            for (id, row, link) in view.registered_agents().filter(|(id, ..)| wanted(id)) {
                it.object(|it| agent(it, view, id, row, link, Detail::Full));
            }
        });
        it.array_field("recovered_slaves", |it| {
            for (_, row) in view.recovered_agents().filter(|(id, _)| wanted(id)) {
                recovered(it, row);
            }
        });
    });
    writer.finish()
}

/// What the agent said of itself; empty when the row is of a version that said nothing.
pub(crate) fn info(row: &log::Agent) -> wire::AgentInfo {
    wire::AgentInfo::decode(row.info_payload.clone()).unwrap_or_default()
}

/// The fields of one registered agent.
pub(crate) fn agent(
    it: &mut Writer,
    view: &View,
    id: &AgentId,
    row: &log::Agent,
    link: AgentLink,
    detail: Detail,
) {
    let info = info(row);
    let total = view.total(id, row);
    let sums = totals::of_agent(view, id);
    identity(it, row, &info);
    it.string_field("pid", &format!("slave(1)@{}", row.address));
    it.double_field("registered_time", row.wall_registered);
    if let Some(time) = row.wall_reregistered {
        it.double_field("reregistered_time", time);
    }
    resources::summary(it.key("resources"), &total);
    resources::summary(it.key("used_resources"), &sums.used);
    resources::summary(it.key("offered_resources"), &sums.offered);
    resources::reserved_summaries(it.key("reserved_resources"), &total.reserved());
    resources::summary(it.key("unreserved_resources"), &total.unreserved());
    it.bool_field("active", link.active);
    it.bool_field("deactivated", row.deactivated);
    it.string_field("version", &row.version);
    it.array_field("capabilities", |it| {
        for capability in &row.capabilities {
            it.string(capability);
        }
    });
    if let Some(drain) = &row.drain {
        it.key("drain_info").raw(&json::encode(&drain_info(drain)));
        if let Some(began) = drain.wall_began {
            it.double_field("estimated_drain_start_time_seconds", began);
        }
    }
    if detail == Detail::Full {
        it.object_field("reserved_resources_full", |it| {
            for (role, reserved) in total.reserved() {
                resources::full(it.key(role.as_str()), &reserved);
            }
        });
        resources::full(it.key("unreserved_resources_full"), &total.unreserved());
        resources::full(it.key("used_resources_full"), &sums.used);
        resources::full(it.key("offered_resources_full"), &sums.offered);
    }
}

fn identity(it: &mut Writer, row: &log::Agent, info: &wire::AgentInfo) {
    it.string_field("id", &row.agent_id);
    it.string_field("hostname", &info.hostname);
    it.integer_field("port", info.port().try_into().unwrap_or_default());
    it.object_field("attributes", |it| attributes(it, &info.attributes));
    if let Some(domain) = &info.domain {
        it.key("domain").raw(&json::encode(domain));
    }
}

/// An agent that was admitted in an earlier term and has not come back.
pub(crate) fn recovered(it: &mut Writer, row: &log::Agent) {
    it.object(|it| identity(it, row, &info(row)));
}

/// Name to number or text; the first of several with one name wins.
fn attributes(it: &mut Writer, attributes: &[wire::Attribute]) {
    let mut seen: Vec<&str> = Vec::new();
    for attribute in attributes {
        if seen.contains(&attribute.name.as_str()) {
            continue;
        }
        seen.push(&attribute.name);
        if let Some(scalar) = &attribute.scalar {
            it.double_field(&attribute.name, scalar.value);
        } else if let Some(ranges) = &attribute.ranges {
            let parts = ranges
                .range
                .iter()
                .map(|it| format!("{}-{}", it.begin, it.end));
            let text = parts.collect::<Vec<_>>().join(", ");
            it.string_field(&attribute.name, &format!("[{text}]"));
        } else if let Some(text) = &attribute.text {
            it.string_field(&attribute.name, &text.value);
        }
    }
}

/// The drain state of an agent as a message.
pub(crate) fn drain_info(drain: &log::DrainInfo) -> wire::DrainInfo {
    wire::DrainInfo {
        state: drain.state,
        config: wire::DrainConfig {
            max_grace_period: drain
                .max_grace_period_ns
                .map(|nanoseconds| wire::DurationInfo {
                    nanoseconds: nanoseconds.try_into().unwrap_or(i64::MAX),
                }),
            mark_gone: Some(drain.mark_gone),
        },
    }
}

/// The same for the v1 API.
pub(crate) fn get_agents(view: &View) -> wire::master::response::GetAgents {
    wire::master::response::GetAgents {
        agents: view
            .registered_agents()
            .map(|(id, row, link)| registered_v1(view, id, row, link))
            .collect(),
        recovered_agents: view
            .recovered_agents()
            .map(|(_, row)| info_v1(row))
            .collect(),
    }
}

/// AgentInfo with the id that the master gave.
pub(crate) fn info_v1(row: &log::Agent) -> wire::AgentInfo {
    wire::AgentInfo {
        id: Some(wire::AgentId {
            value: row.agent_id.clone(),
        }),
        ..info(row)
    }
}

/// One agent for the v1 API.
pub(crate) fn registered_v1(
    view: &View,
    id: &AgentId,
    row: &log::Agent,
    link: AgentLink,
) -> wire::master::response::get_agents::Agent {
    let sums = totals::of_agent(view, id);
    let full = |resources: &tepui_master_machine::model::Resources| {
        resources.to_wire_for(ResourceFormat::Endpoint)
    };
    let drain = row.drain.as_ref();
    wire::master::response::get_agents::Agent {
        agent_info: info_v1(row),
        active: link.active,
        deactivated: Some(row.deactivated),
        version: row.version.clone(),
        pid: Some(format!("slave(1)@{}", row.address)),
        registered_time: Some(super::state::time(row.wall_registered)),
        reregistered_time: row.wall_reregistered.map(super::state::time),
        total_resources: full(&view.total(id, row)),
        allocated_resources: full(&sums.used),
        offered_resources: full(&sums.offered),
        capabilities: row
            .capabilities
            .iter()
            .filter_map(|name| {
                let kind = wire::agent_info::capability::Type::from_str_name(name)?;
                Some(wire::agent_info::Capability {
                    r#type: Some(kind as i32),
                })
            })
            .collect(),
        drain_info: drain.map(drain_info),
        estimated_drain_start_time: drain.and_then(|it| it.wall_began).map(super::state::time),
        ..Default::default()
    }
}
