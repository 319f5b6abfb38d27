//! An agent that runs nothing: it registers over a real link, reports every task as
//! running at once and as finished once that was acknowledged.
//!
//! What is left is the cost of the master, the link and the framework.

use anyhow::{Context, Result};
use prost::Message;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tepui_proto::{
    mesos::v1,
    tepui::{
        agent::v1::{
            AgentMessage, CommandsDone, Pong, Register, TaskUpdate,
            agent_link_client::AgentLinkClient, agent_message, master_message,
        },
        log::v1::command,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Endpoint;

/// What all agents of a run count together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Agents that the master has admitted.
    pub(crate) registered: AtomicU64,
    /// Tasks whose RUNNING the framework has acknowledged.
    pub(crate) running: AtomicU64,
    /// Tasks whose FINISHED the framework has acknowledged.
    pub(crate) finished: AtomicU64,
}

/// Frames that may wait for the socket; a burst is one ACCEPT's tasks, two frames each.
const FRAMES: usize = 4096;

/// Times that a connection is tried again.
const CONNECTS: u32 = 50;

/// What a no-op agent offers.
fn resources() -> Vec<v1::Resource> {
    use tepui_scheduler_api::task;
    vec![
        task::scalar("cpus", 24.0),
        task::scalar("mem", 65536.0),
        task::scalar("disk", 65536.0),
        task::ports(31000, 32000),
    ]
}

/// Serves one agent until the link ends.
pub(crate) async fn run(master: SocketAddr, index: usize, counters: Arc<Counters>) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{master}"))?.tcp_nodelay(true);
    let mut tries = 0;
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            // Thousands connect at once, which may reset some.
            Err(_) if tries < CONNECTS => tries += 1,
            Err(error) => return Err(error).context("connecting"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut client = AgentLinkClient::new(channel);
    let (sender, frames) = mpsc::channel(FRAMES);
    let info = v1::AgentInfo {
        hostname: format!("noop-{index}"),
        port: Some(5051),
        resources: resources(),
        ..Default::default()
    };
    let send = async |kind| {
        let frame = AgentMessage { kind: Some(kind) };
        sender.send(frame).await.context("the link ended")
    };
    send(agent_message::Kind::Register(Register {
        info_payload: info.encode_to_vec().into(),
        // Distinct addresses: agents at the same one replace each other.
        address: format!(
            "127.{}.{}.{}:5051",
            1 + index / 62500,
            index / 250 % 250,
            1 + index % 250
        ),
        version: "1.12.0".into(),
        capabilities: [
            "MULTI_ROLE",
            "HIERARCHICAL_ROLE",
            "RESERVATION_REFINEMENT",
            "AGENT_OPERATION_FEEDBACK",
            "TASK_RESOURCE_LIMITS",
        ]
        .map(str::to_owned)
        .to_vec(),
        boot_id: format!("boot-{index}"),
        total: resources(),
        ..Default::default()
    }))
    .await?;
    let mut messages = client
        .attach(ReceiverStream::new(frames))
        .await?
        .into_inner();
    let mut agent_id = None;
    while let Some(message) = messages.next().await {
        match message?.kind {
            Some(master_message::Kind::Registered(registered)) => {
                counters.registered.fetch_add(1, Ordering::Relaxed);
                agent_id = Some(registered.agent_id);
            }
            Some(master_message::Kind::Ping(_)) => {
                send(agent_message::Kind::Pong(Pong { connected: true })).await?;
            }
            Some(master_message::Kind::Command(command)) => {
                send(agent_message::Kind::CommandsDone(CommandsDone {
                    up_to: command.sequence,
                }))
                .await?;
                if let Some(command::Kind::RunTask(run)) = command.kind {
                    let running = v1::TaskState::TaskRunning;
                    let update = update(&run.framework_id, &run.task_id, &agent_id, running);
                    send(agent_message::Kind::TaskUpdate(update)).await?;
                }
            }
            Some(master_message::Kind::AcknowledgeUpdate(ack)) => {
                // The first byte of our uuids says which update it was.
                if ack.uuid.first() == Some(&RUNNING) {
                    counters.running.fetch_add(1, Ordering::Relaxed);
                    let finished = v1::TaskState::TaskFinished;
                    let update = update(&ack.framework_id, &ack.task_id, &agent_id, finished);
                    send(agent_message::Kind::TaskUpdate(update)).await?;
                } else {
                    counters.finished.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(master_message::Kind::Refused(refused)) => {
                anyhow::bail!("refused: {}", refused.message);
            }
            _ => {}
        }
    }
    Ok(())
}

const RUNNING: u8 = 1;
const FINISHED: u8 = 2;

fn update(framework: &str, task: &str, agent: &Option<String>, state: v1::TaskState) -> TaskUpdate {
    let mut uuid = *uuid::Uuid::new_v4().as_bytes();
    uuid[0] = match state {
        v1::TaskState::TaskRunning => RUNNING,
        _ => FINISHED,
    };
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        state: state as i32,
        source: Some(v1::task_status::Source::Executor as i32),
        agent_id: agent.clone().map(|value| v1::AgentId { value }),
        executor_id: Some(v1::ExecutorId { value: task.into() }),
        timestamp: Some(0.0),
        uuid: Some(uuid.to_vec().into()),
        ..Default::default()
    };
    TaskUpdate {
        framework_id: framework.into(),
        status_payload: status.encode_to_vec().into(),
        latest_state: state as i32,
    }
}
