//! Random histories of operations: replicas agree, rows rebuild the state, dirty rows suffice.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use tepui_state::{
    ClusterState,
    model::{
        log::{self, operation::Kind},
        time::ClusterTime,
        wire::{self, quota::QuotaConfig},
    },
};

// Few ids, so that operations meet.
const IDS: u8 = 4;

fn agent(n: u8) -> String {
    format!("A{}", n % IDS)
}

fn framework(n: u8) -> String {
    format!("F{}", n % IDS)
}

fn task(n: u8) -> String {
    format!("T{}", n % (2 * IDS))
}

fn command(sequence: u8) -> log::Command {
    let shutdown = log::ShutdownFramework {
        framework_id: framework(sequence),
    };
    log::Command {
        sequence: sequence.into(),
        kind: Some(log::command::Kind::ShutdownFramework(shutdown)),
    }
}

fn status(state: u8, uuid: u8) -> log::TaskStatus {
    log::TaskStatus {
        state: (state % 14).into(),
        uuid: match uuid {
            0..64 => Bytes::new(),
            _ => Bytes::copy_from_slice(&[uuid % 4; 16]),
        },
        timestamp: f64::from(uuid),
        ..log::TaskStatus::default()
    }
}

/// One operation of each kind, its ids and values from four numbers.
fn operation((kind, a, b, c): (u8, u8, u8, u8)) -> log::Operation {
    let wall_time = f64::from(c);
    let framework_id = framework(a);
    let agent_id = agent(b);
    let kind = match kind % 35 {
        0 => Kind::FormCluster(log::FormCluster {
            cluster_id: format!("c{c}"),
            incarnation: b.into(),
            wall_time,
        }),
        1 => Kind::BeginTerm(log::BeginTerm {
            term: c.into(),
            master_id: format!("m{c}"),
            wall_time,
        }),
        2 | 3 => Kind::PutAgent(log::PutAgent {
            agent: Some(log::Agent {
                agent_id,
                address: format!("host{c}:5051"),
                state: log::AgentState::Admitted.into(),
                ..log::Agent::default()
            }),
        }),
        4 => Kind::AgentConnected(log::AgentConnected {
            agent_id,
            wall_time,
        }),
        5 => Kind::AgentDisconnected(log::AgentDisconnected {
            agent_id,
            cluster_time_ns: c.into(),
        }),
        6 => Kind::MarkUnreachable(log::MarkUnreachable {
            agent_id,
            wall_time,
        }),
        7 if c % 3 == 0 => Kind::MarkGone(log::MarkGone {
            agent_id,
            wall_time,
        }),
        7 if c % 3 == 1 => Kind::RemoveAgent(log::RemoveAgent {
            agent_id,
            wall_time,
        }),
        7 => Kind::SetAgentResources(log::SetAgentResources {
            agent_id,
            total: vec![wire::Resource {
                name: format!("r{a}"),
                ..wire::Resource::default()
            }],
        }),
        8 => Kind::ConfirmCommands(log::ConfirmCommands {
            agent_id,
            up_to: c.into(),
        }),
        9 => Kind::SetAgentActivation(log::SetAgentActivation {
            agent_id,
            deactivated: c % 2 == 0,
            drain: (c % 3 == 0).then(log::DrainInfo::default),
        }),
        10 => Kind::AddCommand(log::AddCommand {
            agent_id,
            command: Some(command(c)),
        }),
        11 | 12 => Kind::PutFramework(log::PutFramework {
            framework: Some(log::Framework {
                framework_id,
                info_payload: Bytes::copy_from_slice(&[c]),
                ..log::Framework::default()
            }),
        }),
        13 => Kind::FrameworkConnected(log::FrameworkConnected {
            framework_id,
            wall_time,
        }),
        14 => Kind::FrameworkDisconnected(log::FrameworkDisconnected {
            framework_id,
            cluster_time_ns: c.into(),
            wall_time,
        }),
        15 if c % 2 == 0 => Kind::RemoveFramework(log::RemoveFramework {
            framework_id,
            wall_time,
        }),
        15 => Kind::SetSuppressed(log::SetSuppressed {
            framework_id,
            suppressed_roles: vec![format!("role{b}")],
        }),
        16..=18 => Kind::LaunchTask(log::LaunchTask {
            task: Some(log::Task {
                framework_id: framework_id.clone(),
                task_id: task(c),
                agent_id: agent_id.clone(),
                state: wire::TaskState::TaskStaging.into(),
                ..log::Task::default()
            }),
            executor: (c % 2 == 0).then(|| log::Executor {
                framework_id,
                agent_id,
                executor_id: format!("E{}", c % IDS),
                ..log::Executor::default()
            }),
            command: Some(command(c)),
        }),
        19 | 20 => Kind::UpdateTask(log::UpdateTask {
            framework_id,
            task_id: task(b),
            status: (c % 5 > 0).then(|| status(c, b)),
            latest_state: (c % 7 == 0).then_some(2),
            unreachable: c % 3 == 0,
        }),
        21 => Kind::AcknowledgeTask(log::AcknowledgeTask {
            framework_id,
            task_id: task(b),
            uuid: Bytes::copy_from_slice(&[c % 4; 16]),
        }),
        22 => Kind::RemoveTask(log::RemoveTask {
            framework_id,
            task_id: task(b),
        }),
        23 => Kind::KillTask(log::KillTask {
            framework_id,
            task_id: task(b),
            command: Some(command(c)),
        }),
        24 => Kind::RemoveExecutor(log::RemoveExecutor {
            framework_id,
            agent_id,
            executor_id: format!("E{}", c % IDS),
        }),
        25 => Kind::PutOperation(log::PutOperation {
            operation: Some(log::OfferOperation {
                uuid: format!("{:02x}", c % 8),
                framework_id,
                agent_id,
                ..log::OfferOperation::default()
            }),
        }),
        26 if a % 2 == 0 => Kind::UpdateOperation(log::UpdateOperation {
            operation_uuid: format!("{:02x}", c % 8),
            status_payload: Bytes::copy_from_slice(&[b]),
            state: b.into(),
        }),
        26 => Kind::RemoveOperation(log::RemoveOperation {
            operation_uuid: format!("{:02x}", c % 8),
        }),
        27 => Kind::SetWeights(log::SetWeights {
            weights: vec![log::Weight {
                role: format!("role{}", a % IDS),
                micro: u64::from(c % 3) * 1_000_000,
            }],
        }),
        28 | 29 => Kind::PutVariable(log::PutVariable {
            variable: Some(log::Variable {
                principal: format!("p{}", a % 2),
                name: format!("n{}", b % IDS),
                value: Bytes::copy_from_slice(&[c]),
                version: c.into(),
                lease_id: (b % 3).into(),
            }),
            write_id: Bytes::copy_from_slice(&[7; 2][..usize::from(c % 2)]),
        }),
        30 => Kind::RemoveVariable(log::RemoveVariable {
            principal: format!("p{}", a % 2),
            name: format!("n{}", b % IDS),
            revision: c.into(),
            write_id: Bytes::copy_from_slice(&[b]),
        }),
        31 => Kind::PutLease(log::PutLease {
            lease: Some(log::Lease {
                principal: format!("p{}", a % 2),
                lease_id: (1 + b % 2).into(),
                ttl_ns: c.into(),
            }),
            write_id: Bytes::copy_from_slice(&[c]),
        }),
        32 => Kind::RemoveLease(log::RemoveLease {
            principal: format!("p{}", a % 2),
            lease_id: (1 + b % 2).into(),
            revision: c.into(),
            write_id: Bytes::new(),
        }),
        _ if c % 2 == 0 => Kind::SetQuotas(log::SetQuotas {
            quotas: vec![QuotaConfig {
                role: format!("role{}", a % IDS),
                guarantees: (0..b % 2)
                    .map(|it| (format!("cpus{it}"), wire::value::Scalar { value: 1.0 }))
                    .collect(),
                ..QuotaConfig::default()
            }],
        }),
        _ => Kind::SetMaintenance(log::SetMaintenance {
            schedules: Vec::new(),
            machines: vec![log::Machine {
                hostname: agent(a),
                ..log::Machine::default()
            }],
        }),
    };
    log::Operation { kind: Some(kind) }
}

fn history() -> impl Strategy<Value = Vec<log::Operation>> {
    let operation = any::<(u8, u8, u8, u8)>().prop_map(operation);
    proptest::collection::vec(operation, 0..200)
}

fn rows(state: &ClusterState) -> BTreeMap<Bytes, Bytes> {
    state.rows().collect()
}

// Writes what changed, as the rows' thread does.
fn write_behind(state: &mut ClusterState, disk: &mut BTreeMap<Bytes, Bytes>) {
    for (key, row) in state.take_dirty().encode() {
        match row {
            Some(row) => disk.insert(key, row),
            None => disk.remove(&key),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // One replica looks at the hash after every operation, the other one never before the end.
    #[test]
    fn replicas_agree(history in history()) {
        let (mut left, mut right) = (ClusterState::new(), ClusterState::new());
        for (stamp, operation) in history.iter().enumerate() {
            left.apply(operation).expect("known");
            right.apply(operation).expect("known");
            left.advance(ClusterTime(stamp as u64));
            right.advance(ClusterTime(stamp as u64));
            left.hash();
        }
        prop_assert_eq!(left.hash(), right.hash());
        prop_assert_eq!(rows(&left), rows(&right));
        left.check_invariants();
        right.check_invariants();
    }

    #[test]
    fn rows_rebuild_the_state(history in history(), tail in history()) {
        let mut state = ClusterState::new();
        for operation in &history {
            state.apply(operation).expect("known");
        }
        // Any order must do.
        let mut stored: Vec<_> = state.rows().collect();
        stored.reverse();
        let mut loaded = ClusterState::load(stored).expect("own rows");
        loaded.check_invariants();
        prop_assert_eq!(loaded.dirty_len(), 0);
        prop_assert_eq!(loaded.hash(), state.hash());
        // What is not in the rows would show in what comes after.
        for operation in &tail {
            state.apply(operation).expect("known");
            loaded.apply(operation).expect("known");
        }
        prop_assert_eq!(rows(&loaded), rows(&state));
        prop_assert_eq!(loaded.hash(), state.hash());
    }

    #[test]
    fn dirty_rows_suffice(batches in proptest::collection::vec(history(), 1..4)) {
        let mut state = ClusterState::new();
        let mut disk = BTreeMap::new();
        for batch in &batches {
            for operation in batch {
                state.apply(operation).expect("known");
            }
            for (key, row) in state.take_dirty().encode() {
                match row {
                    Some(row) => drop(disk.insert(key, row)),
                    // What came and went since was never written, and need not be removed.
                    None => prop_assert!(disk.remove(&key).is_some()),
                };
            }
            prop_assert_eq!(&disk, &rows(&state));
        }
    }

    // As on a leader: rows are shared and written, each at its own times.
    #[test]
    fn no_change_is_lost_between_sharing_and_writing(
        batches in proptest::collection::vec((history(), any::<bool>(), any::<bool>()), 1..8)
    ) {
        let mut committed = ClusterState::new();
        let mut machine = committed.clone();
        let mut disk = BTreeMap::new();
        for (batch, shares, writes) in &batches {
            for operation in batch {
                machine.apply(operation).expect("known");
            }
            let entry = log::Entry {
                operations: batch.clone(),
                ..log::Entry::default()
            };
            committed.take_entry(entry).expect("known");
            if *shares {
                committed.share(machine.clone());
            }
            if *writes {
                write_behind(&mut committed, &mut disk);
                prop_assert_eq!(&disk, &rows(&machine));
            }
            prop_assert_eq!(committed.hash(), machine.hash());
        }
        committed.check_invariants();
    }

    // The committed state holds the rows of the leader's machine, which goes on ahead of it, and
    // writes down what changed all the same.
    #[test]
    fn shared_rows_are_held_once(batches in proptest::collection::vec(history(), 1..4)) {
        let mut committed = ClusterState::new();
        let mut machine = committed.clone();
        let mut disk = BTreeMap::new();
        for batch in &batches {
            for operation in batch {
                machine.apply(operation).expect("known");
            }
            if !disk.is_empty() {
                prop_assert_eq!(&disk, &rows(&committed));
            }
            for operation in batch {
                committed.apply(operation).expect("known");
            }
            committed.share(machine.clone());
            committed.check_invariants();
            for (id, row) in committed.agents() {
                prop_assert!(machine.agent(id).is_some_and(|it| Arc::ptr_eq(it, row)));
            }
            write_behind(&mut committed, &mut disk);
            prop_assert_eq!(&disk, &rows(&machine));
            prop_assert_eq!(committed.hash(), machine.hash());
        }
    }

    // A copy is the leader's machine's state: neither disturbs the other.
    #[test]
    fn copies_are_apart(history in history(), tail in history()) {
        let mut state = ClusterState::new();
        for operation in &history {
            state.apply(operation).expect("known");
        }
        let before = rows(&state);
        let mut copy = state.clone();
        for operation in &tail {
            copy.apply(operation).expect("known");
        }
        prop_assert_eq!(rows(&state), before);
        prop_assert!(copy.take_dirty().is_empty());
        state.check_invariants();
        copy.check_invariants();
    }
}
