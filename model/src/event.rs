//! Events for schedulers.

use crate::{AgentId, ExecutorId, FrameworkId, OfferId, offer::Offer, wire};
use bytes::Bytes;
use std::sync::Arc;
use wire::scheduler::event::{self, Type};

pub use crate::offer::FrameworkFormat;

/// An event for a scheduler.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The subscription is there. The first event of every stream.
    Subscribed {
        /// The framework's id, new or as it was.
        framework_id: FrameworkId,
        /// Seconds between two heartbeats.
        heartbeat_interval_seconds: f64,
        /// The master that leads.
        master_info: Arc<wire::MasterInfo>,
    },
    /// Offers, one per agent and role.
    Offers(Vec<Arc<Offer>>),
    /// Requests to give resources back.
    InverseOffers(Vec<Arc<wire::InverseOffer>>),
    /// An offer is void.
    Rescind(OfferId),
    /// An inverse offer is void.
    RescindInverseOffer(OfferId),
    /// What became of a task; with a uuid it wants to be acknowledged.
    Update(Box<wire::TaskStatus>),
    /// What became of an operation; with a uuid it wants to be acknowledged.
    UpdateOperationStatus(Box<wire::OperationStatus>),
    /// Bytes from an executor.
    Message {
        /// Where it is.
        agent_id: AgentId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Bytes,
    },
    /// An agent is gone, or an executor ended.
    Failure {
        /// The agent.
        agent_id: Option<AgentId>,
        /// The executor, if it is one.
        executor_id: Option<ExecutorId>,
        /// Its exit status.
        status: Option<i32>,
    },
    /// The subscription is refused or over: the last event of a stream.
    Error(String),
    /// The master is there.
    Heartbeat,
}

impl Event {
    /// The message of the wire, as a framework of the format understands it.
    pub fn to_wire(&self, format: FrameworkFormat) -> wire::scheduler::Event {
        let mut event = wire::scheduler::Event {
            r#type: Some(self.kind().into()),
            ..Default::default()
        };
        match self {
            Event::Subscribed {
                framework_id,
                heartbeat_interval_seconds,
                master_info,
            } => {
                event.subscribed = Some(event::Subscribed {
                    framework_id: framework_id.to_wire(),
                    heartbeat_interval_seconds: Some(*heartbeat_interval_seconds),
                    master_info: Some((**master_info).clone()),
                });
            }
            Event::Offers(offers) => {
                let offers = offers.iter().map(|it| it.to_wire(format)).collect();
                event.offers = Some(event::Offers { offers });
            }
            Event::InverseOffers(offers) => {
                let rewritten = offers.iter().map(|it| {
                    let mut it = (**it).clone();
                    format.rewrite(&mut it.resources);
                    it
                });
                event.inverse_offers = Some(event::InverseOffers {
                    inverse_offers: rewritten.collect(),
                });
            }
            Event::Rescind(id) => {
                let offer_id = id.to_wire();
                event.rescind = Some(event::Rescind { offer_id });
            }
            Event::RescindInverseOffer(id) => {
                let inverse_offer_id = id.to_wire();
                event.rescind_inverse_offer = Some(event::RescindInverseOffer { inverse_offer_id });
            }
            Event::Update(status) => {
                let mut status = (**status).clone();
                if let Some(limitation) = &mut status.limitation {
                    format.rewrite(&mut limitation.resources);
                }
                event.update = Some(event::Update { status });
            }
            Event::UpdateOperationStatus(status) => {
                let mut status = (**status).clone();
                format.rewrite(&mut status.converted_resources);
                event.update_operation_status = Some(event::UpdateOperationStatus { status });
            }
            Event::Message {
                agent_id,
                executor_id,
                data,
            } => {
                event.message = Some(event::Message {
                    agent_id: agent_id.to_wire(),
                    executor_id: executor_id.to_wire(),
                    data: data.clone(),
                });
            }
            Event::Failure {
                agent_id,
                executor_id,
                status,
            } => {
                event.failure = Some(event::Failure {
                    agent_id: agent_id.as_ref().map(AgentId::to_wire),
                    executor_id: executor_id.as_ref().map(ExecutorId::to_wire),
                    status: *status,
                });
            }
            Event::Error(message) => {
                let message = message.clone();
                event.error = Some(event::Error { message });
            }
            Event::Heartbeat => {}
        }
        event
    }

    /// The event's type on the wire.
    pub fn kind(&self) -> Type {
        match self {
            Event::Subscribed { .. } => Type::Subscribed,
            Event::Offers(_) => Type::Offers,
            Event::InverseOffers(_) => Type::InverseOffers,
            Event::Rescind(_) => Type::Rescind,
            Event::RescindInverseOffer(_) => Type::RescindInverseOffer,
            Event::Update(_) => Type::Update,
            Event::UpdateOperationStatus(_) => Type::UpdateOperationStatus,
            Event::Message { .. } => Type::Message,
            Event::Failure { .. } => Type::Failure,
            Event::Error(_) => Type::Error,
            Event::Heartbeat => Type::Heartbeat,
        }
    }
}
