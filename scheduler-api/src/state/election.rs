//! One of several processes leads.

use super::{Change, Expect, Lease, State, Written};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::time::Duration;

/// Leadership that was won by [`elect`]. Dropped without [`Elected::resign`] (or with the
/// process), it ends when the lease runs out.
#[derive(Debug)]
pub struct Elected {
    lease: Lease,
    version: u64,
}

impl Elected {
    /// Higher than that of every leader before: who keeps the highest token that it has seen and
    /// refuses lower ones is safe from a leader that does not know yet that it is none.
    pub fn token(&self) -> u64 {
        self.version
    }

    /// Whether this process certainly leads, to be asked before every act that only a leader may
    /// do.
    pub fn is_leader(&self) -> bool {
        self.lease.is_held()
    }

    /// Waits until this process does not certainly lead any more.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Makes way for the next one at once.
    ///
    /// # Errors
    /// As for [`State::set`].
    pub async fn resign(self) -> Result<()> {
        self.lease.revoke().await
    }
}

/// Waits until this process leads: at most one of those who call this with the same `name` does.
/// `value` is for the others to read, an address perhaps. Without its renewals (the process died
/// or is cut off) the leadership of one ends after `ttl`.
///
/// # Errors
/// [`Error::Rejected`] when the masters refuse it for good.
pub async fn elect(
    state: &State,
    name: &str,
    value: impl Into<Bytes>,
    ttl: Duration,
) -> Result<Elected> {
    let value = value.into();
    loop {
        absent(state, name).await?;
        // Only now: who waits needs none.
        let lease = match state.lease(ttl).await {
            Ok(lease) => lease,
            Err(Error::Disconnected(_) | Error::Unknown(_)) => continue,
            Err(error) => return Err(error),
        };
        match state
            .set_leased(name, value.clone(), Expect::Absent, &lease)
            .await
        {
            Ok(Written::Done(version)) if lease.is_held() => {
                return Ok(Elected { lease, version });
            }
            Ok(Written::Conflict(_)) => lease.revoke().await?,
            // It took too long, the lease is gone, or nobody knows: what there may be of it
            // ends with the lease.
            Ok(Written::Done(_))
            | Err(
                Error::Disconnected(_) | Error::Unknown(_) | Error::Rejected { status: 404, .. },
            ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is no such variable.
async fn absent(state: &State, name: &str) -> Result<()> {
    let mut watch = state.watch(name);
    let mut there = false;
    loop {
        match watch.next().await? {
            Change::Set(variable) if variable.name == name => there = true,
            Change::Expunged(gone) if gone == name => return Ok(()),
            Change::Current(_) if !there => return Ok(()),
            // Others that begin with the same letters.
            _ => {}
        }
    }
}
