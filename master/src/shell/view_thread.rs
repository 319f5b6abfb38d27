//! The thread that keeps the view, answers reads and feeds operator subscriptions.
//!
//! Updates and reads share one queue, so that a read which begins after a write was
//! answered sees it. A read gets a snapshot ([`View`] is cheap to clone: rows are shared)
//! and does its work elsewhere; reads that wait together share one.

use crate::{
    shell::operator_events::{Feed, Sink},
    view::View,
};
use std::{sync::Arc, thread::JoinHandle};
use tepui_master_machine::{model::log, output::ViewChange};
use tepui_state::ClusterState;
use tokio::sync::oneshot;

/// What the view thread is told.
#[derive(Debug)]
pub(crate) enum ViewMessage {
    /// A machine was born over this state: what is volatile starts anew.
    Birth {
        state: Box<ClusterState>,
        /// In place of one of the same term: who subscribed has been told of all this.
        again: bool,
    },
    /// A committed entry and the changes that belong to it, in order.
    Update {
        entry: Option<Arc<log::Entry>>,
        changes: Vec<ViewChange>,
    },
    /// The rows as they are now, to be shared with the machine.
    Share(Box<ClusterState>),
    /// A read.
    Snapshot(oneshot::Sender<Arc<View>>),
    /// An operator subscribes: a snapshot, and every later event.
    Subscribe(Sink),
    /// The leadership ended.
    Lost,
    /// End the thread.
    Stop,
}

/// The handle of the thread. Unbounded: the producers are the machine's thread, which is
/// held back by the log, and requests, which are bounded by the connections.
#[derive(Debug, Clone)]
pub(crate) struct ViewHandle {
    sender: flume::Sender<ViewMessage>,
}

impl ViewHandle {
    /// Starts the thread. `subscribers` is how many operators may subscribe at a time.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(subscribers: usize) -> std::io::Result<(ViewHandle, JoinHandle<()>)> {
        let (sender, receiver) = flume::unbounded();
        let thread = std::thread::Builder::new()
            .name("view".into())
            .spawn(move || run(&receiver, subscribers))?;
        Ok((ViewHandle { sender }, thread))
    }

    pub(crate) fn send(&self, message: ViewMessage) {
        // After the thread's end nobody needs a view.
        let _ = self.sender.send(message);
    }

    /// A snapshot that has everything which was committed before this call; `None` when
    /// this master does not lead.
    pub(crate) async fn snapshot(&self) -> Option<Arc<View>> {
        let (reply, snapshot) = oneshot::channel();
        self.send(ViewMessage::Snapshot(reply));
        snapshot.await.ok()
    }
}

/// Updates applied before reads are looked at, at most: bounds how stale a busy view gets.
const BATCH: usize = 256;

fn run(messages: &flume::Receiver<ViewMessage>, subscribers: usize) {
    let mut view: Option<View> = None;
    let mut cached: Option<Arc<View>> = None;
    let mut feed = Feed::new(subscribers);
    while let Ok(first) = messages.recv() {
        let mut reads = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next.take() {
            taken += 1;
            match message {
                ViewMessage::Birth { state, again } => {
                    view = Some(View::birth(*state));
                    cached = None;
                    if !again {
                        // Another term: they subscribe again.
                        feed.clear();
                    }
                }
                ViewMessage::Update { entry, changes } => {
                    cached = None;
                    if let Some(view) = &mut view {
                        update(view, entry.as_deref(), &changes, &mut feed);
                    }
                }
                ViewMessage::Share(state) => {
                    // An older snapshot would keep the rows that were held until now.
                    cached = None;
                    if let Some(view) = &mut view {
                        view.share(*state);
                    }
                }
                ViewMessage::Snapshot(reply) => reads.push(reply),
                ViewMessage::Subscribe(sink) => {
                    if let Some(view) = &view {
                        let snapshot = cached.get_or_insert_with(|| Arc::new(view.clone()));
                        feed.subscribe(sink, snapshot);
                    }
                }
                ViewMessage::Lost => {
                    view = None;
                    cached = None;
                    feed.clear();
                }
                ViewMessage::Stop => return,
            }
            if taken < BATCH {
                next = messages.try_recv().ok();
            }
        }
        if let (Some(view), false) = (&view, reads.is_empty()) {
            let snapshot = cached.get_or_insert_with(|| Arc::new(view.clone()));
            for reply in reads {
                // The reader may have gone.
                let _ = reply.send(snapshot.clone());
            }
        }
    }
}

fn update(view: &mut View, entry: Option<&log::Entry>, changes: &[ViewChange], feed: &mut Feed) {
    if let Some(entry) = entry
        && let Err(error) = view.apply_entry(entry)
    {
        // The replica applies the same entry and stops the process with the same error.
        tracing::error!(%error, "the view cannot apply a committed entry");
    }
    for change in changes {
        view.apply_change(change);
    }
    feed.update(view, entry.map_or(&[], |it| &it.operations), changes);
}
