//! Reconciliation of tasks and operations (behaviour section 8). Answers rest on what
//! is absent as well, so they wait for a confirmed leadership.

use tepui_model::call::{ReconcileOperation, ReconcileTask};
use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_model::wire::task_status::Reason;
use tepui_model::wire::{self, OperationState, TaskState};
use tepui_model::{log, time::WallTime};

use crate::counters::Counter;
use crate::machine::Machine;
use crate::output::Needs;
use crate::statuses::{self, Verdict};

impl Machine {
    /// Explicit RECONCILE of the tasks named, or of all active ones when none is.
    pub(crate) fn reconcile(&mut self, framework_id: &FrameworkId, tasks: &[ReconcileTask]) {
        self.counters.add(Counter::MessagesReconcileTasks);
        if tasks.is_empty() {
            let known: Vec<TaskId> = self
                .state
                .tasks_of_framework(framework_id)
                .filter(|(_, row)| !row.unreachable)
                .map(|(task_id, _)| task_id.clone())
                .collect();
            for task_id in known {
                self.reconcile_known(framework_id, &task_id);
            }
            return;
        }
        for task in tasks.iter().take(self.config.max_reconcile_tasks) {
            self.reconcile_task(framework_id, &task.task_id, task.agent_id.as_ref());
        }
    }

    /// The table of section 8: the first row that fits answers.
    pub(crate) fn reconcile_task(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
    ) {
        if self.reconcile_known(framework_id, task_id) {
            return;
        }
        let awaited = match agent_id {
            Some(agent_id) => self.agents.is_recovered(agent_id),
            None => self.agents.any_recovered(),
        };
        if awaited {
            return;
        }
        let row = agent_id.and_then(|agent_id| self.state.agent(agent_id));
        let (state, message, unreachable_time) = match row.map(|row| (row.state(), row)) {
            Some((log::AgentState::Admitted, _)) => (
                TaskState::TaskGone,
                "Reconciliation: Task is unknown to the agent",
                None,
            ),
            Some((log::AgentState::Unreachable, row)) => (
                TaskState::TaskUnreachable,
                "Reconciliation: Task is unreachable",
                Some(WallTime(row.wall_unreachable.unwrap_or_default())),
            ),
            Some((log::AgentState::Gone, _)) => (
                TaskState::TaskGoneByOperator,
                "Reconciliation: Task is gone",
                None,
            ),
            Some((log::AgentState::Unspecified, _)) | None => (
                TaskState::TaskUnknown,
                "Reconciliation: Task is unknown",
                None,
            ),
        };
        let mut status = Verdict {
            task_id: task_id.as_str(),
            agent_id: agent_id.map(AgentId::as_str),
            state: self.visible_state(framework_id, state),
            reason: Reason::Reconciliation,
            message,
            wall: self.wall,
        }
        .status();
        status.unreachable_time = unreachable_time.map(WallTime::to_wire);
        self.event_needing(
            framework_id,
            Event::Update(Box::new(status)),
            Needs::Leadership,
        );
    }

    fn reconcile_known(&mut self, framework_id: &FrameworkId, task_id: &TaskId) -> bool {
        let Some(row) = self
            .state
            .task(framework_id, task_id)
            .filter(|row| !row.unreachable)
        else {
            return false;
        };
        // What the framework was sent last; what happened since is on its way.
        let state = row.statuses.last().map_or(row.state, |status| status.state);
        let verdict = Verdict {
            task_id: task_id.as_str(),
            agent_id: Some(&row.agent_id),
            state: TaskState::TaskStaging,
            reason: Reason::Reconciliation,
            message: "Reconciliation: Latest task state",
            wall: self.wall,
        };
        let status = statuses::of_known_task(row, state, &verdict);
        self.event_needing(
            framework_id,
            Event::Update(Box::new(status)),
            Needs::Leadership,
        );
        true
    }

    /// RECONCILE_OPERATIONS: answers without a uuid, all of the framework's when none is
    /// named.
    pub(crate) fn reconcile_operations(
        &mut self,
        framework_id: &FrameworkId,
        operations: &[ReconcileOperation],
    ) {
        self.counters.add(Counter::MessagesReconcileOperations);
        let known: Vec<_> = self
            .state
            .operations_of_framework(framework_id)
            .filter(|row| !row.operation_id.is_empty())
            .cloned()
            .collect();
        if operations.is_empty() {
            for row in known {
                self.answer_operation(framework_id, &row);
            }
            return;
        }
        for ReconcileOperation {
            operation_id,
            agent_id,
            ..
        } in operations.iter().take(self.config.max_reconcile_tasks)
        {
            if let Some(row) = known
                .iter()
                .find(|row| row.operation_id == operation_id.as_str())
            {
                self.answer_operation(framework_id, row);
                continue;
            }
            let row = agent_id
                .as_ref()
                .and_then(|agent_id| self.state.agent(agent_id));
            let awaited = agent_id
                .as_ref()
                .is_some_and(|agent_id| self.agents.is_recovered(agent_id));
            let state = match row.map(|row| row.state()) {
                _ if awaited => OperationState::OperationRecovering,
                Some(log::AgentState::Unreachable) => OperationState::OperationUnreachable,
                Some(log::AgentState::Gone) => OperationState::OperationGoneByOperator,
                _ => OperationState::OperationUnknown,
            };
            let status = wire::OperationStatus {
                operation_id: Some(operation_id.to_wire()),
                state: state as i32,
                message: Some("Reconciliation: the operation is not known".to_owned()),
                agent_id: agent_id.as_ref().map(AgentId::to_wire),
                ..wire::OperationStatus::default()
            };
            self.event_needing(
                framework_id,
                Event::UpdateOperationStatus(Box::new(status)),
                Needs::Leadership,
            );
        }
    }

    fn answer_operation(&mut self, framework_id: &FrameworkId, row: &log::OfferOperation) {
        let mut status = crate::operations::status_of(row);
        status.uuid = None;
        self.event_needing(
            framework_id,
            Event::UpdateOperationStatus(Box::new(status)),
            Needs::Leadership,
        );
    }
}
