//! `tepui-shim exec`: a command beside a running task, for checks; and `probe`.

use crate::{
    child::{self, Streams, above_standard},
    protocol, sys,
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Exit code that says that the command could not be run; the reason is on standard output.
const FAILED: i32 = 1;

/// Runs the command of the spec on standard input: a length line, that many bytes, and then
/// the pipe stays open for as long as the agent wants the command to live. Prints
/// `status <wait status>` or `failed <text>`.
pub fn run() -> i32 {
    let answer = match execute() {
        Ok(status) => format!("status {status}\n"),
        Err(text) => format!("failed {text}\n"),
    };
    let _ = sys::write(1, answer.as_bytes());
    i32::from(answer.starts_with('f')) * FAILED
}

fn execute() -> Result<i32, String> {
    let bytes = read_spec().map_err(|error| format!("spec: {error}"))?;
    let spec = protocol::parse(&bytes)?;
    sys::take_signals();
    let signals = sys::signal_fd().map_err(|error| format!("signalfd: {error}"))?;
    if let Some(pid) = spec.join {
        enter(pid).map_err(|error| format!("enter the namespaces of process {pid}: {error}"))?;
    }
    let null = sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0)
        .and_then(above_standard)
        .map_err(|error| format!("/dev/null: {error}"))?;
    let (fail_read, fail_write) = sys::pipe().map_err(|error| format!("pipe: {error}"))?;
    let child = match sys::fork().map_err(|error| format!("fork: {error}"))? {
        0 => {
            let streams = Streams {
                stdin: null.as_raw_fd(),
                stdout: null.as_raw_fd(),
                stderr: null.as_raw_fd(),
            };
            let (step, error) = child::become_task(&spec, &streams, None);
            let _ = sys::write(
                fail_write.as_raw_fd(),
                format!("{step}: {error}").as_bytes(),
            );
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(127) }
        }
        pid => pid,
    };
    drop(fail_write);
    let mut text = [0; 512];
    let length = sys::read(fail_read.as_raw_fd(), &mut text).unwrap_or(0);
    if length > 0 {
        let _ = sys::wait(child);
        return Err(String::from_utf8_lossy(&text[..length]).into_owned());
    }
    let status = supervise(child, &signals);
    // What the command left running in its process group goes with it.
    sys::kill(-child, libc::SIGKILL);
    status.ok_or_else(|| "the agent gave up".into())
}

/// Waits for the child, or for the end of standard input.
fn supervise(child: libc::pid_t, signals: &OwnedFd) -> Option<i32> {
    loop {
        let mut descriptors = [signals.as_raw_fd(), 0].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        sys::poll(&mut descriptors, -1);
        let mut ended = descriptors[1].revents != 0;
        while let Some(signal) = sys::next_signal(signals.as_raw_fd()) {
            ended |= signal != libc::SIGCHLD;
        }
        while let sys::Reaped::Child(pid, status) = sys::reap() {
            if pid == child {
                return Some(status);
            }
        }
        if ended {
            sys::kill(-child, libc::SIGKILL);
            let _ = sys::wait(child);
            return None;
        }
    }
}

fn read_spec() -> io::Result<Vec<u8>> {
    let mut length = 0_usize;
    let mut byte = [0];
    loop {
        if sys::read(0, &mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match byte[0] {
            b'\n' => break,
            digit @ b'0'..=b'9' if length < 1 << 30 => {
                length = length * 10 + usize::from(digit - b'0');
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let mut spec = vec![0; length];
    let mut at = 0;
    while at < length {
        match sys::read(0, &mut spec[at..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => at += count,
        }
    }
    Ok(spec)
}

/// Enters the pid and mount namespaces of a process; children are born in the former.
fn enter(pid: u32) -> io::Result<()> {
    let open = |name: &str| -> io::Result<OwnedFd> {
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/{name}"))?.into())
    };
    let (pid_namespace, mount) = (open("pid")?, open("mnt")?);
    // The working directory is lost on entering the mount namespace; the child sets its own.
    for (fd, kind) in [
        (pid_namespace, libc::CLONE_NEWPID),
        (mount, libc::CLONE_NEWNS),
    ] {
        // SAFETY: an open descriptor of a namespace.
        sys::check(unsafe { libc::setns(fd.as_raw_fd(), kind) })?;
    }
    Ok(())
}

/// Prints which namespaces can be made here.
pub fn probe() -> i32 {
    let mut found = String::new();
    // In a child each, since the process that tried may not try again.
    // SAFETY of the calls inside: plain system calls.
    if succeeds(|| unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0) {
        found.push_str("mount");
        // A pid namespace is of use only with a /proc of its own.
        let own_proc = || {
            // SAFETY: plain system calls; paths end in NUL, absent arguments are NULL.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                return false;
            }
            succeeds(|| unsafe {
                let none = std::ptr::null();
                let slave = libc::MS_REC | libc::MS_SLAVE;
                let proc = c"proc".as_ptr();
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(none, c"/".as_ptr(), none, slave, std::ptr::null()) == 0
                    && libc::mount(proc, c"/proc".as_ptr(), proc, 0, std::ptr::null()) == 0
            })
        };
        if succeeds(own_proc) {
            found.push_str(" pid");
        }
    }
    println!("{found}");
    0
}

fn succeeds(what: impl FnOnce() -> bool) -> bool {
    match sys::fork() {
        // SAFETY: ends the child at once.
        Ok(0) => unsafe { libc::_exit(i32::from(!what())) },
        Ok(pid) => sys::wait(pid).is_ok_and(|status| status == 0),
        Err(_) => false,
    }
}
