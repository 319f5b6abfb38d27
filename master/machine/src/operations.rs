//! Offer operations in the log and their feedback (behaviour section 9). Only those
//! with an id that their framework chose have a row: nobody asks for the others.

use bytes::Bytes;
use prost::Message as _;
use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, OperationId};
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log::operation::Kind;
use tepui_model::wire::{self, OperationState};
use tepui_model::{link, log};

use crate::counters::Counter;
use crate::machine::Machine;

/// True for the states that end an operation.
pub(crate) fn is_terminal(state: i32) -> bool {
    matches!(
        OperationState::try_from(state),
        Ok(OperationState::OperationFinished
            | OperationState::OperationFailed
            | OperationState::OperationError
            | OperationState::OperationDropped
            | OperationState::OperationGoneByOperator)
    )
}

/// The newest status of an operation, as its framework is told.
pub(crate) fn status_of(row: &log::OfferOperation) -> wire::OperationStatus {
    let known = wire::OperationStatus::decode(row.status_payload.clone()).unwrap_or_default();
    wire::OperationStatus {
        operation_id: Some(wire::OperationId {
            value: row.operation_id.clone(),
        }),
        state: row.state,
        agent_id: Some(wire::AgentId {
            value: row.agent_id.clone(),
        }),
        ..known
    }
}

impl Machine {
    /// Logs an operation that wants feedback; it is PENDING until its agent answers.
    pub(crate) fn put_operation(
        &mut self,
        uuid: &str,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        operation_id: &str,
        info_payload: Bytes,
        role: &str,
    ) {
        self.counters.add(Counter::OperationsTotal);
        self.log(Kind::PutOperation(log::PutOperation {
            operation: Some(log::OfferOperation {
                uuid: uuid.to_owned(),
                framework_id: framework_id.as_str().to_owned(),
                agent_id: agent_id.as_str().to_owned(),
                operation_id: operation_id.to_owned(),
                info_payload,
                state: OperationState::OperationPending as i32,
                status_payload: Bytes::new(),
                role: role.to_owned(),
            }),
        }));
    }

    /// An operation that failed before it began: OPERATION_ERROR without a uuid, and
    /// nothing at all when it has no id.
    pub(crate) fn refuse_operation(
        &mut self,
        framework_id: &FrameworkId,
        operation_id: Option<&OperationId>,
        agent_id: Option<&AgentId>,
        message: &str,
    ) {
        self.counters.add(Counter::OperationsError);
        let Some(operation_id) = operation_id else {
            return;
        };
        let status = wire::OperationStatus {
            operation_id: Some(operation_id.to_wire()),
            state: OperationState::OperationError as i32,
            message: Some(message.to_owned()),
            agent_id: agent_id.map(AgentId::to_wire),
            ..wire::OperationStatus::default()
        };
        self.event(framework_id, Event::UpdateOperationStatus(Box::new(status)));
    }

    /// A status from an agent's stream: sent again until acknowledged. The master
    /// acknowledges for whoever cannot.
    pub(crate) fn operation_update(&mut self, agent_id: &AgentId, update: link::OperationUpdate) {
        self.counters.add(Counter::MessagesOperationStatusUpdate);
        let Ok(mut status) = wire::OperationStatus::decode(update.status_payload.clone()) else {
            self.counters.add(Counter::InvalidOperationStatusUpdates);
            return;
        };
        let uuid = status
            .uuid
            .as_ref()
            .map(|uuid| uuid.value.clone())
            .unwrap_or_default();
        let row = self
            .state
            .operation(&update.operation_uuid)
            .filter(|row| row.agent_id == agent_id.as_str())
            .cloned();
        let framework_id = FrameworkId::from(update.framework_id.as_str());
        let Some(row) = row.filter(|_| self.is_live(&framework_id)) else {
            self.counters.add(Counter::InvalidOperationStatusUpdates);
            self.acknowledge_operation_at_agent(agent_id, &update.operation_uuid, uuid);
            return;
        };
        self.counters.add(Counter::ValidOperationStatusUpdates);
        status.agent_id = Some(agent_id.to_wire());
        status.operation_id = Some(wire::OperationId {
            value: row.operation_id.clone(),
        });
        let payload = Bytes::from(status.encode_to_vec());
        if row.status_payload != payload || row.state != status.state {
            match OperationState::try_from(status.state) {
                Ok(OperationState::OperationFinished) => {
                    self.counters.add(Counter::OperationsFinished)
                }
                Ok(OperationState::OperationFailed) => self.counters.add(Counter::OperationsFailed),
                Ok(OperationState::OperationDropped) => {
                    self.counters.add(Counter::OperationsDropped)
                }
                _ => {}
            }
            self.log(Kind::UpdateOperation(log::UpdateOperation {
                operation_uuid: row.uuid.clone(),
                status_payload: payload,
                state: status.state,
            }));
        }
        self.event(
            &framework_id,
            Event::UpdateOperationStatus(Box::new(status)),
        );
    }

    /// ACKNOWLEDGE_OPERATION_STATUS: a terminal one removes the operation.
    pub(crate) fn acknowledge_operation(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        operation_id: &OperationId,
        uuid: Bytes,
    ) {
        self.counters
            .add(Counter::MessagesOperationStatusUpdateAcknowledgement);
        let row = self
            .state
            .operations_of_framework(framework_id)
            .find(|row| {
                row.operation_id == operation_id.as_str() && row.agent_id == agent_id.as_str()
            })
            .cloned();
        let acknowledged = row.filter(|row| {
            let status = status_of(row);
            status.uuid.is_some_and(|waiting| waiting.value == uuid)
        });
        let Some(row) = acknowledged.filter(|_| self.agents.is_attached(agent_id)) else {
            self.counters
                .add(Counter::InvalidOperationStatusUpdateAcknowledgements);
            return;
        };
        self.counters
            .add(Counter::ValidOperationStatusUpdateAcknowledgements);
        if is_terminal(row.state) {
            self.log(Kind::RemoveOperation(log::RemoveOperation {
                operation_uuid: row.uuid.clone(),
            }));
            self.check_drained(agent_id);
        }
        self.acknowledge_operation_at_agent(agent_id, &row.uuid, uuid);
    }

    fn acknowledge_operation_at_agent(
        &mut self,
        agent_id: &AgentId,
        operation_uuid: &str,
        uuid: Bytes,
    ) {
        self.send_agent(
            agent_id,
            ToAgent::AcknowledgeOperation(link::AcknowledgeOperation {
                operation_uuid: operation_uuid.to_owned(),
                uuid,
            }),
        );
    }

    /// The agent is unreachable or gone: so are its operations.
    pub(crate) fn lose_operations(&mut self, agent_id: &AgentId, gone: bool) {
        let rows: Vec<_> = self.state.operations_of_agent(agent_id).cloned().collect();
        for row in rows {
            if is_terminal(row.state) {
                continue;
            }
            let state = if gone {
                self.counters.add(Counter::OperationsGoneByOperator);
                OperationState::OperationGoneByOperator
            } else {
                OperationState::OperationUnreachable
            };
            let status = wire::OperationStatus {
                state: state as i32,
                message: Some(
                    if gone {
                        "Agent is gone"
                    } else {
                        "Agent is unreachable"
                    }
                    .to_owned(),
                ),
                uuid: None,
                ..status_of(&row)
            };
            self.log(Kind::UpdateOperation(log::UpdateOperation {
                operation_uuid: row.uuid.clone(),
                status_payload: Bytes::from(status.encode_to_vec()),
                state: state as i32,
            }));
            let framework_id = FrameworkId::from(row.framework_id.as_str());
            self.event(
                &framework_id,
                Event::UpdateOperationStatus(Box::new(status)),
            );
        }
    }

    /// The agent is back: what was unreachable is pending again until it tells more.
    pub(crate) fn resume_operations(&mut self, agent_id: &AgentId) {
        let rows: Vec<_> = self.state.operations_of_agent(agent_id).cloned().collect();
        for row in rows {
            if row.state == OperationState::OperationUnreachable as i32 {
                self.log(Kind::UpdateOperation(log::UpdateOperation {
                    operation_uuid: row.uuid.clone(),
                    status_payload: Bytes::new(),
                    state: OperationState::OperationPending as i32,
                }));
            }
        }
    }
}
