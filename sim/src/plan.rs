//! A plan: what is simulated, and everything that is done to it, drawn from the seed before the
//! first event. A shorter history is a plan with fewer of its parts.

use crate::{
    clock::{MILLI, SECOND},
    network::{Host, Quality},
    workload::Style,
};
use std::collections::BTreeSet;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Masters at the beginning, all of them voters.
    pub masters: usize,
    /// Agents.
    pub agents: usize,
    /// What each framework does.
    pub frameworks: Vec<Style>,
    /// How often a clock leaps forward, by a second at most.
    pub leaps: u64,
    /// Clients of the state service.
    pub keepers: usize,
    /// How long there are faults and new work, in nanoseconds.
    pub length: u64,
    /// How long there is time afterwards to bring everything to its end.
    pub settle: u64,
    /// The network.
    pub quality: Quality,
    /// Shortest and longest sync of a disk.
    pub sync: (u64, u64),
    /// Clocks gain or lose up to this many nanoseconds a second.
    pub drift: i64,
    /// Clocks of the machines.
    pub timing: Timing,
    /// Limits inside of the shells.
    pub limits: Limits,
}

/// Clocks of the machines, as the flags of the same names set them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two HEARTBEATs.
    pub heartbeat: u64,
    /// Between two pings of an agent.
    pub ping: u64,
    /// Pings without an answer until an agent is unreachable.
    pub pings: u32,
    /// How long an agent may stay away.
    pub reregister: u64,
    /// Age at which an offer is taken back.
    pub offer_timeout: Option<u64>,
    /// Shortest time that a refusal holds.
    pub allocation: u64,
    /// First and last wait of an agent for an acknowledgement.
    pub retry: (u64, u64),
}

impl Timing {
    /// Mesos' values divided by about six, so that minutes hold what hours would.
    pub const QUICK: Timing = Timing {
        heartbeat: 2 * SECOND,
        ping: 2 * SECOND,
        pings: 5,
        reregister: 30 * SECOND,
        offer_timeout: Some(20 * SECOND),
        allocation: SECOND,
        retry: (2 * SECOND, 20 * SECOND),
    };
}

/// Limits inside of the shells; small, so that they are met.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may wait for a slow reader.
    pub stream_queue: usize,
    /// Steps of one drain.
    pub drain_steps: usize,
    /// Bytes proposed and not committed before stepping pauses.
    pub in_flight: usize,
    /// Bytes of the log kept behind the rows.
    pub keep_log: u64,
    /// Between two flushes of rows.
    pub flush: u64,
    /// Bytes of entries in one message between masters.
    pub message: u64,
    /// Records of an agent's log until it is written anew.
    pub records: usize,
    /// Agents that are invited to a new leader at a time.
    pub invitations: usize,
}

impl Limits {
    /// Of production, roughly.
    pub const WIDE: Limits = Limits {
        stream_queue: 32_768,
        drain_steps: 512,
        in_flight: 16 << 20,
        keep_log: 16 << 20,
        flush: SECOND,
        message: 1 << 20,
        records: 10_000,
        invitations: 1024,
    };

    /// Met all the time.
    pub const NARROW: Limits = Limits {
        stream_queue: 400,
        drain_steps: 4,
        in_flight: 4 << 10,
        keep_log: 2 << 10,
        flush: SECOND / 4,
        message: 2 << 10,
        records: 40,
        invitations: 1,
    };
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A master's process dies; `lead` for whoever leads then. It is started again after a while.
    CrashMaster {
        /// Which, unless the leader is meant.
        master: usize,
        /// Whoever leads.
        lead: bool,
        /// With its machine: its peers and clients hear nothing.
        power: bool,
        /// For how long.
        lasts: u64,
    },
    /// A process stands still.
    Pause {
        /// Whose.
        host: Host,
        /// Whoever leads, in its place.
        lead: bool,
        /// For how long.
        lasts: u64,
    },
    /// An agent's process dies; its containers live on.
    CrashAgent {
        /// Which.
        agent: usize,
        /// For how long.
        lasts: u64,
    },
    /// An agent's machine is booted: its containers are dead.
    RebootAgent {
        /// Which.
        agent: usize,
        /// For how long.
        lasts: u64,
    },
    /// An agent's work folder and containers are deleted.
    WipeAgent {
        /// Which.
        agent: usize,
        /// For how long it is down.
        lasts: u64,
    },
    /// A scheduler dies and another one takes its place.
    CrashFramework {
        /// Which.
        framework: usize,
        /// For how long there is none.
        lasts: u64,
    },
    /// A second scheduler of the same framework subscribes while the first one lives.
    TakeOver {
        /// Which.
        framework: usize,
    },
    /// A scheduler stops reading its events.
    SlowReader {
        /// Which.
        framework: usize,
        /// For how long.
        lasts: u64,
    },
    /// Nothing gets from one group of hosts to the other.
    Cut {
        /// From these.
        from: BTreeSet<Host>,
        /// To these.
        to: BTreeSet<Host>,
        /// And not back either.
        both_ways: bool,
        /// For how long.
        lasts: u64,
    },
    /// Whoever leads is cut off from the other masters, and from the clients if `clients`.
    CutLeader {
        /// From clients as well.
        clients: bool,
        /// Messages still come in.
        one_way: bool,
        /// For how long.
        lasts: u64,
    },
    /// Every connection of a host breaks.
    Break {
        /// Whose.
        host: Host,
    },
    /// A master's disk becomes slow.
    SlowDisk {
        /// Whose.
        master: usize,
        /// How many times as slow.
        factor: u64,
        /// For how long.
        lasts: u64,
    },
    /// A master's next sync fails.
    FailSync {
        /// Whose.
        master: usize,
        /// How long it is down then.
        lasts: u64,
    },
    /// A disk is full.
    FullDisk {
        /// Whose: a master's or an agent's.
        host: Host,
        /// For how long.
        lasts: u64,
    },
    /// A master dies, and its disk turns out to be damaged: it joins anew as somebody else.
    LoseDisk {
        /// Whose.
        master: usize,
        /// For how long it is down.
        lasts: u64,
    },
    /// A process' clock leaps forward.
    Leap {
        /// Whose.
        host: Host,
        /// By how much.
        by: u64,
    },
    /// A process' clock runs at another speed.
    Drift {
        /// Whose.
        host: Host,
        /// Nanoseconds a second.
        drift: i64,
    },
    /// Somebody sets a wall clock.
    WallClock {
        /// Whose.
        host: Host,
        /// Seconds by which it is wrong then.
        error: i64,
    },
    /// The leader is asked to hand its leadership over.
    Transfer {
        /// To which master.
        to: usize,
    },
    /// The leader gives up.
    StepDown,
    /// The next step of the leader's machine panics.
    Panic,
    /// The operator makes a backup.
    Backup,
    /// Every master and its disk is lost; the backup is restored, and other masters join.
    Restore {
        /// How long nobody is there.
        lasts: u64,
    },
    /// An agent says what no agent should.
    Nonsense {
        /// Which.
        agent: usize,
    },
    /// A master is started again with a newer release.
    Upgrade {
        /// Which.
        master: usize,
        /// For how long it is down.
        lasts: u64,
    },
}

/// Something that the operator does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Sets or removes a quota.
    Quota {
        /// Of which role.
        role: String,
        /// Limit in whole cpus; none removes it.
        cpus: Option<u64>,
        /// Also below what the role has.
        force: bool,
    },
    /// Reserves half a cpu of an agent.
    Reserve {
        /// Which.
        agent: usize,
        /// For which role.
        role: String,
    },
    /// Gives a reserved half of a cpu back.
    Unreserve {
        /// Which.
        agent: usize,
        /// Of which role.
        role: String,
    },
    /// Sets a weight.
    Weight {
        /// Of which role.
        role: String,
        /// Millionths.
        micro: u64,
    },
    /// Drains an agent.
    Drain {
        /// Which.
        agent: usize,
        /// Marks it gone at the end.
        mark_gone: bool,
    },
    /// Takes no more offers of an agent.
    Deactivate {
        /// Which.
        agent: usize,
    },
    /// Offers an agent again.
    Reactivate {
        /// Which.
        agent: usize,
    },
    /// Marks an agent gone.
    Gone {
        /// Which.
        agent: usize,
    },
    /// Removes a framework.
    Teardown {
        /// Which.
        framework: usize,
    },
    /// Kills a task of a framework.
    Kill {
        /// Of which.
        framework: usize,
    },
    /// Schedules maintenance of the machines of some agents, and of no others.
    Schedule {
        /// Which.
        agents: BTreeSet<usize>,
    },
    /// Takes the machine of an agent down.
    MachineDown {
        /// Which.
        agent: usize,
    },
    /// The machine of an agent is up again.
    MachineUp {
        /// Which.
        agent: usize,
    },
    /// Raises the version of the cluster, if every master knows the next one.
    RaiseVersion,
}

/// One part of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Goes wrong.
    Fault(Fault),
    /// Is done.
    Act(Act),
}

/// A whole plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is simulated.
    pub shape: Shape,
    /// What is done to it and when, by time.
    pub parts: Vec<(u64, Part)>,
}

impl Plan {
    /// The same with some of its parts only.
    #[must_use]
    pub fn keep(mut self, kept: &[usize]) -> Plan {
        let parts = std::mem::take(&mut self.parts).into_iter().enumerate();
        let is_kept = |(number, part)| kept.contains(&number).then_some(part);
        self.parts = parts.filter_map(is_kept).collect();
        self
    }

    /// The same, ending earlier.
    #[must_use]
    pub fn until(mut self, length: u64) -> Plan {
        self.shape.length = self.shape.length.min(length);
        self.parts.retain(|(at, _)| *at < length);
        self
    }

    /// The same on a good network with good disks and clocks.
    #[must_use]
    pub fn calm(mut self) -> Plan {
        let calm = Shape::calm(self.shape.seed);
        self.shape.quality = calm.quality;
        self.shape.sync = calm.sync;
        self.shape.drift = calm.drift;
        self
    }
}

impl Shape {
    /// A quiet cluster in which everything is as it should be.
    pub fn calm(seed: u64) -> Shape {
        Shape {
            seed,
            masters: 3,
            agents: 4,
            frameworks: vec![Style::batch(), Style::service(4)],
            leaps: 0,
            keepers: 0,
            length: 30 * SECOND,
            settle: 90 * SECOND,
            quality: Quality::CALM,
            sync: (MILLI / 5, 2 * MILLI),
            drift: 0,
            timing: Timing::QUICK,
            limits: Limits::WIDE,
        }
    }
}
