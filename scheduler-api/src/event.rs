//! Events that a master sends to a framework.

use bytes::Bytes;
use tepui_proto::mesos::v1;
use v1::scheduler::event;

/// One event of the subscription, in the order that the master sent it.
///
/// Heartbeats are consumed by the session. [`Event::Disconnected`] is the session's
/// own: the framework keeps its id and is subscribed again as soon as a master answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The framework is subscribed, for the first time or again.
    Subscribed {
        /// The id to keep: a framework that restarts with it takes over its tasks.
        framework_id: v1::FrameworkId,
        /// The master that answered.
        master: Option<v1::MasterInfo>,
        /// False for the first subscription of this session.
        again: bool,
    },
    /// Resources that the framework may use; answer with accept or decline.
    Offers(Vec<v1::Offer>),
    /// Resources that an operator would like back.
    InverseOffers(Vec<v1::InverseOffer>),
    /// The offer is no longer valid.
    Rescind(v1::OfferId),
    /// The inverse offer is no longer valid.
    RescindInverseOffer(v1::OfferId),
    /// A task changed its state. With automatic acknowledgement the session answers;
    /// otherwise the framework acknowledges every status that carries a `uuid`.
    Update(Box<v1::TaskStatus>),
    /// An operation with an id changed its state.
    UpdateOperationStatus(Box<v1::OperationStatus>),
    /// Bytes from an executor.
    Message {
        /// Agent of the executor.
        agent_id: v1::AgentId,
        /// The executor.
        executor_id: v1::ExecutorId,
        /// Not interpreted.
        data: Bytes,
    },
    /// An agent was lost (no executor), or an executor ended.
    Failure {
        /// The agent concerned.
        agent_id: Option<v1::AgentId>,
        /// The executor, when it is the executor that ended.
        executor_id: Option<v1::ExecutorId>,
        /// Its exit status.
        status: Option<i32>,
    },
    /// The connection to the master broke; the session is reconnecting.
    Disconnected {
        /// Why.
        cause: String,
    },
}

/// What the session makes of a message of the stream.
pub(crate) enum Incoming {
    Event(Event),
    Subscribed(event::Subscribed),
    Error(String),
    Heartbeat,
    /// A type that this version does not know, or one without its body: skipped.
    Unknown,
}

impl From<v1::scheduler::Event> for Incoming {
    fn from(wire: v1::scheduler::Event) -> Self {
        use event::Type;
        let kind = wire.r#type.and_then(|number| Type::try_from(number).ok());
        let event = match kind {
            Some(Type::Subscribed) => {
                return wire.subscribed.map_or(Self::Unknown, Self::Subscribed);
            }
            Some(Type::Error) => {
                return wire
                    .error
                    .map_or(Self::Unknown, |error| Self::Error(error.message));
            }
            Some(Type::Heartbeat) => return Self::Heartbeat,
            Some(Type::Offers) => wire.offers.map(|it| Event::Offers(it.offers)),
            Some(Type::InverseOffers) => wire
                .inverse_offers
                .map(|it| Event::InverseOffers(it.inverse_offers)),
            Some(Type::Rescind) => wire.rescind.map(|it| Event::Rescind(it.offer_id)),
            Some(Type::RescindInverseOffer) => wire
                .rescind_inverse_offer
                .map(|it| Event::RescindInverseOffer(it.inverse_offer_id)),
            Some(Type::Update) => wire.update.map(|it| Event::Update(Box::new(it.status))),
            Some(Type::UpdateOperationStatus) => wire
                .update_operation_status
                .map(|it| Event::UpdateOperationStatus(Box::new(it.status))),
            Some(Type::Message) => wire.message.map(|it| Event::Message {
                agent_id: it.agent_id,
                executor_id: it.executor_id,
                data: it.data,
            }),
            Some(Type::Failure) => wire.failure.map(|it| Event::Failure {
                agent_id: it.agent_id,
                executor_id: it.executor_id,
                status: it.status,
            }),
            Some(Type::Unknown) | None => None,
        };
        event.map_or(Self::Unknown, Self::Event)
    }
}
