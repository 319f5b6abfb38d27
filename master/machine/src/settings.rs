//! Weights and quotas of roles (behaviour section 13).

use std::collections::{BTreeMap, BTreeSet};

use tepui_allocator::Quota;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::resources::{Quantities, Resources};
use tepui_model::role::{self, Role};
use tepui_model::wire;
use tepui_state::ClusterState;

use crate::machine::{Machine, holds_resources};
use crate::operator::Refused;
use crate::output::Status;

/// A weight of 1e9 keeps the comparison of shares within its integers.
const MAX_WEIGHT_MICRO: u64 = 1_000_000_000_000_000;

impl Machine {
    /// Weights, quotas of the state, at birth.
    pub(crate) fn recover_settings(&mut self) {
        let weights: Vec<(Role, u64)> = self
            .state
            .weights()
            .map(|(role, micro)| (Role::from(role), micro))
            .collect();
        for (role, micro) in weights {
            self.allocator.set_weight(role, micro);
        }
        let quotas: Vec<wire::quota::QuotaConfig> = self
            .state
            .quotas()
            .map(|(_, quota)| wire::quota::QuotaConfig::clone(quota))
            .collect();
        for config in quotas {
            // What is in the log was read before.
            let quota = read_quota(&config).ok();
            self.allocator
                .set_quota(Role::from(config.role.as_str()), quota);
        }
    }

    /// UPDATE_WEIGHTS: roles not named keep theirs.
    pub(crate) fn update_weights(&mut self, weights: &[(String, u64)]) -> Result<(), String> {
        if weights.is_empty() {
            return Err("the list of weights is empty".to_owned());
        }
        let mut seen = BTreeSet::new();
        for (name, micro) in weights {
            role::validate(name).map_err(|error| format!("role '{name}': {error}"))?;
            if !seen.insert(name) {
                return Err(format!("role '{name}' is named twice"));
            }
            if !(1..=MAX_WEIGHT_MICRO).contains(micro) {
                return Err(format!(
                    "weight of '{name}': expected 0.000001 to 1000000000"
                ));
            }
        }
        self.log(Kind::SetWeights(log::SetWeights {
            weights: weights
                .iter()
                .map(|(role, micro)| log::Weight {
                    role: role.clone(),
                    micro: *micro,
                })
                .collect(),
        }));
        for (role, micro) in weights {
            self.allocator.set_weight(Role::from(role.as_str()), *micro);
        }
        self.allocation.trigger(self.now);
        Ok(())
    }

    /// UPDATE_QUOTA: all configurations or none. Without `force`, limits must hold what is
    /// consumed and guarantees fit into the cluster.
    pub(crate) fn update_quota(
        &mut self,
        force: bool,
        configs: Vec<wire::quota::QuotaConfig>,
    ) -> Result<(), Refused> {
        let bad = |message: String| Refused::new(Status::BadRequest, message);
        let mut quotas = BTreeMap::new();
        for config in &configs {
            role::validate(&config.role)
                .map_err(|error| bad(format!("role '{}': {error}", config.role)))?;
            if config.role == "*" {
                return Err(bad("role '*': quota is set on named roles only".to_owned()));
            }
            let quota = read_quota(config).map_err(bad)?;
            if quotas.insert(config.role.clone(), quota).is_some() {
                return Err(bad(format!("role '{}' is named twice", config.role)));
            }
        }
        self.check_nesting(&quotas).map_err(bad)?;
        if !force {
            self.check_quotas(&quotas).map_err(bad)?;
        }
        self.log(Kind::SetQuotas(log::SetQuotas { quotas: configs }));
        for (role, quota) in quotas {
            let set = self.state.quota(&role).is_some().then_some(quota);
            self.allocator.set_quota(Role::from(role), set);
        }
        // Best effort: what was offered before the change is made anew under it.
        let outstanding: Vec<u64> = self.offers.iter().map(|(number, _)| number).collect();
        for number in outstanding {
            self.rescind(number);
        }
        Ok(())
    }

    /// What is guaranteed to the children of a role together is within what the role is
    /// guaranteed; a child's limit is within its parent's. A child's parent here is the nearest
    /// role around it that has a quota.
    fn check_nesting(&self, changes: &BTreeMap<String, Quota>) -> Result<(), String> {
        let mut all: BTreeMap<String, Quota> = BTreeMap::new();
        for (role, config) in self.state.quotas() {
            all.insert(role.to_owned(), read_quota(config).unwrap_or_default());
        }
        for (role, quota) in changes {
            match quota.guarantees.is_empty() && quota.limits.0.is_empty() {
                true => all.remove(role),
                false => all.insert(role.clone(), quota.clone()),
            };
        }
        let mut sums: BTreeMap<&str, (Quantities, Vec<&str>)> = BTreeMap::new();
        for (role, quota) in &all {
            let Some(parent) = nearest(&all, role) else {
                continue;
            };
            let of_parent = &all[parent];
            let sum = sums.entry(parent).or_default();
            sum.0.add(&quota.guarantees);
            if !quota.guarantees.is_empty() {
                sum.1.push(role);
            }
            for (name, limit) in quota.limits.iter() {
                if let Some(above) = of_parent.limits.0.get(name)
                    && *above < limit
                {
                    return Err(format!(
                        "limits of '{role}': {name} is {limit}, and the limit of '{parent}' around it is {above}"
                    ));
                }
            }
        }
        for (parent, (sum, children)) in sums {
            for (name, amount) in sum.iter() {
                let above = all[parent].guarantees.get(name);
                if amount > above {
                    return Err(format!(
                        "guarantees of '{}': {name} is {amount} together, and '{parent}' around them is guaranteed {above}",
                        children.join("', '")
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_quotas(&self, quotas: &BTreeMap<String, Quota>) -> Result<(), String> {
        let mut capacity = Quantities::new();
        for (_, link) in self.agents.iter() {
            capacity.add(&link.total.non_revocable().quantities());
        }
        let mut guaranteed = Quantities::new();
        for (role, config) in self.state.quotas() {
            // Those below another role's are a part of that one's.
            if !quotas.contains_key(role)
                && !has_around(quotas, &self.state, role)
                && let Ok(quota) = read_quota(config)
            {
                guaranteed.add(&quota.guarantees);
            }
        }
        for (role, quota) in quotas {
            if !has_around(quotas, &self.state, role) {
                guaranteed.add(&quota.guarantees);
            }
            let consumed = self.consumed_by(&Role::from(role.as_str()));
            for (name, limit) in quota.limits.iter() {
                if consumed.get(name) > limit {
                    return Err(format!(
                        "limits of '{role}': {name} is {limit}, and {} is consumed already",
                        consumed.get(name)
                    ));
                }
            }
        }
        if !capacity.contains(&guaranteed) {
            return Err(format!(
                "guarantees of all roles are {guaranteed}, and the cluster has {capacity}"
            ));
        }
        Ok(())
    }

    /// What counts against a role's quota: its reservations, used or not, and
    /// what its tasks and executors use of the unreserved.
    fn consumed_by(&self, role: &Role) -> Quantities {
        let mut consumed = Quantities::new();
        for (_, link) in self.agents.iter() {
            for (owner, resources) in link.total.reserved() {
                if owner.is_within(role) {
                    consumed.add(&resources.quantities());
                }
            }
        }
        let tasks = self
            .state
            .tasks()
            .filter(|(_, _, task)| holds_resources(task));
        let tasks = tasks.map(|(_, _, task)| &task.resources);
        let executors = self.state.executors().map(|executor| &executor.resources);
        for resources in tasks.chain(executors) {
            let resources = Resources::from_wire(resources).unwrap_or_default();
            for (owner, resources) in resources.allocations() {
                if owner.is_within(role) {
                    consumed.add(&resources.unreserved().non_revocable().quantities());
                }
            }
        }
        consumed
    }
}

/// The nearest role around `role` that is named in `all`.
fn nearest<'a, T>(all: &'a BTreeMap<String, T>, role: &str) -> Option<&'a str> {
    let mut name = role;
    loop {
        name = &name[..name.rfind('/')?];
        if let Some((key, _)) = all.get_key_value(name) {
            return Some(key);
        }
    }
}

/// Whether a role around this one has a quota, once `changes` are made.
fn has_around(changes: &BTreeMap<String, Quota>, state: &ClusterState, role: &str) -> bool {
    let mut name = role;
    while let Some(end) = name.rfind('/') {
        name = &name[..end];
        let stays = match changes.get(name) {
            Some(quota) => !quota.guarantees.is_empty() || !quota.limits.0.is_empty(),
            None => state.quota(name).is_some(),
        };
        if stays {
            return true;
        }
    }
    false
}

fn read_quota(config: &wire::quota::QuotaConfig) -> Result<Quota, String> {
    let read = |field: &str, all: &BTreeMap<String, wire::value::Scalar>| {
        // Zero is a value of its own here: a limit of nothing.
        let mut quantities = Quantities::new();
        for (name, amount) in all {
            let amount = tepui_model::Scalar::from_f64(name, amount.value)
                .map_err(|error| format!("{field} of '{}': {error}", config.role))?;
            quantities.insert(name, amount);
        }
        Ok::<_, String>(quantities)
    };
    let guarantees = read("guarantees", &config.guarantees)?;
    let limits = read("limits", &config.limits)?;
    for (name, guarantee) in guarantees.iter() {
        if limits.0.get(name).is_some_and(|limit| *limit < guarantee) {
            return Err(format!(
                "guarantees of '{}': {name} is more than its limit",
                config.role
            ));
        }
    }
    Ok(Quota { guarantees, limits })
}
