//! The engine's log of a container, copied into the sandbox: neither lost nor doubled.
//!
//! The cursor says how far `stdout` and `stderr` have been copied: the time stamp of the last
//! entry, how many entries of that very stamp were copied, and how long the file was
//! afterwards. After a restart the file is cut to that length and reading goes on behind that
//! entry, so it does not matter whether the agent died before or after writing the cursor.
//! A rotation changes which file that is; the cursor therefore names it by its inode.

use super::engine::Client;
use crate::{config::LogBounds, runtime};
use bollard::{container::LogOutput, query_parameters::LogsOptions};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};
use tokio::sync::watch;

/// Pause before the engine is asked again after it broke off.
const PAUSE: Duration = Duration::from_millis(500);

/// Quiet after which the cursor is written.
const QUIET: Duration = Duration::from_millis(50);
/// Bytes after which it is written even if there is no quiet.
const UNSAVED: u64 = 1 << 20;

/// How far one stream was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Stamp of the last entry, as the engine wrote it (fixed width, so texts compare).
    stamp: String,
    /// Entries of that stamp which were copied.
    same: u64,
    /// Length of the file then.
    length: u64,
    /// The file.
    inode: u64,
}

/// Both streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    stdout: Position,
    stderr: Position,
}

/// Copies until the container has ended and everything is copied. `ended` turns true when the
/// container has.
pub(super) async fn copy(
    client: Client,
    name: String,
    sandbox: PathBuf,
    cursor_file: PathBuf,
    bounds: LogBounds,
    mut ended: watch::Receiver<bool>,
) {
    let cursor: Cursor = runtime::read_json(&cursor_file)
        .unwrap_or_default()
        .unwrap_or_default();
    let mut sink = Sink {
        stdout: Output::resume(&sandbox, "stdout", cursor.stdout, bounds),
        stderr: Output::resume(&sandbox, "stderr", cursor.stderr, bounds),
        cursor_file,
        dirty: true,
    };
    // Before the first byte: a next reader without a cursor would not know what to cut.
    sink.save();
    loop {
        // Only a pass that began after the end has certainly seen everything.
        let last = *ended.borrow();
        if let Err(error) = pass(&client, &name, &mut sink, !last).await {
            tracing::debug!(container = name, error, "docker log broke off");
        }
        sink.save();
        if last {
            return;
        }
        tokio::select! {
            _ = ended.wait_for(|it| *it) => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn pass(client: &Client, name: &str, sink: &mut Sink, follow: bool) -> Result<(), String> {
    let docker = client.docker().await.map_err(|it| it.to_string())?;
    sink.stdout.start_pass();
    sink.stderr.start_pass();
    let options = LogsOptions {
        follow,
        stdout: true,
        stderr: true,
        since: sink.since(),
        until: 0,
        timestamps: true,
        tail: "all".into(),
    };
    let mut stream = pin!(docker.logs(name, Some(options)));
    loop {
        // A checkpoint when nothing came for a moment, not with each of the engine's little
        // chunks: it costs far more than copying one, and a late one costs nothing but work.
        let item = match stream.next().now_or_never() {
            Some(item) => item,
            None if sink.dirty => match tokio::time::timeout(QUIET, stream.next()).await {
                Ok(item) => item,
                Err(_) => {
                    sink.save();
                    continue;
                }
            },
            None => stream.next().await,
        };
        match item {
            None => return Ok(()),
            Some(Ok(LogOutput::StdErr { message })) => sink.stderr.entry(&message),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                sink.stdout.entry(&message)
            }
            Some(Ok(LogOutput::StdIn { .. })) => {}
            Some(Err(error)) => return Err(super::engine::words(error)),
        }
        sink.dirty = true;
        let unsaved = sink.stdout.unsaved + sink.stderr.unsaved;
        if sink.stdout.rotated || sink.stderr.rotated || unsaved > UNSAVED {
            sink.save();
        }
    }
}

struct Sink {
    stdout: Output,
    stderr: Output,
    cursor_file: PathBuf,
    dirty: bool,
}

impl Sink {
    fn save(&mut self) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        for output in [&mut self.stdout, &mut self.stderr] {
            output.rotated = false;
            output.unsaved = 0;
        }
        let cursor = Cursor {
            stdout: self.stdout.position.clone(),
            stderr: self.stderr.position.clone(),
        };
        // On a full disk the older cursor stays: more is read again then, and the file is cut.
        let _ = runtime::write_json(&self.cursor_file, &cursor);
    }

    /// Whole seconds are all that the engine is asked for; the rest is skipped by stamp.
    fn since(&self) -> i32 {
        let earliest = self
            .stdout
            .position
            .stamp
            .as_str()
            .min(&self.stderr.position.stamp);
        parse_seconds(earliest)
            .and_then(|it| i32::try_from(it).ok())
            .unwrap_or(0)
    }
}

/// One file of the sandbox.
struct Output {
    folder: PathBuf,
    name: &'static str,
    bounds: LogBounds,
    file: Option<File>,
    position: Position,
    /// Entries of the cursor's stamp that this pass has skipped.
    skipped: u64,
    /// Where this pass began.
    from: (String, u64),
    rotated: bool,
    /// Bytes written since the cursor was.
    unsaved: u64,
    lost: u64,
}

impl Output {
    fn resume(folder: &Path, name: &'static str, position: Position, bounds: LogBounds) -> Output {
        let mut output = Output {
            folder: folder.to_owned(),
            name,
            bounds,
            file: None,
            position,
            skipped: 0,
            from: (String::new(), 0),
            rotated: false,
            unsaved: 0,
            lost: 0,
        };
        if output.position.inode != 0 {
            output.undo_rotation();
        }
        output.open();
        output
    }

    /// Brings back the file that the cursor names, if it was rotated after the cursor was
    /// written, and cuts it to the cursor's length.
    fn undo_rotation(&mut self) {
        let inode = |path: &Path| fs::symlink_metadata(path).ok().map(|it| it.ino());
        let wanted = Some(self.position.inode);
        for number in 0..=self.bounds.rotated {
            if inode(&self.path(number)) != wanted {
                continue;
            }
            for target in 0..=self.bounds.rotated.saturating_sub(number) {
                if number > 0 {
                    let _ = fs::rename(self.path(number + target), self.path(target));
                }
            }
            if let Ok(file) = open_existing(&self.path(0)) {
                let _ = file.set_len(self.position.length);
            }
            return;
        }
        // The task has removed it: what comes next starts a new file.
        self.position.length = 0;
    }

    fn open(&mut self) {
        let path = self.path(0);
        let file = open_existing(&path).or_else(|_| create(&path));
        self.file = file.ok();
        let metadata = self.file.as_ref().and_then(|it| it.metadata().ok());
        self.position.inode = metadata.as_ref().map_or(0, |it| it.ino());
        self.position.length = metadata.map_or(0, |it| it.len());
    }

    fn path(&self, number: u32) -> PathBuf {
        match number {
            0 => self.folder.join(self.name),
            _ => self.folder.join(format!("{}.{number}", self.name)),
        }
    }

    fn start_pass(&mut self) {
        self.skipped = 0;
        self.from = (self.position.stamp.clone(), self.position.same);
    }

    /// Takes one entry, `<stamp> <bytes>`, unless it was copied before.
    fn entry(&mut self, entry: &[u8]) {
        let Some(at) = entry.iter().position(|it| *it == b' ') else {
            return;
        };
        let (stamp, bytes) = (String::from_utf8_lossy(&entry[..at]), &entry[at + 1..]);
        if *stamp < *self.from.0 {
            return;
        }
        if stamp == self.from.0 && self.skipped < self.from.1 {
            self.skipped += 1;
            return;
        }
        self.write(bytes);
        if stamp == self.position.stamp {
            self.position.same += 1;
        } else if *stamp > *self.position.stamp {
            self.position.stamp = stamp.into_owned();
            self.position.same = 1;
        } else {
            // The clock went back: counted to the last stamp, so that none is skipped wrongly.
            self.position.same += 1;
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        if self.position.length > 0 && self.position.length + bytes.len() as u64 > self.bounds.bytes
        {
            self.rotate();
        }
        if self.lost > 0 {
            let note = format!("\n[{} bytes of output were lost: no room]\n", self.lost);
            if self.append(note.as_bytes()) == note.len() {
                self.lost = 0;
            }
        }
        while !bytes.is_empty() {
            match self.append(bytes) {
                0 => {
                    self.lost += bytes.len() as u64;
                    return;
                }
                count => bytes = &bytes[count..],
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &mut self.file else { return 0 };
        let count = file.write(bytes).unwrap_or(0);
        self.position.length += count as u64;
        self.unsaved += count as u64;
        count
    }

    fn rotate(&mut self) {
        for number in (0..self.bounds.rotated).rev() {
            let _ = fs::rename(self.path(number), self.path(number + 1));
        }
        if self.bounds.rotated == 0 {
            let _ = fs::remove_file(self.path(0));
        }
        self.rotated = true;
        match create(&self.path(0)) {
            Ok(file) => {
                self.position.inode = file.metadata().map_or(0, |it| it.ino());
                self.file = Some(file);
            }
            // The name is occupied by something of the task's that would not move.
            Err(_) => {
                if let Some(file) = &self.file {
                    let _ = file.set_len(0);
                }
            }
        }
        self.position.length = 0;
    }
}

/// The container may have put anything in the place of our files: links are not followed and
/// a FIFO does not stop us.
fn open_existing(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).open(path)
}

/// Seconds since the epoch of `2026-11-21T06:15:00.123456789Z`.
fn parse_seconds(stamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Days since 1970 in the calendar that begins its years in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + day_of_year
        - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LogBounds = LogBounds {
        bytes: 60,
        rotated: 2,
    };

    /// The engine's log, as entries.
    fn entries(count: usize) -> Vec<Vec<u8>> {
        (0..count)
            // Three entries of each stamp.
            .map(|it| format!("2026-11-21T06:15:00.{:09}Z line {it:04}\n", it / 3).into_bytes())
            .collect()
    }

    fn read(folder: &Path) -> String {
        (0..=BOUNDS.rotated)
            .rev()
            .map(|it| match it {
                0 => folder.join("stdout"),
                _ => folder.join(format!("stdout.{it}")),
            })
            .filter_map(|it| fs::read_to_string(it).ok())
            .collect()
    }

    #[test]
    fn nothing_is_lost_or_doubled_wherever_the_agent_dies() {
        let all = entries(14);
        for death in 0..=all.len() {
            for saved in 0..=death {
                let folder = tempfile::tempdir().expect("a temporary directory");
                let mut first =
                    Output::resume(folder.path(), "stdout", Position::default(), BOUNDS);
                first.start_pass();
                let mut cursor = first.position.clone();
                for (at, entry) in all[..death].iter().enumerate() {
                    first.entry(entry);
                    // A rotation is always followed by a checkpoint, as in `pass`, unless the
                    // death came in between.
                    if at < saved || (first.rotated && at + 1 < death) {
                        cursor = first.position.clone();
                        first.rotated = false;
                    }
                }
                drop(first);
                let mut second = Output::resume(folder.path(), "stdout", cursor, BOUNDS);
                second.start_pass();
                all.iter().for_each(|it| second.entry(it));
                let text = read(folder.path());
                // The oldest lines may have been rotated away; the rest is in order, once.
                let wanted: String = all
                    .iter()
                    .map(|it| String::from_utf8_lossy(&it[31..]).into_owned())
                    .collect();
                assert!(
                    wanted.ends_with(&text),
                    "died at {death}, saved {saved}: {text}"
                );
                assert!(text.len() >= 100, "died at {death}, saved {saved}: {text}");
            }
        }
    }

    #[test]
    fn stamps_are_seconds() {
        for (stamp, seconds) in [
            ("1970-01-01T00:00:01.000000000Z", 1),
            ("2000-03-01T00:00:00.000000000Z", 951_868_800),
            ("2024-02-29T12:00:00.000000000Z", 1_709_208_000),
        ] {
            assert_eq!(parse_seconds(stamp), Some(seconds), "{stamp}");
        }
        assert_eq!(parse_seconds("nonsense"), None);
        assert_eq!(parse_seconds(""), None);
    }

    #[test]
    fn a_link_put_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let target = folder.path().join("elsewhere");
        fs::write(&target, "precious").expect("write");
        std::os::unix::fs::symlink(&target, folder.path().join("stdout")).expect("link");
        let mut output = Output::resume(folder.path(), "stdout", Position::default(), BOUNDS);
        output.start_pass();
        entries(20).iter().for_each(|it| output.entry(it));
        assert_eq!(fs::read_to_string(&target).unwrap_or_default(), "precious");
    }
}
