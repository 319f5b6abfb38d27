//! The store of a master of a large cluster, made without running one.

use anyhow::{Context, Result};
use prost::Message;
use std::path::Path;
use tepui_model::{
    Resources,
    log::{self, operation::Kind},
    wire,
};
use tepui_replication::{Checksum, Identity, Members, Origin, Row, RowsWriter, Store};
use tepui_state::ClusterState;

const FRAMEWORKS: usize = 10;
/// Rows of one write.
const GROUP: usize = 10_000;

/// What was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Makes the store of the only master of a cluster with so many agents, and so many running tasks
/// on each.
pub(crate) fn make(work_dir: &Path, agents: usize, tasks_per_agent: usize) -> Result<Made> {
    let identity = Identity::first(uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let origin = Origin {
        index: 1,
        term: 1,
        members: Members::voters([identity.node_id]),
    };
    let store = work_dir.join("replica");
    let mut writer = RowsWriter::begin(&Store::nursery(&store), origin.clone())?;
    let mut checksum = Checksum::new();
    let mut bytes = 0;
    let mut state = ClusterState::load(Vec::<(Vec<u8>, Vec<u8>)>::new())?;
    let mut write = |state: &mut ClusterState| -> Result<()> {
        let changed = state.take_dirty().encode();
        let rows = changed
            .into_iter()
            .filter_map(|(key, row)| Some((key, row?)));
        let rows: Vec<Row> = rows.collect();
        bytes += rows.iter().map(|(k, r)| k.len() + r.len()).sum::<usize>() as u64;
        checksum.add(&rows);
        writer.put(&rows)?;
        Ok(())
    };
    let cluster = log::FormCluster {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
        wall_time: 0.0,
    };
    apply(&mut state, Kind::FormCluster(cluster))?;
    for index in 0..FRAMEWORKS {
        apply(&mut state, framework(index))?;
    }
    for index in 0..agents {
        let agent_id = format!("{}-S{index}", identity.cluster_id);
        apply(&mut state, agent(&agent_id, index)?)?;
        for task in 0..tasks_per_agent {
            let number = index * tasks_per_agent + task;
            apply(&mut state, launch(&agent_id, number)?)?;
        }
        if state.dirty_len() > GROUP {
            write(&mut state)?;
        }
    }
    write(&mut state)?;
    let (rows, sum) = checksum.finish();
    let fetched = writer.finish(&identity, rows, &sum)?;
    Store::create(&store, &identity, &origin.members, Some(fetched))?;
    Ok(Made { rows, bytes })
}

pub(crate) fn apply(state: &mut ClusterState, kind: Kind) -> Result<()> {
    let operation = log::Operation { kind: Some(kind) };
    state
        .apply(&operation)
        .context("an operation of this release")
}

pub(crate) fn framework(index: usize) -> Kind {
    let id = format!("framework-{index}");
    let info = wire::FrameworkInfo {
        user: "root".into(),
        name: id.clone(),
        id: Some(wire::FrameworkId { value: id.clone() }),
        failover_timeout: Some(86_400.0),
        ..Default::default()
    };
    let framework = log::Framework {
        framework_id: id,
        info_payload: info.encode_to_vec().into(),
        ..Default::default()
    };
    Kind::PutFramework(log::PutFramework {
        framework: Some(framework),
    })
}

pub(crate) fn agent(agent_id: &str, index: usize) -> Result<Kind> {
    let total = Resources::parse("cpus:24;mem:65536;disk:65536;ports:[31000-32000]", "*");
    let total = total.map_err(|it| anyhow::anyhow!("{it}"))?.to_wire();
    let info = wire::AgentInfo {
        hostname: format!("host-{index}.example.org"),
        port: Some(5051),
        resources: total.clone(),
        ..Default::default()
    };
    let [_, a, b, c] = u32::try_from(index)?.to_be_bytes();
    let agent = log::Agent {
        agent_id: agent_id.to_owned(),
        state: log::AgentState::Admitted as i32,
        info_payload: info.encode_to_vec().into(),
        address: format!("10.{a}.{b}.{c}:5051"),
        version: "1.12.0".into(),
        capabilities: vec!["MULTI_ROLE".into(), "HIERARCHICAL_ROLE".into()],
        boot_id: format!("boot-{index}"),
        total,
        ..Default::default()
    };
    Ok(Kind::PutAgent(log::PutAgent { agent: Some(agent) }))
}

pub(crate) fn launch(agent_id: &str, number: usize) -> Result<Kind> {
    let resources = Resources::parse("cpus:0.1;mem:32", "*");
    let resources = resources.map_err(|it| anyhow::anyhow!("{it}"))?;
    let resources = resources.allocate(&"*".into()).to_wire();
    let task_id = format!("task-{number}");
    let info = wire::TaskInfo {
        name: "sleep".into(),
        task_id: wire::TaskId {
            value: task_id.clone(),
        },
        agent_id: wire::AgentId {
            value: agent_id.to_owned(),
        },
        resources: resources.clone(),
        command: Some(wire::CommandInfo {
            value: Some("sleep 1000000".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let task = log::Task {
        framework_id: format!("framework-{}", number % FRAMEWORKS),
        task_id,
        agent_id: agent_id.to_owned(),
        container_id: uuid::Uuid::from_u128(number as u128).to_string(),
        task_info_payload: info.encode_to_vec().into(),
        resources,
        role: "*".into(),
        state: wire::TaskState::TaskRunning as i32,
        statuses: vec![log::TaskStatus::default()],
        ..Default::default()
    };
    Ok(Kind::LaunchTask(log::LaunchTask {
        task: Some(task),
        executor: None,
        command: None,
    }))
}
