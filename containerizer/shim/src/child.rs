//! From fork to exec: what the task's first process does to itself.

use crate::{
    protocol::{Bind, Spec},
    sys,
};
use libc::c_char;
use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

unsafe extern "C" {
    /// The environment that `execvp` passes on and looks `PATH` up in.
    static mut environ: *const *const c_char;
}

/// Where the three standard descriptors come from.
pub struct Streams {
    pub stdin: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
}

/// Prepares the process, waits until `go` is closed or written to, and executes. Returns only
/// on failure, with the step that failed.
pub fn become_task(spec: &Spec<'_>, streams: &Streams, go: Option<RawFd>) -> (String, io::Error) {
    match prepare(spec, streams, go) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

enum Never {}

fn prepare(
    spec: &Spec<'_>,
    streams: &Streams,
    go: Option<RawFd>,
) -> Result<Never, (String, io::Error)> {
    let at = |step: &'static str| move |error: io::Error| (step.to_owned(), error);
    // A session of its own: no terminal, and a process group that is the task's.
    // SAFETY: plain system call; failing (already a leader) does no harm.
    unsafe { libc::setsid() };

    // The cgroups first: all that follows is the task's, not ours. "0" is the writer itself.
    for file in &spec.cgroups {
        sys::openat(libc::AT_FDCWD, file, libc::O_WRONLY, 0)
            .and_then(|fd| sys::write(fd.as_raw_fd(), b"0"))
            .map_err(|error| (format!("join cgroup {}", file.to_string_lossy()), error))?;
    }
    if spec.mount_namespace {
        mounts(spec)?;
    }
    for limit in &spec.rlimits {
        let value = libc::rlimit {
            rlim_cur: limit.soft,
            rlim_max: limit.hard,
        };
        // SAFETY: `value` is a valid rlimit; the kernel refuses unknown resources.
        sys::check(unsafe { libc::setrlimit(limit.resource as _, &value) })
            .map_err(|error| (format!("set rlimit {}", limit.resource), error))?;
    }
    if let Some(score) = spec.oom_score_adj {
        // Best effort: lowering needs a privilege that not every agent has.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_bytes());
    }
    for (target, source) in [streams.stdin, streams.stdout, streams.stderr]
        .into_iter()
        .enumerate()
    {
        // SAFETY: both are open descriptors. The sources are above 2 (see `above_standard`),
        // so none is overwritten before it was used.
        sys::check(unsafe { libc::dup2(source, target as RawFd) }).map_err(at("set streams"))?;
    }
    if let Some(cwd) = spec.cwd {
        // SAFETY: the path ends in NUL.
        sys::check(unsafe { libc::chdir(cwd.as_ptr()) })
            .map_err(|error| (format!("enter {}", cwd.to_string_lossy()), error))?;
    }
    if let Some((uid, gid)) = spec.user {
        // SAFETY: the slice is valid for its length. Groups go first, while we still may.
        unsafe {
            sys::check(libc::setgroups(spec.groups.len(), spec.groups.as_ptr()))
                .and_then(|_| sys::check(libc::setgid(gid)))
                .and_then(|_| sys::check(libc::setuid(uid)))
                .map_err(|error| (format!("become user {uid}:{gid}"), error))?;
        }
    }
    // SAFETY: plain system calls. The death signal is set after the change of user, which
    // clears it; the parent may have died before, then nobody would be told.
    unsafe {
        libc::umask(0o022);
        sys::check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            .map_err(at("bind the task's life to the shim's"))?;
    }
    if let Some(go) = go {
        // One byte is the word to go; the end of the pipe means that the shim has died.
        let mut byte = [0];
        if !matches!(sys::read(go, &mut byte), Ok(1)) {
            return Err(("wait for the shim".into(), io::ErrorKind::BrokenPipe.into()));
        }
    }
    sys::reset_signals();
    Err(execute(spec))
}

fn execute(spec: &Spec<'_>) -> (String, io::Error) {
    let Some(program) = spec.program else {
        return ("execute".into(), io::ErrorKind::InvalidInput.into());
    };
    let pointers = |texts: &[&CStr]| -> Vec<*const c_char> {
        texts
            .iter()
            .map(|it| it.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let arguments = pointers(&spec.args);
    let environment = pointers(&spec.env);
    // SAFETY: both arrays end in NULL and live until exec; this process has one thread, so
    // nobody reads `environ` meanwhile.
    unsafe {
        environ = environment.as_ptr();
        libc::execvp(program.as_ptr(), arguments.as_ptr());
    }
    (
        format!("execute {}", program.to_string_lossy()),
        io::Error::last_os_error(),
    )
}

fn mounts(spec: &Spec<'_>) -> Result<(), (String, io::Error)> {
    let none = ptr::null::<c_char>();
    // SAFETY: paths end in NUL, absent arguments are NULL, as mount allows.
    unsafe {
        sys::check(libc::unshare(libc::CLONE_NEWNS))
            .and_then(|_| {
                // Mounts of the host go on to appear here, ours do not appear there.
                let flags = libc::MS_REC | libc::MS_SLAVE;
                sys::check(libc::mount(none, c"/".as_ptr(), none, flags, ptr::null()))
            })
            .map_err(|error| ("make a mount namespace".to_owned(), error))?;
    }
    for bind in &spec.binds {
        mount_bind(bind).map_err(|error| {
            (
                format!(
                    "mount {} at {}",
                    bind.from.to_string_lossy(),
                    bind.to.to_string_lossy()
                ),
                error,
            )
        })?;
    }
    if spec.pid_namespace {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let proc = c"proc".as_ptr();
        // SAFETY: as above.
        sys::check(unsafe { libc::mount(proc, c"/proc".as_ptr(), proc, flags, ptr::null()) })
            .map_err(|error| ("mount /proc".to_owned(), error))?;
    }
    Ok(())
}

fn mount_bind(bind: &Bind<'_>) -> io::Result<()> {
    let none = ptr::null::<c_char>();
    let flags = libc::MS_BIND | libc::MS_REC;
    // SAFETY: paths end in NUL, absent arguments are NULL.
    unsafe {
        sys::check(libc::mount(
            bind.from.as_ptr(),
            bind.to.as_ptr(),
            none,
            flags,
            ptr::null(),
        ))?;
        if bind.read_only {
            // The kernel takes read-only in a second step only.
            sys::check(libc::mount(
                none,
                bind.to.as_ptr(),
                none,
                flags | libc::MS_REMOUNT | libc::MS_RDONLY,
                ptr::null(),
            ))?;
        }
    }
    Ok(())
}

/// Moves a descriptor out of the way of 0, 1 and 2.
pub fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: an open descriptor of ours; the copy is ours alone.
    unsafe {
        let copy = sys::check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}
