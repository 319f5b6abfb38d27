//! `tepui-agent`: one agent in a process of its own.

use std::{io::Write, process::ExitCode};
use tepui_server::{flags, logging};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = match tepui_agent::read_flags(std::env::args().skip(1), std::env::vars()) {
        Ok(flags) => flags,
        Err(flags::Error::Print(text)) => {
            say(&text.to_string());
            return ExitCode::SUCCESS;
        }
        Err(error) => return failed(&error.into()),
    };
    logging::start(
        flags.text("logging_level").unwrap_or("INFO"),
        flags.bool("quiet"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(flags)),
        Err(error) => Err(error.into()),
    };
    result.unwrap_or_else(|error| failed(&error))
}

/// A line on standard output, if anybody still reads it.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Who reads may have gone.
    let _ = writeln!(std::io::stderr(), "tepui-agent: {error:#}");
    ExitCode::FAILURE
}

async fn run(flags: flags::Flags) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut leave = signal(SignalKind::user_defined1())?;
    let Some(agent) = tepui_agent::start_with(flags).await? else {
        say("what an earlier agent left has ended");
        return Ok(ExitCode::SUCCESS);
    };
    let address = agent.address();
    match address.ip().is_loopback() {
        true => say(&format!(
            "tepui-agent at http://{address} (this machine only; --ip=0.0.0.0 opens it to others)"
        )),
        false => say(&format!("tepui-agent at http://{address}")),
    }
    let mut leaving = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = leave.recv() => {
                leaving = true;
                agent.unregister().await;
            }
            reason = agent.exited() => {
                say(&format!("tepui-agent ends: {reason}"));
                agent.finish().await;
                return Ok(if leaving { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
        }
    }
    // The tasks live on.
    agent.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
