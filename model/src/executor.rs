//! Executors: what runs tasks for a framework on an agent.

use crate::{ExecutorId, FrameworkId, Resources, payload, resources, wire};
use bytes::Bytes;
use core::time::Duration;
use prost::Message;
use std::sync::Arc;

/// Who writes the executor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ExecutorKind {
    /// Not said; taken as [`ExecutorKind::Custom`], except for task groups.
    Unset,
    /// The built-in one, for task groups.
    Default,
    /// The framework's own.
    Custom,
}

/// The description of an executor. Reading it never fails; [`crate::validation`] says what is
/// wrong about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutorInfo {
    /// Its id, unique per framework and agent.
    pub executor_id: ExecutorId,
    /// Its framework; the master fills it in for LAUNCH.
    pub framework_id: Option<FrameworkId>,
    /// Who writes it.
    pub kind: ExecutorKind,
    /// What it uses apart from its tasks.
    pub resources: Resources,
    /// What cannot be read of the resources, which are empty then.
    pub fault: Option<resources::Error>,
    /// Whether it has a command.
    pub has_command: bool,
    /// How long it has after SHUTDOWN; none for the agent's default. Negative ones are taken as
    /// zero (and refused by validation).
    pub shutdown_grace: Option<Duration>,
    /// `mesos.v1.ExecutorInfo` as it came.
    pub payload: Bytes,
    /// The same, decoded.
    pub wire: Arc<wire::ExecutorInfo>,
}

impl ExecutorInfo {
    /// Reads the message; `raw` is what it was decoded from, if it came as protobuf.
    pub fn from_wire(info: wire::ExecutorInfo, raw: Option<Bytes>) -> ExecutorInfo {
        let payload = payload::or_encoded(raw, &info);
        let (resources, fault) = match Resources::from_wire(&info.resources) {
            Ok(it) => (it, None),
            Err(error) => (Resources::new(), Some(error)),
        };
        let framework_id = info.framework_id.as_ref();
        let grace = info.shutdown_grace_period.as_ref();
        ExecutorInfo {
            executor_id: ExecutorId::from_wire(&info.executor_id),
            framework_id: framework_id.map(FrameworkId::from_wire),
            kind: match info.r#type() {
                wire::executor_info::Type::Unknown => ExecutorKind::Unset,
                wire::executor_info::Type::Default => ExecutorKind::Default,
                wire::executor_info::Type::Custom => ExecutorKind::Custom,
            },
            resources,
            fault,
            has_command: info.command.is_some(),
            shutdown_grace: grace.map(|it| crate::time::duration_from_wire(it).unwrap_or_default()),
            payload,
            wire: Arc::new(info),
        }
    }

    /// Reads what was kept. Bytes that are not such a message read as an empty one; none are kept
    /// that were not decoded before.
    pub fn from_payload(payload: Bytes) -> ExecutorInfo {
        let info = wire::ExecutorInfo::decode(payload.clone()).unwrap_or_default();
        ExecutorInfo::from_wire(info, Some(payload))
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::ExecutorInfo {
        (*self.wire).clone()
    }

    /// The same with its framework's id, resources as they stand.
    #[must_use]
    pub fn with_framework_id(&self, id: &FrameworkId) -> ExecutorInfo {
        if self.framework_id.as_ref() == Some(id) {
            return self.clone();
        }
        let change = Override {
            framework_id: Some(payload::Id {
                value: id.as_str().to_owned(),
            }),
        };
        let changed = ExecutorInfo::from_payload(payload::overridden(&self.payload, &change));
        ExecutorInfo {
            resources: self.resources.clone(),
            ..changed
        }
    }

    /// Whether the two describe the same executor: type, id, data, resources, command, framework,
    /// name, source, container and discovery are equal. Labels and grace periods may differ.
    #[allow(deprecated)] // `source` takes part in Mesos' comparison.
    pub fn is_same_executor(&self, other: &ExecutorInfo) -> bool {
        let (a, b) = (&self.wire, &other.wire);
        self.kind == other.kind
            && self.executor_id == other.executor_id
            && self.framework_id == other.framework_id
            && a.data == b.data
            && a.command == b.command
            && a.name == b.name
            && a.source == b.source
            && a.container == b.container
            && a.discovery == b.discovery
            && self
                .resources
                .unallocate()
                .is_equivalent(&other.resources.unallocate())
    }
}

/// The field of `ExecutorInfo` that the master sets; number as there.
#[derive(Clone, PartialEq, Message)]
struct Override {
    #[prost(message, optional, tag = "8")]
    framework_id: Option<payload::Id>,
}
