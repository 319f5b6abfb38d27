//! Leases, and the task that renews them.

use super::{State, wire};
use crate::error::{Error, Result};
use std::time::Duration;
use tokio::{sync::watch, task::AbortHandle, time::Instant};

/// A lease, renewed in the background as long as this value is kept.
///
/// The masters count its time from the moment at which they serve a renewal, this process from
/// the moment at which it asks: so [`Lease::is_held`] ends before the lease does, also when the
/// process was stopped for a while or cut off from the masters, as long as clocks run at the
/// same pace. A dropped lease is not renewed any more; [`Lease::revoke`] ends it at once.
#[derive(Debug)]
pub struct Lease {
    id: u64,
    /// Until when it is certainly held; the past once it was lost.
    held_until: watch::Receiver<Instant>,
    state: State,
    renewal: AbortHandle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Lease {
    pub(super) fn keep(state: State, id: u64, ttl: Duration, asked: Instant) -> Lease {
        let (sender, held_until) = watch::channel(asked + ttl);
        let renewal = tokio::spawn(renew(state.clone(), id, ttl, sender)).abort_handle();
        Lease {
            id,
            held_until,
            state,
            renewal,
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is certainly held.
    pub fn is_held(&self) -> bool {
        *self.held_until.borrow() > Instant::now()
    }

    /// Waits until it is not certainly held any more.
    pub async fn lost(&self) {
        let mut held_until = self.held_until.clone();
        loop {
            let until = *held_until.borrow_and_update();
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                // Without a task that renews it, it ends in time.
                Ok(()) = held_until.changed() => {}
            }
        }
    }

    /// Ends it and the variables that hang on it. One that ended already is not an error.
    ///
    /// # Errors
    /// As for [`State::set`].
    pub async fn revoke(self) -> Result<()> {
        self.renewal.abort();
        let request = wire::RevokeLeaseRequest {
            lease_id: self.id,
            mark: Some(self.state.mark()),
        };
        let answer = self.state.call(request).await?;
        self.state.saw(answer.revision);
        Ok(())
    }
}

/// Renews the lease three times in its life, until it is lost.
async fn renew(state: State, id: u64, ttl: Duration, held_until: watch::Sender<Instant>) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        let (asked, until) = (Instant::now(), *held_until.borrow());
        let request = wire::RenewLeaseRequest { lease_id: id };
        match state.call_until(request, until).await {
            Ok(_) => held_until.send_replace(asked + ttl),
            Err(Error::Rejected { status: 404, .. }) => {
                held_until.send_replace(asked);
                return;
            }
            Err(error) if Instant::now() >= until => {
                tracing::warn!(lease = id, %error, "the lease could not be renewed in time");
                return;
            }
            Err(error) => {
                tracing::warn!(lease = id, %error, "the lease was not renewed");
                until
            }
        };
    }
}
