//! `tepui local`: a whole cluster in this process, and a first workload to see it work.
//!
//! The master and the agents are the production ones; they and the workload meet over
//! sockets on loopback. Tasks are children of shims or of the Docker engine as always, so
//! the cluster's end kills them explicitly.

use crate::{
    Context,
    api::{Api, text},
    commands::demo,
    output::tell,
};
use anyhow::{Context as _, Result, bail};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Options of `tepui local`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Masters to start; the second and later ones take two ports each behind the agents'
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    masters: u16,
    /// Agents to start
    #[arg(long, default_value_t = 2)]
    agents: u16,
    /// Port of the master; agents take the ports after the next two
    #[arg(long, default_value_t = 5050)]
    port: u16,
    /// Where to keep state; the default is a temporary folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// How tasks run, in order of preference; the default is what works here
    #[arg(long, value_name = "docker,process")]
    containerizers: Option<String>,
    /// Run a small workload and print what became of it; without a terminal the cluster
    /// ends after it
    #[arg(long)]
    demo: bool,
    /// Docker image that the engine has already, for the containers of --demo
    #[arg(long, value_name = "IMAGE", requires = "demo")]
    demo_image: Option<String>,
}

/// A running cluster.
struct Cluster {
    /// The first one listens on the port that was chosen.
    masters: Vec<tepui_master::Handle>,
    agents: Vec<tepui_agent::Handle>,
    /// Removed when dropped, unless the person named a folder.
    _folder: Option<TempDir>,
}

/// Starts the cluster, runs the workload if asked, stays until Ctrl-C.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    use std::io::IsTerminal;
    let engine = docker_answers();
    let containerizers = match (&options.containerizers, engine) {
        (Some(chosen), _) => chosen.clone(),
        (None, true) => "docker,process".to_owned(),
        (None, false) => "process".to_owned(),
    };
    tell!(
        "==> starting {} and {} agents on 127.0.0.1; tasks run {}",
        match options.masters {
            1 => "one master".to_owned(),
            count => format!("{count} masters"),
        },
        options.agents,
        match (containerizers.contains("docker"), engine) {
            (true, true) => "as Docker containers and as processes",
            (true, false) => "as asked, but no Docker engine answers",
            (false, _) => "as processes (no Docker engine answers)",
        }
    );
    let cluster = start(&options, &containerizers).await?;
    let addresses: Vec<String> = cluster
        .masters
        .iter()
        .map(|it| it.address().to_string())
        .collect();
    let master = addresses.join(",");
    let context = Context {
        master: master.clone(),
        ..context.clone()
    };
    wait_for_agents(&context, options.agents).await?;
    for address in &addresses {
        tell!("    master   http://{address}  (state: http://{address}/state)");
    }
    for agent in &cluster.agents {
        tell!("    agent    http://{}", agent.address());
    }

    let mut interrupted = false;
    let mut outcome = Ok(ExitCode::SUCCESS);
    if options.demo {
        tokio::select! {
            result = demo::run(&context, options.demo_image.as_deref()) => outcome = result,
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
    }
    let stay = !options.demo || std::io::stdin().is_terminal();
    if stay && !interrupted && outcome.is_ok() {
        tell!("==> the cluster is up; try, in another terminal:");
        tell!("    tepui --master={master} run -- echo hello");
        tell!("    tepui --master={master} agents");
        tell!("    Ctrl-C ends it");
        tokio::signal::ctrl_c().await?;
    }
    tell!("==> stopping the cluster and what runs on it");
    for agent in cluster.agents {
        agent.shutdown_and_kill_tasks().await;
    }
    for master in cluster.masters {
        master.shutdown().await;
    }
    outcome
}

/// Whether a Docker engine answers on its socket.
fn docker_answers() -> bool {
    use std::io::{Read, Write};
    let Ok(mut socket) = std::os::unix::net::UnixStream::connect("/var/run/docker.sock") else {
        return false;
    };
    let patience = Some(Duration::from_secs(3));
    let ping = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";
    let mut answer = [0; 12];
    socket.set_read_timeout(patience).is_ok()
        && socket.write_all(ping).is_ok()
        && socket.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}

async fn start(options: &Options, containerizers: &str) -> Result<Cluster> {
    let (folder, temporary) = match &options.work_dir {
        Some(folder) => (folder.clone(), None),
        None => {
            let folder = tempfile::Builder::new().prefix("tepui-local-").tempdir()?;
            (folder.path().to_owned(), Some(folder))
        }
    };
    let first = u32::from(options.port);
    let more = options.masters - 1;
    let last = first + 2 + u32::from(options.agents) + 2 * u32::from(more);
    if last > u32::from(u16::MAX) {
        bail!(
            "--port={first} leaves no room for {} agents and {more} more masters",
            options.agents
        );
    }
    check_port(options.port)?;
    let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let behind = options.port + 2 + options.agents;
    // Client and raft port of each.
    let mut ports = vec![(options.port, options.port + 2)];
    ports.extend((0..more).map(|index| (behind + 2 * index, behind + 2 * index + 1)));
    let masters = start_masters(&folder, &ports).await?;
    let named: Vec<String> = ports
        .iter()
        .map(|(port, _)| loopback(*port).to_string())
        .collect();
    let mut agents = Vec::new();
    for index in 0..options.agents {
        // The raft port lies between the master's and the agents'.
        let port = match index {
            0 => options.port + 1,
            later => options.port + 2 + later,
        };
        let flags = [
            format!(
                "--work_dir={}",
                folder.join(format!("agent-{index}")).display()
            ),
            format!("--master={}", named.join(",")),
            "--ip=127.0.0.1".to_owned(),
            format!("--port={port}"),
            format!("--containerizers={containerizers}"),
            format!("--resources={}", resources(options.agents, index)),
            format!("--attributes=local:agent-{index}"),
        ];
        let agent = tepui_agent::start(&flags)
            .await
            .with_context(|| format!("agent {index} does not start"))?;
        agents.push(agent);
    }
    Ok(Cluster {
        masters,
        agents,
        _folder: temporary,
    })
}

/// Starts the masters, which found a cluster together when there are several.
async fn start_masters(
    folder: &std::path::Path,
    ports: &[(u16, u16)],
) -> Result<Vec<tepui_master::Handle>> {
    let peers: Vec<String> = ports
        .iter()
        .map(|(_, raft)| format!("127.0.0.1:{raft}"))
        .collect();
    let mut starting = Vec::new();
    for (index, (port, raft)) in ports.iter().enumerate() {
        let name = match index {
            0 => "master".to_owned(),
            later => format!("master-{}", later + 1),
        };
        let mut flags = vec![
            format!("--work_dir={}", folder.join(name).display()),
            "--ip=127.0.0.1".to_owned(),
            format!("--port={port}"),
            format!("--raft_port={raft}"),
            "--cluster=local".to_owned(),
        ];
        if ports.len() > 1 {
            flags.push(format!("--peers={}", peers.join(",")));
        }
        // Founders wait for each other.
        starting.push(tokio::spawn(
            async move { tepui_master::start(&flags).await },
        ));
    }
    let mut masters = Vec::new();
    for master in starting {
        masters.push(master.await?.context("a master does not start")?);
    }
    Ok(masters)
}

/// Each agent's part of this machine: cores and memory are shared out, ports never
/// overlap. A small machine is made to look larger, so that the first steps do not fail
/// for want of a core.
fn resources(agents: u16, index: u16) -> String {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let cpus = (cores / usize::from(agents.max(1))).max(2);
    let begin = 31000 + 1000 * u32::from(index);
    format!(
        "cpus:{cpus};mem:2048;disk:4096;ports:[{begin}-{}]",
        begin + 999
    )
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} cannot be used ({error}): is a cluster running already? --port chooses another"
        ),
    }
}

async fn wait_for_agents(context: &Context, wanted: u16) -> Result<()> {
    let api = Api::new(context)?;
    let started = Instant::now();
    loop {
        let answer = api.master("/slaves", &[]).await;
        let active = |answer: &serde_json::Value| {
            let agents = answer["slaves"].as_array();
            let active = agents
                .into_iter()
                .flatten()
                .filter(|it| it["active"] == true);
            active.filter(|it| !text(it, "id").is_empty()).count()
        };
        if answer
            .as_ref()
            .is_ok_and(|it| active(it) >= usize::from(wanted))
        {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(30) {
            answer?;
            bail!("the agents did not register within 30 s");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
