//! What the machine counts, under the names of Mesos' metrics (`metrics.tsv`,
//! prefix `master/`). Counts of this process's machine: they begin at zero with
//! each term.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// One counter each.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Counter {
            $($(#[$doc])* #[doc = concat!("`master/", $name, "`.")] $variant,)*
        }
        const NAMES: &[&str] = &[$($name,)*];
    };
}

counters! {
    MessagesRegisterFramework => "messages_register_framework",
    MessagesReregisterFramework => "messages_reregister_framework",
    MessagesUnregisterFramework => "messages_unregister_framework",
    MessagesKillTask => "messages_kill_task",
    MessagesStatusUpdateAcknowledgement => "messages_status_update_acknowledgement",
    MessagesOperationStatusUpdateAcknowledgement => "messages_operation_status_update_acknowledgement",
    MessagesResourceRequest => "messages_resource_request",
    MessagesLaunchTasks => "messages_launch_tasks",
    MessagesDeclineOffers => "messages_decline_offers",
    MessagesReviveOffers => "messages_revive_offers",
    MessagesSuppressOffers => "messages_suppress_offers",
    MessagesReconcileOperations => "messages_reconcile_operations",
    MessagesReconcileTasks => "messages_reconcile_tasks",
    MessagesFrameworkToExecutor => "messages_framework_to_executor",
    MessagesExecutorToFramework => "messages_executor_to_framework",
    MessagesRegisterSlave => "messages_register_slave",
    MessagesReregisterSlave => "messages_reregister_slave",
    MessagesUnregisterSlave => "messages_unregister_slave",
    MessagesUpdateSlave => "messages_update_slave",
    MessagesStatusUpdate => "messages_status_update",
    MessagesOperationStatusUpdate => "messages_operation_status_update",
    MessagesExitedExecutor => "messages_exited_executor",
    ValidFrameworkToExecutorMessages => "valid_framework_to_executor_messages",
    InvalidFrameworkToExecutorMessages => "invalid_framework_to_executor_messages",
    ValidExecutorToFrameworkMessages => "valid_executor_to_framework_messages",
    InvalidExecutorToFrameworkMessages => "invalid_executor_to_framework_messages",
    ValidStatusUpdateAcknowledgements => "valid_status_update_acknowledgements",
    InvalidStatusUpdateAcknowledgements => "invalid_status_update_acknowledgements",
    ValidStatusUpdates => "valid_status_updates",
    InvalidStatusUpdates => "invalid_status_updates",
    ValidOperationStatusUpdateAcknowledgements => "valid_operation_status_update_acknowledgements",
    InvalidOperationStatusUpdateAcknowledgements => "invalid_operation_status_update_acknowledgements",
    ValidOperationStatusUpdates => "valid_operation_status_updates",
    InvalidOperationStatusUpdates => "invalid_operation_status_updates",
    RecoverySlaveRemovals => "recovery_slave_removals",
    SlaveRegistrations => "slave_registrations",
    SlaveReregistrations => "slave_reregistrations",
    SlaveRemovals => "slave_removals",
    SlaveRemovalsReasonUnhealthy => "slave_removals/reason_unhealthy",
    SlaveRemovalsReasonUnregistered => "slave_removals/reason_unregistered",
    SlaveRemovalsReasonRegistered => "slave_removals/reason_registered",
    SlaveUnreachableScheduled => "slave_unreachable_scheduled",
    SlaveUnreachableCompleted => "slave_unreachable_completed",
    SlaveUnreachableCanceled => "slave_unreachable_canceled",
    TasksFinished => "tasks_finished",
    TasksFailed => "tasks_failed",
    TasksKilled => "tasks_killed",
    TasksLost => "tasks_lost",
    TasksError => "tasks_error",
    TasksDropped => "tasks_dropped",
    TasksGone => "tasks_gone",
    TasksGoneByOperator => "tasks_gone_by_operator",
    OperationsTotal => "operations/total",
    OperationsFinished => "operations/finished",
    OperationsFailed => "operations/failed",
    OperationsError => "operations/error",
    OperationsDropped => "operations/dropped",
    OperationsGoneByOperator => "operations/gone_by_operator",
    AllocationRuns => "allocator/allocation_runs",
    /// Not of Mesos:
    TasksLaunched => "tasks_launched",
    /// Not of Mesos:
    OffersMade => "offers_made",
    /// Not of Mesos:
    OffersRescinded => "offers_rescinded",
    /// Those of them that lay while somebody else could use them. Not of Mesos:
    OffersRescindedHoarded => "offers_rescinded_hoarded",
    /// Not of Mesos:
    TasksPreempted => "tasks_preempted",
}

/// All counters of one machine.
#[derive(Clone, Debug)]
pub struct Counters {
    values: Vec<u64>,
    // Terminal states by (state, source, reason), numbers of the v1 enums; reason -1 = none.
    terminal: BTreeMap<(i32, i32, i32), u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            values: vec![0; NAMES.len()],
            terminal: BTreeMap::new(),
        }
    }
}

impl Counters {
    pub(crate) fn add(&mut self, counter: Counter) {
        self.values[counter as usize] += 1;
    }

    pub(crate) fn add_terminal(&mut self, state: i32, source: i32, reason: Option<i32>) {
        *self
            .terminal
            .entry((state, source, reason.unwrap_or(-1)))
            .or_default() += 1;
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Every counter with its name below `master/`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.values.iter().copied())
    }

    /// Terminal task states counted by numbers of `TaskState`, `TaskStatus.Source`
    /// and `TaskStatus.Reason` (`None` when the status had none), for
    /// `master/<task_state>/<source>/<reason>`.
    pub fn terminal(&self) -> impl Iterator<Item = (i32, i32, Option<i32>, u64)> + '_ {
        self.terminal
            .iter()
            .map(|((state, source, reason), count)| {
                (*state, *source, (*reason >= 0).then_some(*reason), *count)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_name() {
        let mut counters = Counters::default();
        counters.add(Counter::OffersRescinded);
        counters.add_terminal(2, 0, None);
        assert_eq!(counters.get(Counter::OffersRescinded), 1);
        assert_eq!(
            counters
                .iter()
                .filter(|(_, value)| *value == 1)
                .collect::<Vec<_>>(),
            [("offers_rescinded", 1)]
        );
        assert_eq!(counters.terminal().collect::<Vec<_>>(), [(2, 0, None, 1)]);
        let names: std::collections::BTreeSet<_> = counters.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), NAMES.len());
    }
}
