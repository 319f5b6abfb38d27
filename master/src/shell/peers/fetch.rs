//! Rows of the whole state from one master to another, and into a backup.
//!
//! The sender's thread reads a snapshot of its store and waits when the receiver is slow; the
//! receiver writes into a new folder and makes a state of it there, before its raft thread
//! hears of it. Neither holds more of the bytes than a few groups.

use super::{BUSY, Membership, Peers, channel::Security, links::MAX_FRAME};
use crate::config::supported_version;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use tepui_replication::{
    DiskFailure, FetchedRows, Handle, Identity, NodeId, Origin, RowsPart, RowsWriter,
};
use tepui_server::proto::tepui::raft::v1::{
    Ends, Row, Rows, RowsEnd, RowsFrame, RowsRequest, peer_client::PeerClient, rows_frame::Kind,
};
use tepui_state::ClusterState;
use tokio::sync::mpsc;
use tonic::Status;

/// Groups of rows between the thread that reads them and the stream: of 256 KiB each.
const GROUPS: usize = 4;

/// The parts of all rows, read on a thread of their own.
///
/// # Errors
/// The replica is too busy; ask again.
pub(crate) fn parts(handle: &Handle, min_index: u64) -> Result<mpsc::Receiver<RowsPart>, String> {
    let (sender, parts) = mpsc::channel(GROUPS);
    // Its first call may be on the raft thread, which must not wait; there is room then.
    let sink = Box::new(move |part| match sender.try_send(part) {
        Ok(()) => true,
        Err(mpsc::error::TrySendError::Full(part)) => sender.blocking_send(part).is_ok(),
        Err(mpsc::error::TrySendError::Closed(_)) => false,
    });
    handle
        .send_rows(min_index, sink)
        .map_err(|_| "this master is too busy; ask again".to_owned())?;
    Ok(parts)
}

/// Says how a transfer ended, however it does.
pub(crate) struct Report {
    peers: Arc<Peers>,
    to: NodeId,
    arrived: bool,
}

impl Report {
    pub(crate) fn new(peers: Arc<Peers>, to: NodeId) -> Report {
        Report {
            peers,
            to,
            arrived: false,
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let (peers, to, arrived) = (self.peers.clone(), self.to, self.arrived);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { peers.report_rows(to, arrived).await });
        }
    }
}

/// The parts as the wire has them.
pub(crate) fn frames(
    parts: mpsc::Receiver<RowsPart>,
    report: Option<Report>,
) -> impl Stream<Item = Result<RowsFrame, Status>> + Send {
    stream::unfold((parts, report), |(mut parts, mut report)| async move {
        let part = parts.recv().await?;
        let kind = match part {
            RowsPart::Begin(origin) => Kind::Origin(origin.encode()),
            RowsPart::Rows(rows) => Kind::Rows(Rows {
                rows: rows
                    .into_iter()
                    .map(|(key, value)| Row { key, value })
                    .collect(),
            }),
            RowsPart::End { count, checksum } => {
                if let Some(report) = &mut report {
                    report.arrived = true;
                }
                Kind::End(RowsEnd {
                    count,
                    checksum: checksum.into(),
                })
            }
            RowsPart::Failed(text) => {
                parts.close();
                return Some((Err(Status::unavailable(text)), (parts, report)));
            }
        };
        Some((Ok(RowsFrame { kind: Some(kind) }), (parts, report)))
    })
}

/// Copies the rows of the master at `address` into a new folder of `store`.
///
/// # Errors
/// It cannot be reached, has no such rows, or what came is not what it sent.
pub(crate) async fn copy(
    security: &Security,
    address: &str,
    ends: Ends,
    min_index: u64,
    store: PathBuf,
    identity: Identity,
) -> Result<FetchedRows> {
    let channel = security.connect(address).await?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let request = RowsRequest {
        ends: Some(ends),
        min_index,
    };
    let mut frames = client.rows(request).await?.into_inner();
    let Some(RowsFrame {
        kind: Some(Kind::Origin(origin)),
    }) = frames.message().await?
    else {
        bail!("master {address} sent rows without saying of when they are");
    };
    let origin = Origin::decode(&origin)?;
    let (sender, mut groups) = mpsc::channel::<Kind>(GROUPS);
    let writer = tokio::task::spawn_blocking(move || -> Result<FetchedRows> {
        let mut writer = RowsWriter::begin(&store, origin)?;
        while let Some(kind) = groups.blocking_recv() {
            match kind {
                Kind::Rows(rows) => {
                    let rows: Vec<_> = rows.rows.into_iter().map(|it| (it.key, it.value)).collect();
                    writer.put(&rows)?;
                }
                Kind::End(end) => return Ok(writer.finish(&identity, end.count, &end.checksum)?),
                Kind::Origin(_) => bail!("two beginnings"),
            }
        }
        bail!("the transfer was cut off")
    });
    let receive = async {
        while let Some(frame) = frames.message().await? {
            let Some(kind) = frame.kind else { continue };
            // Closed when the writer has failed, which says why.
            if sender.send(kind).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, Status>(())
    };
    let (received, written) = tokio::join!(receive, writer);
    received.with_context(|| format!("rows of master {address}"))?;
    written?.with_context(|| format!("rows of master {address}"))
}

/// Fetches what a ticket promises and hands both to the raft thread. One transfer at a time: a
/// second ticket comes when the first was lost, or is old.
pub(crate) async fn redeem(peers: Arc<Peers>, from: NodeId, ticket: Bytes) {
    let Some(membership) = peers.membership.get() else {
        return;
    };
    if peers.is_fetching.swap(true, Ordering::AcqRel) {
        return;
    }
    tracing::info!(
        from,
        "this master is behind: it fetches the rows of another"
    );
    if let Err(error) = try_redeem(&peers, membership, from, ticket).await {
        // The sender sees its stream's end and sends another ticket.
        tracing::warn!(from, error = format!("{error:#}"), "rows were not fetched");
    }
    peers.is_fetching.store(false, Ordering::Release);
}

async fn try_redeem(
    peers: &Arc<Peers>,
    membership: &Membership,
    from: NodeId,
    ticket: Bytes,
) -> Result<()> {
    let member = peers
        .whereabouts(from)
        .context("its address is not known")?;
    let rows = copy(
        &peers.security,
        &member.raft_address,
        peers.ends(membership, from),
        0,
        peers.store.clone(),
        membership.identity.clone(),
    )
    .await?;
    // On a thread that may take its time: the raft thread only takes it over.
    let (rows, state) = tokio::task::spawn_blocking(move || -> Result<_> {
        let state = load(rows.rows())?;
        Ok((rows, state))
    })
    .await??;
    let mut rows = rows;
    rows.prepared = Some(Box::new(state));
    let mut both = (ticket, rows);
    loop {
        match membership.handle.restore(both.0, both.1) {
            Ok(()) => return Ok(()),
            Err(Some(refused)) => both = *refused,
            Err(None) => bail!("the replica has stopped"),
        }
        tokio::time::sleep(BUSY).await;
    }
}

/// The state that rows make, read one after the other.
///
/// # Errors
/// A row cannot be read, or they make no state.
pub(crate) fn load(
    rows: impl Iterator<Item = Result<tepui_replication::Row, DiskFailure>>,
) -> Result<ClusterState> {
    let mut failed = None;
    let readable = rows.map_while(|row| match row {
        Ok(row) => Some(row),
        Err(failure) => {
            failed = Some(failure);
            None
        }
    });
    let state = ClusterState::load_supporting(supported_version(), readable)
        .context("the rows make no state")?;
    match failed {
        Some(failure) => Err(failure).context("the rows cannot be read"),
        None => Ok(state),
    }
}
