//! Version 2: one hierarchy, controllers switched on folder by folder.

use super::{Limits, PERIOD_US, Usage, count_lines, field, read_number, write};
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Controllers that we use, when they are there.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Our folder.
#[derive(Clone, Debug)]
pub struct Tree {
    folder: PathBuf,
    controllers: Vec<&'static str>,
}

/// The folder of one container.
#[derive(Clone, Debug)]
pub struct Group {
    folder: PathBuf,
    controllers: Vec<&'static str>,
}

/// Weight of version 2 (1 to 10000, 100 is usual) that stands for shares of version 1 (2 to
/// 262144, 1024 is usual): the conversion that container engines have agreed on.
pub(super) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

impl Tree {
    pub(super) fn open(hierarchy: &Path, root: &str) -> Result<Tree, String> {
        let read = |folder: &Path| {
            fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default()
        };
        let offered = read(hierarchy);
        let controllers: Vec<&'static str> = CONTROLLERS
            .into_iter()
            .filter(|it| offered.split_ascii_whitespace().any(|one| one == *it))
            .collect();
        // A controller must be switched on in every folder above those that use it.
        let mut folder = hierarchy.to_owned();
        enable(&folder, &controllers)?;
        for part in Path::new(root) {
            folder.push(part);
            if !folder.is_dir() {
                fs::create_dir(&folder)
                    .map_err(|error| format!("create {}: {error}", folder.display()))?;
            }
            enable(&folder, &controllers)?;
        }
        Ok(Tree {
            folder,
            controllers,
        })
    }

    pub(super) fn group(&self, name: &str) -> Group {
        Group {
            folder: self.folder.join(name),
            controllers: self.controllers.clone(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }
}

fn enable(folder: &Path, controllers: &[&str]) -> Result<(), String> {
    let file = folder.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).unwrap_or_default();
    for controller in controllers {
        if !on.split_ascii_whitespace().any(|it| it == *controller) {
            write(file.clone(), format!("+{controller}"))?;
        }
    }
    Ok(())
}

impl Group {
    /// From the text of `/proc/<pid>/cgroup`: a line `0::<path>`.
    pub(super) fn of(hierarchy: &Path, text: &str) -> Option<Group> {
        let path = text.lines().find_map(|it| it.strip_prefix("0::/"))?;
        (!path.is_empty()).then(|| Group {
            folder: hierarchy.join(path),
            controllers: CONTROLLERS.to_vec(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn create(&self, limits: &Limits) -> Result<(), String> {
        let file = |name: &str| self.folder.join(name);
        fs::create_dir_all(&self.folder)
            .map_err(|error| format!("create {}: {error}", self.folder.display()))?;
        if self.has("cpu") {
            if let Some(shares) = limits.cpu_shares {
                write(file("cpu.weight"), weight(shares))?;
            }
            if let Some(quota) = limits.cpu_quota_us {
                write(file("cpu.max"), format!("{quota} {PERIOD_US}"))?;
            }
        }
        if self.has("memory") {
            if let Some(bytes) = limits.memory_reservation {
                write(file("memory.low"), bytes)?;
            }
            if let Some(bytes) = limits.memory {
                write(file("memory.max"), bytes)?;
                // The limit of swap is apart here: none at all holds both to `memory.max`.
                if limits.limit_swap && file("memory.swap.max").exists() {
                    write(file("memory.swap.max"), 0)?;
                }
                // A task without one of its processes is of no use; the kernel takes all.
                if file("memory.oom.group").exists() {
                    write(file("memory.oom.group"), 1)?;
                }
            }
        }
        if let (true, Some(most)) = (self.has("pids"), limits.pids) {
            write(file("pids.max"), most)?;
        }
        Ok(())
    }

    pub(super) fn oom_kills(&self) -> u64 {
        fs::read_to_string(self.folder.join("memory.events"))
            .ok()
            .and_then(|it| field(&it, "oom_kill"))
            .unwrap_or(0)
    }

    /// An inotify descriptor: the kernel reports a change of `memory.events` as a write.
    pub(super) fn oom_events(&self) -> io::Result<OwnedFd> {
        let file = self.folder.join("memory.events");
        let path = CString::new(file.as_os_str().as_bytes())?;
        // SAFETY: the path ends in NUL; the descriptor is ours alone on success.
        unsafe {
            let fd = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            if libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(fd)
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let number = |name: &str| read_number(&self.folder.join(name));
        let cpu = read("cpu.stat");
        let micros = |key| field(&cpu, key).map(Duration::from_micros);
        let memory = read("memory.stat");
        let (total, swap) = (number("memory.current"), number("memory.swap.current"));
        Usage {
            cpu_user: micros("user_usec").unwrap_or_default(),
            cpu_system: micros("system_usec").unwrap_or_default(),
            periods: field(&cpu, "nr_periods"),
            throttled_periods: field(&cpu, "nr_throttled"),
            throttled: micros("throttled_usec"),
            memory_total: total,
            memory_swap_total: total.map(|it| it + swap.unwrap_or(0)),
            memory_rss: field(&memory, "anon"),
            memory_cache: field(&memory, "file"),
            memory_mapped: field(&memory, "file_mapped"),
            swap,
            unevictable: field(&memory, "unevictable"),
            memory_limit: number("memory.max"),
            processes: count_lines(&self.folder.join("cgroup.procs")),
            threads: count_lines(&self.folder.join("cgroup.threads")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of plain files in the place of the kernel's.
    fn fake() -> (tempfile::TempDir, Group) {
        let mount = tempfile::tempdir().expect("a temporary directory");
        fs::write(
            mount.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .expect("write");
        let tree = Tree::open(mount.path(), "tepui/owner").expect("open");
        let group = tree.group("c1");
        (mount, group)
    }

    #[test]
    fn limits_land_in_the_files_of_version_2() {
        let (_mount, group) = fake();
        fs::create_dir_all(group.folder()).expect("create");
        fs::write(group.folder().join("memory.swap.max"), "max").expect("write");
        fs::write(group.folder().join("memory.oom.group"), "0").expect("write");
        group
            .create(&Limits {
                cpu_shares: Some(512),
                cpu_quota_us: Some(50_000),
                memory: Some(64 << 20),
                memory_reservation: Some(32 << 20),
                limit_swap: true,
                pids: Some(100),
            })
            .expect("create");
        for (name, value) in [
            ("cpu.weight", "20"),
            ("cpu.max", "50000 100000"),
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "100"),
        ] {
            let found = fs::read_to_string(group.folder().join(name)).unwrap_or_default();
            assert_eq!(found, value, "{name}");
        }
    }

    #[test]
    fn controllers_are_switched_on_on_the_way_down() {
        let (mount, _group) = fake();
        for folder in ["", "tepui", "tepui/owner"] {
            let file = mount.path().join(folder).join("cgroup.subtree_control");
            // Plain files keep the last write only; the kernel would keep all three.
            assert_eq!(
                fs::read_to_string(file).unwrap_or_default(),
                "+pids",
                "{folder}"
            );
        }
    }

    #[test]
    fn usage_and_kills_are_read() {
        let (_mount, group) = fake();
        fs::create_dir_all(group.folder()).expect("create");
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 7\nnr_throttled 6\nthrottled_usec 8\n",
            ),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 10\nfile 20\nfile_mapped 5\n"),
            ("cgroup.procs", "1\n2\n"),
        ] {
            fs::write(group.folder().join(name), text).expect("write");
        }
        let usage = group.usage();
        assert_eq!(usage.cpu_user, Duration::from_micros(5));
        assert_eq!(usage.throttled, Some(Duration::from_micros(8)));
        assert_eq!((usage.memory_rss, usage.memory_limit), (Some(10), None));
        assert_eq!((usage.memory_total, usage.processes), (Some(4096), Some(2)));
        assert_eq!(group.oom_kills(), 1);
    }

    #[test]
    fn weights_agree_with_the_ends_and_the_usual_value() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
