//! What an operator sets, as the machine needs it: durations, limits, who the
//! master is. Names follow the Mesos flags.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use tepui_allocator::Options as AllocatorOptions;
use tepui_model::role::Role;
use tepui_model::wire;

/// Settings of one machine. Equal on every master of a cluster where they decide
/// replicated facts; nothing depends on it for safety.
#[derive(Clone, Debug)]
pub struct Config {
    /// Cluster id given to a state that has none yet (`FormCluster`).
    pub cluster_id: String,
    /// Of this master's store: one more than the state's after a restoration or recovery.
    pub incarnation: u64,
    /// What SUBSCRIBED and GET_MASTER say about this master; `id` is replaced by
    /// the master id of the birth.
    pub master_info: wire::MasterInfo,
    /// Between two HEARTBEAT events of a subscription; 15 s.
    pub heartbeat_interval: Duration,
    /// `--agent_ping_timeout`: between two pings of an agent; 15 s.
    pub agent_ping_timeout: Duration,
    /// `--max_agent_ping_timeouts`: pings without an answer until unreachable; 5.
    pub max_agent_ping_timeouts: u32,
    /// `--agent_reregister_timeout`: how long a disconnected agent may stay away; 10 min.
    pub agent_reregister_timeout: Duration,
    /// `--offer_timeout`: age at which an offer is rescinded; `None` = never.
    pub offer_timeout: Option<Duration>,
    /// `--preemption`: which roles may preempt and be preempted; none by default.
    pub preemption: Preemption,
    /// `--root_submissions`: frameworks and tasks may run as root; true.
    pub root_submissions: bool,
    /// `--roles`: when set, the only roles that frameworks may subscribe to.
    pub roles: Option<BTreeSet<String>>,
    /// `--require_agent_domain`: agents without a domain are refused.
    pub require_agent_domain: bool,
    /// The allocator's settings, `allocation_interval` among them.
    pub allocator: AllocatorOptions,
    /// Steps of work (agent and client pairs) of one slice of an allocation cycle;
    /// about 1 ms.
    pub allocation_budget: u32,
    /// `--max_operator_event_stream_subscribers` and the like stay in the shell;
    /// this bounds the tasks that one explicit RECONCILE may name.
    pub max_reconcile_tasks: usize,
    /// `--state_quota`: what one principal's variables and leases may hold in the state
    /// service, bytes; 64 MiB.
    pub state_quota: u64,
}

/// Who may take resources from whom by having tasks killed; see `docs/decisions/0008-preemption.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// By role; a setting holds for the roles below it that have none of their own. Roles
    /// without one neither preempt nor are preempted.
    pub roles: BTreeMap<String, RolePriority>,
    /// How long victims have to end.
    pub grace: Duration,
}

/// How important a role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolePriority {
    /// Higher is more important; a role takes from lower ones alone.
    pub priority: i64,
    /// What its frameworks REQUEST may be taken from others.
    pub preempts: bool,
    /// Its tasks may be killed for more important ones.
    pub preemptible: bool,
}

impl Default for Preemption {
    fn default() -> Preemption {
        Preemption {
            roles: BTreeMap::new(),
            grace: Duration::from_secs(30),
        }
    }
}

impl Preemption {
    /// The setting of the role or of the nearest role around it.
    pub fn of(&self, role: &Role) -> Option<&RolePriority> {
        let mut name = role.as_str();
        loop {
            if let Some(it) = self.roles.get(name) {
                return Some(it);
            }
            name = &name[..name.rfind('/')?];
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster_id: String::new(),
            incarnation: 1,
            master_info: wire::MasterInfo::default(),
            heartbeat_interval: Duration::from_secs(15),
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            agent_reregister_timeout: Duration::from_secs(600),
            offer_timeout: None,
            preemption: Preemption::default(),
            root_submissions: true,
            roles: None,
            require_agent_domain: false,
            allocator: AllocatorOptions::default(),
            allocation_budget: 20_000,
            max_reconcile_tasks: 1_000_000,
            state_quota: 64 << 20,
        }
    }
}

impl Config {
    /// Time without a ping after which an agent gives a master up:
    /// `agent_ping_timeout` times `max_agent_ping_timeouts` (75 s).
    pub fn total_ping_timeout(&self) -> Duration {
        self.agent_ping_timeout * self.max_agent_ping_timeouts
    }
}
