//! A running shim: started by us, or found again after our restart.

use super::protocol::{ExitFile, Recorded, State};
use crate::{cgroups::Group, event::Exit, runtime::Folder};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::io::{AsyncReadExt, unix::AsyncFd};

/// A shim that takes longer than this to start its task is given up; a healthy one takes
/// milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A shim whose task runs.
pub(crate) struct Shim {
    pidfd: AsyncFd<OwnedFd>,
    /// Set when it is our own child and wants to be reaped.
    child: Option<Child>,
    folder: Folder,
    pub state: State,
    pub group: Option<Group>,
}

/// How a shim ended.
pub(crate) enum End {
    /// With an exit file.
    Known(ExitFile),
    /// Killed before it could write one; its task has died with it.
    Lost,
}

/// What was found of an earlier launch.
pub(crate) enum Found {
    Running(Shim),
    Ended(End),
    /// The task never ran, and never will.
    Nothing,
}

impl Shim {
    /// Starts a shim for the spec in the folder and waits until its task runs.
    pub async fn start(
        program: &std::path::Path,
        folder: &Folder,
        group: Option<Group>,
    ) -> Result<Shim, String> {
        // Standard error goes nowhere: what the shim has to say comes on its output.
        let mut child = Command::new(program)
            .arg("run")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let result = Shim::started(&mut child, folder).await;
        match result {
            Ok((pidfd, state)) => Ok(Shim {
                pidfd,
                child: Some(child),
                folder: folder.clone(),
                state,
                group,
            }),
            Err(message) => {
                // It ends by itself after a failure; the signal is for one that hangs. The
                // wait is short, its own tree dies with it.
                let _ = child.kill();
                let _ = tokio::task::spawn_blocking(move || child.wait()).await;
                Err(message)
            }
        }
    }

    async fn started(
        child: &mut Child,
        folder: &Folder,
    ) -> Result<(AsyncFd<OwnedFd>, State), String> {
        let pidfd = open_pidfd(child.id() as i32).map_err(|error| format!("pidfd: {error}"))?;
        let output = child.stdout.take().ok_or("shim has no output")?;
        let mut output = tokio::process::ChildStdout::from_std(output)
            .map_err(|error| format!("shim output: {error}"))?;
        let mut line = String::new();
        // The shim closes its output after one line.
        let read = output.read_to_string(&mut line);
        match tokio::time::timeout(START_TIMEOUT, read).await {
            Err(_) => return Err("the shim did not start the task in time".into()),
            Ok(Err(error)) => return Err(format!("shim output: {error}")),
            Ok(Ok(_)) => {}
        }
        if let Some(message) = line.strip_prefix("failed ") {
            return Err(message.trim_end().to_owned());
        }
        if !line.starts_with("started ") {
            return Err("the shim died before it started the task".into());
        }
        let file = folder.file("state");
        match State::read(&file) {
            Ok(Some(state)) => Ok((pidfd, state)),
            Ok(None) => Err(format!("{} is missing", file.display())),
            Err(error) => Err(format!("read {}: {error}", file.display())),
        }
    }

    /// Looks for what a shim of an earlier agent left in the folder.
    pub fn find(folder: &Folder, group: Option<Group>) -> io::Result<Found> {
        let exit = folder.file("exit");
        if let Some(file) = ExitFile::read(&exit)? {
            return Ok(Found::Ended(End::Known(file)));
        }
        let Some(state) = State::read(&folder.file("state"))? else {
            return if abandon(folder)? {
                Ok(Found::Nothing)
            } else {
                Shim::find(folder, group)
            };
        };
        // The descriptor first, the look at the start time after: then it is this process's.
        if let Ok(pidfd) = open_pidfd(state.shim.pid)
            && state.shim.is_alive()
        {
            return Ok(Found::Running(Shim {
                pidfd,
                child: None,
                folder: folder.clone(),
                state,
                group,
            }));
        }
        // It may have ended between the two looks.
        if let Some(file) = ExitFile::read(&exit)? {
            return Ok(Found::Ended(End::Known(file)));
        }
        kill_remains(&state, group.as_ref());
        Ok(Found::Ended(End::Lost))
    }

    /// Waits for the shim's end.
    pub async fn ended(&mut self) -> End {
        // A pidfd becomes readable once, and for ever. An error would be one of the reactor,
        // which is gone only when the whole process goes.
        let _ = self.pidfd.readable().await;
        if let Some(child) = &mut self.child {
            // Ended already, so this does not block.
            let _ = child.wait();
        }
        match ExitFile::read(&self.folder.file("exit")) {
            Ok(Some(file)) => End::Known(file),
            _ => {
                kill_remains(&self.state, self.group.as_ref());
                End::Lost
            }
        }
    }

    /// SIGTERM to the task's whole tree, SIGKILL after the grace.
    pub fn kill(&self, grace: Duration) -> io::Result<()> {
        let order = format!("kill {}\n", grace.as_millis());
        let written = crate::runtime::write_atomic(&self.folder.file("control"), order.as_bytes());
        // On a full disk a bare SIGTERM still kills, with the grace of the spec; and no grace
        // at all needs no file: killing the shim takes the task along, exit status and all.
        let signal = match (&written, grace.is_zero()) {
            (Ok(()), _) => Signal::USR1,
            (Err(_), false) => Signal::TERM,
            (Err(_), true) => Signal::KILL,
        };
        rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal)?;
        Ok(())
    }
}

fn open_pidfd(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    crate::wake::on_readable(fd)
}

/// A shim that was killed leaves its exit unwritten. Its task dies with it by the parent-death
/// signal; this is for the rest.
fn kill_remains(state: &State, group: Option<&Group>) {
    for process in [state.init, Some(state.task)].into_iter().flatten() {
        signal(process, Signal::KILL);
    }
    if let Some(group) = group {
        group.kill();
    }
}

fn signal(process: Recorded, signal: Signal) {
    // A pidfd pins the number, so the check before the signal holds for the signal too.
    if let Some(pid) = Pid::from_raw(process.pid)
        && let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        && process.is_alive()
    {
        let _ = rustix::process::pidfd_send_signal(fd, signal);
    }
}

/// Makes sure that a shim that has not written `state` yet never will: its folder goes. `false`
/// when `state` appeared in the last moment.
fn abandon(folder: &Folder) -> io::Result<bool> {
    let mut away = folder.path().as_os_str().to_owned();
    away.push(".abandoned");
    let away = std::path::PathBuf::from(away);
    if away.exists() {
        std::fs::remove_dir_all(&away)?;
    }
    std::fs::rename(folder.path(), &away)?;
    if away.join("state").exists() {
        std::fs::rename(&away, folder.path())?;
        return Ok(false);
    }
    std::fs::remove_dir_all(&away)?;
    Ok(true)
}

/// Splits a wait status: how it ended, and whether a core was dumped.
pub(crate) fn split_status(status: i32) -> (Exit, bool) {
    if libc::WIFSIGNALED(status) {
        (
            Exit::Signal(libc::WTERMSIG(status)),
            libc::WCOREDUMP(status),
        )
    } else {
        (Exit::Code(libc::WEXITSTATUS(status)), false)
    }
}
