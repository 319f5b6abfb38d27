//! Version 1: one hierarchy per controller, each mounted below the mount point.

use super::{Limits, PERIOD_US, Usage, count_lines, field, read_number, write};
use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// Controllers that we use, when they are there.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

/// Length of the clock tick in which `cpuacct.stat` counts.
const TICK: Duration = Duration::from_millis(10);

/// Our folder in each hierarchy.
#[derive(Clone, Debug)]
pub struct Tree {
    folders: Vec<(&'static str, PathBuf)>,
}

/// The folders of one container.
#[derive(Clone, Debug)]
pub struct Group {
    folders: Vec<(&'static str, PathBuf)>,
}

impl Tree {
    pub(super) fn open(hierarchy: &Path, root: &str) -> Result<Tree, String> {
        let mut folders: Vec<(&'static str, PathBuf)> = Vec::new();
        for controller in CONTROLLERS {
            let mount = hierarchy.join(controller);
            if !mount.join("cgroup.procs").exists() {
                continue;
            }
            // `cpu` and `cpuacct` are often two links to one hierarchy.
            let mount = mount.canonicalize().unwrap_or(mount);
            let folder = mount.join(root);
            fs::create_dir_all(&folder)
                .map_err(|error| format!("create {}: {error}", folder.display()))?;
            if controller == "memory" {
                // Children count into parents; without it a task could hide memory in a group
                // of its own. Refused where it is on already, which is everywhere by now.
                let _ = fs::write(folder.join("memory.use_hierarchy"), "1");
            }
            folders.push((controller, folder));
        }
        if folders.is_empty() {
            return Err(format!("no cgroup hierarchy below {}", hierarchy.display()));
        }
        Ok(Tree { folders })
    }

    pub(super) fn group(&self, name: &str) -> Group {
        Group {
            folders: self
                .folders
                .iter()
                .map(|(controller, folder)| (*controller, folder.join(name)))
                .collect(),
        }
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|(_, folder)| folder.clone())
    }

    pub(super) fn controllers(&self) -> Vec<&'static str> {
        self.folders.iter().map(|(it, _)| *it).collect()
    }
}

impl Group {
    /// From the text of `/proc/<pid>/cgroup`: lines `<id>:<controllers>:<path>`.
    pub(super) fn of(hierarchy: &Path, text: &str) -> Option<Group> {
        let folders: Vec<_> = CONTROLLERS
            .into_iter()
            .filter_map(|controller| {
                let path = text.lines().find_map(|line| {
                    let (_, rest) = line.split_once(':')?;
                    let (controllers, path) = rest.split_once(':')?;
                    controllers
                        .split(',')
                        .any(|it| it == controller)
                        .then_some(path)
                })?;
                // The root of a hierarchy is no container's.
                let path = path.strip_prefix('/').filter(|it| !it.is_empty())?;
                Some((controller, hierarchy.join(controller).join(path)))
            })
            .collect();
        (!folders.is_empty()).then_some(Group { folders })
    }

    fn folder_of(&self, controller: &str) -> Option<&Path> {
        self.folders
            .iter()
            .find(|(it, _)| *it == controller)
            .map(|(_, folder)| folder.as_path())
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let mut all: Vec<PathBuf> = self.folders.iter().map(|(_, it)| it.clone()).collect();
        all.dedup();
        all.into_iter()
    }

    pub(super) fn create(&self, limits: &Limits) -> Result<(), String> {
        for folder in self.folders() {
            fs::create_dir_all(&folder)
                .map_err(|error| format!("create {}: {error}", folder.display()))?;
        }
        if let Some(cpu) = self.folder_of("cpu") {
            if let Some(shares) = limits.cpu_shares {
                write(cpu.join("cpu.shares"), shares)?;
            }
            if let Some(quota) = limits.cpu_quota_us {
                write(cpu.join("cpu.cfs_period_us"), PERIOD_US)?;
                write(cpu.join("cpu.cfs_quota_us"), quota)?;
            }
        }
        if let Some(memory) = self.folder_of("memory") {
            if let Some(bytes) = limits.memory_reservation {
                write(memory.join("memory.soft_limit_in_bytes"), bytes)?;
            }
            if let Some(bytes) = limits.memory {
                write(memory.join("memory.limit_in_bytes"), bytes)?;
                let both = memory.join("memory.memsw.limit_in_bytes");
                if limits.limit_swap && both.exists() {
                    write(both, bytes)?;
                }
            }
        }
        if let (Some(pids), Some(most)) = (self.folder_of("pids"), limits.pids) {
            write(pids.join("pids.max"), most)?;
        }
        Ok(())
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.folder_of("memory")
            .and_then(|it| fs::read_to_string(it.join("memory.oom_control")).ok())
            .and_then(|it| field(&it, "oom_kill"))
            .unwrap_or(0)
    }

    /// An eventfd that the kernel counts up on each out-of-memory condition.
    pub(super) fn oom_events(&self) -> io::Result<OwnedFd> {
        let memory = self.folder_of("memory").ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: plain system call; the descriptor is ours alone on success.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let control = fs::File::open(memory.join("memory.oom_control"))?;
        fs::write(
            memory.join("cgroup.event_control"),
            format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
        )?;
        Ok(event)
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |controller: &str, file: &str| {
            self.folder_of(controller)
                .and_then(|it| fs::read_to_string(it.join(file)).ok())
                .unwrap_or_default()
        };
        let number = |controller: &str, file: &str| {
            self.folder_of(controller)
                .and_then(|it| read_number(&it.join(file)))
        };
        let times = read("cpuacct", "cpuacct.stat");
        let ticks = |key| TICK * field(&times, key).unwrap_or(0).min(u64::from(u32::MAX)) as u32;
        let throttling = read("cpu", "cpu.stat");
        let memory = read("memory", "memory.stat");
        let tasks = |file| {
            self.folders
                .first()
                .and_then(|(_, it)| count_lines(&it.join(file)))
        };
        Usage {
            cpu_user: ticks("user"),
            cpu_system: ticks("system"),
            periods: field(&throttling, "nr_periods"),
            throttled_periods: field(&throttling, "nr_throttled"),
            throttled: field(&throttling, "throttled_time").map(Duration::from_nanos),
            memory_total: number("memory", "memory.usage_in_bytes"),
            memory_swap_total: number("memory", "memory.memsw.usage_in_bytes"),
            memory_rss: field(&memory, "total_rss"),
            memory_cache: field(&memory, "total_cache"),
            memory_mapped: field(&memory, "total_mapped_file"),
            swap: field(&memory, "total_swap"),
            unevictable: field(&memory, "total_unevictable"),
            // "No limit" is a number of pages just below 2^63 here.
            memory_limit: number("memory", "memory.limit_in_bytes").filter(|it| *it < 1 << 62),
            processes: tasks("cgroup.procs"),
            threads: tasks("tasks"),
        }
    }
}
