//! The digest by which an agent and the log find out that they agree.
//!
//! After a failover every agent of the cluster comes back, and nearly none has changed: a
//! digest of a few bytes replaces the registration. Both ends compute it, the agent over its
//! checkpoints, the leader over its rows.

use crate::{hash, wire};
use prost::Message;

/// What is digested besides the tasks.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The cluster that the agent obeys.
    pub cluster_id: &'a str,
    /// How often the cluster was restored from a backup: the log may be older than the agent.
    pub incarnation: u64,
    /// `mesos.v1.AgentInfo` as the agent registered it.
    pub info_payload: &'a [u8],
    /// `ip:port` of the agent's endpoint.
    pub address: &'a str,
    /// The agent's release.
    pub version: &'a str,
    /// Names of what it can do, in the order of the registration.
    pub capabilities: &'a [String],
    /// Changes with every boot of its machine.
    pub boot_id: &'a str,
    /// Its totals after reservations and volumes, as the log wrote them.
    pub total: &'a [wire::Resource],
}

/// The digest being made. Tasks may come in any order.
#[derive(Clone, Copy, Debug)]
pub struct Digest {
    head: u64,
    tasks: u64,
}

impl Digest {
    /// Begins with everything but the tasks.
    pub fn new(head: Head<'_>) -> Digest {
        let mut sum = hash::bytes(hash::SEED, head.cluster_id.as_bytes());
        sum = hash::bytes(sum, &head.incarnation.to_le_bytes());
        sum = hash::bytes(sum, head.info_payload);
        for text in [head.address, head.version, head.boot_id] {
            sum = hash::bytes(sum, text.as_bytes());
        }
        sum = hash::bytes(sum, &(head.capabilities.len() as u64).to_le_bytes());
        for name in head.capabilities {
            sum = hash::bytes(sum, name.as_bytes());
        }
        let mut buffer = Vec::new();
        for resource in head.total {
            buffer.clear();
            // A vector always has room.
            let _ = resource.encode(&mut buffer);
            sum = hash::bytes(sum, &buffer);
        }
        Digest {
            head: sum,
            tasks: 0,
        }
    }

    /// Adds a task that is not both ended and acknowledged; `ended` says whether its newest
    /// state is terminal.
    pub fn task(&mut self, framework_id: &str, task_id: &str, container_id: &str, ended: bool) {
        let mut sum = hash::bytes(hash::SEED, framework_id.as_bytes());
        sum = hash::bytes(sum, task_id.as_bytes());
        sum = hash::bytes(sum, container_id.as_bytes());
        sum = hash::bytes(sum, &[u8::from(ended)]);
        self.tasks = self.tasks.wrapping_add(sum);
    }

    /// The digest.
    pub fn finish(self) -> u64 {
        hash::bytes(self.head, &self.tasks.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head<'static> = Head {
        cluster_id: "c",
        incarnation: 1,
        info_payload: b"info",
        address: "127.0.0.1:5051",
        version: "1.12.0",
        capabilities: &[],
        boot_id: "b",
        total: &[],
    };

    #[test]
    fn the_order_of_tasks_does_not_count_and_everything_else_does() {
        let digest = |head, tasks: &[(&str, &str, &str, bool)]| {
            let mut digest = Digest::new(head);
            for (framework, task, container, ended) in tasks {
                digest.task(framework, task, container, *ended);
            }
            digest.finish()
        };
        let (one, other) = (("f", "1", "x", false), ("f", "2", "y", false));
        let both = digest(HEAD, &[one, other]);
        assert_eq!(both, digest(HEAD, &[other, one]));
        let different = [
            digest(HEAD, &[one]),
            digest(HEAD, &[one, one]),
            digest(HEAD, &[one, ("f", "2", "y", true)]),
            digest(HEAD, &[one, ("f", "2", "z", false)]),
            digest(HEAD, &[one, ("f2", "", "y", false)]),
            digest(
                Head {
                    incarnation: 2,
                    ..HEAD
                },
                &[one, other],
            ),
            digest(
                Head {
                    boot_id: "c",
                    ..HEAD
                },
                &[one, other],
            ),
            digest(
                Head {
                    info_payload: b"",
                    ..HEAD
                },
                &[one, other],
            ),
            digest(
                Head {
                    capabilities: &["A".to_owned()],
                    ..HEAD
                },
                &[one, other],
            ),
            digest(
                Head {
                    total: &[wire::Resource::default()],
                    ..HEAD
                },
                &[one, other],
            ),
        ];
        for digest in different {
            assert_ne!(digest, both);
        }
    }
}
