//! The files between an agent and a shim, version 1. Frozen: a shim outlives the agent that
//! started it, so later agents must go on understanding these.
//!
//! # `spec`: agent to shim, before the start
//!
//! Records that each end in a NUL byte, so that no value needs quoting. The first is
//! `tepui-shim 1`, the last is `end` (a file without it was cut off and is refused), those
//! between are `key=value`. An unknown key is refused: agent and shim are installed together.
//!
//! | key | value |
//! |---|---|
//! | `program` | what to execute; without a `/` it is looked up in the task's `PATH` |
//! | `arg` | repeated: the argument vector, from `argv[0]` |
//! | `env` | repeated: `NAME=value` |
//! | `cwd` | working directory |
//! | `log_dir` | directory of the files `stdout` and `stderr` (the sandbox) |
//! | `log_bytes`, `log_rotated` | size at which a file is rotated; rotated files to keep |
//! | `user` | `uid:gid`; absent: as the shim |
//! | `group` | repeated: a supplementary group |
//! | `cgroup` | repeated: a `cgroup.procs` file that the task joins |
//! | `cgroup_kill` | a `cgroup.kill` file of that cgroup |
//! | `pid_namespace`, `mount_namespace` | `1`: own ones |
//! | `bind`, `from`, `to` | three records: `rw` or `ro`, a path, the path that it appears at |
//! | `rlimit` | repeated: `resource:soft:hard`, numbers of the kernel |
//! | `oom_score_adj` | number |
//! | `grace_ms` | grace of a kill by a bare SIGTERM to the shim |
//! | `completion_ms` | the task is killed when it has run for so long |
//! | `join` | of `exec` only: process whose namespaces are entered |
//!
//! # Standard output of the shim: one line, then it is closed
//!
//! `started <pid of the task>` or `failed <text>`.
//!
//! # `state`: shim to agent, before the task runs
//!
//! Lines `version=1`, `shim=<pid> <start>`, `task=<pid> <start>`, with a pid namespace
//! `init=<pid> <start>`, and `started_ms=<milliseconds since the epoch>`. `<start>` is field 22
//! of `/proc/<pid>/stat` and tells a process from a later one with the same number. The file
//! appears by a rename inside of the directory given on the command line: an agent that finds
//! none and wants to be sure that none comes moves the directory away.
//!
//! # `control`: agent to shim, at any time
//!
//! One line, `kill <grace in ms>`, renamed into place; then SIGUSR1 to the shim. The first
//! sends SIGTERM to every process of the task; later ones can only shorten the grace.
//!
//! # `exit`: shim to agent, last of all
//!
//! Lines `version=1`, `status=<wait status as of waitpid>` (or `failed=<text>` when the task
//! could not be executed), `killed=0|1`, `completion=0|1`, `finished_ms=<since the epoch>`.
//! Synced, then renamed into place; then the shim ends, which is what an agent waits for.
//! Its room on the disk is taken before the task runs, as `exit.tmp`.

use std::ffi::CStr;

/// First record of a spec.
const HEADER: &[u8] = b"tepui-shim 1";

/// A directory or file made visible at another path.
pub struct Bind<'a> {
    pub read_only: bool,
    pub from: &'a CStr,
    pub to: &'a CStr,
}

/// A limit for `setrlimit`.
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A parsed spec; every text is borrowed from the file's bytes, NUL included.
#[derive(Default)]
pub struct Spec<'a> {
    pub program: Option<&'a CStr>,
    pub args: Vec<&'a CStr>,
    pub env: Vec<&'a CStr>,
    pub cwd: Option<&'a CStr>,
    pub log_dir: Option<&'a CStr>,
    pub log_bytes: u64,
    pub log_rotated: u32,
    pub user: Option<(u32, u32)>,
    pub groups: Vec<u32>,
    pub cgroups: Vec<&'a CStr>,
    pub cgroup_kill: Option<&'a CStr>,
    pub pid_namespace: bool,
    pub mount_namespace: bool,
    pub binds: Vec<Bind<'a>>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<&'a CStr>,
    pub grace_ms: u64,
    pub completion_ms: Option<u64>,
    pub join: Option<u32>,
}

/// Reads a spec; the error names the record.
pub fn parse(bytes: &[u8]) -> Result<Spec<'_>, String> {
    let mut records = bytes.split_inclusive(|it| *it == 0).map(|record| {
        CStr::from_bytes_with_nul(record).map_err(|_| "spec: cut off before `end`".to_owned())
    });
    match records.next() {
        Some(Ok(it)) if it.to_bytes() == HEADER => {}
        _ => return Err("spec: must begin with `tepui-shim 1`".into()),
    }
    let mut spec = Spec {
        log_bytes: 10 << 20,
        log_rotated: 4,
        grace_ms: 3000,
        ..Spec::default()
    };
    let mut ended = false;
    while let Some(record) = records.next() {
        let record = record?;
        if record.to_bytes() == b"end" {
            ended = true;
            break;
        }
        let (key, value) = split(record)?;
        match key {
            b"program" => spec.program = Some(value),
            b"arg" => spec.args.push(value),
            b"env" => spec.env.push(value),
            b"cwd" => spec.cwd = Some(value),
            b"log_dir" => spec.log_dir = Some(value),
            b"log_bytes" => spec.log_bytes = number(key, value)?,
            b"log_rotated" => spec.log_rotated = number(key, value)?,
            b"user" => {
                let (uid, gid) = text(key, value)?
                    .split_once(':')
                    .ok_or("spec: user must be uid:gid")?;
                spec.user = Some((parse_number(key, uid)?, parse_number(key, gid)?));
            }
            b"group" => spec.groups.push(number(key, value)?),
            b"cgroup" => spec.cgroups.push(value),
            b"cgroup_kill" => spec.cgroup_kill = Some(value),
            b"pid_namespace" => spec.pid_namespace = value.to_bytes() == b"1",
            b"mount_namespace" => spec.mount_namespace = value.to_bytes() == b"1",
            b"bind" => {
                let mut next = |wanted: &[u8]| match records.next() {
                    Some(Ok(record)) => match split(record) {
                        Ok((key, value)) if key == wanted => Ok(value),
                        _ => Err("spec: bind must be followed by from and to".to_owned()),
                    },
                    _ => Err("spec: bind must be followed by from and to".to_owned()),
                };
                let from = next(b"from")?;
                let to = next(b"to")?;
                spec.binds.push(Bind {
                    read_only: value.to_bytes() == b"ro",
                    from,
                    to,
                });
            }
            b"rlimit" => {
                let mut parts = text(key, value)?.splitn(3, ':');
                let mut next = || parts.next().unwrap_or_default();
                spec.rlimits.push(Rlimit {
                    resource: parse_number(key, next())?,
                    soft: parse_number(key, next())?,
                    hard: parse_number(key, next())?,
                });
            }
            b"oom_score_adj" => spec.oom_score_adj = Some(value),
            b"grace_ms" => spec.grace_ms = number(key, value)?,
            b"completion_ms" => spec.completion_ms = Some(number(key, value)?),
            b"join" => spec.join = Some(number(key, value)?),
            _ => return Err(format!("spec: unknown key {}", key.escape_ascii())),
        }
    }
    if !ended {
        return Err("spec: cut off before `end`".into());
    }
    if spec.program.is_none() {
        return Err("spec: program is missing".into());
    }
    Ok(spec)
}

/// The grace of a `control` file, in milliseconds.
pub fn parse_control(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes)
        .ok()?
        .trim_end()
        .strip_prefix("kill ")?
        .parse()
        .ok()
}

/// Splits at the first `=`; the value keeps its NUL.
fn split(record: &CStr) -> Result<(&[u8], &CStr), String> {
    let bytes = record.to_bytes_with_nul();
    let at = bytes.iter().position(|it| *it == b'=').ok_or_else(|| {
        format!(
            "spec: {} is not key=value",
            record.to_bytes().escape_ascii()
        )
    })?;
    let value = CStr::from_bytes_with_nul(&bytes[at + 1..])
        .map_err(|_| "spec: cut off before `end`".to_owned())?;
    Ok((&bytes[..at], value))
}

fn text<'a>(key: &[u8], value: &'a CStr) -> Result<&'a str, String> {
    value
        .to_str()
        .map_err(|_| format!("spec: {} must be a number", key.escape_ascii()))
}

fn number<N: std::str::FromStr>(key: &[u8], value: &CStr) -> Result<N, String> {
    parse_number(key, text(key, value)?)
}

fn parse_number<N: std::str::FromStr>(key: &[u8], value: &str) -> Result<N, String> {
    value
        .parse()
        .map_err(|_| format!("spec: {} must be a number", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"tepui-shim 1\0program=/bin/sh\0arg=sh\0arg=-c\0arg=a=b\nc\0\
        env=A=1\0user=1:2\0group=7\0bind=ro\0from=/a\0to=/b\0rlimit=7:1:2\0join=9\0end\0";

    #[test]
    fn every_prefix_of_a_spec_is_refused_and_none_panics() {
        let spec = parse(GOOD).map_err(|it| panic!("{it}"));
        let spec = spec.unwrap_or_default();
        assert_eq!(spec.args[2].to_bytes(), b"a=b\nc");
        assert_eq!(spec.user, Some((1, 2)));
        assert_eq!(spec.groups, [7]);
        assert!(spec.binds[0].read_only && spec.binds[0].to.to_bytes() == b"/b");
        assert_eq!((spec.rlimits[0].resource, spec.rlimits[0].hard), (7, 2));
        for end in 0..GOOD.len() - 1 {
            assert!(parse(&GOOD[..end]).is_err(), "prefix of {end} bytes");
        }
    }

    #[test]
    fn refusals_name_the_record() {
        for (record, text) in [
            (&b"colour=red"[..], "unknown key colour"),
            (b"user=1", "user must be uid:gid"),
            (b"grace_ms=soon", "grace_ms must be a number"),
            (b"bind=ro", "bind must be followed by from and to"),
            (b"nonsense", "nonsense is not key=value"),
        ] {
            let spec = [b"tepui-shim 1\0program=x\0", record, b"\0end\0"].concat();
            let error = parse(&spec).err().unwrap_or_default();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn control_is_one_line() {
        assert_eq!(parse_control(b"kill 250\n"), Some(250));
        assert_eq!(parse_control(b"kill -1\n"), None);
        assert_eq!(parse_control(b""), None);
    }
}
