//! What must always hold, judged by what was asked for and what really happened.
//!
//! The checkers know what frameworks and the operator sent and were told, which containers really
//! ran, what is durable on which disk, and every entry that any master applied. Of the machines
//! they believe nothing: amounts are added up anew, lives of tasks are counted where containers
//! start, and durability is looked up on the simulated disks.

pub mod durability;
pub mod fences;
pub mod frameworks;
pub mod history;
pub mod lives;
pub mod offers;
pub mod orders;
pub mod outbox;
pub mod registers;
pub mod tasks;
pub mod updates;
pub mod volumes;

use crate::plan::Shape;
use tepui_master_machine::{
    Machine,
    output::{Outgoing, Output},
};
use tepui_model::{link, wire};

/// All of them.
#[derive(Debug)]
pub struct Checkers {
    /// One history on all masters.
    pub history: history::History,
    /// What is committed is durable on a quorum.
    pub durability: durability::Durability,
    /// Nothing leaves before it may.
    pub outbox: outbox::Order,
    /// What was asked for.
    pub tasks: tasks::Tasks,
    /// One life for each task, on resources that are there.
    pub lives: lives::Lives,
    /// Each update once, in order, none invented.
    pub updates: updates::Updates,
    /// Data is made and destroyed by order alone.
    pub volumes: volumes::Volumes,
    /// Agents obey no leader of before.
    pub fences: fences::Fences,
    /// Nothing is offered twice, no quota is passed.
    pub offers: offers::Offers,
    /// No framework is forgotten too soon.
    pub frameworks: frameworks::Frameworks,
    /// What the operator was promised.
    pub orders: orders::Orders,
    /// What clients of the state service saw.
    pub registers: registers::Registers,
}

impl Checkers {
    /// Nothing has happened.
    pub fn new(shape: &Shape) -> Checkers {
        Checkers {
            history: history::History::default(),
            durability: durability::Durability::default(),
            outbox: outbox::Order::default(),
            tasks: tasks::Tasks::new(shape),
            lives: lives::Lives::default(),
            updates: updates::Updates::default(),
            volumes: volumes::Volumes::default(),
            fences: fences::Fences::default(),
            offers: offers::Offers::default(),
            frameworks: frameworks::Frameworks::new(shape),
            orders: orders::Orders::default(),
            registers: registers::Registers::new(
                2 * shape.drift.unsigned_abs().max(1_000_000),
                shape.leaps * crate::clock::SECOND,
            ),
        }
    }

    /// A machine was born.
    pub fn birth(&mut self, now: u64, master: usize, term: u64, machine: &Machine) {
        self.outbox.birth(now, master, term);
        self.offers.birth(master);
        let _ = machine;
    }

    /// A machine was thrown away.
    pub fn death(&mut self, master: usize) {
        self.outbox.death(master);
        self.offers.birth(master);
    }

    /// All masters and their disks are gone, and a backup takes their place: what was decided
    /// since is forgotten, and may be promised anew. What agents and frameworks know stays.
    pub fn restored(&mut self) {
        self.history = history::History::default();
        self.durability = durability::Durability::default();
        self.outbox = outbox::Order::default();
        self.orders.forgotten();
        self.tasks.forgotten();
        self.updates.forgotten();
    }

    /// A machine has made a step.
    pub fn decided(
        &mut self,
        now: u64,
        master: usize,
        machine: &Machine,
        output: &Output,
    ) -> Vec<(&'static str, String)> {
        let _ = now;
        let mut wrong = Vec::new();
        if let Err(text) = self.offers.decided(master, machine.state(), output) {
            wrong.push(("resources", text));
        }
        wrong
    }

    /// A message leaves a master.
    pub fn left(&mut self, now: u64, master: usize, outgoing: &Outgoing) -> Result<(), String> {
        self.outbox
            .left(now, master, outgoing, &self.durability, &self.history)
    }

    /// A task's container has come up.
    pub fn began(
        &mut self,
        now: u64,
        agent: usize,
        task: &str,
        container: &str,
    ) -> Result<(), String> {
        self.lives.began(now, agent, task, container, &self.tasks)
    }

    /// A task's container that ran has ended.
    pub fn ended(&mut self, agent: usize, task: &str, success: bool, killed: bool) {
        self.lives.ended(agent, task, success, killed);
        self.volumes.left(task);
    }

    /// A record of an agent is durable.
    pub fn recorded(&mut self, agent: usize, record: &link::Record) {
        self.fences.recorded(agent, record);
        self.updates.recorded(agent, record);
    }

    /// A framework is told about a task.
    pub fn told(
        &mut self,
        now: u64,
        framework: usize,
        status: &wire::TaskStatus,
    ) -> Result<(), String> {
        self.updates
            .told(now, framework, status, &self.tasks, &self.lives)
    }
}
