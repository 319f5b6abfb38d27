//! `tepui-shim run`: one task from its start to its exit status on disk.

use crate::{
    child::{self, Streams, above_standard},
    logs::Log,
    protocol::{self, Spec},
    sys::{self, Reaped},
    tree::{self, Tree},
};
use libc::{c_int, pid_t};
use std::{
    ffi::{CStr, CString, OsString},
    fmt::Write as _,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
};

/// Read from the task's pipes in one go.
const CHUNK: usize = 16 << 10;

/// Room kept for `exit` while the task runs: more than its longest text without a failure's.
const EXIT_ROOM: usize = 256;

/// Runs the task; the exit code of the shim itself only says whether it could.
pub fn run(folder: OsString) -> i32 {
    match start(folder) {
        Ok(()) => 0,
        Err(message) => {
            answer(&format!("failed {message}\n"));
            1
        }
    }
}

/// Tells the agent that waits on our standard output, and lets go of it.
fn answer(line: &str) {
    // The agent may be dead already: then nobody waits.
    let _ = sys::write(1, line.as_bytes());
    if let Ok(null) = sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0) {
        for target in 0..3 {
            // SAFETY: both descriptors are open or about to be.
            unsafe { libc::dup2(null.as_raw_fd(), target) };
        }
    }
}

fn start(folder: OsString) -> Result<(), String> {
    // A session of its own: neither the agent's terminal nor its death reaches us. Orphans of
    // the task become our children.
    // SAFETY: plain system calls.
    unsafe {
        libc::setsid();
        sys::check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))
            .map_err(|error| format!("become subreaper: {error}"))?;
    }
    sys::take_signals();
    let path = CString::new(folder.into_vec()).map_err(|_| "folder: NUL in its name")?;
    let directory = libc::O_RDONLY | libc::O_DIRECTORY;
    let folder = sys::openat(libc::AT_FDCWD, &path, directory, 0)
        .map_err(|error| format!("open {}: {error}", path.to_string_lossy()))?;
    let bytes = read_all(folder.as_raw_fd(), c"spec").map_err(|error| format!("spec: {error}"))?;
    let spec = protocol::parse(&bytes)?;

    let init = if spec.pid_namespace {
        // Every later child is born in the new namespace, the first as its init. It must be
        // there before any pipe is, or it would hold them open.
        // SAFETY: plain system call.
        sys::check(unsafe { libc::unshare(libc::CLONE_NEWPID) })
            .map_err(|error| format!("make a pid namespace: {error}"))?;
        match sys::fork().map_err(|error| format!("fork: {error}"))? {
            0 => tree::init(),
            pid => Some(pid),
        }
    } else {
        None
    };
    let tree = Tree {
        init,
        cgroup_kill: spec.cgroup_kill,
    };
    let task = launch(&path, &spec, &tree)?;
    drop(path);
    let mut supervisor = Supervisor {
        folder: folder.as_raw_fd(),
        tree,
        task: task.pid,
        signals: task.signals,
        streams: task.streams,
        grace_ms: spec.grace_ms,
        kill_at: None,
        complete_at: spec
            .completion_ms
            .map(|it| sys::monotonic_ms().saturating_add(it)),
        killed: false,
        completion: false,
    };
    answer(&format!("started {}\n", task.pid));
    let status = supervisor.supervise();
    supervisor.finish(status);
    Ok(())
}

struct Task {
    pid: pid_t,
    signals: OwnedFd,
    streams: [(Option<OwnedFd>, Log); 2],
}

/// Forks the task, records it on disk, and lets it go.
fn launch(folder: &CStr, spec: &Spec<'_>, tree: &Tree<'_>) -> Result<Task, String> {
    let signals = sys::signal_fd().map_err(|error| format!("signalfd: {error}"))?;
    let plumbing = |error: io::Error| format!("make pipes: {error}");
    let log_dir = spec.log_dir.ok_or("spec: log_dir is missing")?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let logs = sys::openat(libc::AT_FDCWD, log_dir, flags, 0)
        .map_err(|error| format!("open {}: {error}", log_dir.to_string_lossy()))?;
    // Held open until the shim ends; the logs are opened relative to it.
    let logs = std::os::fd::IntoRawFd::into_raw_fd(logs);
    let open = |name| {
        Log::open(logs, name, spec.user, spec.log_bytes, spec.log_rotated).map_err(|error| {
            let name: &CStr = name;
            format!("open {} of the sandbox: {error}", name.to_string_lossy())
        })
    };
    let (out_log, err_log) = (open(c"stdout")?, open(c"stderr")?);
    let null = sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDONLY, 0).map_err(plumbing)?;
    let (out_read, out_write) = sys::pipe().map_err(plumbing)?;
    let (err_read, err_write) = sys::pipe().map_err(plumbing)?;
    let (go_read, go_write) = sys::pipe().map_err(plumbing)?;
    let (fail_read, fail_write) = sys::pipe().map_err(plumbing)?;
    let null = above_standard(null).map_err(plumbing)?;
    let out_write = above_standard(out_write).map_err(plumbing)?;
    let err_write = above_standard(err_write).map_err(plumbing)?;

    let pid = match sys::fork().map_err(|error| format!("fork: {error}"))? {
        0 => {
            drop(go_write);
            let streams = Streams {
                stdin: null.as_raw_fd(),
                stdout: out_write.as_raw_fd(),
                stderr: err_write.as_raw_fd(),
            };
            let (step, error) = child::become_task(spec, &streams, Some(go_read.as_raw_fd()));
            let text = format!("{step}: {error}");
            let _ = sys::write(fail_write.as_raw_fd(), text.as_bytes());
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(127) }
        }
        pid => pid,
    };
    drop((null, out_write, err_write, go_read, fail_write));
    // The end has to be told on a full disk, too: no task starts that could not tell it.
    let recorded = sys::openat(libc::AT_FDCWD, folder, libc::O_RDONLY, 0)
        .and_then(|it| sys::reserve_file(it.as_raw_fd(), c"exit", EXIT_ROOM))
        .and_then(|()| record(folder, pid, tree.init));
    if recorded.is_ok() {
        let _ = sys::write(go_write.as_raw_fd(), b"g");
    }
    drop(go_write);
    // The end of the pipe is exec (it closes on exec); a text is a failure before.
    let mut text = [0; 512];
    let length = sys::read(fail_read.as_raw_fd(), &mut text).unwrap_or(0);
    let failure = match recorded {
        Err(error) => Some(format!("write state: {error}")),
        Ok(()) if length > 0 => Some(String::from_utf8_lossy(&text[..length]).into_owned()),
        Ok(()) => None,
    };
    if let Some(message) = failure {
        sys::kill(pid, libc::SIGKILL);
        let _ = sys::wait(pid);
        tree.kill_all(signals.as_raw_fd());
        let content = format!(
            "version=1\nfailed={}\nkilled=0\ncompletion=0\nfinished_ms={}\n",
            message.replace('\n', " "),
            sys::wall_ms()
        );
        if let Ok(folder) = sys::openat(libc::AT_FDCWD, folder, libc::O_RDONLY, 0) {
            let _ = sys::write_file(folder.as_raw_fd(), c"exit", content.as_bytes());
        }
        return Err(message);
    }
    sys::set_nonblocking(&out_read).map_err(plumbing)?;
    sys::set_nonblocking(&err_read).map_err(plumbing)?;
    Ok(Task {
        pid,
        signals,
        streams: [(Some(out_read), out_log), (Some(err_read), err_log)],
    })
}

/// Writes `state` by the folder's path: if an agent has moved the folder away, this fails.
fn record(folder: &CStr, task: pid_t, init: Option<pid_t>) -> io::Result<()> {
    let mut text = String::with_capacity(160);
    text.push_str("version=1\n");
    let shim = std::process::id() as pid_t;
    for (name, pid) in [("shim", Some(shim)), ("init", init), ("task", Some(task))] {
        if let Some(pid) = pid {
            let start = sys::start_time(pid).ok_or(io::ErrorKind::NotFound)?;
            let _ = writeln!(text, "{name}={pid} {start}");
        }
    }
    let _ = writeln!(text, "started_ms={}", sys::wall_ms());
    let join = |name: &str| {
        let mut path = folder.to_bytes().to_vec();
        path.extend_from_slice(name.as_bytes());
        OsString::from_vec(path)
    };
    let temporary = join("/state.tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, join("/state"))
}

struct Supervisor<'a> {
    folder: RawFd,
    tree: Tree<'a>,
    task: pid_t,
    signals: OwnedFd,
    streams: [(Option<OwnedFd>, Log); 2],
    grace_ms: u64,
    /// When SIGKILL follows; set by a kill.
    kill_at: Option<u64>,
    complete_at: Option<u64>,
    killed: bool,
    completion: bool,
}

impl Supervisor<'_> {
    /// Waits for the end of the task's first process.
    fn supervise(&mut self) -> c_int {
        loop {
            let mut descriptors = [self.signals.as_raw_fd(), -1, -1].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            for (descriptor, (pipe, _)) in descriptors[1..].iter_mut().zip(&self.streams) {
                // poll leaves out negative descriptors.
                descriptor.fd = pipe.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            }
            sys::poll(&mut descriptors, self.timeout());
            self.copy(1);
            while let Some(signal) = sys::next_signal(self.signals.as_raw_fd()) {
                match signal {
                    libc::SIGCHLD => {}
                    libc::SIGUSR1 => self.control(),
                    _ => self.terminate(self.grace_ms),
                }
            }
            while let Reaped::Child(pid, status) = sys::reap() {
                if pid == self.task {
                    return status;
                }
            }
            self.deadlines();
        }
    }

    /// Milliseconds until the next deadline, for poll.
    fn timeout(&self) -> c_int {
        match [self.kill_at, self.complete_at].into_iter().flatten().min() {
            Some(at) => at
                .saturating_sub(sys::monotonic_ms())
                .min(c_int::MAX as u64) as c_int,
            None => -1,
        }
    }

    fn deadlines(&mut self) {
        let now = sys::monotonic_ms();
        if self.complete_at.is_some_and(|it| it <= now) {
            self.complete_at = None;
            // A kill that came first stays the reason.
            self.completion = !self.killed;
            self.kill_at = Some(now);
        }
        if self.kill_at.is_some_and(|it| it <= now) {
            self.tree.kill();
            // Without a pid namespace a process may have forked past the walk: again soon.
            self.kill_at = Some(now + 50);
        }
    }

    fn control(&mut self) {
        let order = read_all(self.folder, c"control").ok();
        if let Some(grace) = order.as_deref().and_then(protocol::parse_control) {
            self.terminate(grace);
        }
    }

    fn terminate(&mut self, grace_ms: u64) {
        let at = sys::monotonic_ms().saturating_add(grace_ms);
        self.kill_at = Some(self.kill_at.map_or(at, |it| it.min(at)));
        if !self.killed && !self.completion {
            self.killed = true;
            // With no grace at all the signal would only race with SIGKILL.
            if grace_ms > 0 {
                self.tree.terminate();
            }
        }
    }

    /// Copies what the pipes hold, at most so many chunks of each before looking elsewhere.
    fn copy(&mut self, rounds: usize) {
        let mut chunk = [std::mem::MaybeUninit::<u8>::uninit(); CHUNK];
        // SAFETY: u8 has no invalid values and only what read() filled is looked at; leaving
        // the rest untouched keeps those pages of the stack out of memory.
        let chunk = unsafe { &mut *(&raw mut chunk as *mut [u8; CHUNK]) };
        for (pipe, log) in &mut self.streams {
            for _ in 0..rounds {
                let Some(fd) = pipe.as_ref().map(AsRawFd::as_raw_fd) else {
                    break;
                };
                match sys::read(fd, chunk) {
                    Ok(0) => *pipe = None,
                    Ok(count) => log.write(&chunk[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => *pipe = None,
                }
            }
        }
    }

    /// After the task's end: nobody of it may be left, its output goes to disk, then its
    /// status.
    fn finish(mut self, status: c_int) {
        self.tree.kill_all(self.signals.as_raw_fd());
        // All writers are dead: what is in the pipes is all there will be.
        self.copy(usize::MAX);
        let text = format!(
            "version=1\nstatus={status}\nkilled={}\ncompletion={}\nfinished_ms={}\n",
            u8::from(self.killed),
            u8::from(self.completion),
            sys::wall_ms()
        );
        while let Err(error) = sys::write_file(self.folder, c"exit", text.as_bytes()) {
            // The status would be lost if we went away. Wait for better times; a folder that
            // is gone means that nobody wants to know any more.
            if error.kind() == io::ErrorKind::NotFound {
                break;
            }
            sys::poll(&mut [], 1000);
        }
    }
}

/// The content of a file of our folder.
fn read_all(folder: RawFd, name: &CStr) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let fd = sys::openat(folder, name, libc::O_RDONLY, 0)?;
    let mut content = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut content)?;
    Ok(content)
}
