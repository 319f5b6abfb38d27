//! What waits to be sent to one peer: bounded by bytes, and filled without waiting.

use super::lock;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};
use tepui_replication::NodeId;
use tokio::sync::Notify;

/// Bytes that may wait for one peer: more than consensus has on its way to one that answers
/// (32 MiB of entries), so that only one that does not take what it is sent comes to it.
const MAX_BYTES: usize = 48 << 20;
/// Bytes of one frame, about: many small messages share one, and a heartbeat waits for no more
/// than this.
const FRAME_BYTES: usize = 512 << 10;

/// A message of the raft thread.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) bytes: Bytes,
    /// It promises rows.
    pub(crate) is_ticket: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    open: bool,
    items: VecDeque<Item>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    heard: Notify,
}

impl Queue {
    /// Adds a message; false when it is dropped: nobody takes it, or too much waits.
    pub(crate) fn push(&self, item: Item) -> bool {
        let mut waiting = lock(&self.waiting);
        let size = item.bytes.len();
        let full = !waiting.items.is_empty() && waiting.bytes + size > MAX_BYTES;
        if !waiting.open || full {
            return false;
        }
        waiting.bytes += size;
        waiting.items.push_back(item);
        drop(waiting);
        self.wake.notify_one();
        true
    }

    /// The peer has linked to this master, so it can probably be reached.
    pub(crate) fn hear(&self) {
        self.heard.notify_one();
    }

    /// Waits until the peer links to this master.
    pub(crate) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// From here on it takes messages, until [`Queue::close`].
    pub(crate) fn open(&self) {
        lock(&self.waiting).open = true;
    }

    /// Drops what waits, and what comes. Returns whether a ticket was among it.
    pub(crate) fn close(&self) -> bool {
        let dropped = std::mem::take(&mut *lock(&self.waiting));
        dropped.items.iter().any(|it| it.is_ticket)
    }

    /// Waits for messages and takes as many as make a frame.
    pub(crate) async fn take(&self) -> Vec<Item> {
        loop {
            let taken = self.try_take();
            if !taken.is_empty() {
                return taken;
            }
            self.wake.notified().await;
        }
    }

    fn try_take(&self) -> Vec<Item> {
        let mut waiting = lock(&self.waiting);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < FRAME_BYTES
            && let Some(item) = waiting.items.pop_front()
        {
            bytes += item.bytes.len();
            waiting.bytes -= item.bytes.len();
            taken.push(item);
        }
        taken
    }
}

/// The queues of all peers.
#[derive(Debug, Default)]
pub(crate) struct Queues(Mutex<BTreeMap<NodeId, Arc<Queue>>>);

impl Queues {
    /// That of one.
    pub(crate) fn of(&self, peer: NodeId) -> Arc<Queue> {
        lock(&self.0).entry(peer).or_default().clone()
    }

    /// Forgets a peer that is no member any more.
    pub(crate) fn forget(&self, peer: NodeId) {
        lock(&self.0).remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(size: usize) -> Item {
        Item {
            bytes: vec![0; size].into(),
            is_ticket: false,
        }
    }

    #[tokio::test]
    async fn a_slow_peer_costs_a_bounded_number_of_bytes() {
        let queue = Queue::default();
        assert!(!queue.push(item(1)), "nobody takes it yet");
        queue.open();
        let mut taken = 0;
        while queue.push(item(1 << 20)) {
            taken += 1;
        }
        assert_eq!(taken, MAX_BYTES >> 20);
        // One that alone is larger than everything must pass all the same.
        while !queue.try_take().is_empty() {}
        assert!(queue.push(item(MAX_BYTES + 1)));
        assert_eq!(queue.take().await.len(), 1);
    }

    #[tokio::test]
    async fn small_messages_share_a_frame_in_their_order() {
        let queue = Queue::default();
        queue.open();
        for size in 1..=100 {
            queue.push(item(size));
        }
        queue.push(item(FRAME_BYTES));
        queue.push(item(7));
        let sizes: Vec<_> = queue.take().await.iter().map(|it| it.bytes.len()).collect();
        let mut expected: Vec<_> = (1..=100).collect();
        expected.push(FRAME_BYTES);
        assert_eq!(sizes, expected);
        assert_eq!(queue.take().await.len(), 1);
        queue.push(Item {
            is_ticket: true,
            ..item(1)
        });
        assert!(queue.close(), "a ticket was lost");
        assert!(!queue.push(item(1)));
    }
}
