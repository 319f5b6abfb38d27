//! Control groups: limits, accounting, and the news of an out-of-memory kill.
//!
//! One folder per agent and container in each hierarchy: `<root>/<owner>/<container>`. Version
//! 1 has a hierarchy per controller, version 2 one for all; which is there is found out from
//! what is mounted. The mount point is a setting, so tests use a directory of plain files.

mod v1;
mod v2;

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// Least memory limit, as in Mesos.
pub const MIN_MEMORY: u64 = 32 << 20;
/// Least number of cpu shares that the kernel takes.
pub const MIN_SHARES: u64 = 2;
/// Shares of one whole processor.
pub const SHARES_PER_CPU: f64 = 1024.0;
/// Shares of one whole processor that may be taken back, as in Mesos.
pub const SHARES_PER_REVOCABLE_CPU: f64 = 10.0;
/// Least quota, in microseconds, as in Mesos.
pub const MIN_QUOTA_US: u64 = 1000;
/// Period of the quota, in microseconds.
pub const PERIOD_US: u64 = 100_000;

/// What a container may use. `None` sets nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Share of the processors when they are contended; 1024 is one.
    pub cpu_shares: Option<u64>,
    /// Processor time per [`PERIOD_US`], in microseconds.
    pub cpu_quota_us: Option<u64>,
    /// Hard limit of memory, in bytes.
    pub memory: Option<u64>,
    /// Memory that is kept when the machine runs short, in bytes.
    pub memory_reservation: Option<u64>,
    /// Whether the hard limit is for memory and swap together.
    pub limit_swap: bool,
    /// Most processes and threads.
    pub pids: Option<u64>,
}

/// `--cpu-shares` of a number of processors; next to nothing for one that comes last.
pub fn shares(cpus: f64, comes_last: bool) -> u64 {
    let each = match comes_last {
        true => SHARES_PER_REVOCABLE_CPU,
        false => SHARES_PER_CPU,
    };
    ((cpus * each) as u64).max(MIN_SHARES)
}

/// `--cpu-quota` of a number of processors, in microseconds.
pub fn quota_us(cpus: f64) -> u64 {
    ((cpus * PERIOD_US as f64) as u64).max(MIN_QUOTA_US)
}

/// Bytes of a memory amount in megabytes, at least [`MIN_MEMORY`].
pub fn memory_bytes(megabytes: f64) -> u64 {
    ((megabytes * (1 << 20) as f64) as u64).max(MIN_MEMORY)
}

/// What a container has used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time in user mode.
    pub cpu_user: Duration,
    /// Processor time in the kernel.
    pub cpu_system: Duration,
    /// Periods in which there was something to run.
    pub periods: Option<u64>,
    /// Periods in which the quota ran out.
    pub throttled_periods: Option<u64>,
    /// Time spent waiting for the next period.
    pub throttled: Option<Duration>,
    /// Memory in use, page cache included, in bytes.
    pub memory_total: Option<u64>,
    /// Memory and swap in use, in bytes.
    pub memory_swap_total: Option<u64>,
    /// Anonymous memory, in bytes.
    pub memory_rss: Option<u64>,
    /// Page cache, in bytes.
    pub memory_cache: Option<u64>,
    /// Mapped files, in bytes.
    pub memory_mapped: Option<u64>,
    /// Swap, in bytes.
    pub swap: Option<u64>,
    /// Memory that cannot be reclaimed, in bytes.
    pub unevictable: Option<u64>,
    /// Hard limit in force, in bytes; `None` for no limit.
    pub memory_limit: Option<u64>,
    /// Processes.
    pub processes: Option<u32>,
    /// Threads.
    pub threads: Option<u32>,
}

/// The cgroup tree of this agent.
#[derive(Clone, Debug)]
pub enum Tree {
    /// A hierarchy per controller.
    V1(v1::Tree),
    /// One hierarchy.
    V2(v2::Tree),
}

/// The cgroup of one container.
#[derive(Clone, Debug)]
pub enum Group {
    /// Version 1.
    V1(v1::Group),
    /// Version 2.
    V2(v2::Group),
}

impl Tree {
    /// Finds out what is mounted at `hierarchy` and makes our folder (`root` names it, such as
    /// `tepui/<owner>`) where containers go.
    ///
    /// # Errors
    /// In words for the log, when there is nothing usable or we may not use it.
    pub fn open(hierarchy: &Path, root: &str) -> Result<Tree, String> {
        if hierarchy.join("cgroup.controllers").exists() {
            v2::Tree::open(hierarchy, root).map(Tree::V2)
        } else {
            v1::Tree::open(hierarchy, root).map(Tree::V1)
        }
    }

    /// The group of a container, made or not.
    pub fn group(&self, name: &str) -> Group {
        match self {
            Tree::V1(tree) => Group::V1(tree.group(name)),
            Tree::V2(tree) => Group::V2(tree.group(name)),
        }
    }

    /// Names of all containers' groups that are there.
    pub fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Tree::V1(tree) => tree.folders().flat_map(|it| folders(&it)).collect(),
            Tree::V2(tree) => folders(tree.folder()),
        };
        names.sort();
        names.dedup();
        names
    }

    /// For the log: `version 1 (cpu, memory...)`.
    pub fn describe(&self) -> String {
        match self {
            Tree::V1(tree) => format!("version 1 ({})", tree.controllers().join(", ")),
            Tree::V2(tree) => format!("version 2 ({})", tree.controllers().join(", ")),
        }
    }
}

impl Group {
    /// The group that a process is in, whoever made it.
    pub fn of_process(hierarchy: &Path, pid: u32) -> Option<Group> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        if hierarchy.join("cgroup.controllers").exists() {
            v2::Group::of(hierarchy, &text).map(Group::V2)
        } else {
            v1::Group::of(hierarchy, &text).map(Group::V1)
        }
    }

    /// Whether a wake-up of [`Group::oom_events`] means an out-of-memory kill.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            // The descriptor tells nothing else, and it tells before the kernel counts.
            Group::V1(_) => true,
            Group::V2(group) => group.oom_kills() > 0,
        }
    }

    /// Makes the group with these limits.
    ///
    /// # Errors
    /// Names the file that the kernel refused.
    pub fn create(&self, limits: &Limits) -> Result<(), String> {
        match self {
            Group::V1(group) => group.create(limits),
            Group::V2(group) => group.create(limits),
        }
    }

    /// The `cgroup.procs` files that a process joins by writing `0`.
    pub fn procs(&self) -> Vec<PathBuf> {
        match self {
            Group::V1(group) => group.folders().map(|it| it.join("cgroup.procs")).collect(),
            Group::V2(group) => vec![group.folder().join("cgroup.procs")],
        }
    }

    /// The file that kills all processes of the group, where the kernel has it.
    pub fn kill_file(&self) -> Option<PathBuf> {
        match self {
            Group::V1(_) => None,
            Group::V2(group) => Some(group.folder().join("cgroup.kill")).filter(|it| it.exists()),
        }
    }

    /// How many out-of-memory kills there were in the group.
    pub fn oom_kills(&self) -> u64 {
        match self {
            Group::V1(group) => group.oom_kills(),
            Group::V2(group) => group.oom_kills(),
        }
    }

    /// A descriptor that becomes readable when the group may have run out of memory; look at
    /// [`Group::oom_kills`] then.
    ///
    /// # Errors
    /// When the kernel does not offer it; the count at the end still tells.
    pub fn oom_events(&self) -> io::Result<OwnedFd> {
        match self {
            Group::V1(group) => group.oom_events(),
            Group::V2(group) => group.oom_events(),
        }
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        match self {
            Group::V1(group) => group.usage(),
            Group::V2(group) => group.usage(),
        }
    }

    /// Processes in the group.
    pub fn processes(&self) -> Vec<i32> {
        let mut all: Vec<i32> = self
            .procs()
            .iter()
            .filter_map(|it| fs::read_to_string(it).ok())
            .flat_map(|it| {
                it.lines()
                    .filter_map(|it| it.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// SIGKILL to every process in it, in one go where the kernel can, by list otherwise.
    pub fn kill(&self) {
        if let Some(file) = self.kill_file()
            && fs::write(file, "1").is_ok()
        {
            return;
        }
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone already is as good as killed.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes the group; no error when it is gone.
    ///
    /// # Errors
    /// When a process is still in it: kill first, then try again.
    pub fn remove(&self) -> io::Result<()> {
        match self {
            Group::V1(group) => group.folders().try_for_each(|it| remove(&it)),
            Group::V2(group) => remove(group.folder()),
        }
    }
}

/// Removes a group and those that a task made below it.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let below = folders(folder);
            if below.is_empty() {
                return Err(error);
            }
            below.iter().try_for_each(|it| remove(&folder.join(it)))?;
            fs::remove_dir(folder)
        }
    }
}

fn folders(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()))
        .filter_map(|it| it.file_name().into_string().ok())
        .collect()
}

/// A number alone in a file; `max` and anything else is `None`.
fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The value of a `key value` line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

fn write(file: PathBuf, value: impl ToString) -> Result<(), String> {
    let value = value.to_string();
    fs::write(&file, &value)
        .map_err(|error| format!("write {value} to {}: {error}", file.display()))
}

/// Lines of a file: processes or threads.
fn count_lines(file: &Path) -> Option<u32> {
    Some(fs::read_to_string(file).ok()?.lines().count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_mesos_floors() {
        assert_eq!([0.0, 0.5, 2.0].map(|it| shares(it, false)), [2, 512, 2048]);
        assert_eq!([0.0, 0.5, 2.0].map(|it| shares(it, true)), [2, 5, 20]);
        assert_eq!([quota_us(0.001), quota_us(0.5)], [1000, 50_000]);
        assert_eq!(
            [memory_bytes(1.0), memory_bytes(64.0)],
            [32 << 20, 64 << 20]
        );
    }

    #[test]
    fn fields_match_whole_keys() {
        let text = "oom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(field(text, "oom_kill"), Some(2));
        assert_eq!(field(text, "oom_k"), None);
    }
}
