//! What is done with a master's folder while no master runs on it: restoring a backup, and
//! making one master the whole cluster when the others are gone for good.
//!
//! Both begin a new incarnation of the cluster: agents obey the newer one alone, and masters of
//! different incarnations do not speak to each other.

use crate::shell::{members::BACKUP, peers::fetch};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf, Bytes};
use prost::Message as _;
use ring::digest::{Context, SHA256};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};
use tepui_replication::{FetchedRows, Identity, Members, Options, Origin, RowsWriter, Store};
use tepui_server::proto::tepui::raft::v1::{RowsFrame, rows_frame::Kind};
use tepui_state::ClusterState;

/// The largest frame of a backup that is believed.
const MAX_FRAME: u64 = 1 << 30;

/// What was done.
#[derive(Debug, Clone)]
pub struct Done {
    /// The cluster.
    pub cluster_id: String,
    /// Its new incarnation.
    pub incarnation: u64,
    /// The member that is the cluster now.
    pub node_id: u64,
    /// Rows that it begins with.
    pub rows: u64,
}

/// Larger than every one before, also than those of which nothing is known here, such as an
/// earlier restoration of the same backup.
fn next_incarnation(last: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |it| it.as_secs()).max(last + 1)
}

fn store(work_dir: &Path) -> std::path::PathBuf {
    work_dir.join("replica")
}

/// Reads the frames of a backup.
struct Frames(BufReader<File>);

impl Frames {
    fn open(path: &Path) -> Result<Frames> {
        let file =
            File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut begin = [0; BACKUP.len()];
        let read = reader.read_exact(&mut begin);
        ensure!(
            read.is_ok() && &begin == BACKUP,
            "{} is no backup that `tepui master backup` made",
            path.display()
        );
        Ok(Frames(reader))
    }

    /// Compares the sum at the end of a backup with all that is before it.
    fn check(path: &Path) -> Result<()> {
        let Frames(mut reader) = Frames::open(path)?;
        let mut sum = Context::new(&SHA256);
        sum.update(BACKUP);
        let length = reader.get_ref().metadata()?.len();
        let size = (BACKUP.len() + SHA256.output_len()) as u64;
        let damaged = "the backup is cut off or damaged: its checksum is another one";
        let mut left = length.checked_sub(size).context(damaged)?;
        let mut part = vec![0; 1 << 20];
        while left > 0 {
            let count = left.min(part.len() as u64) as usize;
            reader.read_exact(&mut part[..count])?;
            sum.update(&part[..count]);
            left -= count as u64;
        }
        let mut expected = vec![0; SHA256.output_len()];
        reader.read_exact(&mut expected)?;
        ensure!(sum.finish().as_ref() == expected, damaged);
        Ok(())
    }

    fn next(&mut self) -> Result<Kind> {
        let cut = "the backup is cut off: it lacks its end";
        let mut length = 0_u64;
        for shift in (0..).step_by(7) {
            ensure!(shift < 64, "the backup is damaged");
            let mut byte = [0];
            self.0.read_exact(&mut byte).context(cut)?;
            length |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        ensure!(length <= MAX_FRAME, "the backup is damaged");
        let mut bytes = vec![0; usize::try_from(length)?];
        self.0.read_exact(&mut bytes).context(cut)?;
        let frame =
            RowsFrame::decode(Bytes::from(bytes).chunk()).context("the backup is damaged")?;
        frame.kind.context("the backup is damaged")
    }

    fn origin(&mut self) -> Result<Origin> {
        match self.next()? {
            Kind::Origin(origin) => Ok(Origin::decode(&origin)?),
            _ => bail!("the backup is damaged: it does not say of when it is"),
        }
    }
}

/// Makes a store of a backup in a folder that has none: one master, of the cluster's next
/// incarnation, that others join.
///
/// # Errors
/// The folder has a store, or the backup is no good; nothing has changed then.
pub fn restore(backup: &Path, work_dir: &Path) -> Result<Done> {
    let store = store(work_dir);
    ensure!(
        !Store::exists(&store),
        "{} has state already; restore into an empty --work_dir",
        work_dir.display()
    );
    Frames::check(backup)?;
    // Read again: first for what it says of the cluster, which stands in its rows.
    let mut frames = Frames::open(backup)?;
    let mut origin = frames.origin()?;
    let mut state = ClusterState::new();
    let mut rows = 0;
    let is_cluster = |key: &[u8]| key == tepui_state::RowKey::Cluster.to_bytes();
    loop {
        match frames.next()? {
            Kind::Rows(group) => {
                rows += group.rows.len() as u64;
                let cluster = group.rows.into_iter().find(|it| is_cluster(&it.key));
                if let Some(row) = cluster {
                    state = ClusterState::load([(row.key, row.value)])
                        .context("the backup is of a newer release, or damaged")?;
                }
            }
            Kind::End(_) => break,
            Kind::Origin(_) => bail!("the backup is damaged: it begins twice"),
        }
    }
    let cluster = state.cluster();
    ensure!(
        !cluster.cluster_id.is_empty(),
        "the backup names no cluster: it was made before one was formed"
    );
    let identity = Identity {
        store_id: uuid::Uuid::new_v4().to_string(),
        cluster_id: cluster.cluster_id.clone(),
        // Ids of members are never given twice.
        node_id: origin.members.last_id + 1,
        incarnation: next_incarnation(cluster.incarnation),
    };
    origin.members = Members::voters([identity.node_id]);
    let nursery = Store::nursery(&store);
    if nursery.exists() {
        std::fs::remove_dir_all(&nursery)?;
    }
    let fetched = copy(backup, &nursery, &origin, &identity)?;
    // Everything that a master would find must make a state now.
    fetch::load(fetched.rows()).context("the backup cannot be used")?;
    Store::create(&store, &identity, &origin.members, Some(fetched))?;
    Ok(Done {
        cluster_id: identity.cluster_id,
        incarnation: identity.incarnation,
        node_id: identity.node_id,
        rows,
    })
}

fn copy(
    backup: &Path,
    nursery: &Path,
    origin: &Origin,
    identity: &Identity,
) -> Result<FetchedRows> {
    let mut frames = Frames::open(backup)?;
    frames.origin()?;
    let mut writer = RowsWriter::begin(nursery, origin.clone())?;
    loop {
        match frames.next()? {
            Kind::Rows(group) => {
                let rows: Vec<_> = group
                    .rows
                    .into_iter()
                    .map(|it| (it.key, it.value))
                    .collect();
                writer.put(&rows)?;
            }
            Kind::End(end) => return Ok(writer.finish(identity, end.count, &end.checksum)?),
            Kind::Origin(_) => bail!("the backup is damaged: it begins twice"),
        }
    }
}

/// Makes the master of a folder the only voter, of the cluster's next incarnation: for a cluster
/// whose other voters are gone for good. What its log holds is kept, committed or not; what only
/// the others had is lost.
///
/// # Errors
/// There is no state, a master runs on it, or it is damaged.
pub fn recover(work_dir: &Path) -> Result<Done> {
    let folder = store(work_dir);
    ensure!(
        Store::exists(&folder),
        "{} has no state of a master",
        work_dir.display()
    );
    let unused = Identity::first("unused", "unused");
    let mut store = Store::open(&Options::new(&folder, unused))?;
    let identity = store.identity().clone();
    let members = store.members()?.unwrap_or_default();
    ensure!(
        members.is_voter(identity.node_id),
        "this master had no vote: recover with one that had, or restore a backup"
    );
    let note = members
        .notes
        .get(&identity.node_id)
        .cloned()
        .unwrap_or_default();
    // A survivor that cannot be started is none.
    fetch::load(store.rows()).map_err(|it| it.of_store(&folder))?;
    store.seize(note, next_incarnation(identity.incarnation))?;
    let rows = store.rows().count() as u64;
    let identity = store.identity();
    Ok(Done {
        cluster_id: identity.cluster_id.clone(),
        incarnation: identity.incarnation,
        node_id: identity.node_id,
        rows,
    })
}
