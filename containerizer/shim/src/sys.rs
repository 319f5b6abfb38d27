//! The few system calls that the shim makes, with errors as `io::Error`.

use libc::{c_int, pid_t};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// `-1` to an error.
pub fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Milliseconds of a clock.
fn clock_ms(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place for the answer.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// For deadlines.
pub fn monotonic_ms() -> u64 {
    clock_ms(libc::CLOCK_MONOTONIC)
}

/// Since the epoch.
pub fn wall_ms() -> u64 {
    clock_ms(libc::CLOCK_REALTIME)
}

/// A pipe: reading end, writing end, closed on exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are ours alone on success.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Makes reads return at once.
pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that we own.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

/// Opens relative to a directory.
pub fn openat(directory: RawFd, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends in NUL; the descriptor is ours alone on success.
    unsafe {
        let fd = check(libc::openat(
            directory,
            name.as_ptr(),
            flags | libc::O_CLOEXEC,
            mode,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Reads into a buffer; `Ok(0)` is the end.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(count as usize)
    }
}

/// Writes once; may write less than all.
pub fn write(fd: RawFd, buffer: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let count = unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) };
    if count < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(count as usize)
    }
}

/// Forks; the shim has one thread, so the child may go on as usual.
pub fn fork() -> io::Result<pid_t> {
    // SAFETY: single-threaded, so no lock can be held by a thread that the child lacks.
    check(unsafe { libc::fork() })
}

/// Sends a signal; a process that is gone is no error.
pub fn kill(pid: pid_t, signal: c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// One waiting child, if there is one: its pid and status.
pub enum Reaped {
    /// This one ended with this status.
    Child(pid_t, c_int),
    /// Children there are, but none has ended.
    Running,
    /// There is no child at all.
    None,
}

/// Reaps at most one child without waiting.
pub fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Reaped::Running,
        pid if pid > 0 => Reaped::Child(pid, status),
        _ => Reaped::None,
    }
}

/// Waits for one child.
pub fn wait(pid: pid_t) -> io::Result<c_int> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The signals that the shim reads from its descriptor.
pub fn signal_set() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid value, and sigemptyset makes it a defined one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [
            libc::SIGCHLD,
            libc::SIGUSR1,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
        ] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Blocks the signals of [`signal_set`] and ignores SIGPIPE.
pub fn take_signals() {
    let set = signal_set();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Gives a child the signal state of a fresh process.
pub fn reset_signals() {
    // SAFETY: the set is initialised by sigemptyset; dispositions are plain numbers.
    unsafe {
        for signal in 1..=31 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// A descriptor that delivers the blocked signals.
pub fn signal_fd() -> io::Result<OwnedFd> {
    let set = signal_set();
    // SAFETY: `set` is initialised; the descriptor is ours alone on success.
    unsafe {
        let fd = check(libc::signalfd(
            -1,
            &set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next waiting signal.
pub fn next_signal(fd: RawFd) -> Option<c_int> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match read(fd, &mut info) {
        // `ssi_signo` is the first field, 32 bits.
        Ok(count) if count == info.len() => {
            Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as c_int)
        }
        _ => None,
    }
}

/// Waits for one of the descriptors, at most so many milliseconds (-1: for ever).
pub fn poll(descriptors: &mut [libc::pollfd], timeout_ms: c_int) {
    // SAFETY: the slice is valid for its length. An interruption is as good as a timeout: the
    // caller looks at everything again.
    unsafe {
        libc::poll(
            descriptors.as_mut_ptr(),
            descriptors.len() as libc::nfds_t,
            timeout_ms,
        )
    };
}

/// When a process started, in clock ticks since boot: field 22 of its `stat`.
pub fn start_time(pid: pid_t) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything; fields go on after the last.
    let after = stat.iter().rposition(|it| *it == b')')?;
    std::str::from_utf8(&stat[after + 1..])
        .ok()?
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The name under which a file is written before it is renamed.
fn temporary(name: &CStr) -> io::Result<CString> {
    let mut bytes = name.to_bytes().to_vec();
    bytes.extend_from_slice(b".tmp");
    CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Takes the room that [`write_file`] will need for at most this many bytes of `name`, so that
/// it can be written on a full disk.
pub fn reserve_file(folder: RawFd, name: &CStr, bytes: usize) -> io::Result<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let mut file = File::from(openat(folder, &temporary(name)?, flags, 0o644)?);
    // Real bytes: a hole takes no room.
    file.write_all(&vec![b'\n'; bytes])
}

/// Writes a file under another name, into the room that [`reserve_file`] took if it did,
/// syncs it, and renames it into place.
pub fn write_file(folder: RawFd, name: &CStr, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(name)?;
    // Not cut before it is written: that would give the room away.
    let flags = libc::O_WRONLY | libc::O_CREAT;
    let mut file = File::from(openat(folder, &temporary, flags, 0o644)?);
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()?;
    // SAFETY: both names end in NUL.
    check(unsafe { libc::renameat(folder, temporary.as_ptr(), folder, name.as_ptr()) })?;
    Ok(())
}
