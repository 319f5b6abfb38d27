//! Events for operators who subscribe: made from committed operations and view changes,
//! once for all of them, and encoded once for each content type.

use crate::{
    endpoints::{agents, frameworks, tasks, v1},
    view::View,
};
use bytes::Bytes;
use prost::Message;
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};
use tepui_master_machine::{
    model::{
        id::{AgentId, FrameworkId, TaskId},
        log::{self, operation::Kind},
        wire::{
            self,
            master::{Event, event},
        },
    },
    output::ViewChange,
};
use tepui_server::proto::{media::ContentType, recordio};
use tokio::sync::mpsc;

/// An event with its encodings.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) event: Event,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Encoded {
    pub(crate) fn new(event: Event) -> Encoded {
        Encoded {
            event,
            json: OnceLock::new(),
            protobuf: OnceLock::new(),
        }
    }

    /// As one record.
    pub(crate) fn record(&self, content_type: ContentType) -> Bytes {
        match content_type {
            ContentType::Json => self
                .json
                .get_or_init(|| recordio::encode(v1::event(&self.event).as_bytes()))
                .clone(),
            _ => self
                .protobuf
                .get_or_init(|| recordio::encode(&self.event.encode_to_vec()))
                .clone(),
        }
    }
}

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) enum Item {
    /// The state at the beginning.
    Begin(Arc<View>),
    /// What happened later.
    Event(Arc<Encoded>),
}

/// The end of a subscriber's queue at the view thread.
pub(crate) type Sink = mpsc::Sender<Item>;

/// Every subscriber, and what they have been told of.
#[derive(Debug)]
pub(crate) struct Feed {
    sinks: Vec<Sink>,
    /// Subscribers at a time; the oldest goes when there is one more.
    maximum: usize,
    agents: BTreeSet<AgentId>,
    frameworks: BTreeSet<FrameworkId>,
}

impl Feed {
    pub(crate) fn new(maximum: usize) -> Feed {
        Feed {
            sinks: Vec::new(),
            maximum,
            agents: BTreeSet::new(),
            frameworks: BTreeSet::new(),
        }
    }

    /// Adds a subscriber, who begins with `view`.
    pub(crate) fn subscribe(&mut self, sink: Sink, view: &Arc<View>) {
        self.sinks.retain(|it| !it.is_closed());
        if self.sinks.is_empty() {
            // Nobody was told anything: what is known begins with this view.
            self.agents = view
                .registered_agents()
                .map(|(id, ..)| id.clone())
                .collect();
            self.frameworks = view
                .state()
                .frameworks()
                .map(|(id, _)| id.clone())
                .collect();
        }
        if sink.try_send(Item::Begin(view.clone())).is_ok() {
            self.sinks.push(sink);
        }
        if self.sinks.len() > self.maximum {
            self.sinks.remove(0);
        }
    }

    /// Everybody has to subscribe again.
    pub(crate) fn clear(&mut self) {
        self.sinks.clear();
    }

    /// Tells everybody what an entry and the changes with it brought; `view` has them.
    pub(crate) fn update(
        &mut self,
        view: &View,
        operations: &[log::Operation],
        changes: &[ViewChange],
    ) {
        if self.sinks.is_empty() {
            return;
        }
        for event in self.events(view, operations, changes) {
            let encoded = Arc::new(Encoded::new(event));
            // One who does not read fast enough is dropped: its stream ends.
            self.sinks
                .retain(|sink| sink.try_send(Item::Event(encoded.clone())).is_ok());
        }
    }

    /// What operations and changes mean to operators, in order.
    fn events(
        &mut self,
        view: &View,
        operations: &[log::Operation],
        changes: &[ViewChange],
    ) -> Vec<Event> {
        let mut events = Vec::new();
        // A new row and a new connection are one piece of news.
        let mut told = BTreeSet::new();
        for kind in operations.iter().filter_map(|it| it.kind.as_ref()) {
            self.operation(view, kind, &mut told, &mut events);
        }
        for change in changes {
            self.change(view, change, &mut told, &mut events);
        }
        events
    }

    fn operation(
        &mut self,
        view: &View,
        kind: &Kind,
        told: &mut BTreeSet<FrameworkId>,
        events: &mut Vec<Event>,
    ) {
        match kind {
            Kind::LaunchTask(launch) => {
                if let Some(task) = &launch.task {
                    let task = tasks::task_v1(task);
                    let mut event = of(event::Type::TaskAdded);
                    event.task_added = Some(event::TaskAdded { task });
                    events.push(event);
                }
            }
            Kind::UpdateTask(update) => events.extend(task_updated(view, update)),
            Kind::PutFramework(put) => {
                if let Some(row) = &put.framework {
                    let id = FrameworkId::from(row.framework_id.as_str());
                    // A new one is told of when it is connected, as the log says first.
                    if self.frameworks.contains(&id) && told.insert(id.clone()) {
                        events.extend(framework(view, &id, false));
                    }
                }
            }
            Kind::RemoveFramework(removed) => {
                let id = FrameworkId::from(removed.framework_id.as_str());
                // Its tasks ended with it, by no operation of their own.
                let reason = Some(wire::task_status::Reason::FrameworkRemoved as i32);
                for task in view.state().completed_tasks(&id) {
                    if let Some(status) = task.statuses.last().filter(|it| it.reason == reason) {
                        events.push(updated(task, status, status.state));
                    }
                }
                self.frameworks.remove(&id);
                let completed = view.state().completed_frameworks();
                let row = view.state().framework(&id).or_else(|| {
                    completed
                        .into_iter()
                        .find(|(it, _)| **it == id)
                        .map(|(_, row)| row)
                });
                if let Some(row) = row {
                    let framework_info = frameworks::info_v1(row);
                    let mut event = of(event::Type::FrameworkRemoved);
                    event.framework_removed = Some(event::FrameworkRemoved { framework_info });
                    events.push(event);
                }
            }
            _ => {}
        }
    }

    fn change(
        &mut self,
        view: &View,
        change: &ViewChange,
        told: &mut BTreeSet<FrameworkId>,
        events: &mut Vec<Event>,
    ) {
        match change {
            ViewChange::Framework {
                framework_id,
                connected: true,
                ..
            } => {
                let is_new = self.frameworks.insert(framework_id.clone());
                if told.insert(framework_id.clone()) {
                    events.extend(framework(view, framework_id, is_new));
                }
            }
            ViewChange::Agent {
                agent_id,
                connected: true,
                ..
            } => {
                if !self.agents.contains(agent_id)
                    && let (Some(row), Some(link)) =
                        (view.state().agent(agent_id), view.agent_link(agent_id))
                {
                    self.agents.insert(agent_id.clone());
                    let agent = agents::registered_v1(view, agent_id, row, link);
                    let mut event = of(event::Type::AgentAdded);
                    event.agent_added = Some(event::AgentAdded { agent });
                    events.push(event);
                }
            }
            ViewChange::AgentRemoved(agent_id) => {
                self.agents.remove(agent_id);
                let agent_id = agent_id.to_wire();
                let mut event = of(event::Type::AgentRemoved);
                event.agent_removed = Some(event::AgentRemoved { agent_id });
                events.push(event);
            }
            _ => {}
        }
    }
}

/// An event of a type, without content.
pub(crate) fn of(kind: event::Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

fn framework(view: &View, id: &FrameworkId, is_new: bool) -> Option<Event> {
    let row = view.state().framework(id).filter(|it| !it.completed)?;
    let framework = frameworks::framework_event(view, id, row);
    let mut event;
    if is_new {
        event = of(event::Type::FrameworkAdded);
        event.framework_added = Some(event::FrameworkAdded { framework });
    } else {
        event = of(event::Type::FrameworkUpdated);
        event.framework_updated = Some(event::FrameworkUpdated { framework });
    }
    Some(event)
}

fn task_updated(view: &View, update: &log::UpdateTask) -> Option<Event> {
    let status = update.status.as_ref()?;
    let framework_id = FrameworkId::from(update.framework_id.as_str());
    let task_id = TaskId::from(update.task_id.as_str());
    let state = view.state();
    let row = state.task(&framework_id, &task_id).or_else(|| {
        let mut completed = state.completed_tasks(&framework_id);
        completed.find(|row| row.task_id == update.task_id)
    })?;
    let latest = update.latest_state.unwrap_or(status.state);
    Some(updated(row, status, latest))
}

fn updated(row: &log::Task, status: &log::TaskStatus, state: i32) -> Event {
    let mut event = of(event::Type::TaskUpdated);
    event.task_updated = Some(event::TaskUpdated {
        framework_id: wire::FrameworkId {
            value: row.framework_id.clone(),
        },
        status: tasks::status_v1(row, status),
        state,
    });
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_state::ClusterState;

    /// Applies operations and changes as the view thread does; the types of the events.
    fn apply(
        feed: &mut Feed,
        view: &mut View,
        kinds: Vec<Kind>,
        changes: &[ViewChange],
    ) -> Vec<event::Type> {
        let operations = kinds
            .into_iter()
            .map(|kind| log::Operation { kind: Some(kind) });
        let entry = log::Entry {
            operations: operations.collect(),
            ..Default::default()
        };
        view.apply_entry(&entry).unwrap();
        changes.iter().for_each(|it| view.apply_change(it));
        let events = feed.events(view, &entry.operations, changes);
        events.iter().map(Event::r#type).collect()
    }

    fn put() -> Kind {
        let info = wire::FrameworkInfo {
            user: "u".into(),
            name: "n".into(),
            ..Default::default()
        };
        Kind::PutFramework(log::PutFramework {
            framework: Some(log::Framework {
                framework_id: "F".into(),
                info_payload: info.encode_to_vec().into(),
                ..Default::default()
            }),
        })
    }

    fn connection(connected: bool) -> ViewChange {
        ViewChange::Framework {
            framework_id: "F".into(),
            connected,
            active: connected,
            transport: None,
        }
    }

    fn launch(id: &str) -> Kind {
        Kind::LaunchTask(log::LaunchTask {
            task: Some(log::Task {
                framework_id: "F".into(),
                task_id: id.into(),
                agent_id: "S".into(),
                state: wire::TaskState::TaskStaging as i32,
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn status(id: &str, state: wire::TaskState) -> Kind {
        Kind::UpdateTask(log::UpdateTask {
            framework_id: "F".into(),
            task_id: id.into(),
            status: Some(log::TaskStatus {
                state: state as i32,
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    #[test]
    fn a_framework_comes_works_fails_over_and_goes() {
        use event::Type::{FrameworkAdded, FrameworkRemoved, FrameworkUpdated};
        use event::Type::{TaskAdded, TaskUpdated};
        let (mut feed, mut view) = (Feed::new(1), View::birth(ClusterState::new()));
        let mut apply = |kinds, changes: &[_]| apply(&mut feed, &mut view, kinds, changes);
        assert_eq!(apply(vec![put()], &[connection(true)]), [FrameworkAdded]);
        let launches = vec![launch("a"), launch("b")];
        assert_eq!(apply(launches, &[]), [TaskAdded, TaskAdded]);
        let ended = status("a", wire::TaskState::TaskFinished);
        assert_eq!(apply(vec![ended], &[]), [TaskUpdated]);
        assert_eq!(apply(vec![], &[connection(false)]), []);
        assert_eq!(apply(vec![put()], &[connection(true)]), [FrameworkUpdated]);
        assert_eq!(apply(vec![put()], &[]), [FrameworkUpdated]);
        // The task that ran is told of, the one that had ended is not.
        let remove = Kind::RemoveFramework(log::RemoveFramework {
            framework_id: "F".into(),
            wall_time: 1.0,
        });
        let gone = ViewChange::FrameworkRemoved("F".into());
        assert_eq!(
            apply(vec![remove], &[gone]),
            [TaskUpdated, FrameworkRemoved]
        );
    }

    #[test]
    fn who_does_not_read_is_dropped_and_the_oldest_makes_room() {
        let mut view = View::birth(ClusterState::new());
        let mut feed = Feed::new(2);
        let snapshot = Arc::new(view.clone());
        let (slow, slow_items) = mpsc::channel(1);
        let (quick, mut quick_items) = mpsc::channel(8);
        feed.subscribe(slow, &snapshot);
        feed.subscribe(quick, &snapshot);
        let Kind::PutFramework(it) = put() else {
            return;
        };
        let entry = log::Entry {
            operations: vec![log::Operation {
                kind: Some(Kind::PutFramework(it)),
            }],
            ..Default::default()
        };
        view.apply_entry(&entry).unwrap();
        feed.update(&view, &entry.operations, &[connection(true)]);
        assert!(slow_items.is_closed());
        assert!(matches!(quick_items.try_recv(), Ok(Item::Begin(_))));
        assert!(matches!(quick_items.try_recv(), Ok(Item::Event(_))));
        let more: Vec<_> = (0..2)
            .map(|_| {
                let (sink, items) = mpsc::channel(8);
                feed.subscribe(sink, &snapshot);
                items
            })
            .collect();
        assert!(quick_items.is_closed());
        assert!(more.iter().all(|it| !it.is_closed()));
    }
}
