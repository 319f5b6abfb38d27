//! Frameworks of a run: tasks that end well, end badly, or have to be killed, one after the
//! other, with reconciliation of what is doubtful.

use super::history::{Expect, History};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tepui_scheduler_api::{Driver, Event, Options, Session, Transport, call, task, v1};
use tokio::sync::watch;

/// One framework.
#[derive(Debug)]
pub struct Settings {
    /// Which one; odd ones speak HTTP.
    pub index: usize,
    /// The masters' APIs.
    pub masters: Vec<String>,
    /// Tasks at a time.
    pub tasks: usize,
    /// Where a task leaves a line for each of its lives.
    pub lives: PathBuf,
    /// So many tasks of a hundred run in Docker.
    pub docker: u64,
    /// Draws kinds of tasks.
    pub seed: u64,
}

/// Small numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % bound
    }
}

/// A task that has not ended.
#[derive(Debug)]
struct Alive {
    agent_id: v1::AgentId,
    /// When it has to be killed, and when that was last asked for.
    kill_at: Option<Instant>,
    news: Instant,
}

/// The image of the tests, made of busybox.
const IMAGE: &str = "tepui-test:1";
const CPUS: f64 = 0.1;
const MEM_MB: f64 = 16.0;
/// Silence of a task after which it is asked for.
const DOUBT: Duration = Duration::from_secs(5);
/// Between two KILL calls for the same task.
const KILL_AGAIN: Duration = Duration::from_secs(2);

/// Runs a framework until it is told to stop and its tasks have ended.
///
/// # Errors
/// The master refuses it for good.
pub async fn run(
    settings: Settings,
    history: Arc<History>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let mut info = task::framework("root", format!("torture-{}", settings.index));
    info.failover_timeout = Some(3600.0);
    info.capabilities = vec![v1::framework_info::Capability {
        r#type: Some(v1::framework_info::capability::Type::PartitionAware as i32),
    }];
    let transport = match settings.index % 2 {
        0 => Transport::Grpc,
        _ => Transport::Http,
    };
    let options = Options::new(settings.masters.clone(), info).transport(transport);
    let Session { driver, mut events } = Session::start(options)?;
    let mut framework = Framework {
        random: Random::new(settings.seed),
        settings,
        history,
        driver,
        alive: BTreeMap::new(),
        next: 0,
        stopping: false,
    };
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => framework.take(event?).await,
                None => anyhow::bail!("the session ended"),
            },
            _ = look.tick() => framework.look().await,
            _ = stopped.changed(), if !framework.stopping => {
                framework.stopping = *stopped.borrow();
            }
        }
        if framework.stopping && framework.alive.is_empty() {
            // The masters are whole again; a goodbye that is lost all the same is not what is
            // tested here.
            let _ = framework.driver.teardown().await;
            return Ok(());
        }
    }
}

struct Framework {
    settings: Settings,
    history: Arc<History>,
    driver: Driver,
    random: Random,
    alive: BTreeMap<String, Alive>,
    next: u64,
    stopping: bool,
}

impl Framework {
    async fn take(&mut self, event: Event) {
        match event {
            Event::Offers(offers) => {
                self.history.offers();
                for offer in offers {
                    self.answer(&offer).await;
                }
            }
            Event::Update(status) => {
                self.history.update(&status);
                let id = &status.task_id.value;
                if task::is_terminal(status.state()) {
                    self.alive.remove(id);
                } else if let Some(alive) = self.alive.get_mut(id)
                    && status.state() != v1::TaskState::TaskUnknown
                {
                    alive.news = Instant::now();
                }
            }
            Event::Subscribed { again: true, .. } => {
                // Everything that was under way is in doubt.
                for alive in self.alive.values_mut() {
                    alive.news -= DOUBT;
                }
                self.look().await;
            }
            _ => {}
        }
    }

    /// Calls may be lost with a connection; what is in doubt is asked for later.
    async fn answer(&mut self, offer: &v1::Offer) {
        let room = |name, each: f64| (task::amount(&offer.resources, name) / each) as usize;
        let room = room("cpus", CPUS).min(room("mem", MEM_MB)).min(4);
        let wanted = self.settings.tasks.saturating_sub(self.alive.len());
        let count = if self.stopping { 0 } else { wanted.min(room) };
        if count == 0 {
            let refuse = Some(Duration::from_millis(500));
            let _ = self.driver.decline(offer.id.clone(), refuse).await;
            return;
        }
        let tasks = (0..count).map(|_| self.make(offer)).collect();
        let filters = v1::Filters {
            refuse_seconds: Some(0.5),
        };
        let _ = self.driver.launch(offer, tasks, Some(filters)).await;
    }

    fn make(&mut self, offer: &v1::Offer) -> v1::TaskInfo {
        let id = format!("f{}-{:05}", self.settings.index, self.next);
        self.next += 1;
        let life = life(&self.settings.lives, &id);
        let now = Instant::now();
        let (line, expect, kill_at) = match self.random.below(10) {
            0..=3 => (format!("{life}; sleep 0.2"), Expect::Exit(0), None),
            4..=5 => (format!("{life}; sleep 4"), Expect::Exit(0), None),
            6..=7 => (format!("{life}; sleep 1; exit 3"), Expect::Exit(3), None),
            _ => {
                let after = Duration::from_millis(500 + self.random.below(4000));
                // The shell itself is what is killed.
                let line = format!("{life}; while true; do sleep 1; done");
                (line, Expect::Killed, Some(now + after))
            }
        };
        self.history.launching(&id, expect);
        let alive = Alive {
            agent_id: offer.agent_id.clone(),
            kill_at,
            news: now,
        };
        self.alive.insert(id.clone(), alive);
        let mut info = task::task(id, offer, CPUS, MEM_MB, task::shell(line));
        if self.random.below(100) < self.settings.docker {
            info.container = Some(container(&self.settings.lives));
        }
        info
    }

    /// Kills what is due and asks for what was silent for long.
    async fn look(&mut self) {
        let now = Instant::now();
        let mut doubtful = Vec::new();
        for (id, alive) in &mut self.alive {
            let task_id = || v1::TaskId { value: id.clone() };
            if alive.kill_at.is_some_and(|it| it <= now) {
                alive.kill_at = Some(now + KILL_AGAIN);
                let _ = self.driver.kill(task_id()).await;
            }
            if now.saturating_duration_since(alive.news) >= DOUBT {
                alive.news = now;
                doubtful.push(v1::scheduler::call::reconcile::Task {
                    task_id: task_id(),
                    agent_id: Some(alive.agent_id.clone()),
                });
            }
        }
        if !doubtful.is_empty() {
            let _ = self.driver.call(call::reconcile(doubtful)).await;
        }
    }
}

/// A container that sees where lives are written down, under the same name.
fn container(lives: &Path) -> v1::ContainerInfo {
    let lives = lives.display().to_string();
    v1::ContainerInfo {
        r#type: v1::container_info::Type::Docker as i32,
        volumes: vec![v1::Volume {
            mode: v1::volume::Mode::Rw as i32,
            container_path: lives.clone(),
            host_path: Some(lives),
            ..v1::Volume::default()
        }],
        docker: Some(v1::container_info::DockerInfo {
            image: IMAGE.to_owned(),
            network: Some(v1::container_info::docker_info::Network::None as i32),
            ..v1::container_info::DockerInfo::default()
        }),
        ..v1::ContainerInfo::default()
    }
}

/// The command that leaves a trace of a life.
fn life(folder: &Path, task: &str) -> String {
    format!("echo $$ >> {}/{task}", folder.display())
}
