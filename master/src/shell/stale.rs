//! Reads on a master that does not lead, for those who ask for them.
//!
//! A copy of the committed state is made and an answer is written once for all who ask at the
//! same time: a crowd of readers costs a follower what one does.

use crate::shell::reads;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::response;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// Reads within this time share one view.
const FRESH: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stale reads are answered from; `V` is what they see.
#[derive(Debug)]
pub(crate) struct Stale<V> {
    newest: Mutex<Arc<Past<V>>>,
}

impl<V> Default for Stale<V> {
    fn default() -> Self {
        Stale {
            newest: Mutex::default(),
        }
    }
}

impl<V> Stale<V> {
    /// The newest view, which may still be in the making; one to be made when it is too old.
    pub(crate) fn newest(&self) -> Arc<Past<V>> {
        let mut newest = lock(&self.newest);
        let made = newest.view.get().map(|(made, _)| *made);
        if made.is_some_and(|it| it.elapsed() >= FRESH) {
            *newest = Arc::default();
        }
        newest.clone()
    }
}

/// A view of the past and the answers that are written from it.
#[derive(Debug)]
pub(crate) struct Past<V> {
    view: OnceCell<(Instant, Arc<V>)>,
    /// By request; as long as somebody waits for them, since they may be large.
    answers: Mutex<BTreeMap<String, Weak<Answer>>>,
}

impl<V> Default for Past<V> {
    fn default() -> Self {
        Past {
            view: OnceCell::new(),
            answers: Mutex::default(),
        }
    }
}

/// An answer with its body in one piece, which all who get it share.
type Answer = OnceCell<(response::Parts, Bytes)>;

impl<V: Send + Sync + 'static> Past<V> {
    /// What is seen; made on a thread that may take its time, by the first who asks.
    pub(crate) async fn view(&self, make: impl FnOnce() -> V + Send + 'static) -> Arc<V> {
        let made = self.view.get_or_init(|| async {
            let view = reads::disk(move || Arc::new(make())).await;
            (Instant::now(), view)
        });
        made.await.1.clone()
    }

    /// The answer to `request`, which names everything that shapes it; written in the same way.
    pub(crate) async fn answer(
        &self,
        request: String,
        write: impl FnOnce() -> Response + Send + 'static,
    ) -> Response {
        let answer = {
            let mut answers = lock(&self.answers);
            answers.retain(|_, it| it.strong_count() > 0);
            match answers.get(&request).and_then(Weak::upgrade) {
                Some(answer) => answer,
                None => {
                    let answer = Arc::new(Answer::new());
                    answers.insert(request, Arc::downgrade(&answer));
                    answer
                }
            }
        };
        let written = answer.get_or_init(|| async {
            let (parts, body) = reads::disk(write).await.into_parts();
            // In memory already: there is nothing to wait for, and nothing that could fail.
            let body = axum::body::to_bytes(body, usize::MAX).await;
            (parts, body.unwrap_or_default())
        });
        let (parts, body) = written.await.clone();
        Response::from_parts(parts, Body::from(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::join_all};
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    };

    /// Work that counts itself and takes until the gate is opened.
    #[derive(Clone)]
    struct Work {
        done: Arc<AtomicUsize>,
        gate: Arc<Mutex<Receiver<()>>>,
    }

    impl Work {
        fn new() -> (Work, Sender<()>) {
            let (open, gate) = channel();
            let gate = Arc::new(Mutex::new(gate));
            let done = Arc::default();
            (Work { done, gate }, open)
        }

        fn run(&self) {
            self.done.fetch_add(1, Ordering::Relaxed);
            lock(&self.gate).recv().unwrap();
        }
    }

    /// All of them have asked before the first gets an answer.
    async fn crowd<F: Future>(asking: impl Fn() -> F, open: Sender<()>) -> Vec<F::Output> {
        let mut crowd: Vec<_> = (0..20).map(|_| Box::pin(asking())).collect();
        for one in &mut crowd {
            assert!(one.as_mut().now_or_never().is_none());
        }
        // For one, and for those that should not be.
        (0..20).for_each(|_| open.send(()).unwrap());
        join_all(crowd).await
    }

    #[tokio::test]
    async fn a_crowd_costs_one_view() {
        let stale = Stale::<()>::default();
        let (work, open) = Work::new();
        let ask = || async {
            let work = work.clone();
            stale.newest().view(move || work.run()).await
        };
        crowd(ask, open).await;
        assert_eq!(work.done.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_crowd_costs_one_answer() {
        let past = Past::<()>::default();
        let (work, open) = Work::new();
        let ask = || async {
            let work = work.clone();
            let write = move || {
                work.run();
                Response::new(Body::from("the state"))
            };
            let response = past.answer("state".to_owned(), write).await;
            axum::body::to_bytes(response.into_body(), 100).await
        };
        let answers = crowd(ask, open).await;
        assert!(answers.into_iter().all(|it| it.unwrap() == "the state"));
        assert_eq!(work.done.load(Ordering::Relaxed), 1);
        // Nobody waits: it takes no memory any more.
        assert!(
            lock(&past.answers)
                .values()
                .all(|it| it.strong_count() == 0)
        );
    }

    #[tokio::test]
    async fn other_requests_get_other_answers() {
        let past = Past::<()>::default();
        for (request, text) in [("state", "one"), ("state?gzip", "other")] {
            let response = past.answer(request.to_owned(), move || Response::new(text.into()));
            let body = axum::body::to_bytes(response.await.into_body(), 100).await;
            assert_eq!(body.unwrap(), text);
        }
    }
}
