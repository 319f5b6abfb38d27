//! Oversubscription (behaviour section 13): what agents say that may be given away once more,
//! to frameworks that bear losing it.
//!
//! The amount is the agent's alone and dies with the link: it is an estimate that changes
//! every few seconds, is repeated at every attach, and nobody was promised anything by it. So it
//! is never in the log; a table of the term and the readers' view hold it. What was launched
//! on it is in the log as any task is, and goes on when the estimate falls below what is used.

use std::sync::Arc;

use tepui_model::id::AgentId;
use tepui_model::link;
use tepui_model::resources::Resources;

use crate::counters::Counter;
use crate::machine::Machine;
use crate::output::{Destination, Status, ViewChange};

impl Machine {
    /// An agent's word on what it oversubscribes, in the place of the one before.
    pub(crate) fn oversubscribed(&mut self, agent_id: &AgentId, report: &link::Oversubscribed) {
        self.counters.add(Counter::MessagesUpdateSlave);
        match read(report) {
            Ok(resources) => self.set_oversubscribed(agent_id, resources),
            Err(problem) => {
                let Some(connection) = self.agents.connection(agent_id) else {
                    return;
                };
                self.detach_agent(agent_id);
                self.close(
                    Destination::Agent(connection),
                    Status::BadRequest,
                    &format!("oversubscribed: {problem}"),
                );
            }
        }
    }

    /// Offers of the agent with revocable resources rest on an amount that is no more: they
    /// are rescinded, as in Mesos.
    pub(crate) fn set_oversubscribed(&mut self, agent_id: &AgentId, resources: Resources) {
        let known = |it: &Arc<Resources>| it.is_equivalent(&resources);
        let Some(link) = self.agents.get(agent_id) else {
            return;
        };
        if link
            .oversubscribed
            .as_ref()
            .map_or(resources.is_empty(), known)
        {
            return;
        }
        for number in self.offers.of_agent(agent_id) {
            let is_revocable = |it: &Resources| it.iter().any(|it| it.revocable);
            if let Some(offer) = self.offers.get(number)
                && is_revocable(&offer.resources)
            {
                self.rescind(number);
            }
        }
        let resources = Arc::new(resources);
        self.agents.set_oversubscribed(agent_id, resources.clone());
        self.tell_total(agent_id);
        self.allocation.trigger(self.now);
        self.out.view.push(ViewChange::Oversubscribed {
            agent_id: agent_id.clone(),
            resources,
        });
    }

    /// Tells the allocator what may be offered of an agent.
    pub(crate) fn tell_total(&mut self, agent_id: &AgentId) {
        if let Some(link) = self.agents.get(agent_id) {
            let total = link.offerable();
            self.allocator.set_agent_total(agent_id, &total);
        }
    }
}

fn read(report: &link::Oversubscribed) -> Result<Resources, String> {
    let resources = Resources::from_wire(&report.resources).map_err(|error| error.to_string())?;
    for it in resources.iter() {
        if !it.revocable || !it.is_unreserved() || it.disk.is_some() {
            return Err(format!("{it} is not revocable, or is reserved or a volume"));
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_model::wire;

    fn report(change: impl Fn(&mut wire::Resource)) -> link::Oversubscribed {
        let mut resources = Resources::parse("cpus:1", "*").expect("valid").to_wire();
        resources.iter_mut().for_each(change);
        link::Oversubscribed { resources }
    }

    #[test]
    fn what_is_oversubscribed_is_revocable_and_nobodys() {
        let revocable = |it: &mut wire::Resource| {
            it.revocable = Some(wire::resource::RevocableInfo {});
        };
        assert!(read(&report(revocable)).is_ok());
        assert!(read(&report(|_| {})).is_err());
        let reserved = |it: &mut wire::Resource| {
            revocable(it);
            it.reservations = vec![wire::resource::ReservationInfo {
                r#type: Some(wire::resource::reservation_info::Type::Static as i32),
                role: Some("web".to_owned()),
                ..Default::default()
            }];
        };
        assert!(read(&report(reserved)).is_err());
    }
}
