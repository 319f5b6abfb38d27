//! Several instances of a program, of which one leads.
//!
//! ```text
//! cargo run --example elect -- 127.0.0.1:5050,127.0.0.1:5150 one &
//! cargo run --example elect -- 127.0.0.1:5050,127.0.0.1:5150 two &
//! cargo run --example elect -- 127.0.0.1:5050,127.0.0.1:5150 three &
//! ```
//!
//! Each says when it leads and when it does not any more. While it leads it counts in a
//! variable, each time on the condition that nobody else did, so that what it prints would
//! betray two leaders. Kill the one that leads: another goes on from where it was.

use std::time::Duration;
use tepui_scheduler_api::{
    Result,
    state::{Elected, Expect, State, Written, elect},
};

/// Time until another leads after the leader died without a word.
const TTL: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let masters = arguments.next().unwrap_or_else(|| "127.0.0.1:5050".into());
    let name = arguments
        .next()
        .unwrap_or_else(|| std::process::id().to_string());
    let state = State::new(masters.split(','))?;
    loop {
        println!("{name} is a candidate");
        let elected = elect(&state, "example/leader", name.clone(), TTL).await?;
        println!("{name} leads with token {}", elected.token());
        tokio::select! {
            result = work(&state, &name, &elected) => result?,
            () = elected.lost() => {}
        }
        println!("{name} does not lead any more");
    }
}

/// What a leader does, until it finds that it is none.
async fn work(state: &State, name: &str, elected: &Elected) -> Result<()> {
    while elected.is_leader() {
        let count = state.get("example/count").await?;
        let next = match &count {
            Some(variable) => number(&variable.value) + 1,
            None => 1,
        };
        let expect = Expect::what_was(&count);
        match state.set("example/count", next.to_string(), expect).await? {
            Written::Done(_) => println!("{name} counts {next}"),
            // Of one that did not know yet that it was none.
            Written::Conflict(_) => println!("{name} was disturbed"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|it| it.parse().ok()).unwrap_or_default()
}
