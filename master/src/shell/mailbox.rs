//! A bounded queue between the machine's thread and the task that writes a stream.
//!
//! A master has one for each agent, and nearly all of them are empty nearly always: an empty one
//! holds no memory beyond itself, where the channels of the runtime keep room for dozens of
//! messages from the start.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many wait as may.
    Full,
    /// Nobody reads any more.
    Closed,
}

#[derive(Debug)]
struct Inner<T> {
    messages: VecDeque<T>,
    reader: Option<Waker>,
    /// One of the ends is gone.
    closed: bool,
}

#[derive(Debug)]
struct Shared<T> {
    inner: Mutex<Inner<T>>,
    capacity: usize,
}

impl<T> Shared<T> {
    /// Whole messages only are in the queue, so a panic elsewhere leaves it intact.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mailbox for `capacity` messages: the ends to write and to read.
pub(crate) fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Mutex::new(Inner {
        messages: VecDeque::new(),
        reader: None,
        closed: false,
    });
    let shared = Arc::new(Shared { inner, capacity });
    (Sender(shared.clone()), Receiver(shared))
}

/// The writing end. Messages that wait when it is dropped can still be read.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Queues a message without waiting.
    ///
    /// # Errors
    /// There is no room, or nobody reads.
    pub(crate) fn try_send(&self, message: T) -> Result<(), Refused> {
        let mut inner = self.0.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.messages.len() >= self.0.capacity {
            return Err(Refused::Full);
        }
        inner.messages.push_back(message);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().messages.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// The next message, in order; `None` when there will be no more. Nothing is lost when the
    /// future is dropped.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| {
            let mut inner = self.0.lock();
            if let Some(message) = inner.messages.pop_front() {
                if inner.messages.is_empty() {
                    inner.messages = VecDeque::new();
                }
                return Poll::Ready(Some(message));
            }
            if inner.closed {
                return Poll::Ready(None);
            }
            inner.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().messages.len()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        let messages = std::mem::take(&mut inner.messages);
        drop(inner);
        drop(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_in_order_also_after_the_end_of_the_writer() {
        let (sender, mut receiver) = mailbox(2);
        let reading = tokio::spawn(async move {
            let first = receiver.recv().await;
            (first, receiver)
        });
        tokio::task::yield_now().await;
        sender.try_send(1).unwrap();
        let (first, mut receiver) = reading.await.unwrap();
        assert_eq!(first, Some(1));
        sender.try_send(2).unwrap();
        sender.try_send(3).unwrap();
        assert_eq!(sender.try_send(4), Err(Refused::Full));
        drop(sender);
        assert_eq!(receiver.recv().await, Some(2));
        assert_eq!(receiver.recv().await, Some(3));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_waits_learns_of_the_end() {
        let (sender, mut receiver) = mailbox::<u32>(1);
        let reading = tokio::spawn(async move { receiver.recv().await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(reading.await.unwrap(), None);
        let (sender, receiver) = mailbox(1);
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(Refused::Closed));
    }

    #[tokio::test]
    async fn an_empty_one_keeps_no_room() {
        let (sender, mut receiver) = mailbox(100);
        for number in 0..100 {
            sender.try_send(number).unwrap();
        }
        for number in 0..100 {
            assert_eq!(receiver.recv().await, Some(number));
        }
        assert_eq!(receiver.0.lock().messages.capacity(), 0);
    }
}
