//! Names of rows, and their bytes on disk.
//!
//! A key is one tag byte, then its parts: texts with a 32-bit length before them,
//! numbers as 64 bits, all big-endian, so that no text can be mistaken for another
//! part and the rows of one table lie together. Tags are permanent.

use std::sync::Arc;

use tepui_model::id::{AgentId, ExecutorId, FrameworkId, TaskId};

/// Names one row of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// The one row about the cluster itself.
    Cluster,
    /// An agent, whatever its state.
    Agent(AgentId),
    /// A command that the agent has not confirmed, by its sequence number.
    Command(AgentId, u64),
    /// A framework, live or completed.
    Framework(FrameworkId),
    /// A task that is not completed, unreachable ones included.
    Task(FrameworkId, TaskId),
    /// A completed task, by its place in the ring (task ids may be used again).
    CompletedTask(FrameworkId, u64),
    /// An executor.
    Executor(FrameworkId, AgentId, ExecutorId),
    /// An offer operation, by the hexadecimal uuid that the master chose.
    Operation(Arc<str>),
    /// The weight of a role.
    Weight(Arc<str>),
    /// The quota of a role.
    Quota(Arc<str>),
    /// The maintenance schedule and the machines' modes.
    Maintenance,
    /// A variable of the state service, by principal and name.
    Variable(Arc<str>, Arc<str>),
    /// A lease of the state service.
    Lease(Arc<str>, u64),
    /// A principal's account with the state service.
    StateAccount(Arc<str>),
    /// A write of a short while ago, by its revision.
    StateWrite(Arc<str>, u64),
}

/// Why bytes are not a key of this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The tag belongs to a table of a later release, or to none.
    #[error("row key begins with unknown tag {tag}; written by a newer release?")]
    Tag {
        /// The first byte.
        tag: u8,
    },
    /// Too short, too long, or not UTF-8.
    #[error("row key of table {tag} is malformed ({length} bytes)")]
    Malformed {
        /// The first byte.
        tag: u8,
        /// Length of the whole key in bytes.
        length: usize,
    },
    /// No bytes at all.
    #[error("row key is empty; expected a table's tag first")]
    Empty,
}

const CLUSTER: u8 = 1;
const AGENT: u8 = 2;
const COMMAND: u8 = 3;
const FRAMEWORK: u8 = 4;
const TASK: u8 = 5;
const COMPLETED_TASK: u8 = 6;
const EXECUTOR: u8 = 7;
const OPERATION: u8 = 8;
const WEIGHT: u8 = 9;
const QUOTA: u8 = 10;
const MAINTENANCE: u8 = 11;
const VARIABLE: u8 = 12;
const LEASE: u8 = 13;
const STATE_ACCOUNT: u8 = 14;
const STATE_WRITE: u8 = 15;

impl RowKey {
    /// The bytes on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            RowKey::Cluster => vec![CLUSTER],
            RowKey::Agent(agent) => texts(AGENT, &[agent.as_str()]),
            RowKey::Command(agent, sequence) => numbered(COMMAND, agent.as_str(), *sequence),
            RowKey::Framework(framework) => texts(FRAMEWORK, &[framework.as_str()]),
            RowKey::Task(framework, task) => texts(TASK, &[framework.as_str(), task.as_str()]),
            RowKey::CompletedTask(framework, place) => {
                numbered(COMPLETED_TASK, framework.as_str(), *place)
            }
            RowKey::Executor(framework, agent, executor) => texts(
                EXECUTOR,
                &[framework.as_str(), agent.as_str(), executor.as_str()],
            ),
            RowKey::Operation(uuid) => texts(OPERATION, &[uuid]),
            RowKey::Weight(role) => texts(WEIGHT, &[role]),
            RowKey::Quota(role) => texts(QUOTA, &[role]),
            RowKey::Maintenance => vec![MAINTENANCE],
            RowKey::Variable(owner, name) => texts(VARIABLE, &[owner, name]),
            RowKey::Lease(owner, id) => numbered(LEASE, owner, *id),
            RowKey::StateAccount(owner) => texts(STATE_ACCOUNT, &[owner]),
            RowKey::StateWrite(owner, revision) => numbered(STATE_WRITE, owner, *revision),
        }
    }

    /// The key that [`RowKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are no key, or one of a table that this release does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<RowKey, KeyError> {
        let (&tag, rest) = bytes.split_first().ok_or(KeyError::Empty)?;
        if !(CLUSTER..=STATE_WRITE).contains(&tag) {
            return Err(KeyError::Tag { tag });
        }
        parse(tag, rest).ok_or(KeyError::Malformed {
            tag,
            length: bytes.len(),
        })
    }
}

fn texts(tag: u8, parts: &[&str]) -> Vec<u8> {
    let length = parts.iter().map(|it| 4 + it.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(1 + length);
    bytes.push(tag);
    for part in parts {
        // Texts come from messages, whose lengths are below 2 GiB.
        bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn numbered(tag: u8, part: &str, number: u64) -> Vec<u8> {
    let mut bytes = texts(tag, &[part]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn parse(tag: u8, bytes: &[u8]) -> Option<RowKey> {
    let mut reader = Reader(bytes);
    let key = match tag {
        CLUSTER => RowKey::Cluster,
        AGENT => RowKey::Agent(reader.text()?.into()),
        COMMAND => RowKey::Command(reader.text()?.into(), reader.number()?),
        FRAMEWORK => RowKey::Framework(reader.text()?.into()),
        TASK => RowKey::Task(reader.text()?.into(), reader.text()?.into()),
        COMPLETED_TASK => RowKey::CompletedTask(reader.text()?.into(), reader.number()?),
        EXECUTOR => RowKey::Executor(
            reader.text()?.into(),
            reader.text()?.into(),
            reader.text()?.into(),
        ),
        OPERATION => RowKey::Operation(reader.text()?.into()),
        WEIGHT => RowKey::Weight(reader.text()?.into()),
        QUOTA => RowKey::Quota(reader.text()?.into()),
        MAINTENANCE => RowKey::Maintenance,
        VARIABLE => RowKey::Variable(reader.text()?.into(), reader.text()?.into()),
        LEASE => RowKey::Lease(reader.text()?.into(), reader.number()?),
        STATE_ACCOUNT => RowKey::StateAccount(reader.text()?.into()),
        STATE_WRITE => RowKey::StateWrite(reader.text()?.into(), reader.number()?),
        _ => return None,
    };
    reader.0.is_empty().then_some(key)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn text(&mut self) -> Option<&'a str> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        for key in [
            RowKey::Cluster,
            RowKey::Agent("a".into()),
            RowKey::Command("a".into(), 7),
            RowKey::Framework("f".into()),
            RowKey::Task("f".into(), "t".into()),
            RowKey::CompletedTask("f".into(), u64::MAX),
            RowKey::Executor("f".into(), "".into(), "e\0e".into()),
            RowKey::Operation("00ff".into()),
            RowKey::Weight("eng/dev".into()),
            RowKey::Quota("*".into()),
            RowKey::Maintenance,
            RowKey::Variable("".into(), "a/b".into()),
            RowKey::Lease("p".into(), 3),
            RowKey::StateAccount("p".into()),
            RowKey::StateWrite("p".into(), 4),
        ] {
            assert_eq!(RowKey::from_bytes(&key.to_bytes()), Ok(key));
        }
    }

    #[test]
    fn parts_are_not_confused() {
        let left = RowKey::Task("ab".into(), "c".into());
        let right = RowKey::Task("a".into(), "bc".into());
        assert_ne!(left.to_bytes(), right.to_bytes());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(RowKey::from_bytes(&[]), Err(KeyError::Empty));
        assert_eq!(
            RowKey::from_bytes(&[200, 1]),
            Err(KeyError::Tag { tag: 200 })
        );
        let mut long = RowKey::Agent("a".into()).to_bytes();
        long.push(0);
        let malformed = |bytes: &[u8]| {
            matches!(
                RowKey::from_bytes(bytes),
                Err(KeyError::Malformed { tag: AGENT, .. })
            )
        };
        assert!(malformed(&long));
        assert!(malformed(&[AGENT, 0, 0, 0, 9, b'a']));
        assert!(malformed(&[AGENT, 0, 0, 0, 1, 0xff]));
    }
}
