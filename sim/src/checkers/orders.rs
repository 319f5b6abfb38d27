//! What the operator was promised is not forgotten.

use std::collections::BTreeMap;
use tepui_master_machine::input::OperatorRequest;
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
            _ => {}
        }
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
        Ok(())
    }
}
