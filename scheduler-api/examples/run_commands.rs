//! Runs each argument as a shell command somewhere in the cluster and reports the results.
//!
//! ```text
//! cargo run --example run_commands -- 127.0.0.1:5050 'echo hi' 'sleep 1; exit 3'
//! ```

use std::collections::BTreeMap;
use tepui_scheduler_api::{Event, Options, Result, Session, task, v1};

const CPUS: f64 = 0.1;
const MEM_MB: f64 = 32.0;

/// What is known of one command.
struct Command {
    line: String,
    launched: bool,
    result: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let master = arguments.next().unwrap_or_else(|| "127.0.0.1:5050".into());
    let mut commands: BTreeMap<String, Command> = arguments
        .enumerate()
        .map(|(index, line)| {
            let command = Command {
                line,
                launched: false,
                result: None,
            };
            (format!("command-{index}"), command)
        })
        .collect();

    let framework = task::framework("", "run-commands");
    let Session { driver, mut events } = Session::start(Options::new([master], framework))?;

    while commands.values().any(|command| command.result.is_none()) {
        let Some(event) = events.next().await else {
            break;
        };
        match event? {
            Event::Subscribed { framework_id, .. } => {
                println!("subscribed as {}", framework_id.value);
            }
            Event::Offers(offers) => {
                for offer in offers {
                    let tasks = fill(&offer, &mut commands);
                    if tasks.is_empty() {
                        driver.decline(offer.id, None).await?;
                    } else {
                        driver.launch(&offer, tasks, None).await?;
                    }
                }
            }
            Event::Update(status) => {
                let Some(command) = commands.get_mut(&status.task_id.value) else {
                    continue;
                };
                let state = status.state();
                println!("{:?}: {}", state, command.line);
                if task::is_terminal(state) {
                    let message = status.message.clone().unwrap_or_default();
                    command.result = Some(format!("{state:?} {message}"));
                }
            }
            Event::Disconnected { cause } => println!("reconnecting: {cause}"),
            _ => {}
        }
    }

    for command in commands.values() {
        let result = command.result.as_deref().unwrap_or("unknown");
        println!("{:40} {result}", command.line);
    }
    driver.teardown().await
}

/// Tasks for the commands that still wait, as many as the offer has room for.
fn fill(offer: &v1::Offer, commands: &mut BTreeMap<String, Command>) -> Vec<v1::TaskInfo> {
    let mut cpus = task::amount(&offer.resources, "cpus");
    let mut mem = task::amount(&offer.resources, "mem");
    let mut tasks = Vec::new();
    for (id, command) in commands.iter_mut().filter(|(_, it)| !it.launched) {
        if cpus < CPUS || mem < MEM_MB {
            break;
        }
        cpus -= CPUS;
        mem -= MEM_MB;
        command.launched = true;
        let line = task::shell(command.line.as_str());
        tasks.push(task::task(id, offer, CPUS, MEM_MB, line));
    }
    tasks
}
