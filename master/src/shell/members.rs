//! What operators do with the masters: see them, add and remove, hand leadership over, back up.

use crate::{
    config::supported_version,
    shell::{
        door::{App, Failure, settle},
        peers::{Peers, fetch, keeper, links::MAX_FRAME, note},
    },
};
use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode, header, request::Parts};
use prost::Message as _;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use tepui_master_machine::{input::OperatorRequest, model::Principal};
use tepui_replication::{MemberChange, NodeId, Role, Status};
use tepui_server::{
    auth::Realm,
    body::{self, Refusal},
    proto::tepui::raft::v1::{Invitation, Member, peer_client::PeerClient},
    respond::{self, Shape},
};

/// How a backup begins; rows follow as `RowsFrame` messages of `tepui.raft.v1`, each with its
/// length before it.
pub(crate) const BACKUP: &[u8; 8] = b"TEPUIBK2";
/// How long handing over may take: longer than consensus tries.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long a voter may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);

fn conflict(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::CONFLICT, message)
}

fn unavailable(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Answers `tepui/v1/masters` with what is behind it in the path, and `tepui/v1/backup`.
pub(crate) async fn answer(
    app: &Arc<App>,
    route: &str,
    rest: &str,
    parts: &Parts,
    content: Body,
) -> Response {
    settle(try_answer(app, route, rest, parts, content).await)
}

async fn try_answer(
    app: &Arc<App>,
    route: &str,
    rest: &str,
    parts: &Parts,
    content: Body,
) -> Result<Response, Refusal> {
    let shape = Shape::of(&parts.method, &parts.headers, parts.uri.query());
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    if route == "tepui/v1/backup" {
        app.admit(Realm::ReadWrite, &parts.headers)?;
        app.elsewhere(&parts.uri, &parts.headers).await?;
        if !reads {
            return Err(Box::new(respond::method_not_allowed("GET", &parts.method)));
        }
        return Ok(backup(app)?);
    }
    if rest.is_empty() {
        app.admit(Realm::ReadOnly, &parts.headers)?;
        if !reads {
            return Err(Box::new(respond::method_not_allowed("GET", &parts.method)));
        }
        // Without a leader each says what it knows: that is when it is asked.
        if app.leadership.borrow().leader.is_some() {
            app.elsewhere(&parts.uri, &parts.headers).await?;
        }
        let list = list(&app.peers).await?;
        return Ok(shape.json(list.to_string()));
    }
    let principal = app.admit(Realm::ReadWrite, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    if parts.method != Method::POST {
        return Err(Box::new(respond::method_not_allowed("POST", &parts.method)));
    }
    let body = body::read(&parts.headers, content).await?;
    let body: Value = match body.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&body)
            .map_err(|error| Failure::bad_request(error.to_string()))?,
    };
    let done = match rest {
        "add" => add(app, &body).await,
        "remove" => remove(&app.peers, &body).await,
        "transfer" => transfer(&app.peers, &body).await,
        "upgrade" => upgrade(app, principal, &body).await,
        _ => return Ok(respond::not_found()),
    };
    Ok(shape.json(done?.to_string()))
}

async fn status(peers: &Peers) -> Result<Status, Failure> {
    let membership = peers.membership.get();
    let membership = membership.ok_or_else(|| {
        unavailable("this master has no store yet: it waits for the others, or to be admitted")
    })?;
    let status = keeper::status(&membership.handle).await;
    status.ok_or_else(|| unavailable("the replicated log has stopped"))
}

/// Everything about the masters, as this one knows it.
async fn list(peers: &Peers) -> Result<Value, Failure> {
    let status = status(peers).await?;
    let Some(membership) = peers.membership.get() else {
        return Err(unavailable("this master has no store yet"));
    };
    let own = membership.identity.node_id;
    let leader = *peers.leader.borrow();
    let linked = peers
        .linked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let members = &status.members;
    let masters = members.ids().into_iter().map(|id| {
        let member = note(members, id).unwrap_or_default();
        let role = match (leader == Some(id), members.is_voter(id)) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let peer = status.peers.iter().find(|it| it.id == id);
        json!({
            "id": id,
            "role": role,
            "votes": members.is_voter(id),
            "connected": id == own || linked.contains_key(&id),
            "address": member.client_address,
            "raft_address": member.raft_address,
            "store_id": member.store_id,
            "version": member.version,
            // Known to the leader alone.
            "entries_behind": peer.map(|it| status.last_index.saturating_sub(it.matched)),
            "fetches_rows": peer.map(|it| it.needs_rows),
        })
    });
    Ok(json!({
        "cluster_id": membership.identity.cluster_id,
        "incarnation": membership.identity.incarnation,
        "term": status.term,
        "leader": leader,
        "answered_by": own,
        "applied": status.applied,
        "cut": status.cut_index,
        "masters": masters.collect::<Vec<_>>(),
    }))
}

/// The member that a request names: by id, or by either of its addresses.
fn named(status: &Status, value: &Value, field: &str) -> Result<Option<NodeId>, Failure> {
    let wanted = match &value[field] {
        Value::Null => return Ok(None),
        Value::Number(it) => it.to_string(),
        Value::String(it) => it.clone(),
        _ => {
            return Err(Failure::bad_request(format!(
                "{field}: expected an id or an address"
            )));
        }
    };
    let fits = |id: &NodeId| {
        let member = note(&status.members, *id).unwrap_or_default();
        id.to_string() == wanted || member.raft_address == wanted || member.client_address == wanted
    };
    let found: Vec<NodeId> = status.members.ids().into_iter().filter(fits).collect();
    match found.as_slice() {
        [id] => Ok(Some(*id)),
        [] => Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("{wanted:?} is none of the masters; `tepui master list` shows them"),
        )),
        several => Err(Failure::bad_request(format!(
            "{field}: {wanted:?} is the address of masters {several:?}; name one by its id"
        ))),
    }
}

/// Invites the master at an address, which has no store, or says what it is already.
async fn add(app: &App, body: &Value) -> Result<Value, Failure> {
    let peers = &app.peers;
    let address = body["address"]
        .as_str()
        .filter(|it| it.contains(':'))
        .ok_or_else(|| {
            Failure::bad_request("address: expected HOST:RAFT_PORT of the new master")
        })?;
    let known = |status: &Status| {
        let ids = status.members.ids().into_iter();
        let members = ids.filter_map(|id| Some((id, note(&status.members, id)?)));
        let mut found = members.filter(|(_, it)| it.raft_address == address);
        found.next()
    };
    let told = |id: NodeId, status: &Status| {
        json!({ "id": id, "role": match status.members.is_voter(id) {
            true => "voter",
            false => "learner",
        }})
    };
    let channel = peers
        .security
        .connect(address)
        .await
        .map_err(|error| conflict(format!("{error:#}")))?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let greeting = client
        .greet(peers.greeting())
        .await
        .map_err(|status| conflict(format!("master {address}: {}", status.message())))?
        .into_inner();
    let there = greeting.member.unwrap_or_default();
    let now = status(peers).await?;
    if let Some((id, member)) = known(&now)
        && member.store_id == there.store_id
        && !greeting.cluster_id.is_empty()
    {
        return Ok(told(id, &now));
    }
    if !greeting.cluster_id.is_empty() {
        return Err(conflict(format!(
            "master {address} belongs to cluster {}; only a master without state can be added: \
             start it with an empty --work_dir and --join=wait",
            greeting.cluster_id
        )));
    }
    let invitation = Invitation {
        raft_address: peers.own().raft_address,
    };
    client
        .invite(invitation)
        .await
        .map_err(|status| conflict(format!("master {address}: {}", status.message())))?;
    let now = status(peers).await?;
    let ids = now.members.ids().into_iter();
    let mut admitted = ids.filter(|id| {
        note(&now.members, *id).is_some_and(|it: Member| it.store_id == there.store_id)
    });
    let id = admitted.next();
    id.map(|id| told(id, &now))
        .ok_or_else(|| unavailable("it was invited, but is not among the masters yet"))
}

async fn remove(peers: &Peers, body: &Value) -> Result<Value, Failure> {
    let status = status(peers).await?;
    let id = named(&status, body, "master")?
        .ok_or_else(|| Failure::bad_request("master: expected an id or an address"))?;
    let own = peers.membership.get().map(|it| it.identity.node_id);
    if Some(id) == own {
        return Err(conflict(
            "it leads: hand leadership over first (`tepui master transfer`)",
        ));
    }
    let members = &status.members;
    if members.voters.contains(&id) && body["force"] != true {
        let linked = peers.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let rest: Vec<NodeId> = members
            .voters
            .iter()
            .copied()
            .filter(|it| *it != id)
            .collect();
        let there = rest
            .iter()
            .filter(|it| Some(**it) == own || linked.contains_key(it))
            .count();
        let needed = rest.len() / 2 + 1;
        if there < needed {
            return Err(conflict(format!(
                "without it {there} of {} voters answer, and {needed} are needed: nothing could \
                 be decided any more; bring others back first (or say --force)",
                rest.len()
            )));
        }
    }
    let changed = keeper::change(peers, vec![MemberChange::Remove(id)], BTreeMap::new()).await;
    changed.map_err(unavailable)?;
    Ok(json!({ "removed": id }))
}

/// Raises the cluster's version, once every voter answers and knows it: from then on the log may
/// hold what a master of an older release would have to stop at.
async fn upgrade(app: &App, principal: Option<Principal>, body: &Value) -> Result<Value, Failure> {
    let version = match &body["version"] {
        Value::Null => supported_version(),
        it => it
            .as_u64()
            .ok_or_else(|| Failure::bad_request("version: expected a number"))?,
    };
    let peers = &app.peers;
    let status = status(peers).await?;
    let own = peers.membership.get().map(|it| it.identity.node_id);
    for id in status.members.voters.iter().filter(|id| Some(**id) != own) {
        let address = note(&status.members, *id).unwrap_or_default().raft_address;
        let silent = |why: String| conflict(format!("master {id} at {address}: {why}"));
        let connected = tokio::time::timeout(GREETING, peers.security.connect(&address)).await;
        let channel = connected
            .map_err(|_| silent("does not answer".to_owned()))?
            .map_err(|error| silent(format!("{error:#}")))?;
        let mut client = PeerClient::new(channel).max_decoding_message_size(MAX_FRAME);
        let greeted = tokio::time::timeout(GREETING, client.greet(peers.greeting())).await;
        let there = greeted
            .map_err(|_| silent("does not answer".to_owned()))?
            .map_err(|status| silent(status.message().to_owned()))?
            .into_inner()
            .member
            .unwrap_or_default();
        let newest = there.cluster_version.max(1);
        if newest < version {
            return Err(conflict(format!(
                "master {id} at {address} is of release {} and knows versions up to {newest}: \
                 install the newer release there first",
                there.version
            )));
        }
    }
    let request = OperatorRequest::RaiseClusterVersion { version };
    app.operate(principal, request).await?;
    Ok(json!({ "cluster_version": version }))
}

/// Hands leadership to the voter named, or to the one that is the closest.
async fn transfer(peers: &Peers, body: &Value) -> Result<Value, Failure> {
    let status = status(peers).await?;
    let Some(membership) = peers.membership.get() else {
        return Err(unavailable("this master has no store yet"));
    };
    let own = membership.identity.node_id;
    let linked = peers
        .linked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let to = match named(&status, body, "to")? {
        Some(id) if id == own => return Ok(json!({ "leader": own })),
        Some(id) if !status.members.voters.contains(&id) => {
            return Err(conflict(format!(
                "master {id} has no vote yet and cannot lead"
            )));
        }
        Some(id) if !linked.contains_key(&id) => {
            return Err(conflict(format!(
                "master {id} does not answer and cannot lead"
            )));
        }
        Some(id) => id,
        None => {
            let voters = status.peers.iter().filter(|it| {
                it.id != own
                    && status.members.voters.contains(&it.id)
                    && linked.contains_key(&it.id)
            });
            let closest = voters.max_by_key(|it| it.matched);
            closest
                .ok_or_else(|| conflict("there is no other voter that answers"))?
                .id
        }
    };
    let began = Instant::now();
    let mut asked = membership.handle.step_down(Some(to));
    while asked.is_err() && began.elapsed() < HANDOVER {
        tokio::time::sleep(Duration::from_millis(5)).await;
        asked = membership.handle.step_down(Some(to));
    }
    let mut leader = peers.leader.subscribe();
    let handed = leader.wait_for(|it| it.is_some_and(|it| it != own));
    let handed = tokio::time::timeout(HANDOVER, handed).await;
    let handed = handed.ok().and_then(|it| it.ok().and_then(|it| *it));
    match handed {
        Some(leader) => Ok(json!({ "leader": leader })),
        None => {
            let role = keeper::status(&membership.handle).await.map(|it| it.role);
            Err(unavailable(match role {
                Some(Role::Leader { .. }) => {
                    format!("master {to} did not catch up in time; this one goes on leading")
                }
                _ => "leadership was given up, and nobody has it yet".to_owned(),
            }))
        }
    }
}

/// All rows as of now, streamed while they are read.
fn backup(app: &App) -> Result<Response, Failure> {
    let Some(membership) = app.peers.membership.get() else {
        return Err(unavailable("this master has no store yet"));
    };
    let parts = fetch::parts(&membership.handle, 0).map_err(unavailable)?;
    let frames = fetch::frames(parts, None::<fetch::Report<fn(bool)>>, false).map(|frame| {
        // An error cuts the answer off, and what was read lacks its end.
        let frame = frame.map_err(|status| std::io::Error::other(status.message().to_owned()))?;
        let mut bytes = BytesMut::with_capacity(frame.encoded_len() + 10);
        frame
            .encode_length_delimited(&mut bytes)
            .map_err(std::io::Error::other)?;
        Ok::<Bytes, std::io::Error>(bytes.freeze())
    });
    let begin = stream::once(async { Ok(Bytes::from_static(BACKUP)) });
    // The last part is the sum of all others.
    let parts = begin
        .chain(frames)
        .map(Some)
        .chain(stream::once(async { None }));
    let whole = parts.scan(Context::new(&SHA256), |sum, part| {
        let part = match part {
            Some(Ok(bytes)) => {
                sum.update(&bytes);
                Ok(bytes)
            }
            Some(Err(error)) => Err(error),
            None => Ok(Bytes::copy_from_slice(sum.clone().finish().as_ref())),
        };
        std::future::ready(Some(part))
    });
    let mut response = Response::new(Body::from_stream(whole));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}
