//! What the machine answers: facts for the log, messages that wait for them, and
//! the volatile half of what readers see.

use std::sync::Arc;

use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, OfferId};
use tepui_model::offer::{FrameworkFormat, Offer};
use tepui_model::resources::Resources;
use tepui_model::{link, log, operator, wire};

pub use crate::input::{ConnectionId, RequestId, Transport};

/// The result of one step. `log` is already applied to the machine's own state.
#[must_use]
#[derive(Default, Debug)]
pub struct Output {
    /// Decided facts, in order; one step's operations must stay in one log entry.
    pub log: Vec<log::Operation>,
    /// Messages for the [`Outbox`](crate::outbox::Outbox), in order.
    pub send: Vec<Outgoing>,
    /// Changes that readers see and that are not in the log, in order. To be shown
    /// no earlier than the entry that holds `log`.
    pub view: Vec<ViewChange>,
    /// An entry is due even if nothing is in `log`, for the sake of its stamp.
    pub stamp: bool,
}

impl Output {
    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && self.send.is_empty() && self.view.is_empty() && !self.stamp
    }
}

/// A message that waits in the outbox.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Who gets it. First-in-first-out per destination.
    pub to: Destination,
    /// What.
    pub message: Message,
    /// What must be true before it may leave.
    pub needs: Needs,
}

/// Where a message goes. The ids are those that the shell handed in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Destination {
    /// A scheduler's event stream.
    Scheduler(ConnectionId),
    /// An agent's link.
    Agent(ConnectionId),
    /// The answer of one request.
    Reply(RequestId),
    /// A watch of the state service.
    Watch(ConnectionId),
}

/// What a message waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Everything applied up to and including this step is durable on a quorum.
    Committed,
    /// That, and a read index begun after the step confirmed the leadership:
    /// answers that rest on the absence of something.
    Leadership,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Message {
    /// To a scheduler: encode `event` with [`Event::to_wire`] and this format.
    Event {
        /// The event; shared, never copied per subscriber.
        event: Arc<Event>,
        /// Which form of resources and offers the framework understands.
        format: FrameworkFormat,
    },
    /// To a scheduler's stream, not to its client: when the reader comes to it, say
    /// [`SchedulerTurn`](crate::input::Input::SchedulerTurn). What is left to send follows then.
    Turn,
    /// To a scheduler or an agent: close the connection after everything sent
    /// before on it. The machine has forgotten the connection.
    Close {
        /// HTTP or gRPC status class, for streams that can still carry one.
        status: Status,
        /// Why, for the log of the master and for gRPC.
        reason: Arc<str>,
    },
    /// To an agent, fence included.
    ToAgent(Box<link::MasterMessage>),
    /// The answer of a request: status class and text (empty for 202).
    Answer {
        /// Class; the shell maps it to an HTTP or gRPC status.
        status: Status,
        /// What was wrong and what would be right; empty on success.
        message: String,
    },
    /// The answer to EXPLAIN.
    Explanation(Box<operator::Explanation>),
    /// The answer of a request to the state service.
    State(Box<StateAnswer>),
    /// To a watch of the state service.
    StateEvent(StateEvent),
}

/// What the state service answers. `revision` is that of the principal's account at this
/// moment where nothing else is said.
#[derive(Clone, Debug)]
pub enum StateAnswer {
    /// To GET.
    Variable {
        /// `None`: there is none of that name.
        variable: Option<Arc<log::Variable>>,
        /// Of the account.
        revision: u64,
    },
    /// To LIST.
    Variables {
        /// By name.
        variables: Vec<Arc<log::Variable>>,
        /// There are more behind the last one.
        more: bool,
        /// Of the account.
        revision: u64,
    },
    /// The write is done, now or when it was sent before.
    Written {
        /// The one that it took: the variable's version, the lease's id.
        revision: u64,
    },
    /// The write is not done: what is there is not what was expected.
    Conflict {
        /// What is there.
        current: Option<Arc<log::Variable>>,
        /// Of the account.
        revision: u64,
    },
    /// The lease lives on for `ttl` from the moment at which the request was served; zero
    /// for one that was to be revoked and is no more.
    Renewed {
        /// Its whole time.
        ttl: core::time::Duration,
        /// Of the account.
        revision: u64,
    },
    /// Nothing is done.
    Refused {
        /// The class.
        why: StateRefusal,
        /// The field, what was wrong and what would be right.
        message: String,
    },
}

/// Why the state service does not do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateRefusal {
    /// What it names is not there.
    NotFound,
    /// The quota does not allow it.
    Exhausted,
    /// Whether a repeated write took effect cannot be told any more.
    Unknown,
}

/// What a watch sees.
#[derive(Clone, Debug)]
pub enum StateEvent {
    /// First: everything that is watched.
    Snapshot {
        /// By name.
        variables: Vec<Arc<log::Variable>>,
        /// Of the account.
        revision: u64,
    },
    /// A variable was set; its version is the revision.
    Set(Arc<log::Variable>),
    /// Variables were expunged, several when a lease ended.
    Expunged {
        /// By name.
        names: Vec<Arc<str>>,
        /// The one that the change took.
        revision: u64,
    },
}

impl StateEvent {
    /// What it holds back in a queue, bytes: values that the state may have dropped already.
    pub fn weight(&self) -> usize {
        match self {
            // Rows of the state, which it holds anyway.
            StateEvent::Snapshot { .. } => 0,
            StateEvent::Set(variable) => variable.name.len() + variable.value.len(),
            StateEvent::Expunged { names, .. } => names.iter().map(|it| it.len()).sum(),
        }
    }
}

/// Answer classes, named after the HTTP statuses that Mesos uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// 200.
    Ok,
    /// 202, accepted before any effect is known.
    Accepted,
    /// 400.
    BadRequest,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 429.
    TooManyRequests,
    /// 501.
    NotImplemented,
    /// 503.
    Unavailable,
}

impl Status {
    /// The HTTP status code.
    pub fn http_code(self) -> u16 {
        match self {
            Status::Ok => 200,
            Status::Accepted => 202,
            Status::BadRequest => 400,
            Status::Forbidden => 403,
            Status::NotFound => 404,
            Status::Conflict => 409,
            Status::TooManyRequests => 429,
            Status::NotImplemented => 501,
            Status::Unavailable => 503,
        }
    }
}

/// A change of what dies with the term. Together with the committed rows these
/// serve `/state`, GET_AGENTS, GET_FRAMEWORKS, offers and the operator events. A
/// view starts empty at each birth: nobody connected, no offers.
#[derive(Clone, Debug)]
pub enum ViewChange {
    /// An offer is outstanding; its resources count as offered (not used).
    OfferAdded(Arc<Offer>),
    /// The offer is gone: used, declined, rescinded, timed out or taken back.
    OfferRemoved(OfferId),
    /// A framework's connection or activity changed. `active` implies `connected`.
    Framework {
        /// The framework.
        framework_id: FrameworkId,
        /// A subscription is open.
        connected: bool,
        /// Offers are made to it.
        active: bool,
        /// How it is connected; `None` while it is not.
        transport: Option<Transport>,
    },
    /// The framework is forgotten (completed).
    FrameworkRemoved(FrameworkId),
    /// An agent's link or activity changed.
    Agent {
        /// The agent.
        agent_id: AgentId,
        /// Its link is open and attached in this term. An admitted agent that
        /// never was in this term is listed under `recovered_agents`.
        connected: bool,
        /// Its resources are offered.
        active: bool,
    },
    /// The agent is no longer among the admitted (unreachable, gone, removed).
    AgentRemoved(AgentId),
    /// What an agent oversubscribes: beyond its row's total, in the place of what was said
    /// before; nothing once its link is gone.
    Oversubscribed {
        /// The agent.
        agent_id: AgentId,
        /// All of them revocable.
        resources: Arc<Resources>,
    },
    /// An inverse offer is outstanding.
    InverseOfferAdded(Arc<wire::InverseOffer>),
    /// The inverse offer is gone.
    InverseOfferRemoved(OfferId),
    /// What a framework answered to an inverse offer: shown in `/maintenance/status`.
    InverseOfferAnswered {
        /// The agent that is to be maintained.
        agent_id: AgentId,
        /// Who answered.
        framework_id: FrameworkId,
        /// ACCEPT or DECLINE.
        accepted: bool,
    },
}
