//! Rows of the whole state from one master to another, and into a backup.
//!
//! The sender's thread reads a snapshot of its store and waits when the receiver is slow; the
//! receiver writes into a new folder and makes a state of it there, before its raft thread
//! hears of it. Neither holds more of the bytes than a few groups.

use super::{BUSY, Membership, PATIENCE, Peers, channel::Security, links::MAX_FRAME, lock};
use crate::config::supported_version;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tepui_replication::{
    DiskFailure, FetchedRows, Handle, Identity, NodeId, OpenError, Origin, RowsPart, RowsWriter,
};
use tepui_server::proto::tepui::raft::v1::{
    Ends, Row, Rows, RowsEnd, RowsFrame, RowsRequest, peer_client::PeerClient, rows_frame::Kind,
};
use tepui_state::{ClusterState, LoadError};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

/// Groups of rows between the thread that reads them and the stream: of 256 KiB each.
const GROUPS: usize = 4;

/// A sender that says nothing for so long has a disk that hangs: another one may have none.
const STALLED: Duration = Duration::from_secs(15);

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
pub(crate) struct Report<F: FnOnce(bool)> {
    arrived: bool,
    tell: Option<F>,
}

impl<F: FnOnce(bool)> Report<F> {
    /// `tell` is called once, with whether all rows were sent.
    pub(crate) fn new(tell: F) -> Report<F> {
        Report {
            arrived: false,
            tell: Some(tell),
        }
    }
}

impl<F: FnOnce(bool)> Drop for Report<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.arrived);
        }
    }
}

/// Tells the raft thread what became of the rows for a peer.
pub(crate) fn report(peers: Arc<Peers>, to: NodeId) -> Report<impl FnOnce(bool) + Send> {
    Report::new(move |arrived| {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { peers.report_rows(to, arrived).await });
        }
    })
}

/// The parts as the wire has them. With `stays` the stream goes on without a word behind the last
/// one, until its reader ends it.
pub(crate) fn frames<F: FnOnce(bool) + Send>(
    parts: mpsc::Receiver<RowsPart>,
    report: Option<Report<F>>,
    stays: bool,
) -> impl Stream<Item = Result<RowsFrame, Status>> + Send {
    let ended = false;
    stream::unfold((parts, report, ended), move |state| async move {
        let (mut parts, mut report, mut ended) = state;
        if ended && stays {
            // Dropped here, with the report, by who drops the stream.
            std::future::pending::<()>().await;
        }
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
                ended = true;
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
                return Some((Err(Status::unavailable(text)), (parts, report, ended)));
            }
        };
        Some((Ok(RowsFrame { kind: Some(kind) }), (parts, report, ended)))
    })
}

/// A transfer that has brought all rows. As long as it lives, its sender takes it for under way.
pub(crate) struct Transfer {
    pub(crate) rows: FetchedRows,
    stream: Streaming<RowsFrame>,
}

async fn next(frames: &mut Streaming<RowsFrame>) -> Result<Option<RowsFrame>, Status> {
    let frame = tokio::time::timeout(STALLED, frames.message()).await;
    frame.unwrap_or_else(|_| Err(Status::deadline_exceeded("it stopped sending rows")))
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
) -> Result<Transfer> {
    let channel = security.connect(address).await?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MAX_FRAME);
    let request = RowsRequest {
        ends: Some(ends),
        min_index,
        ends_stream: true,
        declined: false,
    };
    let mut frames = client.rows(request).await?.into_inner();
    let Some(RowsFrame {
        kind: Some(Kind::Origin(origin)),
    }) = next(&mut frames).await?
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
        while let Some(frame) = next(&mut frames).await? {
            let Some(kind) = frame.kind else { continue };
            let is_last = matches!(kind, Kind::End(_));
            // Closed when the writer has failed, which says why.
            if sender.send(kind).await.is_err() || is_last {
                break;
            }
        }
        drop(sender);
        Ok::<_, Status>(())
    };
    let (received, written) = tokio::join!(receive, writer);
    received.with_context(|| format!("rows of master {address}"))?;
    let rows = written?.with_context(|| format!("rows of master {address}"))?;
    Ok(Transfer {
        rows,
        stream: frames,
    })
}

/// A ticket, and whose it is.
type Held = (NodeId, Bytes);

/// One transfer at a time. A ticket that arrives meanwhile, from a new leader or from one whose
/// link broke, is held until it is clear whether it is needed any more; of several the last, which
/// is the one that its sender waits for.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    is_busy: bool,
    held: Option<Held>,
}

impl Desk {
    /// The ticket, when its rows are to be fetched now; otherwise it is held.
    fn arrive(&mut self, ticket: Held) -> Option<Held> {
        if self.is_busy {
            self.held = Some(ticket);
            return None;
        }
        self.is_busy = true;
        Some(ticket)
    }

    /// The rows are here: the ticket that they go with. A held one is of a later leader than the
    /// one that they were fetched for, which consensus would not listen to any more; rows of
    /// committed state are anybody's.
    fn newest(&mut self, fetched_for: Held) -> Held {
        self.held.take().unwrap_or(fetched_for)
    }

    /// A transfer is over: the ticket that came meanwhile is next, or nobody is busy any more.
    fn through(&mut self) -> Option<Held> {
        self.is_busy = self.held.is_some();
        self.held.take()
    }
}

/// Fetches what a ticket promises and hands both to the raft thread, and goes on with what came
/// meanwhile.
pub(crate) async fn redeem(peers: Arc<Peers>, from: NodeId, ticket: Bytes) {
    let Some(membership) = peers.membership.get() else {
        return;
    };
    let mut next = lock(&peers.desk).arrive((from, ticket));
    while let Some((from, ticket)) = next {
        tracing::info!(
            from,
            "this master is behind: it fetches the rows of another"
        );
        let redeemed = try_redeem(&peers, membership, from, ticket).await;
        next = lock(&peers.desk).through();
        match redeemed {
            Ok(false) => {}
            // Whoever else sent a ticket is told to go on behind the rows that are here now. Should
            // its log begin later, it sends another.
            Ok(true) => {
                while let Some((from, _)) = next {
                    decline(&peers, membership, from).await;
                    next = lock(&peers.desk).through();
                }
            }
            // The sender sees its stream's end and sends another ticket.
            Err(error) => {
                if let Some(RowsError::Newer(newer)) = error.downcast_ref() {
                    // No other rows will do.
                    peers.give_up(newer.to_string());
                }
                tracing::warn!(from, error = format!("{error:#}"), "rows were not fetched");
            }
        }
    }
}

/// True when the rows are in place.
async fn try_redeem(
    peers: &Arc<Peers>,
    membership: &Membership,
    from: NodeId,
    ticket: Bytes,
) -> Result<bool> {
    let member = peers
        .whereabouts(from)
        .context("its address is not known")?;
    let Transfer { rows, stream } = copy(
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
    let (for_whom, ticket) = lock(&peers.desk).newest((from, ticket));
    let mut both = (ticket, rows);
    let in_place = loop {
        let (sender, in_place) = oneshot::channel();
        let answer = move |it| {
            // Nobody waits for it any more.
            let _ = sender.send(it);
        };
        match membership.handle.restore(both.0, both.1, answer) {
            Ok(()) => break in_place.await.context("the replica has stopped")?,
            Err(Some(refused)) => both = *refused,
            Err(None) => bail!("the replica has stopped"),
        }
        tokio::time::sleep(BUSY).await;
    };
    // Now its sender may send another ticket.
    drop(stream);
    if for_whom != from {
        decline(peers, membership, for_whom).await;
    }
    Ok(in_place)
}

/// Tells the sender of a ticket that nobody will ask for its rows: it goes on behind what was
/// acknowledged. Should it not be reached, it sends another when it has waited for long enough.
async fn decline(peers: &Arc<Peers>, membership: &Membership, from: NodeId) {
    let told = async {
        let member = peers
            .whereabouts(from)
            .context("its address is not known")?;
        let channel = peers.security.connect(&member.raft_address).await?;
        let request = RowsRequest {
            ends: Some(peers.ends(membership, from)),
            declined: true,
            ..RowsRequest::default()
        };
        PeerClient::new(channel).rows(request).await?;
        Ok::<_, anyhow::Error>(())
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    match told.context("it does not answer").and_then(|it| it) {
        Ok(()) => tracing::info!(from, "a second ticket was not needed"),
        Err(error) => {
            tracing::info!(
                from,
                error = format!("{error:#}"),
                "a ticket is not declined"
            );
        }
    }
}

/// Why rows are not a state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// The disk does not give them back.
    #[error("the rows cannot be read")]
    Unreadable(#[source] DiskFailure),
    /// They are not what a master wrote.
    #[error("the rows make no state")]
    Damaged(#[source] LoadError),
    /// They are whole, and this release is too old for them.
    #[error(transparent)]
    Newer(LoadError),
}

impl RowsError {
    /// As a failure to open the store in `dir`, which rows of other masters can mend, unless the
    /// rows are newer than this release.
    pub(crate) fn of_store(self, dir: &Path) -> anyhow::Error {
        match self {
            RowsError::Newer(error) => error.into(),
            damage => {
                let dir = dir.to_owned();
                let text = format!("{:#}", anyhow::Error::from(damage));
                OpenError::RowsDamaged { dir, text }.into()
            }
        }
    }
}

/// The state that rows make, read one after the other.
///
/// # Errors
/// A row cannot be read, or they make no state.
pub(crate) fn load(
    rows: impl Iterator<Item = Result<tepui_replication::Row, DiskFailure>>,
) -> Result<ClusterState, RowsError> {
    let mut failed = None;
    let readable = rows.map_while(|row| match row {
        Ok(row) => Some(row),
        Err(failure) => {
            failed = Some(failure);
            None
        }
    });
    let loaded = ClusterState::load_supporting(supported_version(), readable);
    match (loaded, failed) {
        (Err(error @ LoadError::NewerVersion { .. }), _) => Err(RowsError::Newer(error)),
        (_, Some(failure)) => Err(RowsError::Unreadable(failure)),
        (Err(error), None) => Err(RowsError::Damaged(error)),
        (Ok(state), None) => Ok(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt};
    use std::sync::Mutex;
    use tepui_replication::Members;

    fn ticket(from: NodeId) -> Held {
        (from, Bytes::from(vec![7; 3]))
    }

    #[test]
    fn a_ticket_that_comes_amid_a_transfer_is_held_until_it_is_over() {
        let mut desk = Desk::default();
        assert_eq!(desk.arrive(ticket(1)), Some(ticket(1)));
        assert_eq!(desk.arrive(ticket(2)), None);
        assert_eq!(desk.arrive(ticket(3)), None);
        // The transfer failed: the last one's rows are fetched next, and it is still busy.
        assert_eq!(desk.through(), Some(ticket(3)));
        assert_eq!(desk.arrive(ticket(1)), None);
        assert_eq!(desk.through(), Some(ticket(1)));
        assert_eq!(desk.through(), None);
        assert_eq!(desk.arrive(ticket(2)), Some(ticket(2)));
    }

    #[test]
    fn rows_go_with_the_newest_ticket() {
        let mut desk = Desk::default();
        desk.arrive(ticket(1));
        assert_eq!(desk.newest(ticket(1)), ticket(1));
        desk.arrive(ticket(2));
        assert_eq!(desk.newest(ticket(1)), ticket(2));
        assert_eq!(desk.through(), None);
    }

    type Told = Arc<Mutex<Vec<bool>>>;

    /// A stream of no rows, and what is said when it ends.
    async fn sent(stays: bool) -> (impl Stream<Item = Result<RowsFrame, Status>>, Told) {
        let (sender, parts) = mpsc::channel(GROUPS);
        let origin = Origin {
            index: 7,
            term: 2,
            members: Members::voters([1]),
        };
        let end = RowsPart::End {
            count: 0,
            checksum: Vec::new(),
        };
        for part in [RowsPart::Begin(origin), end] {
            sender.send(part).await.unwrap();
        }
        let told = Told::default();
        let to = told.clone();
        let report = Report::new(move |arrived| lock(&to).push(arrived));
        (frames(parts, Some(report), stays), told)
    }

    #[tokio::test]
    async fn rows_have_arrived_when_their_receiver_says_so() {
        let (stream, told) = sent(true).await;
        let mut stream = Box::pin(stream);
        for _ in 0..2 {
            assert!(stream.next().await.unwrap().is_ok());
        }
        // All is sent; the receiver makes a state of it.
        assert!(stream.next().now_or_never().is_none());
        assert!(lock(&told).is_empty(), "told before the rows are in place");
        drop(stream);
        assert_eq!(*lock(&told), [true]);
    }

    #[tokio::test]
    async fn a_transfer_that_was_cut_off_has_not_arrived() {
        let (stream, told) = sent(true).await;
        let mut stream = Box::pin(stream);
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        assert_eq!(*lock(&told), [false]);
    }

    #[tokio::test]
    async fn a_receiver_that_reads_to_the_end_finds_it() {
        let (stream, told) = sent(false).await;
        assert_eq!(stream.count().await, 2);
        assert_eq!(*lock(&told), [true]);
    }

    #[test]
    fn damage_is_told_apart_from_a_newer_release() {
        let row = |key: Vec<u8>, value: Vec<u8>| Ok((Bytes::from(key), Bytes::from(value)));
        let cluster = |version| {
            let row = tepui_master_machine::model::log::Cluster {
                cluster_version: version,
                ..Default::default()
            };
            prost::Message::encode_to_vec(&row)
        };
        let key = tepui_state::RowKey::Cluster.to_bytes();
        let store = Path::new("/store");
        let of = |rows: Vec<_>| load(rows.into_iter()).unwrap_err().of_store(store);
        let mends = |error: &anyhow::Error| {
            let error = error.downcast_ref::<OpenError>();
            matches!(error, Some(OpenError::RowsDamaged { .. }))
        };
        // Bytes that are no row, and a table that no release has had, under a version that we know.
        for rows in [
            vec![row(key.clone(), vec![0xff; 9])],
            vec![row(key.clone(), cluster(1)), row(vec![0xee; 5], vec![])],
        ] {
            let error = of(rows);
            assert!(mends(&error), "{error:#}");
            assert!(error.to_string().contains("/store are damaged"), "{error}");
        }
        let newer = supported_version() + 1;
        let rows = vec![row(key.clone(), cluster(newer)), row(vec![0xee; 5], vec![])];
        let error = of(rows);
        assert!(!mends(&error), "{error:#}");
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}
