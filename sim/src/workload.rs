//! What frameworks do, and what their tasks are.

use crate::{
    clock::{MILLI, SECOND},
    random::Random,
};

/// What a framework is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Short tasks, as many as fit.
    Batch,
    /// Keeps this many tasks running, and replaces some now and then.
    Service(usize),
    /// Keeps offers for a long time before it answers.
    Hoarder,
    /// Reserves, makes volumes, runs tasks on them, destroys them.
    Reserver,
    /// Never answers an offer.
    Silent,
    /// Takes nothing and refuses for a long time.
    Picky,
    /// Tasks under executors of its own.
    Executors,
    /// Short tasks, and calls that make no sense.
    Hostile,
    /// Short tasks asked for in every way that the API allows, and in some that it does not: several
    /// offers in one call, of several agents too, more than is offered, one task twice, offers of
    /// others. It does not always want offers.
    Rough,
}

/// A framework's ways.
#[derive(Clone, Debug)]
pub struct Style {
    /// What it is after.
    pub kind: Kind,
    /// Its role.
    pub role: String,
    /// Whether it knows the states of partitions.
    pub partition_aware: bool,
    /// Seconds that it may be away.
    pub failover: u64,
    /// Its calls ride on the stream of its subscription.
    pub inside: bool,
    /// Tasks alive at a time, at most.
    pub most: usize,
    /// Longest wait before an acknowledgement.
    pub slow_ack: u64,
}

impl Style {
    /// Short tasks.
    pub fn batch() -> Style {
        Style {
            kind: Kind::Batch,
            role: "batch".to_owned(),
            partition_aware: true,
            failover: 1_000,
            inside: false,
            most: 12,
            slow_ack: 0,
        }
    }

    /// Tasks that stay.
    pub fn service(count: usize) -> Style {
        Style {
            kind: Kind::Service(count),
            role: "service".to_owned(),
            ..Style::batch()
        }
    }

    /// Of another kind.
    pub fn of(kind: Kind) -> Style {
        Style {
            kind,
            role: format!("{kind:?}").to_lowercase().replace(['(', ')'], ""),
            ..Style::batch()
        }
    }

    /// Drawn.
    pub fn draw(random: &mut Random, number: usize) -> Style {
        let kinds = [
            Kind::Batch,
            Kind::Batch,
            Kind::Service(3),
            Kind::Service(8),
            Kind::Hoarder,
            Kind::Reserver,
            Kind::Silent,
            Kind::Picky,
            Kind::Hostile,
            Kind::Executors,
            Kind::Rough,
        ];
        let kind = match number {
            // Somebody works in every cluster.
            0 => Kind::Batch,
            1 => Kind::Service(4),
            _ => *random.pick(&kinds),
        };
        let roles = ["a", "b", "c", "a/x", "a/y"];
        Style {
            kind,
            role: (*random.pick(&roles)).to_owned(),
            partition_aware: random.chance(700),
            failover: *random.pick(&[1_000, 1_000, 1_000, 25]),
            inside: random.chance(400),
            most: random.between(4, 16) as usize,
            slow_ack: *random.pick(&[0, 0, 50 * MILLI, 3 * SECOND]),
        }
    }
}

/// Thousandths of a cpu of an executor.
pub const EXECUTOR_CPUS: i64 = 200;
/// Megabytes of an executor.
pub const EXECUTOR_MEM: i64 = 64;

/// A task as its framework means it, which is all that the checkers believe.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// Its id; no other task of the run has it.
    pub id: String,
    /// Whose.
    pub framework: usize,
    /// On which agent.
    pub agent: usize,
    /// Thousandths of a cpu.
    pub cpus: i64,
    /// Megabytes.
    pub mem: i64,
    /// A port.
    pub port: Option<u64>,
    /// A persistent volume.
    pub volume: Option<String>,
    /// An executor of its own, which has something, too.
    pub executor: Option<String>,
    /// For ever when there is none.
    pub runs_for: Option<u64>,
    /// How it ends when it is left alone.
    pub succeeds: bool,
    /// Its container does not come up.
    pub fails_to_launch: bool,
    /// When its health check first has a result.
    pub checks: Option<u64>,
}

impl TaskPlan {
    /// A task that fits into what is free.
    pub fn draw(random: &mut Random, id: String, framework: usize, agent: usize) -> TaskPlan {
        TaskPlan {
            id,
            framework,
            agent,
            cpus: random.between(1, 20) as i64 * 100,
            mem: random.between(1, 16) as i64 * 64,
            port: None,
            volume: None,
            executor: None,
            runs_for: Some(random.between(50 * MILLI, 8 * SECOND)),
            succeeds: random.chance(850),
            fails_to_launch: random.chance(20),
            checks: random
                .chance(100)
                .then(|| random.between(SECOND, 5 * SECOND)),
        }
    }
}
