//! Our side of the shim's files; its own `protocol.rs` describes them.

use std::{collections::BTreeMap, ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

/// Writes a `spec`.
pub(crate) struct SpecWriter {
    bytes: Vec<u8>,
    /// First value that holds a NUL byte, which the kernel could not pass on either.
    nul: Option<&'static str>,
}

impl SpecWriter {
    pub fn new() -> SpecWriter {
        SpecWriter {
            bytes: b"tepui-shim 1\0".to_vec(),
            nul: None,
        }
    }

    pub fn put(&mut self, key: &'static str, value: impl AsRef<OsStr>) -> &mut SpecWriter {
        let value = value.as_ref().as_bytes();
        if value.contains(&0) {
            self.nul = self.nul.or(Some(key));
        }
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        self
    }

    /// The file's content, or the key whose value cannot be passed on.
    pub fn finish(mut self) -> Result<Vec<u8>, String> {
        if let Some(key) = self.nul {
            return Err(format!("{key} must not contain a NUL byte"));
        }
        self.bytes.extend_from_slice(b"end\0");
        Ok(self.bytes)
    }
}

/// A process as the shim recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub pid: i32,
    pub start: u64,
}

impl Recorded {
    /// Whether this very process (and no later one of the same number) is there.
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    fn parse(text: &str) -> Option<Recorded> {
        let (pid, start) = text.split_once(' ')?;
        Some(Recorded {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }
}

/// The `state` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub shim: Recorded,
    pub init: Option<Recorded>,
    pub task: Recorded,
    pub started_ms: u64,
}

impl State {
    pub fn read(file: &Path) -> io::Result<Option<State>> {
        let Some(lines) = lines(file)? else {
            return Ok(None);
        };
        let recorded = |key: &str| lines.get(key).and_then(|it| Recorded::parse(it));
        match (recorded("shim"), recorded("task")) {
            (Some(shim), Some(task)) => Ok(Some(State {
                shim,
                init: recorded("init"),
                task,
                started_ms: number(&lines, "started_ms").unwrap_or(0),
            })),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shim and task are missing",
            )),
        }
    }
}

/// The `exit` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitFile {
    /// Wait status, unless the task could not be executed.
    pub status: Result<i32, String>,
    pub killed: bool,
    pub completion: bool,
    pub finished_ms: u64,
}

impl ExitFile {
    pub fn read(file: &Path) -> io::Result<Option<ExitFile>> {
        let Some(lines) = lines(file)? else {
            return Ok(None);
        };
        let status = match (lines.get("status"), lines.get("failed")) {
            (_, Some(text)) => Err(text.clone()),
            (Some(text), None) => Ok(text.parse().map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "status is not a number")
            })?),
            (None, None) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "status is missing",
                ));
            }
        };
        Ok(Some(ExitFile {
            status,
            killed: lines.get("killed").is_some_and(|it| it == "1"),
            completion: lines.get("completion").is_some_and(|it| it == "1"),
            finished_ms: number(&lines, "finished_ms").unwrap_or(0),
        }))
    }
}

fn lines(file: &Path) -> io::Result<Option<BTreeMap<String, String>>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(
            text.lines()
                .filter_map(|it| it.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(lines: &BTreeMap<String, String>, key: &str) -> Option<u64> {
    lines.get(key)?.parse().ok()
}

/// When a process started, in clock ticks since boot: field 22 of its `stat`. A zombie is as
/// good as gone.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_bytes_are_refused_by_name() {
        let mut spec = SpecWriter::new();
        spec.put("env", "A=1").put("arg", "a\0b");
        assert_eq!(
            spec.finish(),
            Err("arg must not contain a NUL byte".to_owned())
        );
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let pid = std::process::id() as i32;
        let start = start_time(pid).unwrap_or(0);
        assert!(Recorded { pid, start }.is_alive());
        assert!(
            !Recorded {
                pid,
                start: start + 1
            }
            .is_alive()
        );
    }
}
