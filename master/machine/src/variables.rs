//! The state service: variables of principals with compare-and-swap, leases and watches.
//!
//! Syntax (names, sizes of values, times to live) was checked at the door. A write is answered
//! when it is durable, everything else when the leadership was confirmed after it was looked
//! at: reads are linearizable, and so are refusals.

use std::sync::Arc;

use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_state::{Owner, ROW_OVERHEAD, variable_bytes};

use crate::input::{ConnectionId, Expected, StateInput, StateRequest, WriteMark};
use crate::machine::Machine;
use crate::output::{
    Destination, Message, Needs, Outgoing, StateAnswer, StateEvent, StateRefusal, Status,
};
use tepui_model::id::Principal;

/// Variables of one page of a list.
pub const MAX_PAGE: usize = 1000;
/// Names and values of one page of a list, about.
const PAGE_BYTES: u64 = 1 << 20;

/// What is done instead of the write that was asked for.
struct Instead(StateAnswer);

impl From<StateAnswer> for Instead {
    fn from(answer: StateAnswer) -> Instead {
        Instead(answer)
    }
}

fn refused(why: StateRefusal, message: String) -> Instead {
    Instead(StateAnswer::Refused { why, message })
}

/// The owner of what a principal sets.
fn owner_of(principal: Option<&Principal>) -> Owner {
    principal.map_or("", Principal::as_str).into()
}

impl Machine {
    pub(crate) fn state_request(&mut self, input: StateInput) {
        let owner = owner_of(input.principal.as_ref());
        let reply = Destination::Reply(input.reply);
        let (answer, needs) = match self.serve(&owner, input.request) {
            Ok(answer) => {
                let needs = match answer {
                    // Its entry cannot be committed by one that does not lead.
                    StateAnswer::Written { .. } => Needs::Committed,
                    _ => Needs::Leadership,
                };
                (answer, needs)
            }
            Err(Instead(answer)) => (answer, Needs::Leadership),
        };
        self.out.send.push(Outgoing {
            to: reply,
            message: Message::State(Box::new(answer)),
            needs,
        });
    }

    fn serve(&mut self, owner: &Owner, request: StateRequest) -> Result<StateAnswer, Instead> {
        let revision = self.state.state_revision(owner);
        match request {
            StateRequest::Get { name } => Ok(StateAnswer::Variable {
                variable: self.state.variable(owner, &name).cloned(),
                revision,
            }),
            StateRequest::List {
                prefix,
                after,
                limit,
            } => Ok(self.list(owner, &prefix, after.as_deref(), limit)),
            StateRequest::Set {
                name,
                value,
                expected,
                lease_id,
                mark,
            } => {
                let at = self.begin_write(owner, &mark)?;
                self.expect(owner, &name, expected)?;
                if lease_id != 0 {
                    self.known_lease(owner, lease_id)?;
                }
                let old = self.state.variable(owner, &name);
                let old = old.map_or(0, |it| variable_bytes(&it.name, &it.value));
                self.within_quota(owner, "value", variable_bytes(&name, &value), old)?;
                let variable = log::Variable {
                    principal: owner.to_string(),
                    name: name.to_string(),
                    value,
                    version: at,
                    lease_id,
                };
                self.log(Kind::PutVariable(log::PutVariable {
                    variable: Some(variable),
                    write_id: mark.id,
                }));
                self.tell_set(owner, &name);
                Ok(StateAnswer::Written { revision: at })
            }
            StateRequest::Expunge {
                name,
                expected,
                mark,
            } => {
                let at = self.begin_write(owner, &mark)?;
                self.expect(owner, &name, expected)?;
                let was = self.state.variable(owner, &name).is_some();
                self.log(Kind::RemoveVariable(log::RemoveVariable {
                    principal: owner.to_string(),
                    name: name.to_string(),
                    revision: at,
                    write_id: mark.id,
                }));
                if was {
                    self.tell_expunged(owner, at, vec![name]);
                }
                Ok(StateAnswer::Written { revision: at })
            }
            StateRequest::GrantLease { ttl, mark } => {
                let at = self.begin_write(owner, &mark)?;
                self.within_quota(owner, "lease", ROW_OVERHEAD, 0)?;
                let lease = log::Lease {
                    principal: owner.to_string(),
                    lease_id: at,
                    ttl_ns: u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX),
                };
                self.leases.renew(&lease, self.now);
                self.log(Kind::PutLease(log::PutLease {
                    lease: Some(lease),
                    write_id: mark.id,
                }));
                Ok(StateAnswer::Written { revision: at })
            }
            StateRequest::RenewLease { lease_id } => {
                let lease = self.known_lease(owner, lease_id)?;
                self.leases.renew(&lease, self.now);
                Ok(StateAnswer::Renewed {
                    ttl: core::time::Duration::from_nanos(lease.ttl_ns),
                    revision,
                })
            }
            StateRequest::RevokeLease { lease_id, mark } => {
                let at = self.begin_write(owner, &mark)?;
                if self.state.lease(owner, lease_id).is_none() {
                    // As it was wanted.
                    return Ok(StateAnswer::Renewed {
                        ttl: core::time::Duration::ZERO,
                        revision,
                    });
                }
                self.remove_lease(owner, lease_id, mark.id);
                Ok(StateAnswer::Written { revision: at })
            }
        }
    }

    fn list(&self, owner: &str, prefix: &str, after: Option<&str>, limit: usize) -> StateAnswer {
        let mut left = PAGE_BYTES;
        let mut variables = Vec::new();
        let mut more = false;
        for row in self.state.variables(owner, prefix, after) {
            let size = variable_bytes(&row.name, &row.value);
            if variables.len() == limit.clamp(1, MAX_PAGE) || (size > left && !variables.is_empty())
            {
                more = true;
                break;
            }
            left = left.saturating_sub(size);
            variables.push(row.clone());
        }
        StateAnswer::Variables {
            variables,
            more,
            revision: self.state.state_revision(owner),
        }
    }

    /// The revision that a write takes; instead of it what became of one that came before.
    fn begin_write(&self, owner: &str, mark: &WriteMark) -> Result<u64, Instead> {
        if !mark.id.is_empty() {
            if let Some(revision) = self.state.state_write(owner, &mark.id) {
                return Err(StateAnswer::Written { revision }.into());
            }
            if mark.repeated && !self.state.remembers_writes_since(owner, mark.seen_revision) {
                let message = format!(
                    "mark: so much was written since revision {} that nobody knows any more \
                     whether this write took effect when it was sent first; read what is there",
                    mark.seen_revision
                );
                return Err(refused(StateRefusal::Unknown, message));
            }
        }
        Ok(self.state.state_revision(owner) + 1)
    }

    fn expect(&self, owner: &str, name: &str, expected: Expected) -> Result<(), Instead> {
        let current = self.state.variable(owner, name);
        let version = current.map_or(0, |it| it.version);
        match expected {
            Expected::Any => Ok(()),
            Expected::Version(expected) if expected == version => Ok(()),
            Expected::Version(_) => Err(Instead(StateAnswer::Conflict {
                current: current.cloned(),
                revision: self.state.state_revision(owner),
            })),
        }
    }

    fn known_lease(&self, owner: &str, lease_id: u64) -> Result<log::Lease, Instead> {
        let lease = self.state.lease(owner, lease_id);
        lease.map(|it| log::Lease::clone(it)).ok_or_else(|| {
            let message =
                format!("lease_id: there is no lease {lease_id}, or no more: grant a new one");
            refused(StateRefusal::NotFound, message)
        })
    }

    fn within_quota(&self, owner: &str, field: &str, more: u64, less: u64) -> Result<(), Instead> {
        let quota = self.config.state_quota;
        let used = self.state.state_bytes(owner);
        let would = used.saturating_sub(less).saturating_add(more);
        // One that is over a quota which was lowered may become smaller.
        if would <= quota || more <= less {
            return Ok(());
        }
        let message = format!(
            "{field}: {would} bytes with this, and the quota of principal '{owner}' is {quota} \
             bytes: expunge something"
        );
        Err(refused(StateRefusal::Exhausted, message))
    }

    // ------------------------------------------------------------ leases

    /// At birth: every lease has its whole time again.
    pub(crate) fn recover_leases(&mut self) {
        let rows: Vec<_> = self.state.leases().cloned().collect();
        for lease in rows {
            self.leases.renew(&lease, self.now);
        }
    }

    /// Ends the leases that were not renewed in time.
    pub(crate) fn expire_leases(&mut self) {
        while let Some((owner, lease_id)) = self.leases.pop_due(self.now) {
            self.remove_lease(&owner, lease_id, bytes::Bytes::new());
        }
    }

    fn remove_lease(&mut self, owner: &Owner, lease_id: u64, write_id: bytes::Bytes) {
        self.leases.forget(owner, lease_id);
        let revision = self.state.state_revision(owner) + 1;
        let names: Vec<_> = self
            .state
            .variables_of_lease(owner, lease_id)
            .cloned()
            .collect();
        self.log(Kind::RemoveLease(log::RemoveLease {
            principal: owner.to_string(),
            lease_id,
            revision,
            write_id,
        }));
        self.tell_expunged(owner, revision, names);
    }

    // ------------------------------------------------------------ watches

    /// Begins a watch: everything under the prefix, then every change.
    pub(crate) fn state_watch(
        &mut self,
        connection: ConnectionId,
        principal: Option<&Principal>,
        prefix: Arc<str>,
    ) {
        let owner = owner_of(principal);
        if let Err(reason) = self.watches.insert(connection, &owner, prefix.clone()) {
            let to = Destination::Watch(connection);
            self.close(to, Status::TooManyRequests, reason);
            return;
        }
        let variables = self
            .state
            .variables(&owner, &prefix, None)
            .cloned()
            .collect();
        let snapshot = StateEvent::Snapshot {
            variables,
            revision: self.state.state_revision(&owner),
        };
        self.out.send.push(Outgoing {
            to: Destination::Watch(connection),
            message: Message::StateEvent(snapshot),
            needs: Needs::Leadership,
        });
    }

    pub(crate) fn state_watch_closed(&mut self, connection: ConnectionId) {
        self.watches.remove(connection);
    }

    fn tell_set(&mut self, owner: &Owner, name: &str) {
        let Some(variable) = self.state.variable(owner, name).cloned() else {
            return;
        };
        for connection in self.watches.of(owner, name) {
            self.out.send.push(Outgoing {
                to: Destination::Watch(connection),
                message: Message::StateEvent(StateEvent::Set(variable.clone())),
                needs: Needs::Committed,
            });
        }
    }

    fn tell_expunged(&mut self, owner: &Owner, revision: u64, names: Vec<Arc<str>>) {
        for (connection, names) in self.watches.of_any(owner, &names) {
            self.out.send.push(Outgoing {
                to: Destination::Watch(connection),
                message: Message::StateEvent(StateEvent::Expunged { names, revision }),
                needs: Needs::Committed,
            });
        }
    }

    /// Leases that are known and those that have a deadline are the same.
    pub(crate) fn check_leases(&self) {
        let known = self.state.leases();
        let known = known.map(|it| (Owner::from(it.principal.as_str()), it.lease_id));
        self.leases.check_invariants(known);
    }
}
