//! What must always hold of the allocator's tables.

use crate::{agents::Stock, allocator::Allocator, amounts::Amounts, quota};
use tepui_model::{AgentId, Resources};

impl Allocator {
    /// Checks that per agent what is allocated and what is available make the total; that all
    /// sums and orders are what a count from scratch finds; that every agent that was changed is
    /// marked. For tests and samples: takes time in proportion to everything.
    ///
    /// # Panics
    /// When a table contradicts another: a bug here.
    pub fn check_invariants(&self) {
        let mut total = Amounts::default();
        let mut free = Amounts::default();
        for (at, agent) in self.agents.iter().enumerate() {
            let Some(agent) = agent else { continue };
            let id = &agent.id;
            assert_eq!(self.find_agent(id), Some(at as u32));
            total.add(&self.count(&agent.total));
            free.add(&agent.stock.free);
            let mut used = Resources::new();
            for (client, resources) in &agent.allocated {
                let holder = self.tree.client(*client);
                assert!(
                    !resources.is_empty(),
                    "{id}: nothing for {}",
                    holder.framework_id
                );
                used.add(&resources.non_shared());
            }
            if agent.stale {
                let is_listed = self.stale.contains(&(at as u32));
                let at_visit = self.quotas.is_empty() && agent.pending;
                assert!(is_listed || at_visit, "{id} is forgotten");
                continue;
            }
            let (available, stock) = agent.compute_available();
            assert_eq!(available, agent.available, "{id}: available");
            self.check_stock(id, &agent.available, &agent.stock);
            self.check_stock(id, &agent.total, &agent.total_stock);
            if let Some(stock) = stock {
                self.check_stock(id, &available, &stock);
            }
            if agent.total.contains(&used) {
                let sum = agent.available.union(&used);
                assert!(
                    sum.is_equivalent(&agent.total),
                    "{id}: {sum} is not {}",
                    agent.total
                );
            }
            if agent.pending {
                assert!(
                    self.pending.contains(&(at as u32)),
                    "{id} is pending, but not listed"
                );
            }
            let mut clients: Vec<u32> = agent.filters.clients().collect();
            clients.dedup();
            for client in clients {
                assert!(
                    self.refusers.get(client),
                    "{id}: a filter that is not known of"
                );
                assert!(
                    self.tree.client(client).is_subscribed,
                    "{id}: a filter of nobody"
                );
            }
        }
        assert_eq!(total, *self.tree.total(), "the cluster's total");
        if !self.quotas.is_empty() {
            assert_eq!(free, *self.quotas.headroom(), "headroom");
        }
        for role in self.quotas.roles() {
            let mut consumed = Amounts::default();
            for agent in self.agents.iter().flatten() {
                let reserved = agent
                    .total
                    .filter(|it| it.reservation_role().is_some_and(|it| it.is_within(role)));
                consumed.add(&self.count(&reserved));
                for (client, resources) in &agent.allocated {
                    if self.tree.client(*client).role.is_within(role) {
                        consumed.add(&self.count(&resources.filter(quota::is_free)));
                    }
                }
            }
            assert_eq!(
                Some(&consumed),
                self.quotas.consumed(role),
                "consumed by {role}"
            );
        }
        let held = |client: u32| {
            let agents = self.agents.iter().enumerate();
            let held = agents
                .filter_map(|(at, it)| Some((at as u32, &**it.as_ref()?.allocated_to(client)?)));
            held.collect()
        };
        self.quotas.check();
        self.tree.check(|it| self.count(it), held, &self.quotas);
        let claims = self.agents.iter().flatten().filter(|it| it.claim.is_some());
        assert_eq!(claims.count(), self.claims, "claims");
    }

    /// Amounts of resources whose names are all known.
    fn check_stock(&self, id: &AgentId, resources: &Resources, stock: &Stock) {
        assert_eq!(self.count(resources), stock.amounts, "{id}: amounts");
        let free = resources.filter(quota::is_free);
        assert_eq!(self.count(&free), stock.free, "{id}: free");
        let is_plain =
            |it: &tepui_model::Resource| it.is_unreserved() && !it.shared && !it.revocable;
        assert_eq!(
            resources.iter().all(is_plain),
            stock.is_plain,
            "{id}: plain"
        );
    }

    fn count(&self, resources: &Resources) -> Amounts {
        let mut amounts = Amounts::default();
        for it in resources.iter() {
            if let Some(amount) = it.amount() {
                let dimension = self.dimensions.find(&it.name).expect("a known name");
                amounts.add_to(dimension, amount.as_millis().into());
            }
        }
        amounts
    }
}
