//! ACCEPT (behaviour section 4): first the list of offers as a whole, then operation by
//! operation against a running pool, then what is left goes back.

use core::time::Duration;
use std::collections::BTreeSet;

use tepui_model::id::{AgentId, FrameworkId, OfferId};
use tepui_model::operation::{OfferOperation, OperationKind};
use tepui_model::resources::Resources;
use tepui_model::role::Role;
use tepui_model::wire::TaskState;
use tepui_model::wire::task_status::Reason;

use crate::counters::Counter;
use crate::machine::Machine;

/// One ACCEPT on its way: whose, of what, and what is still there.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) framework_id: FrameworkId,
    pub(crate) agent_id: AgentId,
    pub(crate) role: Role,
    /// What the next operation may use; all of it allocated to `role`.
    pub(crate) pool: Resources,
    /// Shared volumes that launched tasks use, once for each use.
    pub(crate) shared_used: Resources,
}

impl Machine {
    pub(crate) fn accept(
        &mut self,
        framework_id: &FrameworkId,
        offer_ids: &[OfferId],
        operations: Vec<OfferOperation>,
        refuse: Option<Duration>,
    ) {
        self.counters.add(Counter::MessagesLaunchTasks);
        self.offer_answered(framework_id);
        let checked = self.check_offers(framework_id, offer_ids);
        let mut offered = Resources::default();
        let mut origin = None;
        let listed: BTreeSet<u64> = offer_ids
            .iter()
            .filter_map(|offer_id| self.own_offer(framework_id, offer_id))
            .collect();
        for number in listed {
            let Some(offer) = self.take_offer(number) else {
                continue;
            };
            if checked.is_ok() {
                offered += offer.resources.allocate(&offer.role);
                origin = Some((offer.agent_id, offer.role));
            } else {
                self.recover_offer(&offer, None);
            }
        }
        let (agent_id, role) = match (checked, origin) {
            (Ok(()), Some(origin)) => origin,
            (Err(message), _) => {
                self.refuse_operations(
                    framework_id,
                    &operations,
                    TaskState::TaskDropped,
                    Reason::InvalidOffers,
                    &message,
                );
                return;
            }
            (Ok(()), None) => return,
        };
        if !self.agents.is_attached(&agent_id) {
            // Its offers went with it; kept for the day they do not.
            let known = self.agents.get(&agent_id).is_some();
            self.recover(framework_id, &agent_id, &offered, None);
            let (reason, message) = if known {
                (Reason::AgentDisconnected, "Agent disconnected")
            } else {
                (Reason::AgentRemoved, "Agent removed")
            };
            self.refuse_operations(
                framework_id,
                &operations,
                TaskState::TaskDropped,
                reason,
                message,
            );
            return;
        }
        let accepting = Accepting {
            framework_id: framework_id.clone(),
            agent_id,
            role,
            pool: offered.clone(),
            shared_used: Resources::default(),
        };
        self.run_operations(accepting, operations, &offered, refuse);
    }

    /// Section 4.1: one fault and the whole call fails.
    fn check_offers(
        &self,
        framework_id: &FrameworkId,
        offer_ids: &[OfferId],
    ) -> Result<(), String> {
        if offer_ids.is_empty() {
            return Err("No offers specified".to_owned());
        }
        let mut seen = BTreeSet::new();
        let mut first = None;
        for offer_id in offer_ids {
            if !seen.insert(offer_id) {
                return Err(format!("Duplicate offer '{offer_id}' in offer list"));
            }
            let number = self.offer_number(offer_id);
            let Some(offer) = number.and_then(|number| self.offers.get(number)) else {
                return Err(format!("Offer '{offer_id}' is no longer valid"));
            };
            if offer.framework_id != *framework_id {
                return Err(format!("Offer '{offer_id}' was made to another framework"));
            }
            let (role, agent_id) = *first.get_or_insert((&offer.role, &offer.agent_id));
            if *role != offer.role {
                return Err(format!(
                    "Offers of different roles: '{role}', and '{}' of offer '{offer_id}'",
                    offer.role
                ));
            }
            if *agent_id != offer.agent_id {
                return Err(format!(
                    "Offers of different agents: '{agent_id}', and '{}' of offer '{offer_id}'",
                    offer.agent_id
                ));
            }
        }
        Ok(())
    }

    /// Every task of every launch, and every operation with an id, is told the same.
    fn refuse_operations(
        &mut self,
        framework_id: &FrameworkId,
        operations: &[OfferOperation],
        state: TaskState,
        reason: Reason,
        message: &str,
    ) {
        for operation in operations {
            if is_launch(operation) {
                self.refuse_launch(framework_id, operation, state, reason, message);
            } else {
                self.refuse_operation(framework_id, operation.id.as_ref(), None, message);
            }
        }
    }

    /// Every task of one launch is told the same.
    pub(crate) fn refuse_launch(
        &mut self,
        framework_id: &FrameworkId,
        operation: &OfferOperation,
        state: TaskState,
        reason: Reason,
        message: &str,
    ) {
        for task in operation.tasks() {
            self.refuse_task(
                framework_id,
                task.task_id.as_str(),
                task.agent_id.as_str(),
                state,
                reason,
                message,
            );
        }
    }

    fn run_operations(
        &mut self,
        mut accepting: Accepting,
        operations: Vec<OfferOperation>,
        offered: &Resources,
        refuse: Option<Duration>,
    ) {
        // Mesos reads the resources of a call's launches together: one that cannot be read
        // fails every task of the call.
        let unreadable = operations
            .iter()
            .filter(|operation| is_launch(operation))
            .find_map(OfferOperation::fault);
        for mut operation in operations {
            operation.inject_allocation(&accepting.role);
            if !is_launch(&operation) {
                if let Err(message) = self.operate_on_offer(&mut accepting, &operation) {
                    let (framework_id, agent_id) =
                        (accepting.framework_id.clone(), accepting.agent_id.clone());
                    self.refuse_operation(
                        &framework_id,
                        operation.id.as_ref(),
                        Some(&agent_id),
                        &message,
                    );
                }
                continue;
            }
            let group = matches!(operation.kind, OperationKind::LaunchGroup { .. });
            let reason = if group {
                Reason::TaskGroupInvalid
            } else {
                Reason::TaskInvalid
            };
            let fault = unreadable.clone().or_else(|| {
                let kind = if group { "LAUNCH_GROUP" } else { "LAUNCH" };
                operation.id.as_ref().map(|id| {
                    format!("{kind} has the id '{id}': tasks are told by their own updates")
                })
            });
            match fault {
                Some(message) => {
                    let framework_id = accepting.framework_id.clone();
                    self.refuse_launch(
                        &framework_id,
                        &operation,
                        TaskState::TaskError,
                        reason,
                        &message,
                    );
                }
                None if group => self.launch_group(&mut accepting, &operation),
                None => self.launch_tasks(&mut accepting, &operation),
            }
        }
        self.return_rest(accepting, offered, refuse);
    }

    /// What was converted and not used comes back without a filter, what was not touched
    /// with that of the call.
    fn return_rest(&mut self, accepting: Accepting, offered: &Resources, refuse: Option<Duration>) {
        let Accepting {
            framework_id,
            agent_id,
            mut pool,
            shared_used,
            ..
        } = accepting;
        for (volume, uses) in shared_used.iter_counted() {
            // The offer held one copy, each use takes one.
            let copy = Resources::from(volume.clone());
            pool.saturating_sub(&copy);
            for _ in 1..uses {
                self.allocator
                    .add_allocation(&framework_id, &agent_id, &copy);
            }
        }
        let converted = pool.difference(offered);
        let untouched = pool.difference(&converted);
        self.recover(&framework_id, &agent_id, &converted, None);
        self.recover(&framework_id, &agent_id, &untouched, refuse);
    }
}

fn is_launch(operation: &OfferOperation) -> bool {
    match &operation.kind {
        OperationKind::Launch { .. } | OperationKind::LaunchGroup { .. } => true,
        OperationKind::Reserve { .. }
        | OperationKind::Unreserve { .. }
        | OperationKind::Create { .. }
        | OperationKind::Destroy { .. }
        | OperationKind::GrowVolume { .. }
        | OperationKind::ShrinkVolume { .. }
        | OperationKind::CreateDisk { .. }
        | OperationKind::DestroyDisk { .. }
        | OperationKind::Invalid { .. } => false,
    }
}
