//! Sums of resources by agent, framework and role, for one answer.

use super::View;
use std::collections::BTreeMap;
use tepui_master_machine::model::{
    Quantities, Resources, Role, Scalar,
    id::{AgentId, FrameworkId},
    log,
    resources::Value,
    wire,
};

/// Used and offered resources.
#[derive(Debug, Clone, Default)]
pub(crate) struct Use {
    /// By tasks and executors.
    pub(crate) used: Resources,
    /// In outstanding offers.
    pub(crate) offered: Resources,
}

/// Resources of rows that the log holds are valid: they were checked before they went in.
pub(crate) fn resources(wire: &[wire::Resource]) -> Resources {
    Resources::from_wire(wire).unwrap_or_default()
}

/// Amounts by name, as `/roles` shows them: of ranges and sets how many members they have.
fn amounts(resources: &Resources) -> Quantities {
    let mut all = resources.quantities();
    for resource in resources.iter() {
        let members = match &resource.value {
            Value::Scalar(_) => continue,
            Value::Ranges(ranges) => ranges.count(),
            Value::Set(set) => set.len() as u64,
        };
        let members = i64::try_from(members).unwrap_or(i64::MAX);
        all.add_amount(&resource.name, Scalar::from_units(members));
    }
    all
}

/// Whether a task holds resources on its agent.
pub(crate) fn holds_resources(task: &log::Task) -> bool {
    !task.unreachable && !tepui_state::is_terminal(task.state)
}

/// What tasks and executors on an agent use, and what is offered of it.
pub(crate) fn of_agent(view: &View, id: &AgentId) -> Use {
    let mut sum = Use::default();
    for (_, _, task) in view.state().tasks_of_agent(id) {
        if holds_resources(task) {
            sum.used.add(&resources(&task.resources));
        }
    }
    for (_, _, executor) in view.state().executors_of_agent(id) {
        sum.used.add(&resources(&executor.resources));
    }
    for offer in view.offers_of_agent(id) {
        sum.offered += offer.allocated();
    }
    sum
}

/// What a framework uses and is offered.
pub(crate) fn of_framework(view: &View, id: &FrameworkId) -> Use {
    let mut sum = Use::default();
    for (_, task) in view.state().tasks_of_framework(id) {
        if holds_resources(task) {
            sum.used.add(&resources(&task.resources));
        }
    }
    for executor in view.state().executors_of_framework(id) {
        sum.used.add(&resources(&executor.resources));
    }
    for offer in view.offers_of_framework(id) {
        sum.offered += offer.allocated();
    }
    sum
}

/// Amounts of one role and its subtree.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleUse {
    pub(crate) allocated: Quantities,
    pub(crate) offered: Quantities,
    pub(crate) reserved: Quantities,
    /// Reservations of the role that nothing uses, which count as consumed quota.
    pub(crate) reserved_unallocated: Quantities,
    /// Frameworks that subscribe to the role or use it.
    pub(crate) frameworks: Vec<FrameworkId>,
}

impl RoleUse {
    /// Allocated and offered together.
    pub(crate) fn in_use(&self) -> Quantities {
        let mut sum = self.allocated.clone();
        sum.add(&self.offered);
        sum
    }

    /// What counts against the quota: allocations, and reservations that are not used.
    pub(crate) fn consumed(&self) -> Quantities {
        let mut sum = self.allocated.clone();
        sum.add(&self.reserved_unallocated);
        sum
    }
}

/// Every known role: subscribed, used, reserved, weighted or with quota, and the
/// ancestors of these.
pub(crate) fn by_role(view: &View) -> BTreeMap<Role, RoleUse> {
    let mut roles: BTreeMap<Role, RoleUse> = BTreeMap::new();
    let state = view.state();
    for (role, _) in state.weights() {
        roles.entry(Role::from(role)).or_default();
    }
    for (role, _) in state.quotas() {
        roles.entry(Role::from(role)).or_default();
    }
    for (id, row) in state.frameworks() {
        for role in super::super::endpoints::frameworks::roles(row) {
            let frameworks = &mut roles.entry(role).or_default().frameworks;
            if !frameworks.contains(id) {
                frameworks.push(id.clone());
            }
        }
        let sum = of_framework(view, id);
        for (role, used) in sum.used.allocations() {
            let entry = roles.entry(role).or_default();
            entry.allocated.add(&amounts(&used));
            if !entry.frameworks.contains(id) {
                entry.frameworks.push(id.clone());
            }
        }
        for (role, offered) in sum.offered.allocations() {
            roles
                .entry(role)
                .or_default()
                .offered
                .add(&amounts(&offered));
        }
    }
    for (id, row, _) in view.registered_agents() {
        let sum = of_agent(view, id);
        for (role, reserved) in resources(&row.total).reserved() {
            let entry = roles.entry(role.clone()).or_default();
            entry.reserved.add(&amounts(&reserved));
            let mut unallocated = amounts(&reserved);
            let used = sum.used.unallocate().reserved_to(&role);
            unallocated.saturating_sub(&amounts(&used));
            entry.reserved_unallocated.add(&unallocated);
        }
    }
    // A role's figures include its subtree, and ancestors exist when a descendant does.
    let own: Vec<(Role, RoleUse)> = roles.iter().map(|(r, u)| (r.clone(), u.clone())).collect();
    for (role, figures) in own {
        for ancestor in role.ancestors() {
            let entry = roles.entry(ancestor).or_default();
            entry.allocated.add(&figures.allocated);
            entry.offered.add(&figures.offered);
            entry.reserved.add(&figures.reserved);
            entry
                .reserved_unallocated
                .add(&figures.reserved_unallocated);
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_ranges_and_sets_are_counted() {
        let text = "cpus:0.5;ports:[31000-31001,31005-31005];zones:{a,b}";
        let resources = Resources::parse(text, "*").unwrap();
        let amounts = amounts(&resources);
        let shown: Vec<_> = amounts
            .iter()
            .map(|(name, amount)| (name.as_ref(), amount.as_f64()))
            .collect();
        assert_eq!(shown, [("cpus", 0.5), ("ports", 3.0), ("zones", 2.0)]);
    }
}
