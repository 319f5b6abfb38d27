//! Sandboxes: shown below `/files` while they exist, deleted some time after their end,
//! earlier when the disk fills.

use crate::{config::Settings, resources::disk_usage};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tepui_agent_machine::{gc::Schedule, model::time::WallTime};
use tepui_server::files::Files;

#[derive(Debug)]
struct State {
    /// Runs that are not over.
    live: BTreeSet<PathBuf>,
    /// Ended runs with the time of their end.
    ended: Schedule,
}

/// Knows every sandbox of the work folder.
#[derive(Debug)]
pub(crate) struct Collector {
    work_dir: PathBuf,
    files: Files,
    state: Mutex<State>,
    /// Sandboxes deleted.
    pub(crate) succeeded: AtomicU64,
    /// Sandboxes that could not be deleted.
    pub(crate) failed: AtomicU64,
}

impl Collector {
    /// Knows nothing yet.
    pub(crate) fn new(settings: &Settings, files: Files) -> Collector {
        Collector {
            work_dir: settings.work_dir.clone(),
            files,
            state: Mutex::new(State {
                live: BTreeSet::new(),
                ended: Schedule::new(settings.gc_delay, settings.gc_headroom),
            }),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the sandboxes on the disk: those of `live` containers are kept, the others ended
    /// when they were changed last. Reads the disk.
    pub(crate) fn scan(&self, live: &[String]) {
        for run in runs(&self.work_dir) {
            self.attach(&run);
            let name = run
                .file_name()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            let mut state = self.lock();
            if live.iter().any(|it| it == name) {
                state.live.insert(run);
            } else if !state.live.contains(&run) {
                let changed = fs::metadata(&run).and_then(|it| it.modified());
                let changed = wall(changed.unwrap_or_else(|_| SystemTime::now()));
                state.ended.add(text(&run), changed);
            }
        }
    }

    /// A run begins.
    pub(crate) fn keep(&self, sandbox: &Path) {
        self.attach(sandbox);
        let mut state = self.lock();
        state.ended.cancel(&text(sandbox));
        state.live.insert(sandbox.to_owned());
    }

    /// A run is over.
    pub(crate) fn release(&self, sandbox: &Path) {
        let mut state = self.lock();
        if state.live.remove(sandbox) {
            state.ended.add(text(sandbox), wall(SystemTime::now()));
        }
    }

    /// The sandbox of a container that runs.
    pub(crate) fn sandbox_of(&self, container_id: &str) -> Option<PathBuf> {
        let state = self.lock();
        let mut live = state.live.iter();
        live.find(|it| it.file_name().is_some_and(|name| name == container_id))
            .cloned()
    }

    /// How many sandboxes wait for their deletion.
    pub(crate) fn pending(&self) -> usize {
        self.lock().ended.len()
    }

    /// The greatest age of an ended run: less when the disk fills.
    pub(crate) fn allowed_age(&self) -> Duration {
        let usage = disk_usage(&self.work_dir).unwrap_or(0.0);
        self.lock().ended.allowed_age(usage)
    }

    /// Under its own path, and as the latest of its executor by two paths.
    fn attach(&self, run: &Path) {
        let Some(path) = run.to_str() else { return };
        self.files.attach(path, run);
        let Some(executor) = run.parent().and_then(Path::parent) else {
            return;
        };
        for latest in latest(executor) {
            // Runs come in no order at start; later ones replace earlier ones.
            let newest = fs::canonicalize(executor.join("runs/latest"));
            self.files
                .attach(latest, newest.unwrap_or_else(|_| run.to_owned()));
        }
    }

    fn detach(&self, run: &Path) {
        let Some(path) = run.to_str() else { return };
        self.files.detach(path);
        let Some(executor) = run.parent().and_then(Path::parent) else {
            return;
        };
        for latest in latest(executor) {
            if self
                .files
                .attached()
                .get(&latest)
                .is_some_and(|it| it == run)
            {
                self.files.detach(&latest);
            }
        }
    }

    /// Deletes what is old enough. Writes to the disk.
    pub(crate) fn collect(&self) {
        let now = wall(SystemTime::now());
        let usage = disk_usage(&self.work_dir);
        let due = self.lock().ended.due(now, usage);
        for run in due.into_iter().map(PathBuf::from) {
            self.detach(&run);
            match fs::remove_dir_all(&run) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    self.failed.fetch_add(1, Relaxed);
                    tracing::warn!(sandbox = %run.display(), %error, "cannot be deleted yet");
                    // Tried again an age later at the earliest when the disk has room.
                    self.lock().ended.add(text(&run), now);
                    continue;
                }
                _ => {
                    self.succeeded.fetch_add(1, Relaxed);
                    tracing::info!(sandbox = %run.display(), "deleted");
                }
            }
            remove_empty_parents(&run, &self.work_dir.join("slaves"));
        }
    }

    /// Collects at intervals, for ever.
    pub(crate) async fn run(self: std::sync::Arc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let collector = self.clone();
            // A panic there would be reported and is not ours to repeat.
            let _ = tokio::task::spawn_blocking(move || collector.collect()).await;
        }
    }
}

/// Sandboxes are named by Mesos' ids, which are texts, below a folder that a flag named.
fn text(run: &Path) -> String {
    run.to_string_lossy().into_owned()
}

fn wall(time: SystemTime) -> WallTime {
    let since = time.duration_since(UNIX_EPOCH);
    WallTime(since.map_or(0.0, |it| it.as_secs_f64()))
}

/// The virtual paths of an executor's latest run.
fn latest(executor: &Path) -> Vec<String> {
    let name = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
    let framework = executor.parent().and_then(Path::parent);
    let mut all = Vec::new();
    if let Some(path) = executor.join("runs/latest").to_str() {
        all.push(path.to_owned());
    }
    if let (Some(framework), Some(executor)) = (name(framework), name(Some(executor))) {
        all.push(format!(
            "/frameworks/{framework}/executors/{executor}/runs/latest"
        ));
    }
    all
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    // Links, such as `latest`, are not followed.
    let folders = entries
        .flatten()
        .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    folders.map(|it| it.path()).collect()
}

/// Every sandbox below the work folder.
fn runs(work_dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for agent in children(&work_dir.join("slaves")) {
        for framework in children(&agent.join("frameworks")) {
            for executor in children(&framework.join("executors")) {
                all.extend(children(&executor.join("runs")));
            }
        }
    }
    all
}

/// Removes the folders above a run that hold nothing any more.
fn remove_empty_parents(run: &Path, top: &Path) {
    let parents = run.ancestors().skip(1);
    for parent in parents.take_while(|it| it.starts_with(top) && *it != top) {
        if parent.file_name().is_some_and(|it| it == "runs") && children(parent).is_empty() {
            // It dangles.
            let _ = fs::remove_file(parent.join("latest"));
        }
        // Refused while anything is in it.
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(work_dir: &Path, delay: Duration) -> Collector {
        Collector {
            work_dir: work_dir.to_owned(),
            files: Files::new(),
            state: Mutex::new(State {
                live: BTreeSet::new(),
                ended: Schedule::new(delay, 0.0),
            }),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn sandbox(work_dir: &Path, run: &str) -> PathBuf {
        let path = work_dir
            .join("slaves/a/frameworks/f/executors/e/runs")
            .join(run);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("stdout"), "hello").unwrap();
        path
    }

    #[test]
    fn ended_runs_are_deleted_and_live_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (live, ended) = (
            sandbox(folder.path(), "live"),
            sandbox(folder.path(), "ended"),
        );
        let collector = collector(folder.path(), Duration::ZERO);
        collector.scan(&["live".to_owned()]);
        assert_eq!(collector.pending(), 1);
        collector.collect();
        assert!(live.exists() && !ended.exists());
        assert!(
            collector
                .files
                .attached()
                .contains_key(live.to_str().unwrap())
        );
        assert!(
            !collector
                .files
                .attached()
                .contains_key(ended.to_str().unwrap())
        );

        assert_eq!(collector.sandbox_of("live"), Some(live.clone()));
        collector.release(&live);
        collector.collect();
        assert!(
            !folder.path().join("slaves/a").exists(),
            "empty folders go, too"
        );
        assert_eq!(collector.succeeded.load(Relaxed), 2);
    }

    #[test]
    fn young_runs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let run = sandbox(folder.path(), "run");
        let collector = collector(folder.path(), Duration::from_secs(1 << 30));
        collector.keep(&run);
        collector.release(&run);
        collector.collect();
        assert!(run.exists() && collector.pending() == 1);
    }
}
