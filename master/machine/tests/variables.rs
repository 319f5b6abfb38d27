//! The state service against a simple model: random writes, repeated writes, leases, watches,
//! and changes of leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tepui_master_machine::input::{
    ConnectionId, Expected, Input, RequestId, StateInput, StateRequest, WriteMark,
};
use tepui_master_machine::output::{
    Destination, Message, Needs, Output, StateAnswer, StateEvent, StateRefusal, Status,
};
use tepui_master_machine::{Config, Machine};
use tepui_model::id::Principal;
use tepui_model::time::{Instant, WallTime};
use tepui_state::{ClusterState, MAX_RECENT_WRITES, variable_bytes};

const QUOTA: u64 = 1600;

/// A machine over a replica, as the shell runs it.
struct World {
    machine: Machine,
    replica: ClusterState,
    now: Instant,
    term: u64,
    requests: u64,
}

fn config() -> Config {
    Config {
        cluster_id: "c".to_owned(),
        state_quota: QUOTA,
        ..Config::default()
    }
}

fn born(replica: &ClusterState, now: Instant, term: u64) -> (Machine, Output) {
    let (wall, id) = (WallTime(1.0), format!("m{term}"));
    Machine::birth(replica.clone(), term, now, wall, 7, &id, config())
}

impl World {
    fn new() -> World {
        let replica = ClusterState::new();
        let (machine, output) = born(&replica, Instant(1), 1);
        let mut world = World {
            machine,
            replica,
            now: Instant(1),
            term: 1,
            requests: 0,
        };
        world.replicate(&output);
        world
    }

    fn replicate(&mut self, output: &Output) {
        for operation in &output.log {
            self.replica.apply(operation).expect("known");
        }
        self.machine.check_invariants();
        self.replica.check_invariants();
    }

    /// Another master leads. Its clock has nothing to do with that of the one before.
    fn change_leader(&mut self) {
        self.term += 1;
        self.now = Instant(self.now.0 / 2 + 5);
        let (machine, output) = born(&self.replica, self.now, self.term);
        self.machine = machine;
        self.replicate(&output);
    }

    fn step(&mut self, input: Input) -> Output {
        let output = self.machine.step(self.now, WallTime(1.0), input);
        self.replicate(&output);
        output
    }

    /// The answer, and everything that was sent.
    fn ask(&mut self, owner: &str, request: StateRequest) -> (StateAnswer, Output) {
        self.requests += 1;
        let reply = RequestId(self.requests);
        let output = self.step(Input::State(StateInput {
            reply,
            principal: (!owner.is_empty()).then(|| Principal::from(owner)),
            request,
        }));
        let mut answers = output.send.iter().filter_map(|it| match &it.message {
            Message::State(answer) if it.to == Destination::Reply(reply) => {
                // What is not in the log can be out of date.
                let durable = matches!(**answer, StateAnswer::Written { .. });
                assert!(it.needs == Needs::Leadership || durable, "{answer:?}");
                Some(StateAnswer::clone(answer))
            }
            _ => None,
        });
        let answer = answers.next().expect("every request is answered");
        assert!(answers.next().is_none(), "answered twice");
        drop(answers);
        (answer, output)
    }

    fn get(&mut self, owner: &str, name: &str) -> Option<(u64, Bytes)> {
        match self.ask(owner, StateRequest::Get { name: name.into() }).0 {
            StateAnswer::Variable { variable, .. } => {
                variable.map(|it| (it.version, it.value.clone()))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Variable {
    version: u64,
    value: Bytes,
    lease: u64,
}

/// What the service promises, in the simplest form.
#[derive(Clone, Debug, Default)]
struct Account {
    revision: u64,
    variables: BTreeMap<String, Variable>,
    /// Time to live and deadline.
    leases: BTreeMap<u64, (Duration, Instant)>,
    written: BTreeMap<Bytes, u64>,
}

impl Account {
    fn bytes(&self) -> u64 {
        let variables = self.variables.iter();
        let variables = variables.map(|(name, it)| variable_bytes(name, &it.value));
        variables.sum::<u64>() + 128 * self.leases.len() as u64
    }

    fn end(&mut self, lease: u64) {
        self.leases.remove(&lease);
        self.variables.retain(|_, it| it.lease != lease);
        self.revision += 1;
    }
}

/// A watch and what its reader knows.
struct Watch {
    owner: &'static str,
    prefix: &'static str,
    known: BTreeMap<String, Variable>,
    revision: u64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const OWNERS: [&str; 2] = ["", "p"];
const NAMES: [&str; 4] = ["a", "a/1", "a/2", "b"];

fn see(watches: &mut BTreeMap<u64, Watch>, output: &Output) {
    for outgoing in &output.send {
        let (Destination::Watch(connection), Message::StateEvent(event)) =
            (outgoing.to, &outgoing.message)
        else {
            continue;
        };
        let watch = watches.get_mut(&connection.0).expect("of a watch");
        let revision = match event {
            StateEvent::Snapshot {
                variables,
                revision,
            } => {
                assert_eq!(outgoing.needs, Needs::Leadership);
                watch.known = variables.iter().map(entry).collect();
                *revision
            }
            StateEvent::Set(it) => {
                let (name, variable) = entry(it);
                watch.known.insert(name, variable);
                assert!(it.version > watch.revision);
                it.version
            }
            StateEvent::Expunged { names, revision } => {
                for name in names {
                    let was = watch.known.remove(&**name);
                    assert!(was.is_some(), "{name} was not there");
                }
                assert!(*revision > watch.revision);
                *revision
            }
        };
        watch.revision = revision;
    }
}

fn entry(it: &Arc<tepui_model::log::Variable>) -> (String, Variable) {
    let variable = Variable {
        version: it.version,
        value: it.value.clone(),
        lease: it.lease_id,
    };
    (it.name.clone(), variable)
}

/// One history: every answer is that of the model, every watch sees what there is.
fn history(seed: u64) -> [usize; 6] {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new();
    let mut model: BTreeMap<&str, Account> = BTreeMap::new();
    let mut watches: BTreeMap<u64, Watch> = BTreeMap::new();
    let mut sent: Vec<(&str, StateRequest)> = Vec::new();
    // Writes done, conflicts, refusals, expired leases, repeated writes, changes of leader.
    let mut seen = [0; 6];
    for step in 0..300_u64 {
        let owner = OWNERS[random.below(2) as usize];
        let name = NAMES[random.below(4) as usize];
        let account = model.entry(owner).or_default();
        let leases: Vec<u64> = account.leases.keys().copied().collect();
        let any_lease = match leases.len() as u64 {
            0 => 1 + random.below(3),
            count => leases[random.below(count) as usize],
        };
        let mark = WriteMark {
            id: Bytes::copy_from_slice(&step.to_be_bytes()),
            ..WriteMark::default()
        };
        let expected = match random.below(3) {
            0 => Expected::Any,
            1 => Expected::Version(account.variables.get(name).map_or(0, |it| it.version)),
            _ => Expected::Version(random.below(account.revision + 2)),
        };
        let request = match random.below(20) {
            0..=6 => StateRequest::Set {
                name: name.into(),
                value: vec![step as u8; random.below(400) as usize].into(),
                expected,
                lease_id: any_lease * random.below(2),
                mark,
            },
            7..=9 => StateRequest::Expunge {
                name: name.into(),
                expected,
                mark,
            },
            10 => StateRequest::GrantLease {
                ttl: Duration::from_secs(1 + random.below(20)),
                mark,
            },
            11 => StateRequest::RenewLease {
                lease_id: any_lease,
            },
            12 => StateRequest::RevokeLease {
                lease_id: any_lease,
                mark,
            },
            13 | 14 if !sent.is_empty() => {
                // An answer was lost.
                let (of, mut again) = sent[random.below(sent.len() as u64) as usize].clone();
                if let Some(mark) = mark_of(&mut again) {
                    mark.repeated = true;
                }
                let account = model.entry(of).or_default();
                let known = mark_of(&mut again).and_then(|it| account.written.get(&it.id));
                if let Some(known) = known.copied() {
                    let (answer, output) = world.ask(of, again);
                    assert!(
                        matches!(answer, StateAnswer::Written { revision } if revision == known)
                    );
                    assert!(output.log.is_empty(), "done twice");
                    seen[4] += 1;
                    continue;
                }
                sent.push((of, again.clone()));
                perform(&mut world, account, of, again, &mut watches, &mut seen);
                check(&mut world, &model, &watches);
                continue;
            }
            15 | 16 => {
                // Time goes on, and leases run out.
                world.now = world.now + Duration::from_secs(random.below(6));
                let output = world.step(Input::Tick);
                for account in model.values_mut() {
                    let mut due: Vec<_> = account
                        .leases
                        .iter()
                        .filter(|(_, (_, at))| *at <= world.now)
                        .map(|(id, (_, at))| (*at, *id))
                        .collect();
                    due.sort();
                    for (_, lease) in due {
                        account.end(lease);
                        seen[3] += 1;
                    }
                }
                see(&mut watches, &output);
                check(&mut world, &model, &watches);
                continue;
            }
            17 if random.below(4) == 0 => {
                world.change_leader();
                watches.clear();
                for account in model.values_mut() {
                    for (ttl, at) in account.leases.values_mut() {
                        *at = world.now + *ttl;
                    }
                }
                seen[5] += 1;
                check(&mut world, &model, &watches);
                continue;
            }
            18 => {
                let prefix = ["", "a", "a/", "c"][random.below(4) as usize];
                let watch = Watch {
                    owner,
                    prefix,
                    known: BTreeMap::new(),
                    revision: 0,
                };
                watches.insert(step, watch);
                let output = world.step(Input::StateWatch {
                    connection: ConnectionId(step),
                    principal: (!owner.is_empty()).then(|| Principal::from(owner)),
                    prefix: prefix.into(),
                });
                see(&mut watches, &output);
                check(&mut world, &model, &watches);
                continue;
            }
            19 if watches.len() > 3 => {
                let Some((connection, _)) = watches.pop_first() else {
                    continue;
                };
                let connection = ConnectionId(connection);
                let _ = world.step(Input::StateWatchClosed { connection });
                continue;
            }
            _ => continue,
        };
        sent.push((owner, request.clone()));
        perform(&mut world, account, owner, request, &mut watches, &mut seen);
        check(&mut world, &model, &watches);
    }
    seen
}

fn mark_of(request: &mut StateRequest) -> Option<&mut WriteMark> {
    match request {
        StateRequest::Set { mark, .. }
        | StateRequest::Expunge { mark, .. }
        | StateRequest::GrantLease { mark, .. }
        | StateRequest::RevokeLease { mark, .. } => Some(mark),
        _ => None,
    }
}

/// Asks the machine and the model, and compares the answers.
fn perform(
    world: &mut World,
    account: &mut Account,
    owner: &str,
    request: StateRequest,
    watches: &mut BTreeMap<u64, Watch>,
    seen: &mut [usize; 6],
) {
    let (answer, output) = world.ask(owner, request.clone());
    see(watches, &output);
    let next = account.revision + 1;
    let id = mark_of(&mut request.clone()).map(|it| it.id.clone());
    let mut wrote = |account: &mut Account| {
        assert!(
            matches!(answer, StateAnswer::Written { revision } if revision == next),
            "{answer:?}, expected revision {next}"
        );
        account.revision = next;
        account.written.insert(id.clone().unwrap_or_default(), next);
        seen[0] += 1;
    };
    let is = |expected: Expected, name: &str| match expected {
        Expected::Any => true,
        Expected::Version(it) => account.variables.get(name).map_or(0, |it| it.version) == it,
    };
    match request {
        StateRequest::Set { name, expected, .. } | StateRequest::Expunge { name, expected, .. }
            if !is(expected, &name) =>
        {
            let StateAnswer::Conflict { current, revision } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(revision, account.revision);
            let current = current.map(|it| entry(&it).1);
            assert_eq!(current.as_ref(), account.variables.get(&*name));
            seen[1] += 1;
        }
        StateRequest::Set { lease_id, .. } | StateRequest::RenewLease { lease_id }
            if lease_id != 0 && !account.leases.contains_key(&lease_id) =>
        {
            assert!(refused(&answer, StateRefusal::NotFound), "{answer:?}");
            seen[2] += 1;
        }
        StateRequest::Set {
            name,
            value,
            lease_id,
            ..
        } => {
            let variable = Variable {
                version: next,
                value,
                lease: lease_id,
            };
            let mut would = account.clone();
            would.variables.insert(name.to_string(), variable);
            if would.bytes() > QUOTA && would.bytes() > account.bytes() {
                assert!(refused(&answer, StateRefusal::Exhausted), "{answer:?}");
                seen[2] += 1;
            } else {
                *account = would;
                wrote(account);
            }
        }
        StateRequest::Expunge { name, .. } => {
            account.variables.remove(&*name);
            wrote(account);
        }
        StateRequest::GrantLease { ttl, .. } => {
            if account.bytes() + 128 > QUOTA {
                assert!(refused(&answer, StateRefusal::Exhausted), "{answer:?}");
                seen[2] += 1;
            } else {
                account.leases.insert(next, (ttl, world.now + ttl));
                wrote(account);
            }
        }
        StateRequest::RenewLease { lease_id } => {
            let Some((ttl, at)) = account.leases.get_mut(&lease_id) else {
                panic!("asked before");
            };
            *at = world.now + *ttl;
            assert!(matches!(&answer, StateAnswer::Renewed { ttl: it, .. } if it == ttl));
        }
        StateRequest::RevokeLease { lease_id, .. } => {
            if account.leases.contains_key(&lease_id) {
                account.end(lease_id);
                account.revision -= 1;
                wrote(account);
            } else {
                assert!(matches!(answer, StateAnswer::Renewed { .. }), "{answer:?}");
            }
        }
        StateRequest::Get { .. } | StateRequest::List { .. } => {}
    }
}

fn refused(answer: &StateAnswer, expected: StateRefusal) -> bool {
    matches!(answer, StateAnswer::Refused { why, .. } if *why == expected)
}

fn check(world: &mut World, model: &BTreeMap<&str, Account>, watches: &BTreeMap<u64, Watch>) {
    for (owner, account) in model {
        let (answer, _) = world.ask(
            owner,
            StateRequest::List {
                prefix: "".into(),
                after: None,
                limit: 100,
            },
        );
        let StateAnswer::Variables {
            variables,
            more,
            revision,
        } = answer
        else {
            panic!("{answer:?}");
        };
        let listed: BTreeMap<_, _> = variables.iter().map(entry).collect();
        assert_eq!(listed, account.variables, "{owner}");
        assert_eq!(revision, account.revision, "{owner}");
        assert!(!more);
    }
    for watch in watches.values() {
        let there = model.get(watch.owner).map(|it| it.variables.clone());
        let mut there = there.unwrap_or_default();
        there.retain(|name, _| name.starts_with(watch.prefix));
        assert_eq!(watch.known, there, "prefix {:?}", watch.prefix);
    }
}

#[test]
fn answers_and_watches_are_those_of_the_model() {
    let mut seen = [0; 6];
    for seed in 1..=20 {
        for (sum, more) in seen.iter_mut().zip(history(seed)) {
            *sum += more;
        }
    }
    // Or the test would not test what it is for.
    assert!(seen.iter().all(|it| *it > 10), "{seen:?}");
}

fn set(name: &str, expected: Expected, mark: WriteMark) -> StateRequest {
    StateRequest::Set {
        name: name.into(),
        value: Bytes::from_static(b"x"),
        expected,
        lease_id: 0,
        mark,
    }
}

fn mark(id: &[u8]) -> WriteMark {
    WriteMark {
        id: Bytes::copy_from_slice(id),
        ..WriteMark::default()
    }
}

#[test]
fn a_lost_answer_is_found_again_though_somebody_wrote_since() {
    let mut world = World::new();
    let first = set("a", Expected::Version(0), mark(b"one"));
    assert!(matches!(
        world.ask("p", first.clone()).0,
        StateAnswer::Written { revision: 1 }
    ));
    let other = set("a", Expected::Version(1), mark(b"two"));
    assert!(matches!(
        world.ask("p", other).0,
        StateAnswer::Written { revision: 2 }
    ));
    world.change_leader();
    assert!(matches!(
        world.ask("p", first).0,
        StateAnswer::Written { revision: 1 }
    ));
    assert_eq!(world.get("p", "a").map(|it| it.0), Some(2));
    // Another principal has neither the variable nor the write.
    assert_eq!(world.get("", "a"), None);
}

#[test]
fn a_write_that_nobody_remembers_is_not_done_again() {
    let mut world = World::new();
    let _ = world.ask("", set("a", Expected::Any, mark(b"lost")));
    for number in 0..MAX_RECENT_WRITES as u64 {
        let _ = world.ask("", set("b", Expected::Any, mark(&number.to_be_bytes())));
    }
    let repeated = |seen_revision| WriteMark {
        repeated: true,
        seen_revision,
        ..mark(b"lost")
    };
    let (answer, output) = world.ask("", set("a", Expected::Any, repeated(0)));
    assert!(refused(&answer, StateRefusal::Unknown), "{answer:?}");
    assert!(output.log.is_empty());
    // One that was sent after everything which is forgotten cannot have been done.
    let (answer, _) = world.ask("", set("a", Expected::Any, repeated(1)));
    assert!(matches!(answer, StateAnswer::Written { .. }), "{answer:?}");
}

#[test]
fn a_new_leader_gives_leases_their_whole_time() {
    let mut world = World::new();
    let grant = StateRequest::GrantLease {
        ttl: Duration::from_secs(10),
        mark: WriteMark::default(),
    };
    let _ = world.ask("", grant);
    let hung = StateRequest::Set {
        name: "leader".into(),
        value: Bytes::from_static(b"me"),
        expected: Expected::Version(0),
        lease_id: 1,
        mark: WriteMark::default(),
    };
    let _ = world.ask("", hung);
    world.now = world.now + Duration::from_secs(9);
    let _ = world.step(Input::Tick);
    world.change_leader();
    world.now = world.now + Duration::from_secs(9);
    let _ = world.step(Input::Tick);
    assert!(world.get("", "leader").is_some());
    let deadline = world.machine.next_deadline().expect("of the lease");
    assert!(deadline <= world.now + Duration::from_secs(1));
    world.now = world.now + Duration::from_secs(1);
    let output = world.step(Input::Tick);
    assert!(!output.log.is_empty(), "the end of a lease is decided");
    assert_eq!(world.get("", "leader"), None);
}

#[test]
fn watches_are_bounded() {
    let mut world = World::new();
    let mut refused = BTreeSet::new();
    for connection in 0..300 {
        let output = world.step(Input::StateWatch {
            connection: ConnectionId(connection),
            principal: None,
            prefix: "".into(),
        });
        let closed = |it: &Message| matches!(it, Message::Close { status, .. } if *status == Status::TooManyRequests);
        if output.send.iter().any(|it| closed(&it.message)) {
            refused.insert(connection);
        }
    }
    assert_eq!(refused, (256..300).collect());
}

#[test]
fn lists_come_in_pages() {
    let mut world = World::new();
    for name in ["a", "b/1", "b/2", "b/3", "c"] {
        let _ = world.ask("", set(name, Expected::Any, WriteMark::default()));
    }
    let mut page = |after: Option<&str>| {
        let list = StateRequest::List {
            prefix: "b/".into(),
            after: after.map(Arc::from),
            limit: 2,
        };
        match world.ask("", list).0 {
            StateAnswer::Variables {
                variables, more, ..
            } => {
                let names = variables.iter().map(|it| it.name.clone());
                (names.collect::<Vec<_>>(), more)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(page(None), (vec!["b/1".into(), "b/2".into()], true));
    assert_eq!(page(Some("b/2")), (vec!["b/3".into()], false));
    assert_eq!(page(Some("a")), (vec!["b/1".into(), "b/2".into()], true));
}
