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
pub mod offline;
mod shell;
mod view;

use crate::{
    config::Settings,
    flags::TABLE,
    shell::{
        core::{self, Parts, ReplicaEvent, Shared},
        destinations::{Destinations, Pace},
        door::App,
        grpc, http,
        intake::{Class, Control, Intake},
        leadership::Board,
        peers::{Offered, Peers, form, keeper, links, service},
        raft,
        sessions::Sessions,
        stale::Stale,
        view_thread::{ViewHandle, ViewMessage},
        zookeeper,
    },
};
use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};
use tepui_master_machine::input::{Input, OperatorRequest};
use tepui_replication::{Identity, OpenError, Replica, Salvage, Store};
use tepui_server::{
    files::Files,
    flags::{Error as FlagsError, Flags},
    listener::{Listener, Stop},
    logging,
    proto::tepui::raft::v1::Member,
    system, version,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

/// Where operators put a file per flag.
const FLAGS_FOLDER: &str = "/etc/tepui-master";
/// How often the file of `--whitelist` is looked at, as Mesos does.
const WHITELIST_INTERVAL: Duration = Duration::from_secs(5);

/// How long a master that stops waits until ZooKeeper knows.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(1);

/// A master that runs in this process.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: Stop,
    server: tokio::task::JoinHandle<()>,
    zookeeper: Option<tokio::task::JoinHandle<()>>,
    intake: Arc<Intake<ReplicaEvent>>,
    view: ViewHandle,
    running: Arc<Mutex<Running>>,
    fatal: watch::Receiver<Option<String>>,
}

/// What has to be stopped by hand.
#[derive(Debug)]
struct Running {
    threads: Vec<JoinHandle<()>>,
    /// Once there is a store.
    replica: Option<Replica>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until this master cannot go on; why.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        match fatal.wait_for(Option::is_some).await {
            Ok(text) => text.clone().unwrap_or_default(),
            // Whoever could say so is gone with the master.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops serving, then the threads, then closes the store.
    pub async fn shutdown(self) {
        self.stop.stop();
        // A panic of the server's task was logged; there is nothing left to stop then.
        let _ = self.server.await;
        if let Some(zookeeper) = self.zookeeper {
            // Its node goes with its session in any case.
            let _ = tokio::time::timeout(ZOOKEEPER_PATIENCE, zookeeper).await;
        }
        self.intake.control(Control::Stop);
        self.view.send(ViewMessage::Stop);
        let (threads, replica) = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut running.threads), running.replica.take())
        };
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

/// `host:port` of the master that leads, as it is published in ZooKeeper at `zk://...`; for those
/// who know no master.
///
/// # Errors
/// The URL is none, or nobody is published within `patience`.
pub async fn published_leader(url: &str, patience: Duration) -> Result<String> {
    let url = tepui_server::zookeeper::Url::parse(url)?;
    let mut detector = tepui_server::zookeeper::Detector::start(url.clone(), patience);
    let found = async {
        loop {
            if let Some(leader) = detector.leader() {
                return leader;
            }
            detector.changed().await;
        }
    };
    let found = tokio::time::timeout(patience, found).await;
    found.with_context(|| format!("ZooKeeper at {url} names no master that leads"))
}

async fn start_with(flags: Flags) -> Result<Handle> {
    let mut settings = Settings::read(flags)?;
    let listener = Listener::bind(settings.listen).await?;
    let address = listener.address();
    settings.at(address);
    let stop = Stop::new();
    let board = Board::new();
    let (peers, offers) = peers(&settings, &board, &stop).await?;

    let intake = Intake::new();
    let pace = intake.clone();
    let destinations = Destinations::new(move |connection, its| {
        let input = match its {
            Pace::Turn => Input::SchedulerTurn { connection },
            Pace::Behind | Pace::CaughtUp => Input::SchedulerPace {
                connection,
                behind: its == Pace::Behind,
            },
        };
        pace.interject(connection, input);
    });
    let shared = Arc::new(Shared::default());
    let (view, view_thread) = ViewHandle::start(settings.subscribers)?;
    let strangers = intake.connect(destinations.connection(), Class::Client);
    let app = Arc::new(App {
        settings,
        intake: intake.clone(),
        destinations,
        view: view.clone(),
        shared,
        leadership: board.subscribe(),
        replica: OnceLock::new(),
        peers: peers.clone(),
        stale: Stale::default(),
        sessions: Arc::new(Sessions::new(strangers)),
        files: Files::new(),
        stop: stop.clone(),
        start_time: core::wall_now().0,
        subscribers: AtomicUsize::new(0),
    });
    let running = Arc::new(Mutex::new(Running {
        threads: vec![view_thread],
        replica: None,
    }));
    if Store::exists(&peers.store) {
        if let Err(error) = replicate(&app, &running).await {
            let salvage = salvage(&peers, &error).await.ok_or(error)?;
            let (app, running) = (app.clone(), running.clone());
            tokio::spawn(async move {
                let fetched = tokio::select! {
                    fetched = form::fetch_again(&app.peers, &salvage) => fetched,
                    () = app.stop.stopped() => return,
                };
                let begun = match fetched {
                    Ok(()) => replicate(&app, &running).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = begun {
                    app.peers.give_up(format!("{error:#}"));
                }
            });
        }
    } else {
        // Others must answer first: meanwhile this one says that nobody leads.
        let (app, running) = (app.clone(), running.clone());
        tokio::spawn(async move {
            let formed = tokio::select! {
                formed = form::form(&app.peers, app.settings.join.as_deref(), offers) => formed,
                () = app.stop.stopped() => return,
            };
            let begun = match formed {
                Ok(()) => replicate(&app, &running).await,
                Err(error) => Err(error),
            };
            if let Err(error) = begun {
                app.peers.give_up(format!("{error:#}"));
            }
        });
    }
    tokio::spawn(set_first_weights(app.clone()));
    if let Some(path) = app.settings.whitelist.clone() {
        tokio::spawn(watch_whitelist(app.clone(), path));
    }
    let zookeeper = app.settings.zookeeper.clone();
    let zookeeper = zookeeper.map(|it| tokio::spawn(zookeeper::run(app.clone(), it)));
    let router = http::router(app.clone(), grpc::router(&app)?);
    let server = tokio::spawn(listener.serve(router, stop.clone()));
    Ok(Handle {
        address,
        fatal: peers.fatal.subscribe(),
        stop,
        server,
        zookeeper,
        intake,
        view,
        running,
    })
}

/// Binds the masters' port and serves it; a lone master's first store is made here.
async fn peers(
    settings: &Settings,
    board: &Board,
    stop: &Stop,
) -> Result<(Arc<Peers>, mpsc::Receiver<Offered>)> {
    let store = settings.work_dir.join("replica");
    std::fs::create_dir_all(&settings.work_dir)
        .with_context(|| format!("--work_dir: {} cannot be made", settings.work_dir.display()))?;
    let mut listener = TcpListener::bind(settings.raft_listen).await;
    if listener.is_err() && settings.any_raft_port {
        listener = TcpListener::bind((settings.raft_listen.ip(), 0)).await;
    }
    let listener = listener.with_context(|| {
        format!(
            "--raft_port: {} cannot be listened on",
            settings.raft_listen
        )
    })?;
    let bound = listener.local_addr()?;
    let mut raft_address = settings.raft_address(bound);
    let has_store = Store::exists(&store);
    if !settings.peers.is_empty() && !settings.is_raft_address_given() {
        match form::find_own(&settings.peers, bound.port()).await {
            Ok(own) => raft_address = own,
            // Without meaning once there is state.
            Err(_) if has_store => {}
            Err(error) => return Err(error),
        }
    }
    let in_list = settings.peers.is_empty() || settings.peers.contains(&raft_address);
    ensure!(
        has_store || in_list,
        "--raft_advertise={raft_address} is not among --peers={}",
        settings.peers.join(",")
    );
    let mut member = Member {
        store_id: String::new(),
        raft_address,
        client_address: settings.client_address(),
        version: version::OWN.to_owned(),
        cluster_version: config::supported_version(),
    };
    if !has_store {
        member.store_id = form::draw_store_id(&store)?;
        if settings.join.is_none() && settings.peers.len() <= 1 {
            let cluster_id = uuid::Uuid::new_v4().to_string();
            let identity = Identity::first(member.store_id.as_str(), cluster_id);
            Store::create(&store, &identity, &form::alone(&member), None)?;
        }
    }
    // One offer at a time is considered; who offers waits.
    let (offers, offered) = mpsc::channel(4);
    let peers = Arc::new(Peers::new(
        member,
        settings,
        store,
        board.clone(),
        offers,
        stop.clone(),
    )?);
    let listener = listener.into_std()?;
    let served = peers.clone();
    peers.runtime.handle().spawn(async move {
        match TcpListener::from_std(listener) {
            Ok(listener) => service::serve(served, listener).await,
            Err(error) => served.give_up(format!("--raft_port: {error}")),
        }
    });
    Ok((peers, offered))
}

/// What is left of a store that cannot be opened, if it can go on with other masters' rows: its
/// log must be whole, and there must be others.
async fn salvage(peers: &Arc<Peers>, error: &anyhow::Error) -> Option<Salvage> {
    let damaged = matches!(
        error.downcast_ref::<OpenError>(),
        Some(
            OpenError::Corrupted { .. }
                | OpenError::RowsDamaged { .. }
                | OpenError::RowsMissing { .. }
        )
    );
    if !damaged {
        return None;
    }
    let store = peers.store.clone();
    let salvaged = tokio::task::spawn_blocking(move || Store::salvage(&store)).await;
    let salvage = salvaged.ok()?.ok()?;
    let others = salvage.members.ids().len() > 1;
    if others {
        let error = format!("{error:#}");
        tracing::error!(
            error,
            "the rows are lost, the log is whole: fetching the rows of another master"
        );
    }
    others.then_some(salvage)
}

/// Opens the store and starts everything that rests on it.
async fn replicate(app: &Arc<App>, running: &Mutex<Running>) -> Result<()> {
    let (peers, intake) = (app.peers.clone(), app.intake.clone());
    let settings = app.settings.clone();
    let work_dir = settings.work_dir.display().to_string();
    let opened = tokio::task::spawn_blocking(move || raft::start(&settings, intake, peers)).await?;
    let (replica, raft) =
        opened.with_context(|| format!("the state in {work_dir} cannot be used"))?;
    let mut config = app.settings.machine.clone();
    if let Some(it) = app.peers.membership.get() {
        config.cluster_id.clone_from(&it.identity.cluster_id);
        config.incarnation = it.identity.incarnation;
    }
    let parts = Parts {
        config,
        intake: app.intake.clone(),
        destinations: app.destinations.clone(),
        view: app.view.clone(),
        replica: raft.clone(),
        shared: app.shared.clone(),
        panic_folder: app.settings.work_dir.join("panics"),
    };
    // Set once: there is one store.
    let _ = app.replica.set(raft);
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
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    running.threads.push(machine_thread);
    running.replica = Some(replica);
    drop(running);
    let runtime = app.peers.runtime.handle();
    runtime.spawn(links::run(app.peers.clone()));
    runtime.spawn(keeper::run(app.peers.clone()));
    Ok(())
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
    let outcome = tokio::select! {
        signalled = signal() => signalled,
        text = handle.failed() => Err(anyhow::anyhow!(text)),
    };
    tracing::info!("stopping");
    handle.shutdown().await;
    outcome
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
