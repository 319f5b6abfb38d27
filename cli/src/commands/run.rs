//! `tepui run`: one task now, as if it ran here.
//!
//! A framework for a single task: it takes the first offer with room, streams the
//! task's output from its agent, and ends with the task's exit status. Ctrl-C kills the
//! task; a second one leaves at once.

use crate::{Context, api::Api, commands::logs::LOOK_INTERVAL, output, sandbox::Follower};
use anyhow::{Context as _, Result, bail};
use std::{process::ExitCode, time::Duration};
use tepui_scheduler_api::{Driver, Event, Events, Session, task, v1};

/// Options of `tepui run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Docker image; without one the command runs as a process
    #[arg(required_unless_present = "command")]
    image: Option<String>,
    /// Command and arguments, after `--`
    #[arg(last = true)]
    command: Vec<String>,
    /// Cores to reserve
    #[arg(long, default_value_t = 0.1)]
    cpus: f64,
    /// Memory in megabytes
    #[arg(long, default_value_t = 64.0)]
    mem: f64,
    /// Task id (default: made up)
    #[arg(long)]
    name: Option<String>,
    /// Role to take resources from
    #[arg(long, default_value = "*")]
    role: String,
    /// User to run as on the agent
    #[arg(long, default_value = "")]
    user: String,
    /// Environment variable for the task, NAME=VALUE; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Give up when no offer fits within so many seconds (0: wait for ever)
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
}

/// Exit status when the task could not be run at all, as shells and Docker have it.
const CANNOT_RUN: u8 = 125;

/// Runs the task and returns its exit status.
pub(crate) async fn run(context: &Context, options: Options) -> Result<ExitCode> {
    let command = command(&options)?;
    let api = Api::new(context)?;
    // Fails at once, with advice, when there is no master to talk to.
    api.master("/version", &[]).await?;

    let id = options
        .name
        .clone()
        .unwrap_or_else(|| format!("run-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]));
    let mut framework = task::framework(options.user.clone(), format!("tepui run {id}"));
    framework.roles = vec![options.role.clone()];
    framework.capabilities = vec![v1::framework_info::Capability {
        r#type: Some(v1::framework_info::capability::Type::MultiRole as i32),
    }];
    let session = Session::start(tepui_scheduler_api::Options::new(
        context.masters(),
        framework,
    ))?;
    let mut running = Running {
        api,
        driver: session.driver,
        events: session.events,
        quiet: context.json,
        framework_id: String::new(),
        outputs: Vec::new(),
    };
    let result = running.drive(&id, &options, command).await;
    // The framework was made for this task only; a failure to say goodbye changes nothing
    // for the person who waits, the master removes it when the connection closes.
    let _ = tokio::time::timeout(Duration::from_secs(5), running.driver.teardown()).await;
    let status = result?;
    if context.json {
        output::line(format_args!("{}", tepui_proto::json::encode(&status)))?;
    }
    Ok(exit_code(&status))
}

fn command(options: &Options) -> Result<v1::CommandInfo> {
    let mut command = match (&options.image, options.command.as_slice()) {
        // The image's own command.
        (Some(_), []) => v1::CommandInfo {
            shell: Some(false),
            ..Default::default()
        },
        (Some(_), words) => v1::CommandInfo {
            shell: Some(false),
            value: words.first().cloned(),
            // For Docker the value is the first word; arguments follow it.
            arguments: words[1..].to_vec(),
            ..Default::default()
        },
        (None, words) => task::argv(words),
    };
    let mut variables = Vec::new();
    for pair in &options.environment {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("--env {pair:?} is not of the form NAME=VALUE"))?;
        variables.push(v1::environment::Variable {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..Default::default()
        });
    }
    if !variables.is_empty() {
        command.environment = Some(v1::Environment { variables });
    }
    Ok(command)
}

/// A task that is being run.
struct Running {
    api: Api,
    driver: Driver,
    events: Events,
    quiet: bool,
    framework_id: String,
    outputs: Vec<Follower>,
}

impl Running {
    /// From subscription to the task's last status.
    async fn drive(
        &mut self,
        id: &str,
        options: &Options,
        command: v1::CommandInfo,
    ) -> Result<v1::TaskStatus> {
        let mut launched = false;
        let mut command = Some(command);
        let mut interrupted = false;
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let patience = match options.patience {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        };
        let started = tokio::time::Instant::now();
        loop {
            tokio::select! {
                event = self.events.next() => {
                    let event = event.context("the session with the master ended")??;
                    match event {
                        Event::Subscribed { framework_id, .. } => {
                            self.framework_id = framework_id.value;
                        }
                        Event::Offers(offers) => {
                            for offer in offers {
                                if launched || !fits(&offer, options) {
                                    self.driver.decline(offer.id, None).await?;
                                    continue;
                                }
                                let Some(command) = command.take() else { continue };
                                self.launch(id, &offer, options, command).await?;
                                launched = true;
                            }
                        }
                        Event::Update(status)
                            if status.task_id.value == id && task::is_terminal(status.state()) =>
                        {
                            self.copy_outputs().await;
                            return Ok(*status);
                        }
                        Event::Disconnected { cause } => {
                            eprintln!("tepui: reconnecting to the master: {cause}");
                        }
                        _ => {}
                    }
                }
                _ = look.tick() => {
                    self.copy_outputs().await;
                    if !launched && started.elapsed() > patience {
                        bail!(
                            "no agent offered {} cpus and {} MB within {} s; `tepui agents` shows what there is",
                            options.cpus, options.mem, options.patience
                        );
                    }
                }
                _ = tokio::signal::ctrl_c() => {
                    if interrupted || !launched {
                        bail!("interrupted");
                    }
                    interrupted = true;
                    eprintln!("tepui: killing {id} (once more to leave without waiting)");
                    self.driver.kill(v1::TaskId { value: id.to_owned() }).await?;
                }
            }
        }
    }

    async fn launch(
        &mut self,
        id: &str,
        offer: &v1::Offer,
        options: &Options,
        command: v1::CommandInfo,
    ) -> Result<()> {
        let mut task = task::task(id, offer, options.cpus, options.mem, command);
        task.container = options.image.as_deref().map(task::docker);
        let address = offer
            .url
            .as_ref()
            .map(|url| (&url.address, url.address.port))
            .and_then(|(address, port)| {
                let host = address.ip.as_ref().or(address.hostname.as_ref())?;
                Some(format!("{host}:{port}"))
            })
            .context("the offer does not say where its agent is")?;
        for file in ["stdout", "stderr"] {
            self.outputs
                .push(Follower::new(&address, &self.framework_id, id, file));
        }
        self.driver.launch(offer, vec![task], None).await?;
        Ok(())
    }

    /// Copies what the task wrote. Before the sandbox exists, and when its agent is gone,
    /// there is nothing to copy; the task's status will say what happened.
    async fn copy_outputs(&mut self) {
        if self.quiet {
            return;
        }
        if let [stdout, stderr] = self.outputs.as_mut_slice() {
            let _ = stdout.copy(&self.api, &mut std::io::stdout()).await;
            let _ = stderr.copy(&self.api, &mut std::io::stderr()).await;
        }
    }
}

fn fits(offer: &v1::Offer, options: &Options) -> bool {
    task::amount(&offer.resources, "cpus") >= options.cpus
        && task::amount(&offer.resources, "mem") >= options.mem
}

/// The exit status of a shell that ran the same command. Mesos tells it only in words.
fn exit_code(status: &v1::TaskStatus) -> ExitCode {
    let message = status.message.as_deref().unwrap_or_default();
    let state = status.state();
    if state == v1::TaskState::TaskFinished {
        return ExitCode::SUCCESS;
    }
    let number = |prefix: &str| {
        let rest = message.split_once(prefix)?.1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u8>().ok()
    };
    if let Some(code) = number("exited with status ").filter(|code| *code != 0) {
        return ExitCode::from(code);
    }
    eprintln!("tepui: {}: {message}", state.as_str_name());
    if let Some(signal) = signal(message) {
        return ExitCode::from(128 + signal);
    }
    ExitCode::from(CANNOT_RUN)
}

/// The number of the signal that the message names.
fn signal(message: &str) -> Option<u8> {
    let name = message.split_once("terminated with signal ")?.1;
    let known = [
        ("Hangup", 1),
        ("Interrupt", 2),
        ("Quit", 3),
        ("Aborted", 6),
        ("Killed", 9),
        ("Segmentation fault", 11),
        ("Terminated", 15),
    ];
    known
        .iter()
        .find(|(known, _)| name.starts_with(known))
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_from_the_message() {
        assert_eq!(signal("Command terminated with signal Killed"), Some(9));
        assert_eq!(
            signal("Command terminated with signal Terminated"),
            Some(15)
        );
        assert_eq!(signal("Command exited with status 1"), None);
    }
}
