//! Rules of single operations that Mesos' clients can see.

use bytes::Bytes;
use tepui_state::{
    ApplyError, ClusterState, LoadError, MAX_COMPLETED_FRAMEWORKS, MAX_COMPLETED_TASKS,
    MAX_UNREACHABLE_TASKS, SYNTHETIC_VERSION, decode_entry,
    model::{
        log::{self, operation::Kind},
        wire::{TaskState, task_status::Reason},
    },
};

fn apply(state: &mut ClusterState, kind: Kind) {
    let operation = log::Operation { kind: Some(kind) };
    state.apply(&operation).expect("known operation");
    state.check_invariants();
}

// Without the invariants, whose check costs as much as the state is large.
fn apply_fast(state: &mut ClusterState, kind: Kind) {
    let operation = log::Operation { kind: Some(kind) };
    state.apply(&operation).expect("known operation");
}

fn put_agent(id: &str) -> Kind {
    let agent = log::Agent {
        agent_id: id.into(),
        state: log::AgentState::Admitted.into(),
        ..log::Agent::default()
    };
    Kind::PutAgent(log::PutAgent { agent: Some(agent) })
}

fn put_framework(id: &str) -> Kind {
    let framework = log::Framework {
        framework_id: id.into(),
        ..log::Framework::default()
    };
    Kind::PutFramework(log::PutFramework {
        framework: Some(framework),
    })
}

fn launch(framework: &str, task: &str, agent: &str, sequence: u64) -> Kind {
    let run = log::RunTask {
        task_id: task.into(),
        ..log::RunTask::default()
    };
    Kind::LaunchTask(log::LaunchTask {
        task: Some(log::Task {
            framework_id: framework.into(),
            task_id: task.into(),
            agent_id: agent.into(),
            state: TaskState::TaskStaging.into(),
            ..log::Task::default()
        }),
        executor: Some(log::Executor {
            framework_id: framework.into(),
            agent_id: agent.into(),
            executor_id: "e".into(),
            ..log::Executor::default()
        }),
        command: Some(log::Command {
            sequence,
            kind: Some(log::command::Kind::RunTask(run)),
        }),
    })
}

fn update(framework: &str, task: &str, state: TaskState, uuid: u8, unreachable: bool) -> Kind {
    Kind::UpdateTask(log::UpdateTask {
        framework_id: framework.into(),
        task_id: task.into(),
        status: Some(log::TaskStatus {
            state: state.into(),
            uuid: match uuid {
                0 => Bytes::new(),
                _ => Bytes::copy_from_slice(&[uuid; 16]),
            },
            ..log::TaskStatus::default()
        }),
        latest_state: None,
        unreachable,
    })
}

fn running() -> ClusterState {
    let mut state = ClusterState::new();
    for kind in [
        put_agent("A"),
        put_framework("F"),
        launch("F", "T", "A", 1),
        update("F", "T", TaskState::TaskRunning, 1, false),
    ] {
        apply(&mut state, kind);
    }
    state
}

fn sequences(state: &ClusterState, agent: &str) -> Vec<u64> {
    let commands = state.pending_commands(&agent.into());
    commands.map(|it| it.sequence).collect()
}

#[test]
fn a_task_lives() {
    let mut state = running();
    let task = state.task(&"F".into(), &"T".into()).expect("task");
    assert_eq!(task.state, TaskState::TaskRunning as i32);
    assert_eq!(task.forwarded_state, Some(TaskState::TaskRunning as i32));
    assert_eq!(sequences(&state, "A"), [1]);

    // An acknowledgement of another status is none.
    for (uuid, waiting) in [(9, true), (1, false)] {
        let acknowledge = log::AcknowledgeTask {
            framework_id: "F".into(),
            task_id: "T".into(),
            uuid: Bytes::copy_from_slice(&[uuid; 16]),
        };
        apply(&mut state, Kind::AcknowledgeTask(acknowledge));
        let task = state.task(&"F".into(), &"T".into()).expect("task");
        assert_eq!(task.forwarded_state.is_some(), waiting);
    }

    // Equal states in a row are one in the history, the newest.
    apply(
        &mut state,
        update("F", "T", TaskState::TaskRunning, 2, false),
    );
    apply(
        &mut state,
        update("F", "T", TaskState::TaskFinished, 3, false),
    );
    let task = state.task(&"F".into(), &"T".into()).expect("task");
    let uuids: Vec<_> = task.statuses.iter().map(|it| it.uuid[0]).collect();
    assert_eq!(uuids, [2, 3]);

    let remove = log::RemoveTask {
        framework_id: "F".into(),
        task_id: "T".into(),
    };
    apply(&mut state, Kind::RemoveTask(remove));
    assert!(state.task(&"F".into(), &"T".into()).is_none());
    let completed: Vec<_> = state.completed_tasks(&"F".into()).collect();
    assert_eq!(completed.len(), 1);
    assert_eq!(completed[0].state, TaskState::TaskFinished as i32);

    // The id may be used again.
    apply(&mut state, launch("F", "T", "A", 2));
    assert!(state.task(&"F".into(), &"T".into()).is_some());
}

#[test]
fn commands_wait_for_the_agent() {
    let mut state = running();
    let kill = |sequence| {
        Kind::KillTask(log::KillTask {
            framework_id: "F".into(),
            task_id: "T".into(),
            command: Some(log::Command {
                sequence,
                kind: Some(log::command::Kind::Kill(log::Kill::default())),
            }),
        })
    };
    apply(&mut state, kill(2));
    apply(&mut state, kill(3));
    assert_eq!(sequences(&state, "A"), [1, 2, 3]);
    let confirm = |up_to| {
        let agent_id = "A".into();
        Kind::ConfirmCommands(log::ConfirmCommands { agent_id, up_to })
    };
    apply(&mut state, confirm(2));
    assert_eq!(sequences(&state, "A"), [3]);
    apply(&mut state, confirm(u64::MAX));
    assert_eq!(state.pending_command_count(&"A".into()), 0);

    // A registration anew, made from what the agent said, keeps the numbers rising.
    apply(&mut state, put_agent("A"));
    assert_eq!(state.agent(&"A".into()).expect("agent").last_command, 3);
}

#[test]
fn a_framework_is_removed_with_all_it_has() {
    let mut state = running();
    apply(&mut state, launch("F", "done", "A", 2));
    apply(
        &mut state,
        update("F", "done", TaskState::TaskFailed, 4, false),
    );
    let remove = log::RemoveFramework {
        framework_id: "F".into(),
        wall_time: 5.0,
    };
    apply(&mut state, Kind::RemoveFramework(remove));
    assert_eq!(state.frameworks().count(), 0);
    let (_, row) = state.completed_frameworks().next().expect("completed");
    assert_eq!(row.wall_unregistered, Some(5.0));
    assert_eq!(state.executors().count(), 0);
    let tasks: Vec<_> = state.completed_tasks(&"F".into()).cloned().collect();
    let of = |id: &str| tasks.iter().find(|it| it.task_id == id).expect("task");
    let killed = of("T");
    assert_eq!(killed.state, TaskState::TaskKilled as i32);
    let last = killed.statuses.last().expect("status");
    assert_eq!(last.reason, Some(Reason::FrameworkRemoved as i32));
    // What ended on its own keeps its end.
    assert_eq!(of("done").state, TaskState::TaskFailed as i32);
    // The agent still has to be told of the launches.
    assert_eq!(sequences(&state, "A"), [1, 2]);
}

#[test]
fn agents_go_in_three_ways() {
    let wall_time = 7.0;
    let agent_id = || "A".to_owned();

    let mut state = running();
    let unreachable = log::MarkUnreachable {
        agent_id: agent_id(),
        wall_time,
    };
    apply(&mut state, Kind::MarkUnreachable(unreachable));
    assert_eq!(state.tasks_of_agent(&"A".into()).count(), 1);
    apply(
        &mut state,
        update("F", "T", TaskState::TaskUnreachable, 0, true),
    );
    assert_eq!(state.unreachable_tasks(&"F".into()).count(), 1);
    let connected = log::AgentConnected {
        agent_id: agent_id(),
        wall_time,
    };
    apply(&mut state, Kind::AgentConnected(connected));
    let agent = state.agent(&"A".into()).expect("agent");
    assert_eq!(agent.state(), log::AgentState::Admitted);
    apply(
        &mut state,
        update("F", "T", TaskState::TaskRunning, 0, false),
    );
    assert_eq!(state.unreachable_tasks(&"F".into()).count(), 0);

    for (kind, kept, end) in [
        (
            Kind::MarkGone(log::MarkGone {
                agent_id: agent_id(),
                wall_time,
            }),
            true,
            TaskState::TaskGoneByOperator,
        ),
        (
            Kind::RemoveAgent(log::RemoveAgent {
                agent_id: agent_id(),
                wall_time,
            }),
            false,
            TaskState::TaskLost,
        ),
    ] {
        let mut state = state.clone();
        apply(&mut state, kind);
        assert_eq!(state.agent(&"A".into()).is_some(), kept);
        assert_eq!(state.pending_command_count(&"A".into()), 0);
        assert_eq!(state.tasks().count() + state.executors().count(), 0);
        let completed = state.completed_tasks(&"F".into()).next().expect("task");
        assert_eq!(completed.state, end as i32);
    }
}

#[test]
fn rings_are_bounded() {
    let mut state = ClusterState::new();
    apply(&mut state, put_agent("A"));
    for n in 0..=MAX_COMPLETED_FRAMEWORKS {
        let framework = format!("F{n:03}");
        apply_fast(&mut state, put_framework(&framework));
        apply_fast(&mut state, launch(&framework, "T", "A", n as u64 + 1));
        let remove = log::RemoveFramework {
            framework_id: framework,
            wall_time: 1.0,
        };
        apply_fast(&mut state, Kind::RemoveFramework(remove));
    }
    state.check_invariants();
    let (oldest, _) = state.completed_frameworks().next().expect("full ring");
    assert_eq!(oldest.as_str(), "F001");
    assert_eq!(
        state.completed_frameworks().count(),
        MAX_COMPLETED_FRAMEWORKS
    );
    assert!(state.framework(&"F000".into()).is_none());
    assert_eq!(state.completed_tasks(&"F000".into()).len(), 0);

    let mut state = ClusterState::new();
    apply(&mut state, put_framework("F"));
    for n in 0..=MAX_UNREACHABLE_TASKS {
        let task = format!("T{n:04}");
        apply_fast(&mut state, launch("F", &task, "A", 1));
        let kind = update("F", &task, TaskState::TaskUnreachable, 0, true);
        apply_fast(&mut state, kind);
    }
    state.check_invariants();
    assert_eq!(
        state.unreachable_tasks(&"F".into()).count(),
        MAX_UNREACHABLE_TASKS
    );
    assert!(state.task(&"F".into(), &"T0000".into()).is_none());
    for n in 0..=MAX_COMPLETED_TASKS {
        let task = format!("C{n:04}");
        apply_fast(&mut state, launch("F", &task, "A", 1));
        let remove = log::RemoveTask {
            framework_id: "F".into(),
            task_id: task,
        };
        apply_fast(&mut state, Kind::RemoveTask(remove));
    }
    state.check_invariants();
    let mut completed = state.completed_tasks(&"F".into());
    assert_eq!(completed.len(), MAX_COMPLETED_TASKS);
    assert_eq!(completed.next().expect("full ring").task_id, "C0001");
}

#[test]
fn a_replica_stops_where_it_must() {
    let mut state = running();
    // Field 900 holds an operation of a release to come.
    let newer = [0xa2, 0x38, 0x00];
    let entry = [&[0x1a, newer.len() as u8][..], &newer].concat();
    let entry = decode_entry(&entry).expect("well formed");
    assert_eq!(entry.operations.len(), 1);
    let outcome = state.apply_entry(&entry);
    assert!(matches!(outcome, Err(ApplyError::UnknownOperation)));

    assert!(matches!(
        decode_entry(&[0xff]),
        Err(ApplyError::Malformed(_))
    ));

    let mut entry = log::Entry {
        cluster_time_ns: 9,
        state_hash: Some(state.hash()),
        ..log::Entry::default()
    };
    state.apply_entry(&entry).expect("same hash");
    assert_eq!(state.cluster_time().0, 9);
    // The same hash again: the clock moved, so the state is another one.
    entry.cluster_time_ns = 1;
    let outcome = state.apply_entry(&entry);
    assert!(matches!(outcome, Err(ApplyError::Diverged { .. })));
}

#[test]
fn damaged_rows_are_refused() {
    let state = running();
    let mut rows: Vec<_> = state.rows().collect();
    let (first, second) = (rows[1].1.clone(), rows[2].1.clone());
    assert_ne!(first, second);
    rows[1].1 = second;
    assert!(ClusterState::load(rows).is_err());

    let alien = [(Bytes::from_static(&[250]), Bytes::new())];
    assert!(matches!(ClusterState::load(alien), Err(LoadError::Key(_))));
}

fn operation(kind: Kind) -> log::Operation {
    log::Operation { kind: Some(kind) }
}

#[test]
fn a_version_is_raised_where_it_is_known_and_stops_where_it_is_not() {
    let raise = |version| {
        operation(Kind::SetClusterVersion(log::SetClusterVersion {
            version,
            wall_time: 1.0,
        }))
    };
    let synthetic = operation(Kind::Synthetic(log::Synthetic {}));
    let mut old = ClusterState::new();
    let mut new = ClusterState::new().supporting(SYNTHETIC_VERSION);
    assert_eq!((old.cluster_version(), new.cluster_version()), (1, 1));
    assert!(old.apply(&raise(1)).is_ok() && new.apply(&raise(1)).is_ok());
    assert_eq!(old.hash(), new.hash(), "what a release can is no row");

    let refused = old.apply(&raise(SYNTHETIC_VERSION)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the cluster was raised to version 2 and this release knows versions up to 1; run a newer release"
    );
    let unknown = old.apply(&synthetic).unwrap_err();
    assert!(matches!(unknown, ApplyError::UnknownOperation), "{unknown}");

    new.apply(&raise(SYNTHETIC_VERSION)).unwrap();
    new.apply(&raise(1)).unwrap();
    assert_eq!(new.cluster_version(), SYNTHETIC_VERSION, "it only rises");
    new.apply(&synthetic).unwrap();
    let rows: Vec<_> = new.rows().collect();
    let refused = ClusterState::load(rows.clone()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the rows are of cluster version 2 and this release knows versions up to 1; run a newer release"
    );
    let mut loaded = ClusterState::load_supporting(SYNTHETIC_VERSION, rows).unwrap();
    assert_eq!(loaded.unhashed_len(), 0);
    assert_eq!(loaded.hash(), new.hash());
}

#[test]
fn a_copy_without_books_follows_and_keeps_nothing() {
    let mut original = ClusterState::new();
    let mut reader = original.clone();
    reader.stop_books();
    let entry = log::Entry {
        decided_term: 1,
        cluster_time_ns: 5,
        operations: vec![operation(Kind::FormCluster(log::FormCluster::default()))],
        state_hash: Some(original.hash()),
    };
    original.apply_entry(&entry).unwrap();
    reader.apply_entry(&entry).unwrap();
    assert_eq!(reader.cluster(), original.cluster());
    assert_eq!((reader.unhashed_len(), reader.dirty_len()), (0, 0));
    let differs = log::Entry {
        state_hash: Some(original.hash().wrapping_add(1)),
        ..log::Entry::default()
    };
    let stopped = original.apply_entry(&differs).unwrap_err();
    assert!(matches!(stopped, ApplyError::Diverged { .. }), "{stopped}");
}
