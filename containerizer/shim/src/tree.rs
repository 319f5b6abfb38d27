//! Signals for every process of a task, however it forked.
//!
//! With a pid namespace of its own this is exact: the namespace's init passes SIGTERM on with
//! `kill(-1)`, and when it is killed the kernel kills all. Without one the shim is the
//! subreaper: whatever forks, starts sessions and loses its parents stays a descendant, so the
//! descendants are walked until there are none.

use crate::sys::{self, Reaped};
use libc::pid_t;
use std::{ffi::CStr, os::fd::RawFd};

/// How the tree of a task is reached.
pub struct Tree<'a> {
    /// Init of the task's pid namespace.
    pub init: Option<pid_t>,
    /// A `cgroup.kill` file.
    pub cgroup_kill: Option<&'a CStr>,
}

impl Tree<'_> {
    /// SIGTERM to all.
    pub fn terminate(&self) {
        match self.init {
            Some(init) => sys::kill(init, libc::SIGTERM),
            None => descendants().for_each(|pid| sys::kill(pid, libc::SIGTERM)),
        }
    }

    /// SIGKILL to all; returns at once.
    pub fn kill(&self) {
        if let Some(file) = self.cgroup_kill
            && let Ok(fd) = sys::openat(libc::AT_FDCWD, file, libc::O_WRONLY, 0)
        {
            use std::os::fd::AsRawFd;
            // A failure is no harm: the walk below does the same, slower.
            let _ = sys::write(fd.as_raw_fd(), b"1");
        }
        match self.init {
            Some(init) => sys::kill(init, libc::SIGKILL),
            None => descendants().for_each(|pid| sys::kill(pid, libc::SIGKILL)),
        }
    }

    /// Kills until no child is left. Call it after the task itself was reaped: init waits for
    /// every process of its namespace to be.
    pub fn kill_all(&self, signals: RawFd) {
        loop {
            // First a look: the usual task has left nothing behind, and a walk is not free.
            loop {
                match sys::reap() {
                    Reaped::Child(..) => {}
                    Reaped::None => return,
                    Reaped::Running => break,
                }
            }
            self.kill();
            // The next SIGCHLD, or in 20 ms another round: something may have forked between
            // the walk and the signal.
            let mut descriptor = [libc::pollfd {
                fd: signals,
                events: libc::POLLIN,
                revents: 0,
            }];
            sys::poll(&mut descriptor, 20);
            while sys::next_signal(signals).is_some() {}
        }
    }
}

/// Runs as init of the task's pid namespace: reaps orphans, passes SIGTERM on. Never returns.
pub fn init() -> ! {
    // SAFETY: plain system calls; the set is initialised. Dying with the shim takes the whole
    // namespace along. Closing everything lets go of the agent's pipe.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"tepui-init".as_ptr());
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        let set = sys::signal_set();
        loop {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let signal = libc::sigwaitinfo(&set, &mut info);
            // Only a process outside of the namespace has no pid in it: the shim. The task's
            // own processes cannot make init do anything.
            if signal == libc::SIGTERM && info.si_pid() == 0 {
                libc::kill(-1, libc::SIGTERM);
            }
            while matches!(sys::reap(), Reaped::Child(..)) {}
        }
    }
}

/// Every descendant of this process, from one pass over `/proc`.
fn descendants() -> impl Iterator<Item = pid_t> {
    let mut parents: Vec<(pid_t, pid_t)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: pid_t = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, parent(pid)?))
        })
        .collect();
    let mut found = vec![std::process::id() as pid_t];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        parents.retain(|(pid, its)| {
            let child = *its == parent;
            if child {
                found.push(*pid);
            }
            !child
        });
        at += 1;
    }
    found.into_iter().skip(1)
}

/// Field 4 of `/proc/<pid>/stat`.
fn parent(pid: pid_t) -> Option<pid_t> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|it| *it == b')')?;
    std::str::from_utf8(&stat[after + 1..])
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
