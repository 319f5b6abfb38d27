//! Reconciliation of more tasks than a reader takes at once: every task is answered, in slices,
//! and nothing is sent ahead of the reader.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{World, command};
use tepui_master_machine::output::{Destination, Message, Output};
use tepui_model::event::Event;

/// Answers that a step may send at once.
const SLICE: usize = 512;

/// A machine with an agent and a framework that subscribed as `c1` and runs `tasks` tasks.
fn world(tasks: usize) -> World {
    let mut world = World::new();
    drop(world.birth());
    tell(&mut world, "agent a1 res=cpus:10000;mem:100000");
    tell(&mut world, "subscribe c1 failover=60");
    tell(&mut world, "pongs a1");
    let deadline = world.machine().next_deadline().unwrap();
    world.now = world.now.max(deadline);
    let output = world.step(tepui_master_machine::input::Input::Tick);
    for offer in offers(&output) {
        world.offers.insert(offer.id.clone(), offer);
    }
    let launches: String = (0..tasks)
        .map(|it| format!(" | launch t{it:05} cpus:1;mem:1"))
        .collect();
    tell(&mut world, &format!("accept c1 @m1-S0{launches}"));
    world
}

fn offers(output: &Output) -> Vec<std::sync::Arc<tepui_model::offer::Offer>> {
    use tepui_master_machine::output::ViewChange;
    let added = output.view.iter().filter_map(|it| match it {
        ViewChange::OfferAdded(offer) => Some(offer.clone()),
        _ => None,
    });
    added.collect()
}

fn say(world: &mut World, text: &str) -> Output {
    let input = command::input(world, text);
    match input {
        Some(input) => world.step(input),
        None => Output::default(),
    }
}

fn tell(world: &mut World, text: &str) {
    drop(say(world, text));
}

/// Task ids that are answered for and whether a turn is waited for.
fn answers(output: &Output) -> (Vec<String>, bool) {
    let mut named = Vec::new();
    let mut turn = false;
    for it in &output.send {
        if !matches!(it.to, Destination::Scheduler(_)) {
            continue;
        }
        assert!(!turn, "something was sent behind the turn");
        match &it.message {
            Message::Turn => turn = true,
            Message::Event { event, .. } => {
                if let Event::Update(status) = &**event {
                    named.push(status.task_id.value.clone());
                }
            }
            _ => {}
        }
    }
    assert!(named.len() <= SLICE, "{} answers in one step", named.len());
    (named, turn)
}

/// Reads on until nothing more comes; how often each task was answered.
fn read_all(world: &mut World, first: &Output) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    let (mut named, mut turn) = answers(first);
    loop {
        for id in named.drain(..) {
            *count.entry(id).or_default() += 1;
        }
        if !turn {
            return count;
        }
        (named, turn) = answers(&say(world, "turn c1"));
    }
}

#[test]
fn all_tasks_are_answered_at_the_pace_of_the_reader() {
    let mut world = world(2000);
    let first = say(&mut world, "reconcile c1");
    assert_eq!(answers(&first).0.len(), SLICE);
    // Nobody reads: nothing more is sent, whatever is asked.
    let (more, turn) = answers(&say(&mut world, "reconcile c1 t00001 t00002"));
    assert!(more.is_empty() && !turn);
    let count = read_all(&mut world, &first);
    let expected: BTreeSet<String> = (0..2000).map(|it| format!("t{it:05}")).collect();
    assert_eq!(count.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!((count["t00000"], count["t00001"]), (1, 2));
    assert_eq!(count["t01999"], 1);
}

#[test]
fn who_asks_again_meanwhile_is_told_everything_again() {
    let mut world = world(1500);
    let first = say(&mut world, "reconcile c1");
    tell(&mut world, "reconcile c1");
    tell(&mut world, "reconcile c1");
    let count = read_all(&mut world, &first);
    assert_eq!(count.len(), 1500);
    assert!(count.values().all(|it| *it == 2), "{count:?}");
}

#[test]
fn named_tasks_are_answered_a_slice_at_a_time() {
    let mut world = world(1);
    let names: String = (0..1300).map(|it| format!(" gone{it}")).collect();
    let first = say(&mut world, &format!("reconcile c1{names}"));
    assert_eq!(read_all(&mut world, &first).len(), 1300);
}

#[test]
fn a_new_subscription_owes_nothing_of_the_old_one() {
    let mut world = world(1500);
    tell(&mut world, "reconcile c1");
    tell(&mut world, "disconnect c1");
    tell(&mut world, "subscribe c2 id=m1-0000 failover=60");
    // The turn of the old stream comes late.
    let (named, turn) = answers(&say(&mut world, "turn c1"));
    assert!(named.is_empty() && !turn);
    let (named, turn) = answers(&say(&mut world, "turn c2"));
    assert!(named.is_empty() && !turn);
    let (named, _) = answers(&say(&mut world, "reconcile c2"));
    assert_eq!(named.len(), SLICE);
}
