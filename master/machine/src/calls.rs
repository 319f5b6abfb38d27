//! The door of scheduler calls: section 2.1 item 9 in its order, then one coordinator
//! per call. An accepted call is answered 202 before its effects are known, a refused
//! one never has any.

use tepui_model::call::Call;
use tepui_model::id::{FrameworkId, Principal};

use crate::input::{SchedulerCall, StreamRef};
use crate::machine::Machine;
use crate::output::{Destination, Needs, Status};

impl Machine {
    pub(crate) fn scheduler_call(&mut self, input: SchedulerCall) {
        let SchedulerCall {
            reply,
            framework_id,
            stream,
            principal,
            call,
        } = input;
        if let Err((status, message)) =
            self.admit(&framework_id, &stream, principal.as_ref(), &call)
        {
            // It rests on what this leader does not know.
            match (reply, &stream) {
                (Some(reply), _) => self.answer_needing(reply, status, message, Needs::Leadership),
                (None, StreamRef::Connection(connection)) => {
                    self.scheduler_disconnected(*connection);
                    self.close(Destination::Scheduler(*connection), status, &message);
                }
                (None, StreamRef::Header(_)) => {}
            }
            return;
        }
        let (status, message) = self.perform(&framework_id, principal.as_ref(), call);
        if let Some(reply) = reply {
            self.answer(reply, status, message);
        } else if let StreamRef::Connection(connection) = stream
            && !matches!(status, Status::Ok | Status::Accepted)
        {
            self.scheduler_disconnected(connection);
            self.close(Destination::Scheduler(connection), status, &message);
        }
    }

    fn admit(
        &self,
        framework_id: &FrameworkId,
        stream: &StreamRef,
        principal: Option<&Principal>,
        call: &Call,
    ) -> Result<(), (Status, String)> {
        let bad = |message: String| Err((Status::BadRequest, message));
        if matches!(call, Call::Subscribe(_)) {
            return bad("SUBSCRIBE opens a stream of its own".to_owned());
        }
        let Some(row) = self
            .state
            .framework(framework_id)
            .filter(|row| !row.completed)
        else {
            return bad(format!(
                "Framework '{framework_id}' cannot be found: subscribe first"
            ));
        };
        if let Some(principal) = principal
            && principal.as_str() != row.principal
        {
            return bad(format!(
                "Authenticated principal '{principal}' is not that of framework '{framework_id}'"
            ));
        }
        let Some(session) = self.frameworks.session(framework_id) else {
            return Err((
                Status::Forbidden,
                format!("Framework '{framework_id}' is not subscribed"),
            ));
        };
        self.frameworks
            .check_stream(session, stream)
            .map_err(|message| (Status::BadRequest, message))
    }

    fn perform(
        &mut self,
        framework_id: &FrameworkId,
        principal: Option<&Principal>,
        call: Call,
    ) -> (Status, String) {
        let interval = self.config.allocator.allocation_interval;
        match call {
            // Refused at the door.
            Call::Subscribe(_) => {
                return (
                    Status::BadRequest,
                    "SUBSCRIBE opens a stream of its own".to_owned(),
                );
            }
            Call::Teardown => self.remove_framework(framework_id),
            Call::Accept {
                offer_ids,
                operations,
                filters,
            } => {
                self.accept(
                    framework_id,
                    &offer_ids,
                    operations,
                    filters.at_least(interval).refuse,
                );
            }
            Call::Decline { offer_ids, filters } => {
                self.decline(framework_id, &offer_ids, filters.at_least(interval).refuse);
            }
            Call::AcceptInverseOffers { offer_ids, filters } => {
                self.answer_inverse_offers(framework_id, &offer_ids, filters.refuse, true);
            }
            Call::DeclineInverseOffers { offer_ids, filters } => {
                self.answer_inverse_offers(framework_id, &offer_ids, filters.refuse, false);
            }
            Call::Revive { roles } => self.set_suppressed(framework_id, &roles, false),
            Call::Suppress { roles } => self.set_suppressed(framework_id, &roles, true),
            Call::Kill {
                task_id,
                agent_id,
                kill_policy,
            } => {
                self.kill(
                    framework_id,
                    &task_id,
                    agent_id.as_ref(),
                    kill_policy.as_ref(),
                );
            }
            Call::Shutdown {
                executor_id,
                agent_id,
            } => {
                self.shutdown_executor(framework_id, &agent_id, &executor_id);
            }
            Call::Acknowledge {
                agent_id,
                task_id,
                uuid,
            } => {
                self.acknowledge(framework_id, &agent_id, &task_id, uuid.to_bytes());
            }
            Call::AcknowledgeOperationStatus {
                agent_id,
                operation_id,
                uuid,
                ..
            } => {
                self.acknowledge_operation(framework_id, &agent_id, &operation_id, uuid.to_bytes());
            }
            Call::Reconcile { tasks } => self.reconcile(framework_id, &tasks),
            Call::ReconcileOperations { operations } => {
                self.reconcile_operations(framework_id, &operations);
            }
            Call::Message {
                agent_id,
                executor_id,
                data,
            } => {
                self.scheduler_message(framework_id, &agent_id, &executor_id, data);
            }
            // Of use to roles that may preempt; otherwise ignored, as in Mesos.
            Call::Request { requests } => self.request_resources(framework_id, &requests),
            Call::UpdateFramework(update) => {
                return match self.update_framework(framework_id, principal, update) {
                    Ok(()) => (Status::Ok, String::new()),
                    Err(message) => (Status::BadRequest, message),
                };
            }
        }
        (Status::Accepted, String::new())
    }
}
