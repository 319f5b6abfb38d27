//! Health checks and checks of running tasks: behaviour 11.8.
//!
//! [`machine`] decides when to look and what a result means; `probe` looks; this file is the
//! loop between the two. It ends with its container.

pub mod machine;
mod probe;

use crate::{
    containerizer::{Handle, Inner},
    event::{ContainerEvent, Exit, Started},
    runtime::{now_ms, read_json, write_json},
};
use machine::{Check, Health, HealthState};
use probe::Target;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tepui_model::wire;

/// The file `checks`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Kept {
    health: HealthState,
    check_last_ms: u64,
}

/// Runs the checks of a task until it is dropped or the task has to end: the failures of a
/// dying task are no news.
pub(crate) async fn run(inner: Arc<Inner>, handle: Arc<Handle>, started: Started) {
    let file = handle.folder.file("checks");
    let kept: Kept = read_json(&file).unwrap_or_default().unwrap_or_default();
    let health = async {
        if let Some(check) = &handle.spec.health_check {
            let machine = Health::new(check, started.started_ms, kept.health);
            run_health(&inner, &handle, started.pid, check, machine).await;
        }
    };
    let check = async {
        if let Some(check) = &handle.spec.check {
            let machine = Check::new(check, started.started_ms, kept.check_last_ms);
            run_check(&inner, &handle, started.pid, check, machine).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(health, check) } => {}
        () = handle.doomed() => {}
    }
}

/// Changes the file `checks`; losing it costs a first delay, no more.
fn keep(handle: &Handle, change: impl FnOnce(&mut Kept)) {
    let file = handle.folder.file("checks");
    let mut kept: Kept = read_json(&file).unwrap_or_default().unwrap_or_default();
    change(&mut kept);
    if let Err(error) = write_json(&file, &kept) {
        tracing::warn!(container = handle.spec.container_id, %error, "keep check times");
    }
}

async fn sleep_until_ms(at: u64) {
    tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms()))).await;
}

/// How long a failure waits for the news that the task has ended. A command inside dies
/// with the task, and before the end of the task can be seen.
const SETTLE: Duration = Duration::from_millis(100);

/// Whether the task is over: then a failure tells of its end, which comes by itself.
async fn is_over(pid: u32) -> bool {
    tokio::time::sleep(SETTLE).await;
    !is_alive(pid)
}

/// Whether a process is there that has not ended; one whose id is not known (0) may be.
fn is_alive(pid: u32) -> bool {
    if pid == 0 {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold some itself.
    let state = stat.rsplit_once(") ").and_then(|(_, it)| it.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

async fn run_health(
    inner: &Inner,
    handle: &Handle,
    pid: u32,
    check: &wire::HealthCheck,
    mut machine: Health,
) {
    loop {
        sleep_until_ms(machine.due_ms()).await;
        let timeout = machine.schedule.timeout_ms.map(Duration::from_millis);
        let result = look_health(inner, handle, pid, check, timeout).await;
        if result.is_err() && is_over(pid).await {
            return;
        }
        let report = machine.result(now_ms(), result.is_ok());
        let state = machine.state;
        keep(handle, |it| it.health = state);
        if let Some(report) = report {
            inner
                .emit(ContainerEvent::Health {
                    container_id: handle.spec.container_id.clone(),
                    healthy: report.healthy,
                    consecutive_failures: report.consecutive_failures,
                    kill: report.kill,
                    message: result.err().unwrap_or_default(),
                })
                .await;
        }
    }
}

async fn look_health(
    inner: &Inner,
    handle: &Handle,
    pid: u32,
    check: &wire::HealthCheck,
    timeout: Option<Duration>,
) -> Result<(), String> {
    // The master infers a missing type; agents take what is there.
    if let Some(http) = &check.http {
        let target = Target::http(
            http.scheme.as_deref(),
            http.port,
            http.path.as_deref(),
            http.protocol,
        );
        return match target.look(pid, timeout).await? {
            200..=399 => Ok(()),
            status => Err(format!("HTTP health check: the task answered {status}")),
        };
    }
    if let Some(tcp) = &check.tcp {
        let target = Target::tcp(tcp.port, tcp.protocol)?;
        return target.look(pid, timeout).await.map(|_| ());
    }
    let command = check
        .command
        .as_ref()
        .ok_or("health_check has none of command, http and tcp")?;
    match inner.exec(handle, command, timeout).await? {
        Exit::Code(0) => Ok(()),
        exit => Err(format!(
            "Command health check {}",
            crate::text::exit(exit, false)
        )),
    }
}

async fn run_check(
    inner: &Inner,
    handle: &Handle,
    pid: u32,
    check: &wire::CheckInfo,
    mut machine: Check,
) {
    loop {
        sleep_until_ms(machine.due_ms()).await;
        let timeout = machine.schedule.timeout_ms.map(Duration::from_millis);
        let status = look_check(inner, handle, pid, check, timeout).await;
        // A command that could not run or was killed; other results do not come of an end.
        let cut_short =
            |it: &wire::check_status_info::Command| it.exit_code.is_none_or(|it| it > 128);
        if status.command.as_ref().is_some_and(cut_short) && is_over(pid).await {
            return;
        }
        let now = now_ms();
        keep(handle, |it| it.check_last_ms = now);
        if let Some(status) = machine.result(now, status) {
            inner
                .emit(ContainerEvent::Check {
                    container_id: handle.spec.container_id.clone(),
                    status,
                })
                .await;
        }
    }
}

/// The result as a message; a check that itself failed leaves the inner message empty.
async fn look_check(
    inner: &Inner,
    handle: &Handle,
    pid: u32,
    check: &wire::CheckInfo,
    timeout: Option<Duration>,
) -> wire::CheckStatusInfo {
    use wire::check_info::Type;
    use wire::check_status_info::{Command, Http, Tcp};
    let mut status = wire::CheckStatusInfo::default();
    if let Some(http) = &check.http {
        status.r#type = Some(Type::Http as i32);
        let target = Target::http(None, http.port, http.path.as_deref(), None);
        status.http = Some(Http {
            status_code: target.look(pid, timeout).await.ok(),
        });
    } else if let Some(tcp) = &check.tcp {
        status.r#type = Some(Type::Tcp as i32);
        let succeeded = match Target::tcp(tcp.port, None) {
            Ok(target) => target.look(pid, timeout).await.is_ok(),
            Err(_) => false,
        };
        status.tcp = Some(Tcp {
            succeeded: Some(succeeded),
        });
    } else if let Some(command) = &check.command {
        status.r#type = Some(Type::Command as i32);
        let exit_code = match inner.exec(handle, &command.command, timeout).await {
            Ok(Exit::Code(code)) => Some(code),
            // As a shell tells it.
            Ok(Exit::Signal(number)) => Some(128 + number),
            Ok(Exit::Unknown) | Err(_) => None,
        };
        status.command = Some(Command { exit_code });
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_has_ended() {
        assert!(is_alive(std::process::id()) && is_alive(0));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Nobody has waited for it, so it stays as a zombie.
        while is_alive(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_alive(pid));
        assert!(!is_alive(u32::MAX));
    }
}
