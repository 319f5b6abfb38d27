//! The master: its shell around the pure machine.
//!
//! `shell` has the threads (machine, view, raft) and the doors (HTTP, gRPC); `view` is what
//! readers see, `endpoints` writes it as JSON and as messages of the v1 API; `flags` and
//! `config` are read once at the start. What the cluster does is decided in
//! `tepui-master-machine`, and what it knows is in `tepui-state`.
//!
//! # Invariants
//! - Nothing that depends on a decision leaves before the decision is durable.
//! - A write's answer leaves after the view that readers get has it.
//! - Nothing waits for a client: slow readers are disconnected, slow writers wait alone.
//! - A request that makes the machine panic harms its own connection only.
//! - Every refusal has the status that Mesos gives, and a text that names what was wrong.

mod config;
mod endpoints;
mod flags;
mod shell;
mod view;

use crate::{
    config::Settings,
    flags::TABLE,
    shell::{
        core::{self, Parts, ReplicaEvent, Shared},
        destinations::Destinations,
        door::App,
        grpc, http,
        intake::{Class, Control, Intake},
        leadership::Board,
        raft,
        sessions::Sessions,
        view_thread::{ViewHandle, ViewMessage},
    },
};
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};
use tepui_master_machine::input::{Input, OperatorRequest};
use tepui_replication::Replica;
use tepui_server::{
    files::Files,
    flags::{Error as FlagsError, Flags},
    listener::{Listener, Stop},
    logging, system,
};

/// Where operators put a file per flag.
const FLAGS_FOLDER: &str = "/etc/tepui-master";
/// How often the file of `--whitelist` is looked at, as Mesos does.
const WHITELIST_INTERVAL: Duration = Duration::from_secs(5);

/// A master that runs in this process.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: Stop,
    server: tokio::task::JoinHandle<()>,
    intake: Arc<Intake<ReplicaEvent>>,
    view: ViewHandle,
    threads: Vec<JoinHandle<()>>,
    replica: Option<Replica>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops serving, then the threads, then closes the store.
    pub async fn shutdown(mut self) {
        self.stop.stop();
        // A panic of the server's task was logged; there is nothing left to stop then.
        let _ = self.server.await;
        self.intake.control(Control::Stop);
        self.view.send(ViewMessage::Stop);
        let (threads, replica) = (std::mem::take(&mut self.threads), self.replica.take());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // As above.
                let _ = thread.join();
            }
            if let Some(replica) = replica {
                replica.stop();
            }
        });
        let _ = joined.await;
    }
}

/// Starts a master with the flags given, as on a command line; the environment is not read.
///
/// # Errors
/// Flags that cannot be used, an address that is taken, a store that cannot be opened.
pub async fn start(flags: &[String]) -> Result<Handle> {
    let flags = TABLE.read(flags.iter().cloned(), [], None)?;
    start_with(flags).await
}

async fn start_with(flags: Flags) -> Result<Handle> {
    let mut settings = Settings::read(flags)?;
    let listener = Listener::bind(settings.listen).await?;
    let address = listener.address();
    settings.at(address);

    let intake = Intake::new();
    let pace = intake.clone();
    let destinations = Destinations::new(move |connection, behind| {
        pace.interject(connection, Input::SchedulerPace { connection, behind });
    });
    let shared = Arc::new(Shared::default());
    let board = Board::new();
    let (to_board, own) = (board.clone(), settings.client_address());
    let (folder, events) = (settings.work_dir.join("replica"), intake.clone());
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("--work_dir: {} cannot be made", folder.display()))?;
    let opened =
        tokio::task::spawn_blocking(move || raft::start(folder, events, to_board, own)).await?;
    let (replica, raft, cluster_id) = opened.with_context(|| {
        format!(
            "the state in {} cannot be used",
            settings.work_dir.display()
        )
    })?;
    settings.machine.cluster_id = cluster_id;
    let (view, view_thread) = ViewHandle::start(settings.subscribers)?;
    let parts = Parts {
        config: settings.machine.clone(),
        intake: intake.clone(),
        destinations: destinations.clone(),
        view: view.clone(),
        replica: raft.clone(),
        shared: shared.clone(),
        panic_folder: settings.work_dir.join("panics"),
    };
    let machine_thread = std::thread::Builder::new()
        .name("machine".into())
        .spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| core::run(parts));
            if std::panic::catch_unwind(run).is_err() {
                // What is in memory cannot be trusted any more; what is durable can.
                tracing::error!(
                    "the machine's thread panicked outside of a step: the process ends"
                );
                std::process::abort();
            }
        })?;

    let stop = Stop::new();
    let strangers = intake.connect(destinations.connection(), Class::Client);
    let app = Arc::new(App {
        settings,
        intake: intake.clone(),
        destinations,
        view: view.clone(),
        shared,
        leadership: board.subscribe(),
        replica: raft,
        stale: Mutex::default(),
        sessions: Arc::new(Sessions::new(strangers)),
        files: Files::new(),
        stop: stop.clone(),
        start_time: core::wall_now().0,
        subscribers: AtomicUsize::new(0),
    });
    tokio::spawn(set_first_weights(app.clone()));
    if let Some(path) = app.settings.whitelist.clone() {
        tokio::spawn(watch_whitelist(app.clone(), path));
    }
    let router = http::router(app.clone(), grpc::router(&app)?);
    let server = tokio::spawn(listener.serve(router, stop.clone()));
    Ok(Handle {
        address,
        stop,
        server,
        intake,
        view,
        threads: vec![machine_thread, view_thread],
        replica: Some(replica),
    })
}

/// Waits until this master leads; false when it is stopped before.
async fn led(app: &App) -> bool {
    let mut born = app.shared.born();
    tokio::select! {
        led = born.wait_for(Option::is_some) => led.is_ok(),
        () = app.stop.stopped() => false,
    }
}

/// `--weights`, as long as nobody has set any.
async fn set_first_weights(app: Arc<App>) {
    if app.settings.weights.is_empty() || !led(&app).await {
        return;
    }
    let none = match app.snapshot().await {
        Ok(view) => view.state().weights().len() == 0,
        Err(_) => false,
    };
    if none {
        let weights = app.settings.weights.clone();
        let request = OperatorRequest::UpdateWeights { weights };
        if let Err(failure) = app.operate(None, request).await {
            tracing::warn!(failure.message, "--weights could not be set");
        }
    }
}

/// Tells the machine of the whitelist's hosts, at every birth and whenever the file changes.
async fn watch_whitelist(app: Arc<App>, path: PathBuf) {
    let source = app.destinations.connection();
    let producer = app.intake.connect(source, Class::Client);
    let mut told: Option<(String, Vec<String>)> = None;
    while led(&app).await {
        let now = (app.shared.status().master_info.id, hosts(&path).await);
        match now {
            (master_id, Ok(hosts)) => {
                let now = (master_id, hosts);
                if told.as_ref() != Some(&now) {
                    producer.send(Input::Whitelist(Some(now.1.clone()))).await;
                    told = Some(now);
                }
            }
            (_, Err(error)) => {
                // As before, until it can be read again.
                tracing::warn!(%error, path = %path.display(), "the whitelist cannot be read");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(WHITELIST_INTERVAL) => {}
            () = app.stop.stopped() => return,
        }
    }
}

async fn hosts(path: &Path) -> std::io::Result<Vec<String>> {
    let text = tokio::fs::read_to_string(path).await?;
    let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// The binary: flags of the command line and the environment, until a signal.
pub async fn run() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<FlagsError>() {
            Some(FlagsError::Print(text)) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            _ => {
                eprintln!("tepui-master: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

async fn serve() -> Result<()> {
    let text = |it: std::ffi::OsString| it.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let arguments = std::env::args_os().skip(1).map(text);
    let flags = TABLE.read(arguments, environment, Some(Path::new(FLAGS_FOLDER)))?;
    logging::start(
        flags.text("logging_level").unwrap_or("INFO"),
        flags.bool("quiet"),
    );
    system::raise_open_files();
    let handle = start_with(flags).await?;
    let address = handle.address();
    match address.ip().is_loopback() {
        true => println!(
            "tepui-master listens on http://{address}, for this machine alone \
             (to open it to the network: --ip=0.0.0.0)"
        ),
        false => println!("tepui-master listens on http://{address}"),
    }
    signal().await?;
    tracing::info!("stopping");
    handle.shutdown().await;
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
async fn signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
