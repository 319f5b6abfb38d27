//! Weights and quotas of roles (behaviour section 13).

use std::collections::{BTreeMap, BTreeSet};

use tepui_allocator::Quota;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::resources::{Quantities, Resources};
use tepui_model::role::{self, Role};
use tepui_model::wire;

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
            if config.role == "*" || config.role.contains('/') {
                return Err(bad(format!(
                    "role '{}': quota is set on top-level roles only",
                    config.role
                )));
            }
            let quota = read_quota(config).map_err(bad)?;
            if quotas.insert(config.role.clone(), quota).is_some() {
                return Err(bad(format!("role '{}' is named twice", config.role)));
            }
        }
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

    fn check_quotas(&self, quotas: &BTreeMap<String, Quota>) -> Result<(), String> {
        let mut capacity = Quantities::new();
        for (_, link) in self.agents.iter() {
            capacity.add(&link.total.non_revocable().quantities());
        }
        let mut guaranteed = Quantities::new();
        for (role, config) in self.state.quotas() {
            if !quotas.contains_key(role)
                && let Ok(quota) = read_quota(config)
            {
                guaranteed.add(&quota.guarantees);
            }
        }
        for (role, quota) in quotas {
            guaranteed.add(&quota.guarantees);
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

    /// What counts against a top-level role's quota: its reservations, used or not, and
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
