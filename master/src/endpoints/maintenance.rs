//! Maintenance: `/maintenance/schedule`, `/maintenance/status` and their v1 calls.

use crate::view::{InverseAnswer, View};
use tepui_master_machine::model::{id::AgentId, log, wire};

/// The schedule; empty when there is none.
pub(crate) fn schedule(view: &View) -> wire::maintenance::Schedule {
    let mut windows = Vec::new();
    if let Some(maintenance) = view.state().maintenance() {
        for schedule in &maintenance.schedules {
            windows.extend(schedule.windows.iter().cloned());
        }
    }
    wire::maintenance::Schedule { windows }
}

/// Machines that drain, with what frameworks answered, and those that are down.
pub(crate) fn status(view: &View) -> wire::maintenance::ClusterStatus {
    let mut status = wire::maintenance::ClusterStatus::default();
    let Some(maintenance) = view.state().maintenance() else {
        return status;
    };
    for machine in &maintenance.machines {
        let text = |it: &String| (!it.is_empty()).then(|| it.clone());
        let id = wire::MachineId {
            hostname: text(&machine.hostname),
            ip: text(&machine.ip),
        };
        match wire::machine_info::Mode::try_from(machine.mode) {
            Ok(wire::machine_info::Mode::Draining) => {
                let statuses = agents_of(view, machine)
                    .flat_map(|agent_id| answers(view, agent_id))
                    .collect();
                let draining = wire::maintenance::cluster_status::DrainingMachine { id, statuses };
                status.draining_machines.push(draining);
            }
            Ok(wire::machine_info::Mode::Down) => status.down_machines.push(id),
            _ => {}
        }
    }
    status
}

/// Agents on a machine: both parts of its id that are given have to be theirs.
fn agents_of<'a>(view: &'a View, machine: &'a log::Machine) -> impl Iterator<Item = &'a AgentId> {
    view.registered_agents().filter_map(move |(id, row, _)| {
        let hostname = super::agents::info(row).hostname;
        let ip = row.address.rsplit_once(':').map_or("", |(ip, _)| ip);
        let same =
            |wanted: &str, found: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(found);
        (same(&machine.hostname, &hostname) && same(&machine.ip, ip)).then_some(id)
    })
}

fn answers(view: &View, agent_id: &AgentId) -> Vec<wire::allocator::InverseOfferStatus> {
    use wire::allocator::inverse_offer_status::Status;
    view.inverse_answers(agent_id)
        .map(
            |(framework_id, answer)| wire::allocator::InverseOfferStatus {
                status: match answer {
                    InverseAnswer::Unknown => Status::Unknown,
                    InverseAnswer::Accepted => Status::Accept,
                    InverseAnswer::Declined => Status::Decline,
                } as i32,
                framework_id: framework_id.to_wire(),
                timestamp: wire::TimeInfo::default(),
            },
        )
        .collect()
}
