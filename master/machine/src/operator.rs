//! Operators' writes: answered when what they did is durable. Access was granted by the
//! shell; what depends on the state is refused here, with the status that Mesos gives.

use tepui_model::id::AgentId;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::wire::DrainState;

use crate::input::{OperatorInput, OperatorRequest};
use crate::machine::Machine;
use crate::output::{Needs, Status};
use crate::unreachable::Leaving;

/// A refusal: status and text; whether it rests on the absence of something.
pub(crate) struct Refused {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Refused {
        Refused {
            status,
            message: message.into(),
        }
    }
}

impl Machine {
    pub(crate) fn operator(&mut self, input: OperatorInput) {
        let reply = input.reply;
        if let OperatorRequest::Explain { framework_id, role } = &input.request {
            self.explain(reply, framework_id.as_ref(), role.as_ref());
            return;
        }
        match self.operate(input) {
            Ok(status) => self.answer(reply, status, ""),
            Err(refused) => {
                self.answer_needing(reply, refused.status, refused.message, Needs::Leadership);
            }
        }
    }

    fn operate(&mut self, input: OperatorInput) -> Result<Status, Refused> {
        let bad = |message: String| Refused::new(Status::BadRequest, message);
        match input.request {
            OperatorRequest::RaiseClusterVersion { version } => {
                self.raise_cluster_version(version).map_err(bad)?;
            }
            OperatorRequest::Teardown { framework_id } => {
                if !self.is_live(&framework_id) {
                    return Err(bad(format!(
                        "framework_id: no framework '{framework_id}' is active"
                    )));
                }
                self.remove_framework(&framework_id);
            }
            OperatorRequest::MarkAgentGone { agent_id } => self.mark_gone(&agent_id)?,
            OperatorRequest::DeactivateAgent { agent_id } => self.deactivate_agent(&agent_id)?,
            OperatorRequest::ReactivateAgent { agent_id } => self.reactivate_agent(&agent_id)?,
            OperatorRequest::DrainAgent {
                agent_id,
                max_grace_period_ns,
                mark_gone,
            } => {
                self.drain_agent(&agent_id, max_grace_period_ns, mark_gone)?;
            }
            OperatorRequest::UpdateWeights { weights } => {
                self.update_weights(&weights).map_err(bad)?
            }
            OperatorRequest::UpdateQuota { force, configs } => self.update_quota(force, configs)?,
            // Answered before.
            OperatorRequest::Explain { .. } => {}
            OperatorRequest::AgentOperation {
                agent_id,
                operation,
            } => {
                self.operator_operation(&agent_id, &operation)?;
                return Ok(Status::Accepted);
            }
            OperatorRequest::KillTask {
                framework_id,
                task_id,
            } => {
                let active = self
                    .state
                    .task(&framework_id, &task_id)
                    .is_some_and(|row| !row.unreachable && !row.completed);
                if !active {
                    return Err(Refused::new(
                        Status::NotFound,
                        format!(
                            "task_id: no task '{task_id}' of framework '{framework_id}' is active"
                        ),
                    ));
                }
                self.kill(&framework_id, &task_id, None, None);
                return Ok(Status::Accepted);
            }
            OperatorRequest::UpdateMaintenanceSchedule { schedule } => {
                self.update_schedule(schedule).map_err(bad)?;
            }
            OperatorRequest::StartMaintenance { machines } => {
                self.start_maintenance(&machines).map_err(bad)?
            }
            OperatorRequest::StopMaintenance { machines } => {
                self.stop_maintenance(&machines).map_err(bad)?
            }
        }
        Ok(Status::Ok)
    }

    fn raise_cluster_version(&mut self, version: u64) -> Result<(), String> {
        let (now, newest) = (self.state.cluster_version(), self.state.supported_version());
        if version < now {
            return Err(format!(
                "version: the cluster is at version {now} already, and versions only rise"
            ));
        }
        if version > newest {
            return Err(format!(
                "version: this release knows versions up to {newest}: install the newer release first"
            ));
        }
        if version > now {
            self.log(Kind::SetClusterVersion(log::SetClusterVersion {
                version,
                wall_time: self.wall.as_secs(),
            }));
        }
        Ok(())
    }

    /// Gone for good: also when it is unreachable, or gone already.
    fn mark_gone(&mut self, agent_id: &AgentId) -> Result<(), Refused> {
        match self.state.agent(agent_id).map(|row| row.state()) {
            None => Err(unknown_agent(agent_id)),
            Some(log::AgentState::Gone) => Ok(()),
            Some(_) => {
                self.remove_agent(agent_id, Leaving::Gone);
                Ok(())
            }
        }
    }

    fn admitted(&self, agent_id: &AgentId) -> Result<log::Agent, Refused> {
        match self.state.agent(agent_id) {
            Some(row) if row.state() == log::AgentState::Admitted => Ok(log::Agent::clone(row)),
            _ => Err(unknown_agent(agent_id)),
        }
    }

    fn deactivate_agent(&mut self, agent_id: &AgentId) -> Result<(), Refused> {
        let row = self.admitted(agent_id)?;
        if !row.deactivated {
            self.set_activation(agent_id, true, row.drain);
        }
        Ok(())
    }

    fn reactivate_agent(&mut self, agent_id: &AgentId) -> Result<(), Refused> {
        let row = self.admitted(agent_id)?;
        if row
            .drain
            .is_some_and(|drain| drain.state != DrainState::Drained as i32)
        {
            return Err(Refused::new(
                Status::BadRequest,
                format!("agent '{agent_id}' is still draining: wait until it is drained"),
            ));
        }
        if row.drain.is_some() {
            let cancel = log::Drain {
                cancel: true,
                ..log::Drain::default()
            };
            self.order(agent_id, log::command::Kind::Drain(cancel));
        }
        self.set_activation(agent_id, false, None);
        Ok(())
    }

    fn drain_agent(
        &mut self,
        agent_id: &AgentId,
        max_grace_period_ns: Option<u64>,
        mark_gone: bool,
    ) -> Result<(), Refused> {
        self.admitted(agent_id)?;
        let drain = log::DrainInfo {
            state: DrainState::Draining as i32,
            max_grace_period_ns,
            mark_gone,
            wall_began: Some(self.wall.as_secs()),
        };
        self.set_activation(agent_id, true, Some(drain));
        let order = log::Drain {
            max_grace_period_ns,
            mark_gone,
            cancel: false,
        };
        self.order(agent_id, log::command::Kind::Drain(order));
        self.check_drained(agent_id);
        Ok(())
    }

    fn set_activation(
        &mut self,
        agent_id: &AgentId,
        deactivated: bool,
        drain: Option<log::DrainInfo>,
    ) {
        self.log(Kind::SetAgentActivation(log::SetAgentActivation {
            agent_id: agent_id.as_str().to_owned(),
            deactivated,
            drain,
        }));
        if deactivated {
            self.rescind_agent(agent_id);
            self.allocator.deactivate_agent(agent_id);
        } else if self.agents.is_attached(agent_id) {
            self.allocator.activate_agent(agent_id);
            self.allocation.trigger(self.now);
        }
        self.withdrawal_changed(agent_id);
        self.view_agent(agent_id);
    }
}

fn unknown_agent(agent_id: &AgentId) -> Refused {
    Refused::new(
        Status::NotFound,
        format!("agent_id: no agent '{agent_id}' is admitted"),
    )
}
