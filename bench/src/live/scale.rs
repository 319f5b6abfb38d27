//! `scale`: a million agents and tasks in one process, as a master keeps them.

use crate::harness::{
    memory,
    parameters::number,
    point::{Measure, take},
    result::Unit,
    workload::Workload,
};
use crate::large_state;
use anyhow::Result;
use tepui_master_machine::{Config, Machine};
use tepui_model::time::{Instant, WallTime};
use tepui_state::ClusterState;

const AGENT: &str = "an agent is applied";
const AGENT_BYTES: &str = "memory of an agent";
const TASK: &str = "a task is applied";
const TASK_BYTES: &str = "memory of a task";
const HASH: &str = "hash of all rows";
const BIRTH: &str = "birth of a leader's machine";
const BIRTH_BYTES: &str = "memory that the machine adds";

/// Rows between two samples: what one call takes would be the stopwatch's.
const GROUP: u64 = 1_000;
const FRAMEWORKS: u64 = 10;

pub(super) static WORKLOAD: Workload = Workload {
    name: "scale",
    about: "agents and running tasks are applied to one copy of the state, and a leader's machine \
            is born over it: time and memory of each, in one process and without sockets",
    parameters: &[
        number("agents", 100_000, 1, 2_000_000, "agents"),
        number("tasks_per_agent", 1, 0, 100, "running tasks on each"),
    ],
    size: Some("agents"),
    sizes: &[10_000, 100_000],
    repeats: 1,
    goals: &[],
    memory: |values| {
        let agents = values.number("agents");
        agents * 6_000 + agents * values.number("tasks_per_agent") * 4_000
    },
    run,
};

fn run(measure: &mut Measure) -> Result<()> {
    let (agents, each) = (measure.number("agents"), measure.number("tasks_per_agent"));
    let mut state = ClusterState::new();
    for at in 0..FRAMEWORKS {
        large_state::apply(&mut state, large_state::framework(at as usize))?;
    }
    let id = |at: u64| format!("8d2f4a0e-5c1b-4f0a-9d53-0e2b7c9a1f64-S{at}");
    let mut live = memory::counts().live;
    let mut kept = |measure: &mut Measure, name: &str, count: u64| {
        let now = memory::counts().live;
        measure.sample(name, Unit::Bytes, (now - live) as f64 / count.max(1) as f64);
        live = now;
    };
    measure.begin("agents", agents.div_ceil(GROUP));
    for first in (0..agents).step_by(GROUP as usize) {
        let group = first..agents.min(first + GROUP);
        let count = group.end - group.start;
        let operations: Result<Vec<_>> = group
            .map(|at| large_state::agent(&id(at), at as usize))
            .collect();
        let operations = operations?;
        let (took, applied) = take(|| {
            let mut all = operations.into_iter();
            all.try_for_each(|it| large_state::apply(&mut state, it))
        });
        applied?;
        state.take_dirty();
        measure.each(AGENT, took, count);
        if !measure.step() {
            return Ok(());
        }
    }
    kept(measure, AGENT_BYTES, agents);
    measure.begin("tasks", (agents * each).div_ceil(GROUP));
    for first in (0..agents * each).step_by(GROUP as usize) {
        let group = first..(agents * each).min(first + GROUP);
        let count = group.end - group.start;
        let operations: Result<Vec<_>> = group
            .map(|at| large_state::launch(&id(at / each), at as usize))
            .collect();
        let operations = operations?;
        let (took, applied) = take(|| {
            let mut all = operations.into_iter();
            all.try_for_each(|it| large_state::apply(&mut state, it))
        });
        applied?;
        state.take_dirty();
        measure.each(TASK, took, count);
        if !measure.step() {
            return Ok(());
        }
    }
    if each > 0 {
        kept(measure, TASK_BYTES, agents * each);
    }
    let (took, _) = take(|| state.hash());
    measure.each(HASH, took, 1);
    let config = Config {
        cluster_id: "cluster".into(),
        ..Config::default()
    };
    let copy = state.clone();
    let (took, born) = take(|| {
        Machine::birth(
            copy,
            2,
            Instant(0),
            WallTime(0.0),
            measure.seed,
            "m2",
            config,
        )
    });
    measure.each(BIRTH, took, 1);
    measure.sample(BIRTH_BYTES, Unit::Bytes, took.memory.live as f64);
    drop(born);
    Ok(())
}
