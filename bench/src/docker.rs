//! `tepui-bench docker`: what the agent adds to the engine's own create and start.
//!
//! Bare launches and launches through the agent alternate on the same engine in the same
//! run, so that the engine's mood is in both.

use crate::{cluster, cpu, floor::median};
use anyhow::{Context, Result, bail};
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    },
};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tepui_scheduler_api::{Driver, Event, Events, Session, task, v1};

/// Options of `tepui-bench docker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Launches of each kind
    #[arg(long, default_value_t = 20)]
    launches: usize,
    /// An image that the engine has already, with a `sleep`
    #[arg(long, default_value = "tepui-test:1")]
    image: String,
    /// The engine's socket
    #[arg(long, default_value = "/var/run/docker.sock")]
    docker_socket: String,
}

/// Runs the benchmark and reports.
pub(crate) async fn run(options: Options) -> Result<Value> {
    let docker =
        Docker::connect_with_unix(&options.docker_socket, 120, bollard::API_DEFAULT_VERSION)?
            .negotiate_version()
            .await
            .context("no Docker engine answers; scripts/docker.sh starts one")?;
    docker
        .inspect_image(&options.image)
        .await
        .with_context(|| {
            format!(
                "the engine has no image {}; scripts/test-image.sh makes it",
                options.image
            )
        })?;

    let folder = tempfile::Builder::new().prefix("tepui-bench-").tempdir()?;
    let masters = cluster::Masters::start(folder.path(), 1).await?;
    let master = masters.addresses()[0];
    let flags = [
        "--containerizers=docker",
        "--resources=cpus:64;mem:65536;disk:65536;ports:[31000-32000]",
    ];
    let agent = cluster::start_agent(folder.path(), master, &flags).await?;
    let idle_memory = cpu::private_memory(agent.id())?;
    let session = Session::start(tepui_scheduler_api::Options::new(
        [master.to_string()],
        task::framework("root", "bench-docker"),
    ))?;
    let Session { driver, mut events } = session;

    let progress = ProgressBar::new(options.launches as u64);
    let (mut bare, mut through) = (Vec::new(), Vec::new());
    for index in 0..options.launches {
        bare.push(launch_bare(&docker, &options.image, index).await?);
        through.push(launch_through(&driver, &mut events, &options.image, index).await?);
        progress.inc(1);
    }
    let loaded_memory = cpu::private_memory(agent.id())?;
    progress.finish_and_clear();
    driver.teardown().await?;
    wait_until_gone(&docker).await?;

    let (bare, through) = (median(bare), median(through));
    Ok(json!({
        "benchmark": "docker",
        "launches": options.launches,
        "bare_create_and_start_p50_ms": bare.as_secs_f64() * 1e3,
        "accept_to_running_p50_ms": through.as_secs_f64() * 1e3,
        "added_p50_ms": (through.as_secs_f64() - bare.as_secs_f64()) * 1e3,
        "rate_over_bare": bare.as_secs_f64() / through.as_secs_f64(),
        "agent_private_memory_idle_bytes": idle_memory,
        "agent_private_memory_per_running_task_bytes":
            loaded_memory.saturating_sub(idle_memory) / options.launches as u64,
    }))
}

async fn launch_bare(docker: &Docker, image: &str, index: usize) -> Result<Duration> {
    let name = format!("tepui-bench-bare-{}-{index}", std::process::id());
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["sleep".into(), "1000".into()]),
        host_config: Some(HostConfig {
            network_mode: Some("host".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let started = Instant::now();
    docker.create_container(Some(options), body).await?;
    docker
        .start_container(&name, None::<StartContainerOptions>)
        .await?;
    let time = started.elapsed();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&name, Some(force)).await?;
    Ok(time)
}

/// From the ACCEPT to the RUNNING update, both as the framework sees them.
async fn launch_through(
    driver: &Driver,
    events: &mut Events,
    image: &str,
    index: usize,
) -> Result<Duration> {
    let id = format!("bench-{index}");
    let mut accepted = None;
    while let Some(event) = events.next().await {
        match event? {
            Event::Offers(offers) => {
                for offer in offers {
                    if accepted.is_some() {
                        driver.decline(offer.id, Some(Duration::ZERO)).await?;
                        continue;
                    }
                    let command = v1::CommandInfo {
                        shell: Some(false),
                        value: Some("sleep".into()),
                        arguments: vec!["1000".into()],
                        ..Default::default()
                    };
                    let mut task = task::task(&id, &offer, 0.1, 32.0, command);
                    task.container = Some(task::docker(image));
                    accepted = Some(Instant::now());
                    // Zero: the rest must come back for the next launch.
                    let filters = v1::Filters {
                        refuse_seconds: Some(0.0),
                    };
                    driver.launch(&offer, vec![task], Some(filters)).await?;
                }
            }
            Event::Update(status) if status.task_id.value == id => {
                if status.state() == v1::TaskState::TaskRunning {
                    let accepted = accepted.context("running before it was accepted")?;
                    return Ok(accepted.elapsed());
                }
                if task::is_terminal(status.state()) {
                    bail!("{id} ended: {:?} {:?}", status.state(), status.message);
                }
            }
            _ => {}
        }
    }
    bail!("the session ended")
}

/// Waits until the agent has removed what this run started.
async fn wait_until_gone(docker: &Docker) -> Result<()> {
    let started = Instant::now();
    loop {
        let left = docker
            .list_containers(None::<bollard::query_parameters::ListContainersOptions>)
            .await?;
        let ours = left.iter().filter(|container| {
            let names = container.names.iter().flatten();
            names.clone().any(|name| name.starts_with("/mesos-"))
        });
        if ours.count() == 0 || started.elapsed() > Duration::from_secs(60) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
