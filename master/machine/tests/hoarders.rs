//! A thousand frameworks that neither accept nor decline, and one that works: it is offered
//! something within two allocation intervals, whenever it comes.

mod support;

use std::time::Duration;

use support::{World, command};
use tepui_master_machine::input::Input;
use tepui_master_machine::output::{Destination, Message, Output};
use tepui_model::event::Event;

const AGENTS: usize = 50;
const HOARDERS: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(1);

/// Steps without the checks of [`World::step`], which look at everything each time.
fn step(world: &mut World, text: &str) -> Output {
    let input = command::input(world, text).expect("a command");
    step_input(world, input)
}

fn step_input(world: &mut World, input: Input) -> Output {
    let (now, wall) = (world.now, world.wall());
    world.machine().step(now, wall, input)
}

/// Lets time pass until the connection gets an offer: how long that took.
fn until_offered(world: &mut World, name: &str, at_most: Duration) -> Option<Duration> {
    let (connection, start) = (world.connection(name), world.now);
    while let Some(next) = world.machine().next_deadline() {
        if next > start + at_most {
            break;
        }
        world.now = world.now.max(next);
        let output = step_input(world, Input::Tick);
        let is_offered = output.send.iter().any(|it| {
            let is_offers = |message: &Message| match message {
                Message::Event { event, .. } => matches!(&**event, Event::Offers(_)),
                _ => false,
            };
            matches!(it.to, Destination::Scheduler(to) if to == connection)
                && is_offers(&it.message)
        });
        if is_offered {
            return Some(world.now.saturating_since(start));
        }
    }
    world.now = start + at_most;
    None
}

fn cluster(hoarders: usize) -> World {
    let mut world = World::new();
    // Agents need not answer pings for as long as this takes.
    world.config.max_agent_ping_timeouts = 1000;
    let _ = world.birth();
    for at in 0..AGENTS {
        let _ = step(
            &mut world,
            &format!(
                "agent a{at} host=h{at} addr=127.0.0.1:{} boot=b{at}",
                6000 + at
            ),
        );
    }
    for at in 0..hoarders {
        let _ = step(
            &mut world,
            &format!("subscribe c{at} name=hoarder failover=60"),
        );
    }
    world
}

#[test]
fn who_comes_late_is_offered_something_within_two_intervals() {
    let mut world = cluster(HOARDERS);
    assert!(until_offered(&mut world, "nobody", Duration::from_secs(20)).is_none());
    let _ = step(&mut world, "subscribe worker name=worker failover=60");
    let took = until_offered(&mut world, "worker", 2 * INTERVAL);
    assert!(took.is_some_and(|it| it < INTERVAL), "{took:?}");
    world.machine().check_invariants();
}

#[test]
fn who_comes_with_them_is_offered_something_within_two_intervals() {
    let mut world = cluster(HOARDERS);
    let _ = step(&mut world, "subscribe worker name=worker failover=60");
    let took = until_offered(&mut world, "worker", 2 * INTERVAL);
    assert!(took.is_some(), "not within two intervals");
    world.machine().check_invariants();
}

#[test]
fn who_is_alone_may_hold_offers_for_ever() {
    let mut world = cluster(1);
    assert!(until_offered(&mut world, "c0", INTERVAL).is_some());
    // Every offer was made at once, and none is made again.
    assert!(until_offered(&mut world, "c0", Duration::from_secs(120)).is_none());
}
