//! The checkpoint log: everything that the agent must know again after a restart.
//!
//! `<work_dir>/meta/checkpoint.log` holds frames: length and CRC-32 of the payload, each four
//! bytes, lowest first, then the payload, records of `tepui.agent.v1.Record` each behind its
//! length. A frame is written and synced before the next one is begun, so that only the last
//! one can be torn: it is cut at the next start, for nobody has been told of it. A damaged
//! frame before a whole one is no crash but a broken disk: the agent does not start.

use prost::Message;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tepui_agent_machine::model::link::Record;

/// First bytes of the file, with the version of its format.
const MAGIC: &[u8; 8] = b"TEPUIAG1";
/// Length and check sum before each payload.
const HEADER: usize = 8;
/// A log smaller than this is not worth a compaction.
const COMPACT_FROM: u64 = 1 << 20;
/// Bytes kept for the last words on a full disk: thousands of updates.
const RESERVE: usize = 1 << 20;
/// The log is compacted when it has grown by this factor.
const GROWTH: u64 = 4;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} is in use by another agent: each needs a --work_dir of its own", .0.display())]
    InUse(PathBuf),
    /// Not our file, or of a newer format.
    #[error("{} is no checkpoint log of this version", .0.display())]
    Foreign(PathBuf),
    /// Something in the middle is broken.
    #[error(
        "{} is damaged at byte {offset}: repair it from a backup, or move the folder away to make \
         this a new agent (its tasks are lost)",
        path.display()
    )]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        action,
        path,
        source,
    }
}

/// The open log. Whoever holds it holds the work folder.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    file: File,
    /// Bytes that are synced; what lies behind them does not count.
    length: u64,
    /// Length at which the next compaction is due.
    compact_at: u64,
    /// The file `reserve` holds its bytes.
    reserved: bool,
    /// Released with the file.
    _lock: File,
}

impl Log {
    /// Opens the log of a work folder, making it if there is none, and reads it.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn open(work_dir: &Path) -> Result<(Log, Vec<Record>), Error> {
        let folder = work_dir.join("meta");
        std::fs::create_dir_all(&folder).map_err(file_error("make", &folder))?;
        let lock = lock(&folder, work_dir)?;
        // What a crash left of a compaction was never the log.
        let _ = std::fs::remove_file(folder.join("checkpoint.new"));
        let path = folder.join("checkpoint.log");
        if !path.exists() {
            replace(&folder, &[]).map_err(file_error("write", &path))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(file_error("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(file_error("read", &path))?;
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Foreign(path));
        }
        let (records, whole) = parse(&bytes, &path)?;
        if whole < bytes.len() {
            tracing::warn!(
                bytes = bytes.len() - whole,
                "the last checkpoint was cut off by a crash: nobody was told of it"
            );
            file.set_len(whole as u64)
                .and_then(|()| file.sync_all())
                .map_err(file_error("cut", &path))?;
        }
        let length = whole as u64;
        file.seek(SeekFrom::Start(length))
            .map_err(file_error("seek in", &path))?;
        let mut log = Log {
            folder,
            reserved: false,
            file,
            length,
            compact_at: COMPACT_FROM.max(length.saturating_mul(2)),
            _lock: lock,
        };
        // Without it the agent starts, and takes no tasks until there is room.
        let _ = log.reserve();
        Ok((log, records))
    }

    /// Appends the records as one frame and syncs it. After an error nothing of them counts,
    /// and it may be tried again.
    ///
    /// # Errors
    /// What the file system says: no space, a broken disk.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let frame = frame(records);
        // An earlier try may have left a part.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&frame)?;
        self.file.sync_data()?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Whether there is room for the last words on a full disk.
    pub(crate) fn has_reserve(&self) -> bool {
        self.reserved
    }

    /// Keeps room for the last words: real bytes, for a file with a hole holds none.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn reserve(&mut self) -> io::Result<()> {
        let path = self.folder.join("reserve");
        if !self.reserved {
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(&vec![0xff; RESERVE])?;
                file.sync_all()
            };
            if let Err(error) = write() {
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
            self.reserved = true;
        }
        Ok(())
    }

    /// Gives the room away; false when there is none any more.
    pub(crate) fn use_reserve(&mut self) -> bool {
        let reserved = std::mem::replace(&mut self.reserved, false);
        reserved && std::fs::remove_file(self.folder.join("reserve")).is_ok()
    }

    /// Whether the log has grown enough to be written anew.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.length > self.compact_at
    }

    /// Writes the log anew with these records alone. After an error the old one stands, and
    /// the next try waits until it has grown again.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn compact(&mut self, records: &[Record]) -> io::Result<()> {
        // Not again at once, however this ends.
        self.compact_at = self.length.saturating_mul(2).max(COMPACT_FROM);
        let (file, length) = replace(&self.folder, records)?;
        self.file = file;
        self.length = length;
        self.compact_at = COMPACT_FROM.max(length.saturating_mul(GROWTH));
        Ok(())
    }
}

/// Takes the lock; it ends with the process at the latest.
fn lock(folder: &Path, work_dir: &Path) -> Result<File, Error> {
    use rustix::fs::{FlockOperation, flock};
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(file_error("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse(work_dir.to_owned())),
        Err(error) => Err(file_error("lock", &path)(error.into())),
    }
}

/// Writes a log with the records under another name and renames it, all synced.
fn replace(folder: &Path, records: &[Record]) -> io::Result<(File, u64)> {
    let new = folder.join("checkpoint.new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&new)?;
    let mut bytes = MAGIC.to_vec();
    if !records.is_empty() {
        bytes.extend_from_slice(&frame(records));
    }
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // It holds space that is needed.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    std::fs::rename(&new, folder.join("checkpoint.log"))?;
    File::open(folder)?.sync_all()?;
    Ok((file, bytes.len() as u64))
}

fn frame(records: &[Record]) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    for record in records {
        frame.extend_from_slice(&record.encode_length_delimited_to_vec());
    }
    let payload = &frame[HEADER..];
    // A batch of four gigabytes would need millions of inputs at once.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = crc32(payload);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..HEADER].copy_from_slice(&sum.to_le_bytes());
    frame
}

/// The payload of the frame at `offset` and where the next one begins; `None` for a frame
/// that is not whole.
fn payload(bytes: &[u8], offset: usize) -> Option<(&[u8], usize)> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let length = word(offset)? as usize;
    let sum = word(offset + 4)?;
    let begin = offset + HEADER;
    let payload = bytes.get(begin..begin.checked_add(length)?)?;
    (length > 0 && crc32(payload) == sum).then_some((payload, begin + length))
}

/// The records, and how many bytes are whole.
fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, usize), Error> {
    let damaged = |offset: usize| Error::Damaged {
        path: path.to_owned(),
        offset,
    };
    let mut records = Vec::new();
    let mut offset = MAGIC.len();
    while offset < bytes.len() {
        let Some((mut payload_bytes, next)) = payload(bytes, offset) else {
            // Only the last frame can be torn by a crash.
            return match is_followed(bytes, offset) {
                true => Err(damaged(offset)),
                false => Ok((records, offset)),
            };
        };
        while !payload_bytes.is_empty() {
            let record = Record::decode_length_delimited(&mut payload_bytes);
            records.push(record.map_err(|_| damaged(offset))?);
        }
        offset = next;
    }
    Ok((records, offset))
}

/// Whether a whole frame comes right after the broken one, by the length that it claims.
fn is_followed(bytes: &[u8], offset: usize) -> bool {
    let Some(length) = bytes
        .get(offset..offset + 4)
        .and_then(|it| it.try_into().ok())
    else {
        return false;
    };
    let length = u32::from_le_bytes(length) as usize;
    let next = offset.saturating_add(HEADER).saturating_add(length);
    next < bytes.len() && payload(bytes, next).is_some()
}

/// CRC-32 as in IEEE 802.3: polynomial 0x04C11DB7, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = match value & 1 {
                    1 => 0xedb8_8320 ^ (value >> 1),
                    _ => value >> 1,
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, byte| {
        TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_agent_machine::model::link::{Boot, record::Kind};

    fn record(text: &str) -> Record {
        let boot_id = text.to_owned();
        Record {
            kind: Some(Kind::Boot(Boot { boot_id })),
        }
    }

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("meta/checkpoint.log")
    }

    fn reopened(folder: &tempfile::TempDir) -> Vec<Record> {
        Log::open(folder.path()).unwrap().1
    }

    #[test]
    fn the_sum_is_the_well_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn records_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, records) = Log::open(folder.path()).unwrap();
        assert!(records.is_empty());
        log.append(&[record("a"), record("b")]).unwrap();
        log.append(&[]).unwrap();
        log.append(&[record("c")]).unwrap();
        drop(log);
        assert_eq!(reopened(&folder), [record("a"), record("b"), record("c")]);
    }

    #[test]
    fn a_frame_torn_at_any_byte_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&[record("kept")]).unwrap();
        let kept = log.length as usize;
        log.append(&[record("torn, and rather long")]).unwrap();
        drop(log);
        let whole = std::fs::read(path(&folder)).unwrap();
        for end in kept..whole.len() {
            std::fs::write(path(&folder), &whole[..end]).unwrap();
            assert_eq!(reopened(&folder), [record("kept")], "cut at {end}");
            let (mut log, _) = Log::open(folder.path()).unwrap();
            log.append(&[record("later")]).unwrap();
            drop(log);
            assert_eq!(reopened(&folder), [record("kept"), record("later")]);
        }
        // Pages may reach the disk in any order: the right length with wrong bytes.
        let mut zeros = whole[..kept + HEADER].to_vec();
        zeros.resize(whole.len(), 0);
        std::fs::write(path(&folder), zeros).unwrap();
        assert_eq!(reopened(&folder), [record("kept")]);
    }

    #[test]
    fn damage_before_whole_frames_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&[record("first")]).unwrap();
        log.append(&[record("second")]).unwrap();
        drop(log);
        let mut bytes = std::fs::read(path(&folder)).unwrap();
        bytes[MAGIC.len() + HEADER + 3] ^= 1;
        std::fs::write(path(&folder), bytes).unwrap();
        let error = Log::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged { offset: 8, .. }), "{error}");
        std::fs::write(path(&folder), "something else").unwrap();
        assert!(matches!(Log::open(folder.path()), Err(Error::Foreign(_))));
    }

    #[test]
    fn a_compacted_log_holds_the_snapshot_and_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        let large = record(&"x".repeat(COMPACT_FROM as usize));
        log.append(&[large]).unwrap();
        assert!(log.wants_compaction());
        log.compact(&[record("snapshot")]).unwrap();
        assert!(!log.wants_compaction());
        log.append(&[record("later")]).unwrap();
        drop(log);
        assert_eq!(reopened(&folder), [record("snapshot"), record("later")]);
    }

    #[test]
    fn the_reserve_is_used_once_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        let file = folder.path().join("meta/reserve");
        assert!(log.has_reserve());
        assert_eq!(std::fs::metadata(&file).unwrap().len(), RESERVE as u64);
        assert!(log.use_reserve() && !file.exists());
        assert!(!log.use_reserve() && !log.has_reserve());
        log.reserve().unwrap();
        assert!(log.has_reserve() && file.exists());
    }

    #[test]
    fn two_agents_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _log = Log::open(folder.path()).unwrap();
        assert!(matches!(Log::open(folder.path()), Err(Error::InUse(_))));
    }
}
