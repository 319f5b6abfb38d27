//! What could be given if something were freed: questions of those who decide what to free.

use crate::{allocator::Allocator, decide::NoReport};
use tepui_model::{AgentId, FrameworkId, Quantities, Resources, Role, Scalar, time::Instant};

impl Allocator {
    /// What is left of the agent for the framework in the role, whether it is enough or refused
    /// or not; none when the agent is of no use to it, not offered, or kept for another.
    pub fn left_for(
        &self,
        now: Instant,
        agent: &AgentId,
        framework: &FrameworkId,
        role: &Role,
    ) -> Option<Resources> {
        let client = self.find_client(framework, role)?;
        let at = self.find_agent(agent)?;
        let agent = self.agent(at);
        let is_open = agent.is_eligible()
            && self.tree.listed.get(client)
            && self.claimant(at, now).is_none_or(|it| it == client)
            && self.can_use(agent, client, &mut NoReport);
        if !is_open {
            return None;
        }
        let sees = self.rules(client).sees;
        let available = match agent.stale {
            true => agent.compute_available().0,
            false => agent.available.clone(),
        };
        Some(available.filter(|it| sees.sees(it, role)))
    }

    /// Whether limits leave so much more to the role.
    pub fn is_within_limits(&self, role: &Role, more: &Quantities) -> bool {
        let nearest = self.quotas.nearest(role.as_str());
        more.iter().all(|(name, amount)| {
            let dimension = self.dimensions.find(name);
            let room = dimension.and_then(|it| self.quotas.room_below_limits(nearest, it));
            room.is_none_or(|room| i128::from(amount.as_millis()) <= room)
        })
    }

    /// For each role with guarantees that `role` is or lies below: how much of what is guaranteed
    /// it consumes beyond the guarantee, by name. What is not guaranteed is not named.
    pub fn beyond_guarantees(&self, role: &Role) -> Vec<(Role, Quantities)> {
        let nearest = self.quotas.nearest(role.as_str());
        let all = self.quotas.beyond_guarantees(nearest).into_iter();
        all.map(|(role, amounts)| {
            let mut beyond = Quantities::new();
            for (dimension, amount) in amounts {
                let amount = i64::try_from(amount).unwrap_or(i64::MAX);
                beyond.insert(self.dimensions.name(dimension), Scalar::from_millis(amount));
            }
            (role, beyond)
        })
        .collect()
    }
}
