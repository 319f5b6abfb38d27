//! What a master answers to others.

use super::{
    BUSY, Membership, Offer, Peers, fetch, keeper,
    links::{MAX_FRAME, NO_STORE, REMOVED},
    lock, note,
};
use crate::shell::agent_links::Reader;
use futures_util::{Stream, StreamExt, stream};
use std::{pin::Pin, sync::Arc, time::Instant};
use tepui_replication::{Members, NodeId, Permit};
use tepui_server::proto::tepui::raft::v1::{
    Admission, Candidate, Ends, Founded, Founding, Frame, Greeting, Invitation, Invited, LinkReply,
    Messages, RowsFrame, RowsRequest,
    frame::Kind,
    peer_server::{Peer, PeerServer},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Frames of one link that wait for the raft thread, of half a megabyte each or one entry; then
/// the peer's stream waits.
const FRAMES: usize = 8;

/// Serves until told to stop.
pub(crate) async fn serve(peers: Arc<Peers>, listener: TcpListener) {
    let stop = peers.stop.clone();
    let connections = peers.security.accept(listener, stop.clone());
    let service = PeerServer::new(Service(peers))
        .max_decoding_message_size(MAX_FRAME)
        .max_encoding_message_size(MAX_FRAME);
    let served = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(5)))
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        // Links never end by themselves: they are cut.
        () = stop.stopped() => {}
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the masters' port is not served any more");
            }
        }
    }
}

/// The service.
#[derive(Debug)]
struct Service(Arc<Peers>);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Whether the other end may be spoken to, and why not.
pub(crate) fn check(peers: &Peers, ends: &Ends) -> Result<NodeId, Status> {
    let Some(Membership { identity, .. }) = peers.membership.get() else {
        let mut status = Status::failed_precondition("this master has no store yet");
        if let Ok(store_id) = peers.own().store_id.parse() {
            status.metadata_mut().insert(NO_STORE, store_id);
        }
        return Err(status);
    };
    let own = peers.own();
    let theirs = ends.member.clone().unwrap_or_default();
    if ends.cluster_id != identity.cluster_id {
        return Err(Status::failed_precondition(format!(
            "master {} belongs to cluster {}, master {} to cluster {}: masters of different \
             clusters do not speak to each other; one of them has a wrong --peers or --join, or \
             the --work_dir of another cluster",
            theirs.raft_address, ends.cluster_id, own.raft_address, identity.cluster_id
        )));
    }
    if ends.incarnation != identity.incarnation {
        return Err(Status::failed_precondition(format!(
            "master {} is of incarnation {} of the cluster, master {} of incarnation {}: the \
             cluster was restored or recovered in between; move the older one's --work_dir away \
             and start it with --join",
            theirs.raft_address, ends.incarnation, own.raft_address, identity.incarnation
        )));
    }
    if ends.to != identity.node_id {
        return Err(Status::failed_precondition(format!(
            "member {} was expected at {}, which is member {}",
            ends.to, own.raft_address, identity.node_id
        )));
    }
    let members = peers.members.borrow();
    let known = note(&members, ends.from);
    // Those that were admitted after what this master has applied are not known yet.
    if is_removed(&members, ends.from) {
        let mut status = Status::permission_denied(format!(
            "master {} (member {}) was removed from the cluster; to take part again, move its \
             --work_dir away and start it with --join={}",
            theirs.raft_address, ends.from, own.raft_address
        ));
        status
            .metadata_mut()
            .insert(REMOVED, tonic::metadata::MetadataValue::from_static("1"));
        return Err(status);
    }
    if let Some(known) = known
        && known.store_id != theirs.store_id
    {
        return Err(Status::failed_precondition(format!(
            "member {} was admitted with store {}, and comes with store {}: a store cannot be \
             exchanged for another",
            ends.from, known.store_id, theirs.store_id
        )));
    }
    Ok(ends.from)
}

/// Whether somebody was a member. Those that were admitted after what this master has applied are
/// not known yet.
fn is_removed(members: &Members, id: NodeId) -> bool {
    id <= members.last_id && !members.ids().contains(&id)
}

/// A link of a peer; its end is told.
struct Incoming {
    peers: Arc<Peers>,
    from: NodeId,
    frames: Arc<Semaphore>,
}

impl Incoming {
    fn new(peers: Arc<Peers>, from: NodeId) -> Incoming {
        *lock(&peers.linked).entry(from).or_default() += 1;
        Incoming {
            peers,
            from,
            frames: Arc::new(Semaphore::new(FRAMES)),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut linked = lock(&self.peers.linked);
        let last = linked.get_mut(&self.from).is_none_or(|count| {
            *count -= 1;
            *count == 0
        });
        if last {
            linked.remove(&self.from);
            drop(linked);
            if let Some(it) = self.peers.membership.get() {
                // Lost in a full queue: an election takes its usual time.
                let _ = it.handle.link_lost(self.from);
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for Service {
    type LinkStream = Replies<LinkReply>;
    type RowsStream = Replies<RowsFrame>;

    async fn greet(&self, _: Request<Greeting>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(self.0.greeting()))
    }

    async fn found(&self, request: Request<Founding>) -> Result<Response<Founded>, Status> {
        let founding = request.into_inner();
        if let Some(it) = self.0.membership.get()
            && it.identity.cluster_id == founding.cluster_id
        {
            return Ok(Response::new(Founded {}));
        }
        self.offer(Offer::Found(founding)).await?;
        Ok(Response::new(Founded {}))
    }

    async fn invite(&self, request: Request<Invitation>) -> Result<Response<Invited>, Status> {
        let address = request.into_inner().raft_address;
        self.offer(Offer::Invite(address)).await?;
        Ok(Response::new(Invited {}))
    }

    async fn join(&self, request: Request<Candidate>) -> Result<Response<Admission>, Status> {
        let candidate = request.into_inner().member;
        let candidate =
            candidate.ok_or_else(|| Status::invalid_argument("member: expected who joins"))?;
        let admission = keeper::admit(&self.0, candidate).await;
        Ok(Response::new(admission.map_err(Status::unavailable)?))
    }

    async fn link(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let peers = &self.0;
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(super::PATIENCE, frames.message()).await;
        let Ok(Ok(Some(Frame {
            kind: Some(Kind::Ends(ends)),
        }))) = first
        else {
            return Err(Status::invalid_argument("a link begins with its ends"));
        };
        let from = check(peers, &ends)?;
        if let Some(member) = ends.member {
            lock(&peers.heard).insert(from, member);
        }
        peers.queue(from).hear();
        let incoming = Incoming::new(peers.clone(), from);
        let reader = tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                if let Some(Kind::Messages(messages)) = frame.kind {
                    deliver(&incoming, messages).await;
                }
            }
        });
        let open = stream::once(async { Ok(LinkReply {}) });
        let mut members = peers.members.subscribe();
        let rest = stream::once(async move {
            let mut reader = Reader(reader);
            tokio::select! {
                // Its panics, if any, were logged.
                _ = &mut reader.0 => {}
                // It links again, and is told.
                Ok(_) = members.wait_for(|it| is_removed(it, from)) => {}
            }
            Err(Status::unavailable("the link has ended"))
        });
        Ok(Response::new(Box::pin(open.chain(rest))))
    }

    async fn rows(
        &self,
        request: Request<RowsRequest>,
    ) -> Result<Response<Self::RowsStream>, Status> {
        let RowsRequest {
            ends,
            min_index,
            ends_stream,
            declined,
        } = request.into_inner();
        let ends = ends.ok_or_else(|| Status::invalid_argument("ends: expected who asks"))?;
        let from = check(&self.0, &ends)?;
        let Some(membership) = self.0.membership.get() else {
            return Err(Status::failed_precondition("this master has no store yet"));
        };
        lock(&self.0.tickets).remove(&from);
        if declined {
            self.0.report_rows(from, false).await;
            return Ok(Response::new(Box::pin(stream::empty())));
        }
        let parts = fetch::parts(&membership.handle, min_index).map_err(Status::unavailable)?;
        let report = fetch::report(self.0.clone(), from);
        let frames = fetch::frames(parts, Some(report), ends_stream);
        Ok(Response::new(Box::pin(frames)))
    }
}

impl Service {
    async fn offer(&self, offer: Offer) -> Result<(), Status> {
        let own = self.0.own();
        let has_store = || {
            Status::failed_precondition(format!(
                "master {} has a store already{}",
                own.raft_address,
                match self.0.membership.get() {
                    Some(it) => format!(", of cluster {}", it.identity.cluster_id),
                    None => String::new(),
                }
            ))
        };
        if self.0.membership.get().is_some() {
            return Err(has_store());
        }
        let (answer, answered) = oneshot::channel();
        self.0
            .offers
            .send((offer, answer))
            .await
            .map_err(|_| has_store())?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(Status::failed_precondition(text)),
            Err(_) => Err(has_store()),
        }
    }
}

/// Hands a frame to the raft thread, waiting while its queue is full: the peer's stream then
/// waits too.
async fn deliver(incoming: &Incoming, messages: Messages) {
    let peers = &incoming.peers;
    let Some(membership) = peers.membership.get() else {
        return;
    };
    if !messages.messages.is_empty() {
        // Never closed.
        let Ok(permit) = incoming.frames.clone().acquire_owned().await else {
            return;
        };
        let permit: Permit = Box::new(permit);
        let mut rest = Some((messages.messages, permit));
        while let Some((messages, permit)) = rest.take() {
            if let Err(Some(refused)) = membership.handle.deliver(messages, permit) {
                rest = Some(refused);
                tokio::time::sleep(BUSY).await;
            }
        }
    }
    for ticket in messages.tickets {
        // Apart: heartbeats go on while rows come.
        tokio::spawn(fetch::redeem(peers.clone(), incoming.from, ticket));
    }
}

/// When a ticket was sent to a peer.
pub(crate) fn ticket_sent(peers: &Peers, to: NodeId) {
    lock(&peers.tickets).insert(to, Instant::now());
}
