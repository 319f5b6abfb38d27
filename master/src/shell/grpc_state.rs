//! `tepui.state.v1.State`: versioned variables, leases and watches of frameworks.
//!
//! Here names and sizes are checked and messages translated; what a request does is decided by
//! the machine (`variables`).

use crate::shell::{
    core::ReplicaEvent,
    destinations::{WatchEvents, WatchItem},
    door::{App, Forget, MASTERS},
    grpc::{EventStream, admit, closed, not_leading},
    intake::{Class, Producer},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tepui_master_machine::{
    input::{ConnectionId, Expected, Input, StateInput, StateRequest, WriteMark},
    model::{Principal, log},
    output::{StateAnswer, StateEvent, StateRefusal},
    variables::MAX_PAGE,
};
use tepui_server::{
    auth::Realm,
    proto::tepui::state::v1::{self as wire, state_server::State},
};
use tonic::{Request, Response, Status};

/// Longest name of a variable, bytes.
const MAX_NAME: usize = 512;
/// Largest value of a variable, bytes.
const MAX_VALUE: usize = 1 << 20;
/// Longest id of a write, bytes.
const MAX_WRITE_ID: usize = 64;
/// Bounds of a lease's time to live, seconds: renewals are requests of their own, and a holder
/// that is gone must not block others for ever.
const TTL: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
/// Names and values of one part of a watch's snapshot, about.
const PART: usize = 1 << 20;

/// The service.
#[derive(Debug)]
pub(crate) struct States {
    app: Arc<App>,
    /// A queue for each principal, so that a busy one delays itself alone. There are as many
    /// as credentials.
    producers: Mutex<BTreeMap<Option<String>, Arc<Producer<ReplicaEvent>>>>,
}

impl States {
    pub(crate) fn new(app: Arc<App>) -> States {
        States {
            app,
            producers: Mutex::default(),
        }
    }

    /// An answer, with all masters for the next failover.
    fn tell<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(masters) = self
            .app
            .masters()
            .and_then(|it| it.to_str().ok()?.parse().ok())
        {
            response.metadata_mut().insert(MASTERS, masters);
        }
        response
    }

    async fn admit<T>(&self, request: &Request<T>) -> Result<Option<Principal>, Status> {
        let principal = admit(&self.app, Realm::Frameworks, request)?;
        not_leading(&self.app, request).await?;
        Ok(principal)
    }

    fn producer(&self, principal: Option<&Principal>) -> Arc<Producer<ReplicaEvent>> {
        let name = principal.map(|it| it.as_str().to_owned());
        // Whole entries only are in the map.
        let mut producers = self
            .producers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let producer = producers.entry(name).or_insert_with(|| {
            let connection = self.app.destinations.connection();
            Arc::new(self.app.intake.connect(connection, Class::Client))
        });
        producer.clone()
    }

    /// Hands a request to the machine and waits for its answer.
    async fn ask(
        &self,
        principal: Option<Principal>,
        request: StateRequest,
    ) -> Result<StateAnswer, Status> {
        let (reply, answer) = self.app.destinations.state_request();
        // A client that goes away takes its interest in the answer along.
        let _forget = Forget(&self.app.destinations, reply);
        let producer = self.producer(principal.as_ref());
        let input = StateInput {
            reply,
            principal,
            request,
        };
        producer.send(Input::State(input)).await;
        let answer = answer.await.map_err(|_| {
            Status::unavailable("this master stopped leading before the answer was known")
        })?;
        match answer {
            StateAnswer::Refused { why, message } => Err(match why {
                StateRefusal::NotFound => Status::not_found(message),
                StateRefusal::Exhausted => Status::resource_exhausted(message),
                StateRefusal::Unknown => Status::aborted(message),
            }),
            answer => Ok(answer),
        }
    }
}

fn name(field: &str, name: &str) -> Result<Arc<str>, Status> {
    let problem = match name {
        "" => "it is empty".to_owned(),
        _ if name.len() > MAX_NAME => format!("it has {} bytes", name.len()),
        _ if name.chars().any(char::is_control) => "it has control characters".to_owned(),
        _ => return Ok(name.into()),
    };
    Err(Status::invalid_argument(format!(
        "{field}: {problem}; expected 1 to {MAX_NAME} bytes of text without control characters"
    )))
}

/// A prefix of names; empty for all.
fn prefix(text: &str) -> Result<Arc<str>, Status> {
    match text {
        "" => Ok("".into()),
        _ => name("prefix", text),
    }
}

fn mark(mark: Option<wire::WriteMark>) -> Result<WriteMark, Status> {
    let mark = mark.unwrap_or_default();
    if mark.id.len() > MAX_WRITE_ID {
        return Err(Status::invalid_argument(format!(
            "mark.id: it has {} bytes; expected at most {MAX_WRITE_ID}",
            mark.id.len()
        )));
    }
    if mark.repeated && mark.id.is_empty() {
        return Err(Status::invalid_argument(
            "mark.id: expected the one with which the write was sent before",
        ));
    }
    Ok(WriteMark {
        // Rows live long: a slice would keep the buffer of a whole frame.
        id: Bytes::copy_from_slice(&mark.id),
        repeated: mark.repeated,
        seen_revision: mark.seen_revision,
    })
}

fn lease(lease_id: u64) -> Result<u64, Status> {
    match lease_id {
        0 => Err(Status::invalid_argument(
            "lease_id: expected that of GrantLease",
        )),
        lease_id => Ok(lease_id),
    }
}

fn variable(row: &log::Variable) -> wire::Variable {
    wire::Variable {
        name: row.name.clone(),
        value: row.value.clone(),
        version: row.version,
        lease_id: row.lease_id,
    }
}

/// The machine answered something else than what this request can get.
fn confused(answer: &StateAnswer) -> Status {
    Status::internal(format!("unexpected answer {answer:?}"))
}

fn written(answer: StateAnswer) -> Result<wire::WriteResponse, Status> {
    use wire::write_response::Outcome;
    let (outcome, revision) = match answer {
        StateAnswer::Written { revision } => (Outcome::Version(revision), revision),
        StateAnswer::Conflict { current, revision } => {
            let current = current.as_deref().map(variable);
            (Outcome::Conflict(wire::Conflict { current }), revision)
        }
        answer => return Err(confused(&answer)),
    };
    Ok(wire::WriteResponse {
        outcome: Some(outcome),
        revision,
    })
}

#[tonic::async_trait]
impl State for States {
    type WatchStream = EventStream<wire::WatchEvent>;

    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let principal = self.admit(&request).await?;
        let name = name("name", &request.get_ref().name)?;
        match self.ask(principal, StateRequest::Get { name }).await? {
            StateAnswer::Variable {
                variable: found,
                revision,
            } => Ok(self.tell(wire::GetResponse {
                variable: found.as_deref().map(variable),
                revision,
            })),
            answer => Err(confused(&answer)),
        }
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let principal = self.admit(&request).await?;
        let request = request.into_inner();
        let after = match request.after.as_str() {
            "" => None,
            after => Some(name("after", after)?),
        };
        let limit = match usize::try_from(request.limit) {
            Ok(limit @ 1..=MAX_PAGE) => limit,
            _ => MAX_PAGE,
        };
        let list = StateRequest::List {
            prefix: prefix(&request.prefix)?,
            after,
            limit,
        };
        match self.ask(principal, list).await? {
            StateAnswer::Variables {
                variables,
                more,
                revision,
            } => Ok(self.tell(wire::ListResponse {
                variables: variables.iter().map(|it| variable(it)).collect(),
                more,
                revision,
            })),
            answer => Err(confused(&answer)),
        }
    }

    async fn set(
        &self,
        request: Request<wire::SetRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let principal = self.admit(&request).await?;
        let request = request.into_inner();
        if request.value.len() > MAX_VALUE {
            return Err(Status::invalid_argument(format!(
                "value: it has {} bytes; expected at most {MAX_VALUE}",
                request.value.len()
            )));
        }
        let set = StateRequest::Set {
            name: name("name", &request.name)?,
            // As for the ids of writes.
            value: Bytes::copy_from_slice(&request.value),
            expected: request
                .expected_version
                .map_or(Expected::Any, Expected::Version),
            lease_id: request.lease_id,
            mark: mark(request.mark)?,
        };
        Ok(self.tell(written(self.ask(principal, set).await?)?))
    }

    async fn expunge(
        &self,
        request: Request<wire::ExpungeRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let principal = self.admit(&request).await?;
        let request = request.into_inner();
        if request.expected_version == Some(0) {
            return Err(Status::invalid_argument(
                "expected_version: 0 stands for no variable; expected that of the variable",
            ));
        }
        let expunge = StateRequest::Expunge {
            name: name("name", &request.name)?,
            expected: request
                .expected_version
                .map_or(Expected::Any, Expected::Version),
            mark: mark(request.mark)?,
        };
        Ok(self.tell(written(self.ask(principal, expunge).await?)?))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let principal = self.admit(&request).await?;
        let prefix = prefix(&request.get_ref().prefix)?;
        let (connection, events) = self.app.destinations.watch();
        let watch = Watch {
            app: self.app.clone(),
            connection,
            producer: self.app.intake.connect(connection, Class::Client),
            events,
            parts: VecDeque::new(),
        };
        let input = Input::StateWatch {
            connection,
            principal,
            prefix,
        };
        watch.producer.send(input).await;
        let events = futures_util::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(event) => Some((Ok(event), Some(watch))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(self.tell(Box::pin(events)))
    }

    async fn grant_lease(
        &self,
        request: Request<wire::GrantLeaseRequest>,
    ) -> Result<Response<wire::GrantLeaseResponse>, Status> {
        let principal = self.admit(&request).await?;
        let request = request.into_inner();
        if !TTL.contains(&request.ttl_seconds) {
            return Err(Status::invalid_argument(format!(
                "ttl_seconds: it is {}; expected {} to {}",
                request.ttl_seconds,
                TTL.start(),
                TTL.end()
            )));
        }
        let grant = StateRequest::GrantLease {
            ttl: Duration::from_secs_f64(request.ttl_seconds),
            mark: mark(request.mark)?,
        };
        match self.ask(principal, grant).await? {
            StateAnswer::Written { revision } => Ok(self.tell(wire::GrantLeaseResponse {
                lease_id: revision,
                revision,
            })),
            answer => Err(confused(&answer)),
        }
    }

    async fn renew_lease(
        &self,
        request: Request<wire::RenewLeaseRequest>,
    ) -> Result<Response<wire::RenewLeaseResponse>, Status> {
        let principal = self.admit(&request).await?;
        let lease_id = lease(request.get_ref().lease_id)?;
        let renew = StateRequest::RenewLease { lease_id };
        match self.ask(principal, renew).await? {
            StateAnswer::Renewed { ttl, revision } => Ok(self.tell(wire::RenewLeaseResponse {
                ttl_seconds: ttl.as_secs_f64(),
                revision,
            })),
            answer => Err(confused(&answer)),
        }
    }

    async fn revoke_lease(
        &self,
        request: Request<wire::RevokeLeaseRequest>,
    ) -> Result<Response<wire::RevokeLeaseResponse>, Status> {
        let principal = self.admit(&request).await?;
        let request = request.into_inner();
        let revoke = StateRequest::RevokeLease {
            lease_id: lease(request.lease_id)?,
            mark: mark(request.mark)?,
        };
        match self.ask(principal, revoke).await? {
            StateAnswer::Written { revision } | StateAnswer::Renewed { revision, .. } => {
                Ok(self.tell(wire::RevokeLeaseResponse { revision }))
            }
            answer => Err(confused(&answer)),
        }
    }
}

/// An open watch; its end tells the machine.
struct Watch {
    app: Arc<App>,
    connection: ConnectionId,
    producer: Producer<ReplicaEvent>,
    events: WatchEvents,
    /// Of the snapshot, not sent yet.
    parts: VecDeque<wire::SnapshotPart>,
}

impl Watch {
    async fn next(&mut self) -> Result<wire::WatchEvent, Status> {
        use wire::watch_event::Kind;
        let kind = match self.parts.pop_front() {
            Some(part) => Kind::Snapshot(part),
            None => match self.events.recv().await {
                Ok(WatchItem::Event(StateEvent::Snapshot {
                    variables,
                    revision,
                })) => {
                    self.parts = split(&variables, revision);
                    Kind::Snapshot(self.parts.pop_front().unwrap_or_default())
                }
                Ok(WatchItem::Event(StateEvent::Set(row))) => Kind::Change(wire::Change {
                    revision: row.version,
                    set: Some(variable(&row)),
                    expunged: Vec::new(),
                }),
                Ok(WatchItem::Event(StateEvent::Expunged { names, revision })) => {
                    Kind::Change(wire::Change {
                        revision,
                        set: None,
                        expunged: names.iter().map(|it| it.to_string()).collect(),
                    })
                }
                Ok(WatchItem::Close(status, reason)) => {
                    let ended = || Status::unavailable("the watch ended: watch again");
                    return Err(closed(status, &reason).unwrap_or_else(ended));
                }
                Err(true) => {
                    return Err(Status::resource_exhausted(
                        "events were read too slowly: watch again",
                    ));
                }
                Err(false) => {
                    return Err(Status::unavailable(
                        "this master does not lead any more: watch again",
                    ));
                }
            },
        };
        Ok(wire::WatchEvent { kind: Some(kind) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let connection = self.connection;
        self.app.destinations.forget_watch(connection);
        self.producer
            .send_last(Input::StateWatchClosed { connection });
    }
}

/// A snapshot in messages of a bearable size; at least one.
fn split(variables: &[Arc<log::Variable>], revision: u64) -> VecDeque<wire::SnapshotPart> {
    let mut parts = VecDeque::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for row in variables {
        let size = row.name.len() + row.value.len();
        if bytes + size > PART && !part.is_empty() {
            parts.push_back(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(variable(row));
    }
    parts.push_back(part);
    let last = parts.len();
    let part = |(index, variables)| wire::SnapshotPart {
        variables,
        revision,
        last: index + 1 == last,
    };
    parts.into_iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, size: usize) -> Arc<log::Variable> {
        Arc::new(log::Variable {
            name: name.to_owned(),
            value: vec![7; size].into(),
            version: 1,
            ..log::Variable::default()
        })
    }

    #[test]
    fn a_snapshot_is_cut_where_it_is_too_large() {
        let sizes = |rows: &[Arc<log::Variable>]| -> Vec<(usize, bool)> {
            let parts = split(rows, 5).into_iter();
            parts.map(|it| (it.variables.len(), it.last)).collect()
        };
        assert_eq!(sizes(&[]), [(0, true)]);
        assert_eq!(sizes(&[row("a", 9), row("b", 9)]), [(2, true)]);
        let rows = [
            row("a", PART),
            row("b", PART / 2),
            row("c", 9),
            row("d", PART),
        ];
        assert_eq!(sizes(&rows), [(1, false), (2, false), (1, true)]);
    }

    #[test]
    fn names_are_refused_with_the_field() {
        for bad in ["", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            let status = name("name", bad).unwrap_err();
            assert!(status.message().starts_with("name: "), "{status}");
        }
        assert!(name("name", "jobs/über/1").is_ok());
        assert!(prefix("").is_ok());
    }
}
