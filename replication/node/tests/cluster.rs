//! Whole groups in one thread and in virtual time, over a network that loses, delays, reorders
//! and doubles messages, and over disks that persist late and forget at a crash what they
//! had not synced.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use bytes::Bytes;
use tepui_replication_node::{
    Batch, Config, Disk, DiskError, MemberChange, Members, Node, NodeId, Origin, Outgoing, Persist,
    ProposeError, Role, StepError, Stored,
};

#[derive(Clone, Default)]
struct Image {
    entries: BTreeMap<u64, Bytes>,
    state: Option<Bytes>,
}

impl Image {
    fn write(&mut self, batch: &Batch) {
        if let Some(to) = batch.delete_to {
            self.entries = self.entries.split_off(&(to + 1));
        }
        if let Some(from) = batch.delete_from {
            self.entries.split_off(&from);
        }
        self.entries.extend(batch.entries.iter().cloned());
        if let Some(state) = &batch.state {
            self.state = Some(state.clone());
        }
        // Without gaps, and nothing is left of what other leaders' entries replaced.
        let (first, last) = (
            self.entries.first_key_value(),
            self.entries.last_key_value(),
        );
        if let (Some((first, _)), Some((last, _))) = (first, last) {
            assert_eq!(self.entries.len() as u64, last - first + 1);
            let newest = batch.entries.last();
            assert!(newest.is_none_or(|(index, _)| index == last));
        }
    }
}

#[derive(Clone, Default)]
struct SimDisk(Rc<RefCell<Image>>);

impl Disk for SimDisk {
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Bytes>, DiskError> {
        let image = self.0.borrow();
        let mut bytes = 0;
        let mut found = Vec::new();
        for (_, entry) in image.entries.range(low..high) {
            bytes += entry.len() as u64;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}

/// What an application keeps: the rows of this simulation.
#[derive(Clone, Default, Debug, PartialEq)]
struct Rows {
    applied: u64,
    term: u64,
    members: Members,
    restored: bool,
    commands: Vec<(u64, Bytes)>,
}

struct Host {
    disk: SimDisk,
    // Written, not yet confirmed; `None` for what was down when a write came.
    writes: Vec<(u64, Persist)>,
    rows: Rows,
    // As of the last flush.
    stored_rows: Rows,
    node: Option<Node<SimDisk>>,
    last_due: u64,
}

#[derive(Clone, Copy)]
struct Faults {
    loss_percent: u64,
    max_delay: u64,
    max_write: u64,
}

const CALM: Faults = Faults {
    loss_percent: 0,
    max_delay: 1,
    max_write: 3,
};
const ROUGH: Faults = Faults {
    loss_percent: 10,
    max_delay: 6,
    max_write: 5,
};

struct World {
    seed: u64,
    random: u64,
    now: u64,
    founders: Members,
    hosts: BTreeMap<NodeId, Host>,
    network: BTreeMap<(u64, u64), (NodeId, Outgoing)>,
    sent: u64,
    faults: Faults,
    // Sequence numbers of proposals, which differ everywhere.
    proposed: u64,
    // Reported as committed by a leader: what a client may rely on.
    acknowledged: BTreeMap<u64, Bytes>,
    leaders: BTreeMap<u64, NodeId>,
    reads: Vec<(NodeId, Bytes, u64)>,
    member_changes: u32,
    digest: u64,
    cut_behind: Option<u64>,
}

impl World {
    fn new(seed: u64, voters: u64) -> World {
        let mut world = World {
            seed,
            random: seed,
            now: 0,
            founders: Members::voters(1..=voters),
            hosts: BTreeMap::new(),
            network: BTreeMap::new(),
            sent: 0,
            faults: CALM,
            proposed: 0,
            acknowledged: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: Vec::new(),
            member_changes: 0,
            digest: 0,
            cut_behind: None,
        };
        for id in 1..=voters {
            world.add(id);
        }
        world
    }

    fn add(&mut self, id: NodeId) {
        let host = Host {
            disk: SimDisk::default(),
            writes: Vec::new(),
            rows: Rows::default(),
            stored_rows: Rows::default(),
            node: None,
            last_due: 0,
        };
        self.hosts.insert(id, host);
        self.start(id);
    }

    fn draw(&mut self, below: u64) -> u64 {
        // xorshift*; anything but the crate's own randomness.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn note(&mut self, number: u64, bytes: &[u8]) {
        let mut hash = self.digest ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.digest = hash;
    }

    fn start(&mut self, id: NodeId) {
        let founders = self.founders.clone();
        let host = self.hosts.get_mut(&id).expect("host");
        host.rows = host.stored_rows.clone();
        let config = Config {
            applied: host.rows.applied,
            // Small, so that disks are read.
            cache_bytes: 2000,
            max_message_bytes: 500,
            ..Config::new(id, self.seed, founders)
        };
        let image = host.disk.0.borrow();
        let stored = Stored {
            state: image.state.clone(),
            last_index: image.entries.last_key_value().map_or(0, |it| *it.0),
            origin: host.rows.restored.then(|| Origin {
                index: host.rows.applied,
                term: host.rows.term,
                members: host.rows.members.clone(),
            }),
        };
        drop(image);
        host.node = Some(Node::new(config, host.disk.clone(), stored).expect("start"));
    }

    /// Unconfirmed writes: of those, some may have reached the disk, in order, the rest not.
    fn crash(&mut self, id: NodeId) {
        let survive = self.draw(4) as usize;
        let host = self.hosts.get_mut(&id).expect("host");
        host.node = None;
        for (_, persist) in host.writes.drain(..).take(survive) {
            host.disk.0.borrow_mut().write(&persist.batch);
        }
        host.last_due = 0;
    }

    fn tick(&mut self) {
        self.now += 1;
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            let now = self.now;
            let host = self.hosts.get_mut(&id).expect("host");
            let Some(node) = &mut host.node else { continue };
            while host.writes.first().is_some_and(|(due, _)| *due <= now) {
                let (_, persist) = host.writes.remove(0);
                host.disk.0.borrow_mut().write(&persist.batch);
                node.on_persisted(persist.number);
            }
            node.tick();
            self.drain(id);
        }
        while let Some(first) = self.network.first_entry()
            && first.key().0 <= self.now
        {
            let (from, message) = first.remove();
            let (to, ticket) = (message.to, message.ticket);
            let mut arrived = false;
            let host = self.hosts.get_mut(&to);
            if let Some(node) = host.and_then(|it| it.node.as_mut()) {
                match node.step(message.bytes) {
                    Ok(()) | Err(StepError::Stranger { .. }) => {}
                    Err(error) => panic!("{from} to {to}: {error}"),
                }
                self.drain(to);
                arrived = true;
            }
            if ticket.is_some() {
                self.report(from, to, arrived);
            }
        }
    }

    fn report(&mut self, from: NodeId, to: NodeId, arrived: bool) {
        let host = self.hosts.get_mut(&from);
        if let Some(node) = host.and_then(|it| it.node.as_mut()) {
            node.report_rows(to, arrived);
        }
    }

    fn drain(&mut self, id: NodeId) {
        loop {
            let host = self.hosts.get_mut(&id).expect("host");
            let Some(node) = &mut host.node else { return };
            let Some(ready) = node.ready() else { break };
            let leads = matches!(node.role(), Role::Leader { .. });
            if let Some(term) = ready.elected {
                let other = self.leaders.insert(term, id);
                assert!(other.is_none(), "term {term} has two leaders");
            }
            for message in ready.messages {
                self.send(id, message);
            }
            if let Some(persist) = ready.persist {
                let delay = 1 + self.draw(self.faults.max_write);
                let host = self.hosts.get_mut(&id).expect("host");
                // In order, however long each takes.
                host.last_due = host.last_due.max(self.now + delay);
                host.writes.push((host.last_due, persist));
            }
            if let Some(ticket) = ready.restore {
                let newest = self
                    .hosts
                    .values()
                    .map(|it| it.rows.clone())
                    .max_by_key(|it| it.applied)
                    .expect("hosts");
                assert!(newest.applied >= ticket.index, "rows older than the ticket");
                let host = self.hosts.get_mut(&id).expect("host");
                host.rows = Rows {
                    restored: true,
                    ..newest
                };
                // New rows are durable before the log that begins behind them.
                host.stored_rows = host.rows.clone();
            }
            self.member_changes += u32::from(ready.members.is_some());
            for read in ready.reads {
                self.reads.push((id, read.context, read.index));
            }
            let host = self.hosts.get_mut(&id).expect("host");
            for committed in ready.committed {
                if leads {
                    let before = self
                        .acknowledged
                        .insert(committed.index, committed.data.clone());
                    assert!(before.is_none_or(|it| it == committed.data));
                }
                // Rows fetched from another master may be ahead of the log.
                if committed.index > host.rows.applied {
                    host.rows.commands.push((committed.index, committed.data));
                }
            }
            if let Some(index) = ready.committed_to {
                let node = host.node.as_mut().expect("up");
                if index > host.rows.applied {
                    host.rows.applied = index;
                    host.rows.term = node.committed().term;
                    host.rows.members = node.members().clone();
                    host.rows.restored = false;
                }
                node.advance_applied(index);
            }
            if let Some(distance) = self.cut_behind {
                self.flush(id);
                let host = self.hosts.get_mut(&id).expect("host");
                let to = host.rows.applied.saturating_sub(distance);
                host.node.as_mut().expect("up").compact(to);
            }
        }
    }

    fn flush(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).expect("host");
        host.stored_rows = host.rows.clone();
    }

    fn send(&mut self, from: NodeId, message: Outgoing) {
        self.note(from, &message.bytes);
        if self.draw(100) < self.faults.loss_percent {
            if message.ticket.is_some() {
                self.report(from, message.to, false);
            }
            return;
        }
        let copies = 1 + u64::from(self.draw(100) < self.faults.loss_percent);
        for _ in 0..copies {
            let due = self.now + 1 + self.draw(self.faults.max_delay);
            self.sent += 1;
            let key = (due, self.sent);
            self.network.insert(key, (from, message.clone()));
        }
    }

    fn leader(&self) -> Option<(NodeId, u64)> {
        let leads = |(id, host): (&NodeId, &Host)| match host.node.as_ref()?.role() {
            Role::Leader { term } => Some((*id, term)),
            _ => None,
        };
        self.hosts
            .iter()
            .filter_map(leads)
            .max_by_key(|(_, term)| *term)
    }

    fn await_leader(&mut self) -> (NodeId, u64) {
        self.run_until("a leader", |world| world.leader().is_some());
        self.leader().expect("just seen")
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&World) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.tick();
        }
        panic!("seed {}: no {what} after 20000 ticks", self.seed);
    }

    fn propose(&mut self) -> Option<Bytes> {
        let (id, term) = self.leader()?;
        self.proposed += 1;
        let data = Bytes::from(format!("{}:{}", self.proposed, "x".repeat(50)));
        let host = self.hosts.get_mut(&id).expect("host");
        let node = host.node.as_mut().expect("up");
        node.propose(term, self.proposed, data.clone()).ok()?;
        self.drain(id);
        Some(data)
    }

    /// Ends all faults, starts everybody and waits until all have applied the same.
    fn settle(&mut self) {
        self.faults = CALM;
        let down = self.hosts.iter().filter(|it| it.1.node.is_none());
        let down: Vec<_> = down.map(|it| *it.0).collect();
        for id in down {
            self.start(id);
        }
        self.run_until("settled group", |world| world.leader().is_some());
        self.propose();
        let members: BTreeSet<_> = {
            let (leader, _) = self.leader().expect("leader");
            let node = self.hosts[&leader].node.as_ref().expect("up");
            node.members().voters.clone()
        };
        self.run_until("agreement", |world| {
            let applied: BTreeSet<_> = members
                .iter()
                .map(|id| world.hosts[id].rows.applied)
                .collect();
            let (leader, _) = world.leader().unwrap_or_default();
            let last = world.hosts.get(&leader).and_then(|it| it.node.as_ref());
            applied.len() == 1 && last.map(Node::last_index) == applied.first().copied()
        });
        let first = *members.first().expect("voters");
        for id in &members {
            let (left, right) = (&self.hosts[id].rows, &self.hosts[&first].rows);
            assert_eq!(left.commands, right.commands);
        }
        let kept: BTreeMap<_, _> = self.hosts[&first].rows.commands.iter().cloned().collect();
        for (index, data) in &self.acknowledged {
            assert_eq!(kept.get(index), Some(data), "seed {}: lost", self.seed);
        }
        let mut datas: Vec<_> = kept.values().collect();
        datas.sort();
        datas.dedup();
        assert_eq!(datas.len(), kept.len(), "an entry was applied twice");
    }
}

/// Proposals under every fault; returns the digest of all bytes sent.
fn rough_life(seed: u64, voters: u64) -> u64 {
    let mut world = World::new(seed, voters);
    world.cut_behind = seed.is_multiple_of(2).then_some(5);
    world.await_leader();
    world.faults = ROUGH;
    for _ in 0..1500 {
        match world.draw(100) {
            0..40 => {
                world.propose();
            }
            40 => {
                let id = 1 + world.draw(voters);
                if world.hosts[&id].node.is_some() {
                    world.crash(id);
                }
            }
            45..49 => {
                let id = 1 + world.draw(voters);
                if world.hosts[&id].node.is_none() {
                    world.start(id);
                }
            }
            41..43 => {
                let id = 1 + world.draw(voters);
                world.flush(id);
            }
            43 => {
                if let Some((id, _)) = world.leader() {
                    let host = world.hosts.get_mut(&id).expect("host");
                    host.node.as_mut().expect("up").step_down();
                }
            }
            44 => {
                let to = 1 + world.draw(voters);
                if let Some((id, _)) = world.leader() {
                    let host = world.hosts.get_mut(&id).expect("host");
                    host.node.as_mut().expect("up").transfer_leadership(to);
                }
            }
            _ => {}
        }
        world.tick();
    }
    world.settle();
    let acknowledged = world.acknowledged.len();
    assert!(acknowledged > 20, "seed {seed}: only {acknowledged}");
    world.digest
}

#[test]
fn nothing_acknowledged_is_lost() {
    for seed in 1..=24 {
        rough_life(seed, 3);
    }
    for seed in 25..=28 {
        rough_life(seed, 5);
    }
}

#[test]
fn a_sole_voter_survives_crashes() {
    for seed in 1..=16 {
        rough_life(seed, 1);
    }
}

#[test]
fn one_seed_is_one_history() {
    let digests: BTreeSet<_> = (1..=4).map(|seed| rough_life(seed, 3)).collect();
    let again: BTreeSet<_> = (1..=4).map(|seed| rough_life(seed, 3)).collect();
    assert_eq!(digests.len(), 4);
    assert_eq!(digests, again);
}

#[test]
fn the_leader_dies() {
    let mut world = World::new(7, 3);
    let (first, term) = world.await_leader();
    for _ in 0..50 {
        world.propose();
        world.tick();
    }
    world.crash(first);
    world.run_until("another leader", |world| {
        world.leader().is_some_and(|it| it.0 != first)
    });
    let (_, later) = world.leader().expect("leader");
    assert!(later > term);
    world.propose().expect("a leader accepts");
    world.settle();
    assert!(world.acknowledged.len() >= 50);
}

#[test]
fn slow_disks_of_followers_cost_the_leader_nothing_but_time() {
    let mut world = World::new(11, 3);
    let (leader, term) = world.await_leader();
    // Many election time-outs long.
    let until = world.now + 500;
    world.propose().expect("a leader accepts");
    while world.now < until {
        world.tick();
        for (_, host) in world.hosts.iter_mut().filter(|it| *it.0 != leader) {
            for (due, _) in &mut host.writes {
                *due = (*due).max(until + 1);
            }
            host.last_due = host.last_due.max(until + 1);
        }
    }
    assert_eq!(world.leader(), Some((leader, term)));
    world.settle();
    assert_eq!(world.leader(), Some((leader, term)));
    assert_eq!(world.acknowledged.len(), 2);
}

#[test]
fn a_late_node_gets_a_ticket() {
    let mut world = World::new(3, 3);
    world.cut_behind = Some(2);
    let (leader, _) = world.await_leader();
    let late = (1..=3).find(|id| *id != leader).expect("follower");
    world.crash(late);
    for _ in 0..40 {
        world.propose();
        world.tick();
    }
    let cut = world.hosts[&leader].node.as_ref().expect("up").cut_index();
    assert!(cut > 30, "{cut}");
    world.start(late);
    world.settle();
    assert!(world.hosts[&late].node.as_ref().expect("up").cut_index() >= cut);
}

#[test]
fn a_node_without_the_log_behind_its_ticket_does_not_campaign() {
    let mut world = World::new(3, 3);
    world.cut_behind = Some(2);
    let (leader, _) = world.await_leader();
    let late = (1..=3).find(|id| *id != leader).expect("follower");
    world.crash(late);
    for _ in 0..40 {
        world.propose();
        world.tick();
    }
    // Its disk is so slow that elections pass before the new log is durable.
    world.faults.max_write = 200;
    world.start(late);
    world.run_until("rows", |world| world.hosts[&late].rows.restored);
    assert!(!world.hosts[&late].writes.is_empty());
    let host = world.hosts.get_mut(&leader).expect("host");
    host.node.as_mut().expect("up").transfer_leadership(late);
    world.drain(leader);
    let host = world.hosts.get_mut(&late).expect("host");
    host.node.as_mut().expect("up").campaign();
    world.drain(late);
    for _ in 0..100 {
        world.tick();
    }
    world.settle();
}

#[test]
fn members_change() {
    let mut world = World::new(11, 3);
    let (leader, _) = world.await_leader();
    for _ in 0..10 {
        world.propose();
        world.tick();
    }
    // Knows the founders, is none of them.
    world.add(4);
    let dead = (1..=3).find(|id| *id != leader).expect("follower");
    world.crash(dead);
    let change = [MemberChange::AddVoter(4), MemberChange::Remove(dead)];
    let host = world.hosts.get_mut(&leader).expect("host");
    let node = host.node.as_mut().expect("up");
    node.propose_members(&change).expect("leads");
    world.drain(leader);
    let expected: BTreeSet<_> = (1..=4).filter(|it| *it != dead).collect();
    world.run_until("new members", |world| {
        expected.iter().all(|id| {
            let node = world.hosts[id].node.as_ref().expect("up");
            let members = node.members();
            members.voters == expected && members.voters_outgoing.is_empty()
        })
    });
    world.hosts.remove(&dead);
    // Members survive a restart of everybody; rows are older, but changes are not done again.
    let wait = world.now + 10;
    world.run_until("writes", |world| world.now > wait);
    for id in expected.clone() {
        world.crash(id);
        assert_eq!(world.hosts[&id].stored_rows.applied, 0);
    }
    let before = world.member_changes;
    world.settle();
    assert_eq!(world.member_changes, before);
    let (leader, _) = world.leader().expect("leader");
    let members = world.hosts[&leader].node.as_ref().expect("up").members();
    assert_eq!(members.voters, expected);
}

#[test]
fn reads_are_confirmed_by_a_quorum() {
    let mut world = World::new(5, 3);
    let (leader, _) = world.await_leader();
    world.propose();
    let ask = |world: &mut World, id, context: &'static [u8]| {
        let host = world.hosts.get_mut(&id).expect("host");
        let node = host.node.as_mut().expect("up");
        node.read_index(Bytes::from_static(context));
        world.drain(id);
    };
    // Followers are not confirmed to lead.
    for id in (1..=3).filter(|it| *it != leader) {
        ask(&mut world, id, b"follower");
    }
    ask(&mut world, leader, b"first");
    world.run_until("answer", |world| !world.reads.is_empty());
    let (_, context, index) = world.reads.pop().expect("read");
    assert_eq!((context, index > 0), (Bytes::from_static(b"first"), true));
    // Alone, a leader learns nothing and gives up.
    for id in 1..=3 {
        if id != leader {
            world.crash(id);
        }
    }
    assert!(world.reads.is_empty());
    ask(&mut world, leader, b"second");
    world.run_until("resignation", |world| world.leader().is_none());
    assert!(world.reads.is_empty());
}

#[test]
fn only_the_announced_leader_of_the_term_proposes() {
    let mut world = World::new(9, 3);
    let (leader, term) = world.await_leader();
    let data = Bytes::from_static(b"x");
    for id in 1..=3 {
        let host = world.hosts.get_mut(&id).expect("host");
        let node = host.node.as_mut().expect("up");
        let last = node.last_index();
        if id != leader {
            let refused = node.propose(term, 1, data.clone());
            assert_eq!(refused, Err(ProposeError::NotLeader { term }));
        }
        let term = term + 1;
        let refused = node.propose(term, 1, data.clone());
        assert_eq!(refused, Err(ProposeError::NotLeader { term }));
        assert_eq!(node.last_index(), last);
    }
    world.tick();
    assert_eq!(world.acknowledged.len(), 0);
}

#[test]
fn a_sole_voter_leads_at_once() {
    let mut world = World::new(1, 1);
    let host = world.hosts.get_mut(&1).expect("host");
    host.node.as_mut().expect("up").campaign();
    world.drain(1);
    // Two writes of at most three ticks each: its vote, and its empty entry.
    for _ in 0..6 {
        world.tick();
    }
    assert_eq!(world.leader(), Some((1, 1)));
}

#[test]
fn a_sole_voter_waits_for_its_disk_before_it_leads_again() {
    let mut world = World::new(2, 1);
    let (_, term) = world.await_leader();
    let data = world.propose().expect("leads");
    let host = world.hosts.get_mut(&1).expect("host");
    assert!(!host.writes.is_empty());
    let node = host.node.as_mut().expect("up");
    node.step_down();
    node.campaign();
    world.drain(1);
    assert_eq!(world.leader(), None);
    world.run_until("a later term", |world| {
        world.leader().is_some_and(|it| it.1 > term)
    });
    // What was on its way is committed all the same.
    let datas: Vec<_> = world.hosts[&1]
        .rows
        .commands
        .iter()
        .map(|it| &it.1)
        .collect();
    assert_eq!(datas, [&data]);
}

#[test]
fn stores_that_do_not_fit_are_refused() {
    let start = |applied, stored| {
        let config = Config {
            applied,
            ..Config::new(1, 1, Members::voters([1]))
        };
        Node::new(config, SimDisk::default(), stored).map(|_| ())
    };
    let error = |applied, stored| start(applied, stored).expect_err("refused").to_string();
    assert!(error(5, Stored::default()).contains("has lost its end"));
    let garbage = Stored {
        state: Some(Bytes::from_static(&[0xff])),
        ..Stored::default()
    };
    assert!(error(0, garbage).contains("cannot be read"));

    let mut world = World::new(1, 1);
    world.cut_behind = Some(0);
    world.await_leader();
    for _ in 0..20 {
        world.propose();
        world.tick();
    }
    world.crash(1);
    let host = &world.hosts[&1];
    let image = host.disk.0.borrow();
    let stored = Stored {
        state: image.state.clone(),
        last_index: image.entries.last_key_value().map_or(0, |it| *it.0),
        origin: None,
    };
    assert!(error(0, stored).contains("too old"));
}
