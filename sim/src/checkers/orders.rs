//! What the operator was promised is not forgotten.

use std::collections::BTreeMap;
use tepui_master_machine::input::OperatorRequest;
use tepui_model::{log::AgentState, wire::machine_info::Mode};
use tepui_state::ClusterState;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No answer, and none will come: it may have taken effect or not.
    Unknown,
    /// It was taken.
    Taken,
    /// It was not.
    Refused,
}

#[derive(Debug)]
struct Order {
    request: OperatorRequest,
    outcome: Option<Outcome>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Orders {
    orders: Vec<Order>,
    // What was promised last, and whether something uncertain came after.
    quotas: BTreeMap<String, (Option<u64>, bool)>,
    weights: BTreeMap<String, (u64, bool)>,
    // Agents, by id, and whether they are not to be offered.
    withdrawn: BTreeMap<String, (bool, bool)>,
    // Machines that are scheduled, and whether they are down; none once something is uncertain.
    machines: Machines,
}

#[derive(Debug)]
struct Machines(Option<BTreeMap<String, bool>>);

impl Default for Machines {
    fn default() -> Machines {
        Machines(Some(BTreeMap::new()))
    }
}

impl Orders {
    /// The operator wants something; its number.
    pub fn ask(&mut self, request: OperatorRequest) -> usize {
        self.orders.push(Order {
            request,
            outcome: None,
        });
        self.orders.len() - 1
    }

    /// What was wanted under a number.
    pub fn request(&self, number: usize) -> Option<OperatorRequest> {
        self.orders.get(number).map(|it| it.request.clone())
    }

    /// An order has come to its end.
    pub fn ended(&mut self, number: usize, outcome: Outcome) {
        let Some(order) = self.orders.get_mut(number) else {
            return;
        };
        if order.outcome.is_some() {
            return;
        }
        order.outcome = Some(outcome);
        if outcome == Outcome::Refused {
            return;
        }
        let sure = outcome == Outcome::Taken;
        match &order.request {
            OperatorRequest::UpdateQuota { configs, .. } => {
                for it in configs {
                    let cpus = it.limits.get("cpus").map(|it| it.value as u64);
                    let known = self.quotas.entry(it.role.clone()).or_insert((None, true));
                    // One that got no answer may take effect at any later time.
                    *known = (if sure { cpus } else { known.0 }, known.1 && sure);
                }
            }
            OperatorRequest::UpdateWeights { weights } => {
                for (role, micro) in weights {
                    let known = self
                        .weights
                        .entry(role.clone())
                        .or_insert((1_000_000, true));
                    *known = (if sure { *micro } else { known.0 }, known.1 && sure);
                }
            }
            OperatorRequest::DeactivateAgent { agent_id }
            | OperatorRequest::DrainAgent { agent_id, .. }
            | OperatorRequest::ReactivateAgent { agent_id } => {
                let back = matches!(order.request, OperatorRequest::ReactivateAgent { .. });
                let known = self.withdrawn.entry(agent_id.as_str().to_owned());
                let known = known.or_insert((false, true));
                *known = (if sure { !back } else { known.0 }, known.1 && sure);
            }
            OperatorRequest::UpdateMaintenanceSchedule { schedule } => match &mut self.machines.0 {
                Some(machines) if sure => {
                    let ids = schedule.windows.iter().flat_map(|it| &it.machine_ids);
                    let names = ids.filter_map(|it| it.hostname.clone());
                    let mode = |name: String| {
                        let is_down = machines.get(&name).copied().unwrap_or(false);
                        (name, is_down)
                    };
                    *machines = names.map(mode).collect();
                }
                _ => self.machines.0 = None,
            },
            OperatorRequest::StartMaintenance { machines: which }
            | OperatorRequest::StopMaintenance { machines: which } => {
                let down = matches!(order.request, OperatorRequest::StartMaintenance { .. });
                match &mut self.machines.0 {
                    Some(machines) if sure => {
                        for name in which.iter().filter_map(|it| it.hostname.clone()) {
                            match down {
                                true => machines.insert(name, true),
                                false => machines.remove(&name),
                            };
                        }
                    }
                    _ => self.machines.0 = None,
                }
            }
            _ => {}
        }
    }

    /// What was promised may be forgotten.
    pub fn forgotten(&mut self) {
        for known in self.quotas.values_mut() {
            known.1 = false;
        }
        for known in self.weights.values_mut() {
            known.1 = false;
        }
        for known in self.withdrawn.values_mut() {
            known.1 = false;
        }
        self.machines.0 = None;
    }

    /// Orders that have not come to their end.
    pub fn open(&self) -> usize {
        self.orders.iter().filter(|it| it.outcome.is_none()).count()
    }

    /// Whether a committed state has what was promised, and nothing else.
    pub fn kept(&self, state: &ClusterState) -> Result<(), String> {
        for (role, (cpus, sure)) in self.quotas.iter().filter(|(_, it)| it.1) {
            let found = state
                .quota(role)
                .and_then(|it| it.limits.get("cpus").map(|it| it.value as u64));
            debug_assert!(*sure, "filtered");
            if found != *cpus {
                return Err(format!(
                    "quota of {role} is {found:?} cpus, promised was {cpus:?}"
                ));
            }
        }
        for (role, (micro, _)) in self.weights.iter().filter(|(_, it)| it.1) {
            let found = state.weight(role).unwrap_or(1_000_000);
            if found != *micro {
                return Err(format!("weight of {role} is {found}, promised was {micro}"));
            }
        }
        for (id, (withdrawn, _)) in self.withdrawn.iter().filter(|(_, it)| it.1) {
            let row = state.agent(&id.as_str().into());
            let Some(row) = row.filter(|it| it.state() == AgentState::Admitted) else {
                continue;
            };
            if (row.deactivated || row.drain.is_some()) != *withdrawn {
                return Err(format!(
                    "agent {id} is deactivated: {}, drains: {}; promised was {withdrawn}",
                    row.deactivated,
                    row.drain.is_some()
                ));
            }
        }
        if let Some(promised) = &self.machines.0 {
            let rows = state.maintenance();
            let rows = rows.iter().flat_map(|it| &it.machines);
            let is_down = |mode: i32| mode == Mode::Down as i32;
            let found: BTreeMap<String, bool> = rows
                .map(|it| (it.hostname.clone(), is_down(it.mode)))
                .collect();
            if found != *promised {
                return Err(format!(
                    "machines that are scheduled or down are {found:?}, promised was {promised:?}"
                ));
            }
        }
        Ok(())
    }
}
