//! Reconciliation of tasks and operations (behaviour section 8). Answers rest on what
//! is absent as well, so they wait for a confirmed leadership.
//!
//! A framework with a million tasks gets as many answers, and takes its time to read them: they are
//! given a slice at a time, the next when its reader has come to the end of the one before. So no
//! step is long, and little waits for anybody.

use std::collections::{BTreeMap, VecDeque};

use tepui_model::call::{ReconcileOperation, ReconcileTask};
use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_model::wire::task_status::Reason;
use tepui_model::wire::{self, OperationState, TaskState};
use tepui_model::{log, time::WallTime};

use crate::counters::Counter;
use crate::input::ConnectionId;
use crate::machine::Machine;
use crate::output::{Destination, Message, Needs, Outgoing};
use crate::statuses::{self, Verdict};

/// Answers that may wait for a framework's reader at once.
const SLICE: usize = 512;

/// What one framework asked and was not told yet.
#[derive(Debug)]
pub(crate) struct Reconciling {
    // Tasks that it named, oldest question first.
    named: VecDeque<ReconcileTask>,
    all: Option<Sweep>,
    // Answers until its reader is waited for.
    credit: usize,
}

/// On the way through all tasks of a framework, by id.
#[derive(Debug, Default)]
struct Sweep {
    after: Option<TaskId>,
    // It asked again since, and is to be told everything from then.
    again: bool,
}

impl Default for Reconciling {
    fn default() -> Reconciling {
        Reconciling {
            named: VecDeque::new(),
            all: None,
            credit: SLICE,
        }
    }
}

/// The next answer to give.
enum Question {
    Named(ReconcileTask),
    AllAfter(Option<TaskId>),
}

impl Reconciling {
    fn next(&mut self) -> Option<Question> {
        if self.credit == 0 {
            return None;
        }
        let named = self.named.pop_front().map(Question::Named);
        let all = || Some(Question::AllAfter(self.all.as_ref()?.after.clone()));
        let next = named.or_else(all)?;
        self.credit -= 1;
        Some(next)
    }

    /// The sweep has come so far; to the end, when there is nothing behind.
    fn swept(&mut self, up_to: Option<TaskId>) {
        match (up_to, &mut self.all) {
            (Some(up_to), Some(sweep)) => sweep.after = Some(up_to),
            (None, Some(sweep)) if sweep.again => *sweep = Sweep::default(),
            (None, all) => *all = None,
            (Some(_), None) => {}
        }
    }
}

impl Machine {
    /// Explicit RECONCILE of the tasks named, or of all active ones when none is.
    pub(crate) fn reconcile(&mut self, framework_id: &FrameworkId, tasks: &[ReconcileTask]) {
        self.counters.add(Counter::MessagesReconcileTasks);
        let Some(waiting) = self.frameworks.reconciling(framework_id) else {
            return;
        };
        if tasks.is_empty() {
            match &mut waiting.all {
                Some(sweep) => sweep.again |= sweep.after.is_some(),
                none => *none = Some(Sweep::default()),
            }
        } else {
            let room = self.config.max_reconcile_tasks - waiting.named.len();
            waiting.named.extend(tasks.iter().take(room).cloned());
        }
        self.go_on_reconciling(framework_id);
    }

    /// A reader has read what was sent before.
    pub(crate) fn scheduler_turn(&mut self, connection: ConnectionId) {
        let Some(framework_id) = self.frameworks.of_connection(connection).cloned() else {
            return;
        };
        if let Some(waiting) = self.frameworks.reconciling(&framework_id) {
            waiting.credit = SLICE;
        }
        self.go_on_reconciling(&framework_id);
    }

    fn go_on_reconciling(&mut self, framework_id: &FrameworkId) {
        let mut answered = false;
        while let Some(waiting) = self.frameworks.reconciling(framework_id)
            && let Some(question) = waiting.next()
        {
            answered = true;
            match question {
                Question::Named(it) => {
                    self.reconcile_task(framework_id, &it.task_id, it.agent_id.as_ref());
                }
                Question::AllAfter(after) => {
                    let behind = self
                        .state
                        .tasks_of_framework_after(framework_id, after.as_ref());
                    let next = behind.map(|(task_id, _)| task_id).next().cloned();
                    if let Some(task_id) = &next {
                        self.reconcile_known(framework_id, task_id);
                    }
                    if let Some(waiting) = self.frameworks.reconciling(framework_id) {
                        waiting.swept(next);
                    }
                }
            }
        }
        let spent = |it: &mut Reconciling| it.credit == 0;
        if answered
            && self.frameworks.reconciling(framework_id).is_some_and(spent)
            && let Some(session) = self.frameworks.session(framework_id)
        {
            self.out.send.push(Outgoing {
                to: Destination::Scheduler(session.connection),
                message: Message::Turn,
                needs: Needs::Leadership,
            });
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
        let known: BTreeMap<_, _> = self
            .state
            .operations_of_framework(framework_id)
            .filter(|row| !row.operation_id.is_empty())
            .map(|row| (row.operation_id.clone(), row.clone()))
            .collect();
        if operations.is_empty() {
            for row in known.values() {
                self.answer_operation(framework_id, row);
            }
            return;
        }
        for ReconcileOperation {
            operation_id,
            agent_id,
            ..
        } in operations.iter().take(self.config.max_reconcile_tasks)
        {
            if let Some(row) = known.get(operation_id.as_str()) {
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
