//! What the machine is told: a closed list, so that everything that can change
//! the cluster is read in one place.
//!
//! The shell decodes, authenticates and validates syntax before it makes an
//! input; what is left to refuse here depends on the state. A refusal is an
//! [`Output`](crate::output::Output), never an error of [`step`](crate::Machine::step).

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use tepui_model::call::{Call, Subscribe};
use tepui_model::id::{AgentId, FrameworkId, Principal, TaskId};
use tepui_model::link;
use tepui_model::role::Role;
use tepui_model::wire;

/// One connection of the shell (a scheduler's event stream or an agent's link),
/// unique within the life of the process. Never replicated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One request that waits for an answer, unique within the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// How a scheduler's events travel. An enum from day one, so that the v0 wire can
/// join without a change of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// `/api/v1/scheduler`, RecordIO of JSON.
    V1Json,
    /// `/api/v1/scheduler`, RecordIO of protobuf.
    V1Protobuf,
    /// `tepui.scheduler.v1.Scheduler`.
    Grpc,
}

/// Everything that can happen to the machine.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // inputs are moved once, from the queue into `step`
pub enum Input {
    /// Time went on: the shell steps with this when [`next_deadline`](crate::Machine::next_deadline) is due.
    Tick,
    /// A scheduler subscribes (section 2.2).
    Subscribe(SubscribeInput),
    /// Any other scheduler call (sections 2.1, 3, 4, 6-9).
    SchedulerCall(SchedulerCall),
    /// A subscription's stream broke or was closed by its client (section 2.3).
    /// Unknown connections and those already taken over are ignored.
    SchedulerDisconnected {
        /// The connection given at subscription.
        connection: ConnectionId,
    },
    /// The reader of a subscription fell behind with its events, or caught up: no offers
    /// are made to the framework meanwhile, so that what waits for it is bounded by what it
    /// has launched. Unknown connections are ignored.
    SchedulerPace {
        /// The connection given at subscription.
        connection: ConnectionId,
        /// Whether it is behind.
        behind: bool,
    },
    /// The reader of a subscription came to [`Message::Turn`](crate::output::Message::Turn): it has
    /// read everything that was sent before. Unknown connections are ignored.
    SchedulerTurn {
        /// The connection given at subscription.
        connection: ConnectionId,
    },
    /// A frame of an agent's link. The first one of a connection must be `Register`.
    AgentMessage {
        /// The link it came on.
        connection: ConnectionId,
        /// Who authenticated at the door of the link.
        principal: Option<Principal>,
        /// The frame. `Register.address` must be the `ip:port` of the agent's HTTP endpoint.
        message: Box<link::AgentMessage>,
    },
    /// An agent's link broke (section 11.2).
    AgentDisconnected {
        /// The link.
        connection: ConnectionId,
    },
    /// A write of an operator, by `/api/v1`, gRPC or an endpoint.
    Operator(OperatorInput),
    /// A request to the state service.
    State(StateInput),
    /// Somebody wants to see the variables whose names begin with `prefix`, and every change.
    StateWatch {
        /// Where the events go.
        connection: ConnectionId,
        /// Whose variables: who authenticated, if anybody.
        principal: Option<Principal>,
        /// Empty for all.
        prefix: Arc<str>,
    },
    /// A watch ended. Unknown connections are ignored.
    StateWatchClosed {
        /// The connection given at its beginning.
        connection: ConnectionId,
    },
    /// The file of `--whitelist` changed: host names that may be offered; `None` = all.
    Whitelist(Option<Vec<String>>),
    /// Panics. Made by a listener only when the master was started for a test of
    /// the shell's recovery (`--inject_panics`); never otherwise.
    InjectPanic {
        /// The connection to blame.
        connection: Option<ConnectionId>,
    },
}

/// A subscription (section 2.2).
#[derive(Clone, Debug)]
pub struct SubscribeInput {
    /// Where the events go: the shell answers 200 with `Mesos-Stream-Id` at once
    /// when the first message for this connection leaves the outbox.
    pub connection: ConnectionId,
    /// `Mesos-Stream-Id` that the shell drew for this subscription.
    pub stream_id: Arc<str>,
    /// How the events travel.
    pub transport: Transport,
    /// Who authenticated, if anybody.
    pub principal: Option<Principal>,
    /// The call, valid as far as section 2.1 item 6 goes.
    pub subscribe: Subscribe,
}

/// What tells on which subscription a call rides (section 2.1 item 9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamRef {
    /// An HTTP request or a unary gRPC call: the `Mesos-Stream-Id`, when sent.
    Header(Option<Arc<str>>),
    /// A call inside a gRPC subscription.
    Connection(ConnectionId),
}

/// A scheduler call other than SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct SchedulerCall {
    /// Where the answer (202, 200, 400, 403) goes; `None` inside a gRPC stream,
    /// where an accepted call has no answer and a refused one closes the stream
    /// with the status.
    pub reply: Option<RequestId>,
    /// `Call.framework_id`, required by call validation.
    pub framework_id: FrameworkId,
    /// On which subscription it rides.
    pub stream: StreamRef,
    /// Who authenticated, if anybody.
    pub principal: Option<Principal>,
    /// The call. `Call::Subscribe` here is refused (400).
    pub call: Call,
}

/// A request to the state service. Sizes and names were checked by the shell.
#[derive(Clone, Debug)]
pub struct StateInput {
    /// Where the answer goes.
    pub reply: RequestId,
    /// Whose variables: who authenticated, if anybody.
    pub principal: Option<Principal>,
    /// What is asked.
    pub request: StateRequest,
}

/// What must be there for a write to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Whatever there is.
    Any,
    /// A variable of this version; 0 = none.
    Version(u64),
}

/// The client's name for a write, so that it can be sent again.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WriteMark {
    /// Drawn anew for every write; empty = it is not sent again.
    pub id: Bytes,
    /// It was sent before, and may have taken effect.
    pub repeated: bool,
    /// A revision of the account that the client knew before it sent it first.
    pub seen_revision: u64,
}

/// What the state service can do.
#[derive(Clone, Debug)]
pub enum StateRequest {
    /// One variable.
    Get {
        /// Its name.
        name: Arc<str>,
    },
    /// Variables by prefix, a page.
    List {
        /// Empty for all.
        prefix: Arc<str>,
        /// Only names after this one.
        after: Option<Arc<str>>,
        /// At most so many; held within bounds.
        limit: usize,
    },
    /// Sets a variable.
    Set {
        /// Its name.
        name: Arc<str>,
        /// What it shall be.
        value: Bytes,
        /// On which condition.
        expected: Expected,
        /// On which lease it hangs; 0 = on none.
        lease_id: u64,
        /// The client's name for the write.
        mark: WriteMark,
    },
    /// Removes a variable.
    Expunge {
        /// Its name.
        name: Arc<str>,
        /// On which condition.
        expected: Expected,
        /// The client's name for the write.
        mark: WriteMark,
    },
    /// A new lease; its id is the revision of the answer.
    GrantLease {
        /// How long it lives without renewal.
        ttl: Duration,
        /// The client's name for the write.
        mark: WriteMark,
    },
    /// The lease lives for its whole time again.
    RenewLease {
        /// Which.
        lease_id: u64,
    },
    /// Ends a lease and what hangs on it.
    RevokeLease {
        /// Which.
        lease_id: u64,
        /// The client's name for the write.
        mark: WriteMark,
    },
}

/// An operator's write. Reads are served by the shell's view.
#[derive(Clone, Debug)]
pub struct OperatorInput {
    /// Where the answer goes.
    pub reply: RequestId,
    /// Who authenticated, if anybody.
    pub principal: Option<Principal>,
    /// What is asked.
    pub request: OperatorRequest,
}

/// The operator writes that the machine knows. ACLs were evaluated by the shell.
#[derive(Clone, Debug)]
pub enum OperatorRequest {
    /// From here on the log may use what releases of an older version do not know. The shell
    /// has asked every voter. 200 also when the cluster is there already, 400 when this
    /// master does not know the version.
    RaiseClusterVersion {
        /// The new version.
        version: u64,
    },
    /// TEARDOWN, `/teardown`: 200, or 400 for an unknown framework.
    Teardown {
        /// The framework to remove.
        framework_id: FrameworkId,
    },
    /// MARK_AGENT_GONE: 200 (also when it is gone already), 404 for an unknown agent.
    MarkAgentGone {
        /// The agent.
        agent_id: AgentId,
    },
    /// DEACTIVATE_AGENT: no more offers of it.
    DeactivateAgent {
        /// The agent.
        agent_id: AgentId,
    },
    /// REACTIVATE_AGENT: only when merely deactivated or DRAINED (400 otherwise).
    ReactivateAgent {
        /// The agent.
        agent_id: AgentId,
    },
    /// DRAIN_AGENT (section 11.9): its tasks are killed, it is not offered any more.
    DrainAgent {
        /// The agent.
        agent_id: AgentId,
        /// Longest grace period of a task, nanoseconds; `None` = the tasks' own.
        max_grace_period_ns: Option<u64>,
        /// Mark the agent gone when drained.
        mark_gone: bool,
    },
    /// UPDATE_WEIGHTS, PUT `/weights`; weights in millionths, at least 1.
    UpdateWeights {
        /// Role and weight; other roles keep theirs.
        weights: Vec<(String, u64)>,
    },
    /// UPDATE_QUOTA: configurations replace those of the same roles; an empty one removes.
    UpdateQuota {
        /// Skip the checks against consumption and capacity.
        force: bool,
        /// One configuration a role, top-level roles only.
        configs: Vec<wire::quota::QuotaConfig>,
    },
    /// RESERVE_RESOURCES, UNRESERVE_RESOURCES, CREATE_VOLUMES, DESTROY_VOLUMES,
    /// GROW_VOLUME, SHRINK_VOLUME and their endpoints: one offer operation, 202, or
    /// 409 when the resources are not free.
    AgentOperation {
        /// The agent.
        agent_id: AgentId,
        /// RESERVE, UNRESERVE, CREATE, DESTROY, GROW_VOLUME or SHRINK_VOLUME.
        operation: Box<wire::offer::Operation>,
    },
    /// EXPLAIN: why a framework, a role, or a framework in a role is offered what it is; the
    /// answer is an [`Explanation`](crate::output::Message::Explanation), or a refusal. Changes
    /// nothing. Not of Mesos.
    Explain {
        /// The framework.
        framework_id: Option<FrameworkId>,
        /// The role and those below it.
        role: Option<Role>,
    },
    /// Kill one task in its framework's place, as KILL does: 202, or 404 for a task
    /// that is not active. Not of Mesos.
    KillTask {
        /// Whose it is.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
    },
    /// UPDATE_MAINTENANCE_SCHEDULE, POST `/maintenance/schedule` (section 14).
    UpdateMaintenanceSchedule {
        /// Replaces the whole schedule.
        schedule: wire::maintenance::Schedule,
    },
    /// START_MAINTENANCE, POST `/machine/down`.
    StartMaintenance {
        /// Machines in DRAINING mode.
        machines: Vec<wire::MachineId>,
    },
    /// STOP_MAINTENANCE, POST `/machine/up`.
    StopMaintenance {
        /// Machines in DOWN mode.
        machines: Vec<wire::MachineId>,
    },
}
