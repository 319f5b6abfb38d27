//! Calls of schedulers, read and checked as far as no state is needed.

use crate::{
    AgentId, ExecutorId, FrameworkId, OfferId, OperationId, Principal, Role, TaskId, Uuid,
    framework::FrameworkInfo, id::ResourceProviderId, operation::OfferOperation, payload, wire,
};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use wire::scheduler::call::Type;

pub use crate::offer::OfferFilters;

/// Why a call is answered with 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong, naming the field.
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Invalid {}

/// What SUBSCRIBE and UPDATE_FRAMEWORK say.
#[derive(Clone, PartialEq, Debug)]
pub struct Subscribe {
    /// Who the framework is. Not validated yet: a bad one is answered on the stream.
    pub framework_info: FrameworkInfo,
    /// Roles that get no offers until they are revived.
    pub suppressed_roles: Vec<Role>,
    /// Which agents are of use.
    pub offer_constraints: Option<Arc<wire::scheduler::OfferConstraints>>,
    /// `mesos.v1.scheduler.OfferConstraints` as it came; empty when there is none.
    pub offer_constraints_payload: Bytes,
}

impl Subscribe {
    /// Whether the framework claims to be who authenticated; claiming nothing is fine.
    ///
    /// # Errors
    /// It claims to be somebody else.
    pub fn check_principal(&self, authenticated: Option<&Principal>) -> Result<(), Invalid> {
        match (authenticated, &self.framework_info.principal) {
            (Some(authenticated), Some(claimed)) if authenticated != claimed => Err(Invalid {
                field: "framework_info.principal",
                message: format!(
                    "'framework_info.principal' is {claimed:?}, but {authenticated:?} authenticated"
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// One task of RECONCILE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReconcileTask {
    /// The task.
    pub task_id: TaskId,
    /// Where the framework thinks that it is.
    pub agent_id: Option<AgentId>,
}

/// One operation of RECONCILE_OPERATIONS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReconcileOperation {
    /// The operation.
    pub operation_id: OperationId,
    /// Where the framework thinks that it is.
    pub agent_id: Option<AgentId>,
    /// The provider whose resources it concerns.
    pub resource_provider_id: Option<ResourceProviderId>,
}

/// A call of a scheduler.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant)] // SUBSCRIBE is rare, and calls are moved once.
pub enum Call {
    /// A framework comes (back).
    Subscribe(Subscribe),
    /// A framework ends, and all its tasks with it.
    Teardown,
    /// Use offers.
    Accept {
        /// The offers, all of one agent and role.
        offer_ids: Vec<OfferId>,
        /// What to do with them, in order.
        operations: Vec<OfferOperation>,
        /// For what is left of them.
        filters: OfferFilters,
    },
    /// Use no offers.
    Decline {
        /// The offers.
        offer_ids: Vec<OfferId>,
        /// How long not to offer the same again.
        filters: OfferFilters,
    },
    /// Agree to give resources back.
    AcceptInverseOffers {
        /// The inverse offers.
        offer_ids: Vec<OfferId>,
        /// How long not to ask again.
        filters: OfferFilters,
    },
    /// Refuse to give resources back.
    DeclineInverseOffers {
        /// The inverse offers.
        offer_ids: Vec<OfferId>,
        /// How long not to ask again.
        filters: OfferFilters,
    },
    /// Drop filters, and ask for offers again.
    Revive {
        /// For these roles; empty for all. Not validated: a bad one makes the call do nothing.
        roles: Vec<Role>,
    },
    /// Ask for no offers.
    Suppress {
        /// For these roles; empty for all. Not validated: a bad one makes the call do nothing.
        roles: Vec<Role>,
    },
    /// End a task.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Where the framework thinks that it is.
        agent_id: Option<AgentId>,
        /// In place of the task's own.
        kill_policy: Option<wire::KillPolicy>,
    },
    /// End an executor.
    Shutdown {
        /// The executor.
        executor_id: ExecutorId,
        /// Where it is.
        agent_id: AgentId,
    },
    /// A status update has been taken note of.
    Acknowledge {
        /// From where.
        agent_id: AgentId,
        /// Of which task.
        task_id: TaskId,
        /// Which one.
        uuid: Uuid,
    },
    /// An operation's status has been taken note of.
    AcknowledgeOperationStatus {
        /// From where.
        agent_id: AgentId,
        /// From which provider.
        resource_provider_id: Option<ResourceProviderId>,
        /// Which one.
        uuid: Uuid,
        /// Of which operation.
        operation_id: OperationId,
    },
    /// Say what became of tasks.
    Reconcile {
        /// The tasks; empty for all that are known.
        tasks: Vec<ReconcileTask>,
    },
    /// Say what became of operations.
    ReconcileOperations {
        /// The operations; empty for all that are known.
        operations: Vec<ReconcileOperation>,
    },
    /// Bytes for an executor.
    Message {
        /// Where it is.
        agent_id: AgentId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Bytes,
    },
    /// Wishes for resources, which the allocator does not listen to.
    Request {
        /// The wishes.
        requests: Vec<wire::Request>,
    },
    /// Change the framework's description.
    UpdateFramework(Subscribe),
}

/// Numbers of fields on the way from a call to what is kept of it.
mod number {
    pub(super) const SUBSCRIBE: u32 = 3;
    pub(super) const ACCEPT: u32 = 4;
    pub(super) const UPDATE_FRAMEWORK: u32 = 19;
    /// In Subscribe and UpdateFramework.
    pub(super) const FRAMEWORK_INFO: u32 = 1;
    pub(super) const OFFER_CONSTRAINTS: u32 = 3;
    /// In Accept.
    pub(super) const OPERATIONS: u32 = 2;
}

impl Call {
    /// Reads a call and makes the checks that need neither state nor principal. `raw` is the body
    /// that it was decoded from, if that was protobuf: what is passed on (tasks, executors,
    /// descriptions of frameworks) is cut out of it, so that unknown fields survive.
    ///
    /// The framework's id comes apart; it is there in every call but a first SUBSCRIBE.
    ///
    /// # Errors
    /// The first check that fails, in Mesos' order; the answer is 400.
    pub fn from_wire(
        call: wire::scheduler::Call,
        raw: Option<Bytes>,
    ) -> Result<(Option<FrameworkId>, Call), Invalid> {
        // An unknown type counts as absent; UNKNOWN itself ends a real Mesos master.
        let kind = match call.r#type() {
            Type::Unknown => return Err(missing("type")),
            kind => kind,
        };
        let id = call.framework_id.as_ref().map(FrameworkId::from_wire);
        if kind == Type::Subscribe {
            let Some(it) = call.subscribe else {
                return Err(missing("subscribe"));
            };
            let claimed = it.framework_info.id.as_ref();
            let known = call.framework_id.as_ref();
            let text = |it: Option<&wire::FrameworkId>| it.map_or("", |it| &it.value).to_owned();
            if text(claimed) != text(known) {
                return Err(Invalid {
                    field: "framework_id",
                    message: "'framework_id' differs from 'subscribe.framework_info.id'".into(),
                });
            }
            let raw = raw.and_then(|it| payload::path(&it, &[number::SUBSCRIBE]));
            let subscribe = subscribe(
                it.framework_info,
                it.suppressed_roles,
                it.offer_constraints,
                raw,
            );
            let id = subscribe.framework_info.id.clone();
            return Ok((id, Call::Subscribe(subscribe)));
        }
        if id.is_none() {
            return Err(missing("framework_id"));
        }
        Ok((id.clone(), read(kind, call, id, raw)?))
    }

    /// The name of the call's type on the wire.
    pub fn name(&self) -> &'static str {
        self.kind().as_str_name()
    }

    /// The call's type on the wire.
    pub fn kind(&self) -> Type {
        match self {
            Call::Subscribe(_) => Type::Subscribe,
            Call::Teardown => Type::Teardown,
            Call::Accept { .. } => Type::Accept,
            Call::Decline { .. } => Type::Decline,
            Call::AcceptInverseOffers { .. } => Type::AcceptInverseOffers,
            Call::DeclineInverseOffers { .. } => Type::DeclineInverseOffers,
            Call::Revive { .. } => Type::Revive,
            Call::Suppress { .. } => Type::Suppress,
            Call::Kill { .. } => Type::Kill,
            Call::Shutdown { .. } => Type::Shutdown,
            Call::Acknowledge { .. } => Type::Acknowledge,
            Call::AcknowledgeOperationStatus { .. } => Type::AcknowledgeOperationStatus,
            Call::Reconcile { .. } => Type::Reconcile,
            Call::ReconcileOperations { .. } => Type::ReconcileOperations,
            Call::Message { .. } => Type::Message,
            Call::Request { .. } => Type::Request,
            Call::UpdateFramework(_) => Type::UpdateFramework,
        }
    }
}

fn missing(field: &'static str) -> Invalid {
    let message = format!("Expecting '{field}' to be present");
    Invalid { field, message }
}

fn read(
    kind: Type,
    call: wire::scheduler::Call,
    framework_id: Option<FrameworkId>,
    raw: Option<Bytes>,
) -> Result<Call, Invalid> {
    Ok(match kind {
        // SUBSCRIBE was read before, and UNKNOWN refused.
        Type::Unknown | Type::Subscribe => return Err(missing("type")),
        Type::Teardown => Call::Teardown,
        Type::Accept => {
            let it = call.accept.ok_or_else(|| missing("accept"))?;
            let raw: Vec<Bytes> = raw
                .and_then(|it| payload::path(&it, &[number::ACCEPT]))
                .map(|it| payload::fields(&it, number::OPERATIONS))
                .filter(|raw: &Vec<Bytes>| raw.len() == it.operations.len())
                .unwrap_or_default();
            let operations = it.operations.into_iter().enumerate();
            Call::Accept {
                offer_ids: it.offer_ids.into_iter().map(OfferId::from).collect(),
                operations: operations
                    .map(|(index, it)| OfferOperation::from_wire(it, raw.get(index)))
                    .collect(),
                filters: OfferFilters::from_wire(it.filters.as_ref()),
            }
        }
        Type::Decline => {
            let it = call.decline.ok_or_else(|| missing("decline"))?;
            Call::Decline {
                offer_ids: it.offer_ids.into_iter().map(OfferId::from).collect(),
                filters: OfferFilters::from_wire(it.filters.as_ref()),
            }
        }
        Type::AcceptInverseOffers => {
            let it = call.accept_inverse_offers;
            let it = it.ok_or_else(|| missing("accept_inverse_offers"))?;
            Call::AcceptInverseOffers {
                offer_ids: it
                    .inverse_offer_ids
                    .into_iter()
                    .map(OfferId::from)
                    .collect(),
                filters: OfferFilters::from_wire(it.filters.as_ref()),
            }
        }
        Type::DeclineInverseOffers => {
            let it = call.decline_inverse_offers;
            let it = it.ok_or_else(|| missing("decline_inverse_offers"))?;
            Call::DeclineInverseOffers {
                offer_ids: it
                    .inverse_offer_ids
                    .into_iter()
                    .map(OfferId::from)
                    .collect(),
                filters: OfferFilters::from_wire(it.filters.as_ref()),
            }
        }
        Type::Revive => Call::Revive {
            roles: roles(call.revive.map(|it| it.roles).unwrap_or_default()),
        },
        Type::Suppress => Call::Suppress {
            roles: roles(call.suppress.map(|it| it.roles).unwrap_or_default()),
        },
        Type::Kill => {
            let it = call.kill.ok_or_else(|| missing("kill"))?;
            Call::Kill {
                task_id: it.task_id.into(),
                agent_id: it.agent_id.map(AgentId::from),
                kill_policy: it.kill_policy,
            }
        }
        Type::Shutdown => {
            let it = call.shutdown.ok_or_else(|| missing("shutdown"))?;
            Call::Shutdown {
                executor_id: it.executor_id.into(),
                agent_id: it.agent_id.into(),
            }
        }
        Type::Acknowledge => {
            let it = call.acknowledge.ok_or_else(|| missing("acknowledge"))?;
            Call::Acknowledge {
                uuid: uuid("acknowledge.uuid", &it.uuid)?,
                agent_id: it.agent_id.into(),
                task_id: it.task_id.into(),
            }
        }
        Type::AcknowledgeOperationStatus => {
            let it = call.acknowledge_operation_status;
            let it = it.ok_or_else(|| missing("acknowledge_operation_status"))?;
            let uuid = uuid("acknowledge_operation_status.uuid", &it.uuid)?;
            let agent_id = it.agent_id.map(AgentId::from);
            Call::AcknowledgeOperationStatus {
                agent_id: agent_id
                    .ok_or_else(|| missing("acknowledge_operation_status.agent_id"))?,
                resource_provider_id: it.resource_provider_id.map(ResourceProviderId::from),
                uuid,
                operation_id: it.operation_id.into(),
            }
        }
        Type::Reconcile => {
            let it = call.reconcile.ok_or_else(|| missing("reconcile"))?;
            let tasks = it.tasks.into_iter().map(|it| ReconcileTask {
                task_id: it.task_id.into(),
                agent_id: it.agent_id.map(AgentId::from),
            });
            Call::Reconcile {
                tasks: tasks.collect(),
            }
        }
        Type::ReconcileOperations => {
            let it = call.reconcile_operations;
            let it = it.ok_or_else(|| missing("reconcile_operations"))?;
            let operations = it.operations.into_iter().map(|it| ReconcileOperation {
                operation_id: it.operation_id.into(),
                agent_id: it.agent_id.map(AgentId::from),
                resource_provider_id: it.resource_provider_id.map(ResourceProviderId::from),
            });
            Call::ReconcileOperations {
                operations: operations.collect(),
            }
        }
        Type::Message => {
            let it = call.message.ok_or_else(|| missing("message"))?;
            Call::Message {
                agent_id: it.agent_id.into(),
                executor_id: it.executor_id.into(),
                data: it.data,
            }
        }
        Type::Request => {
            let it = call.request.ok_or_else(|| missing("request"))?;
            Call::Request {
                requests: it.requests,
            }
        }
        Type::UpdateFramework => {
            let it = call.update_framework;
            let it = it.ok_or_else(|| missing("update_framework"))?;
            let raw = raw.and_then(|it| payload::path(&it, &[number::UPDATE_FRAMEWORK]));
            let update = subscribe(
                it.framework_info,
                it.suppressed_roles,
                it.offer_constraints,
                raw,
            );
            if update.framework_info.id != framework_id {
                return Err(Invalid {
                    field: "framework_id",
                    message: "'framework_id' differs from 'update_framework.framework_info.id'"
                        .into(),
                });
            }
            Call::UpdateFramework(update)
        }
    })
}

fn subscribe(
    info: wire::FrameworkInfo,
    suppressed: Vec<String>,
    constraints: Option<wire::scheduler::OfferConstraints>,
    raw: Option<Bytes>,
) -> Subscribe {
    let cut = |number| raw.as_ref().and_then(|it| payload::path(it, &[number]));
    let offer_constraints_payload = constraints.as_ref().map_or_else(Bytes::new, |it| {
        payload::or_encoded(cut(number::OFFER_CONSTRAINTS), it)
    });
    Subscribe {
        framework_info: FrameworkInfo::from_wire(info, cut(number::FRAMEWORK_INFO)),
        suppressed_roles: roles(suppressed),
        offer_constraints: constraints.map(Arc::new),
        offer_constraints_payload,
    }
}

fn roles(roles: Vec<String>) -> Vec<Role> {
    roles.into_iter().map(Role::from).collect()
}

fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, Invalid> {
    let uuid = Uuid::from_slice(bytes).ok_or_else(|| Invalid {
        field,
        message: format!("'{field}' has {} bytes; expected 16", bytes.len()),
    })?;
    // Nobody makes this one, and Mesos refuses it too.
    match bytes.iter().all(|it| *it == 0) {
        true => Err(Invalid {
            field,
            message: format!("'{field}' is all zero"),
        }),
        false => Ok(uuid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn call(kind: Type) -> wire::scheduler::Call {
        wire::scheduler::Call {
            framework_id: Some(FrameworkId::from("m-0000").to_wire()),
            r#type: Some(kind.into()),
            ..Default::default()
        }
    }

    fn fault(call: wire::scheduler::Call) -> &'static str {
        Call::from_wire(call, None).map_or_else(|it| it.field, |_| "")
    }

    #[test]
    fn types_without_their_message_are_refused() {
        for (kind, field) in [
            (Type::Unknown, "type"),
            (Type::Subscribe, "subscribe"),
            (Type::Accept, "accept"),
            (Type::Decline, "decline"),
            (Type::AcceptInverseOffers, "accept_inverse_offers"),
            (Type::DeclineInverseOffers, "decline_inverse_offers"),
            (Type::Kill, "kill"),
            (Type::Shutdown, "shutdown"),
            (Type::Acknowledge, "acknowledge"),
            (
                Type::AcknowledgeOperationStatus,
                "acknowledge_operation_status",
            ),
            (Type::Reconcile, "reconcile"),
            (Type::ReconcileOperations, "reconcile_operations"),
            (Type::Message, "message"),
            (Type::Request, "request"),
            (Type::UpdateFramework, "update_framework"),
            (Type::Revive, ""),
            (Type::Suppress, ""),
            (Type::Teardown, ""),
        ] {
            assert_eq!(fault(call(kind)), field, "{kind:?}");
            let mut nobody = call(kind);
            nobody.framework_id = None;
            let expected = match kind {
                Type::Unknown | Type::Subscribe => field,
                _ => "framework_id",
            };
            assert_eq!(fault(nobody), expected, "{kind:?}");
        }
        let mut unknown = call(Type::Revive);
        unknown.r#type = Some(999);
        assert_eq!(fault(unknown), "type");
    }

    #[test]
    fn the_two_ids_of_a_subscription_must_agree() {
        let id = |it: &str| Some(FrameworkId::from(it).to_wire());
        for (outside, inside, good) in [
            (None, None, true),
            (id("a"), id("a"), true),
            (id(""), None, true),
            (id("a"), None, false),
            (None, id("a"), false),
            (id("a"), id("b"), false),
        ] {
            let subscribe = wire::scheduler::call::Subscribe {
                framework_info: wire::FrameworkInfo {
                    id: inside.clone(),
                    ..Default::default()
                },
                ..Default::default()
            };
            let call = wire::scheduler::Call {
                framework_id: outside.clone(),
                subscribe: Some(subscribe),
                ..call(Type::Subscribe)
            };
            let field = if good { "" } else { "framework_id" };
            assert_eq!(fault(call), field, "{outside:?} {inside:?}");
        }
    }

    #[test]
    fn uuids_have_sixteen_bytes_that_are_not_all_zero() {
        let acknowledge = |uuid: &[u8]| {
            let mut call = call(Type::Acknowledge);
            call.acknowledge = Some(wire::scheduler::call::Acknowledge {
                uuid: Bytes::copy_from_slice(uuid),
                ..Default::default()
            });
            fault(call)
        };
        assert_eq!(acknowledge(&[7; 16]), "");
        assert_eq!(acknowledge(&[0; 16]), "acknowledge.uuid");
        assert_eq!(acknowledge(&[7; 15]), "acknowledge.uuid");
        assert_eq!(acknowledge(&[]), "acknowledge.uuid");
    }

    #[test]
    fn tasks_keep_the_bytes_they_came_with() {
        // A task with the unknown field 1000, wrapped by hand as a newer client would.
        let mut task = wire::TaskInfo {
            name: "t".into(),
            ..Default::default()
        }
        .encode_to_vec();
        task.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
        let wrap = |number: u8, inner: &[u8]| {
            let mut outer = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
            outer.extend_from_slice(inner);
            outer
        };
        let mut operation = vec![1 << 3, 1];
        operation.extend(wrap(2, &wrap(1, &task)));
        let mut body = call(Type::Accept).encode_to_vec();
        body.extend(wrap(4, &wrap(2, &operation)));
        let body = Bytes::from(body);
        let decoded = wire::scheduler::Call::decode(body.clone()).unwrap();
        let (_, call) = Call::from_wire(decoded, Some(body)).unwrap();
        let Call::Accept { operations, .. } = call else {
            panic!("{call:?}");
        };
        assert_eq!(operations[0].tasks()[0].payload, task);
    }

    #[test]
    fn nobody_claims_to_be_somebody_else() {
        let mut info = wire::FrameworkInfo::default();
        let check = |info: &wire::FrameworkInfo, who: Option<&str>| {
            let who = who.map(Principal::from);
            subscribe(info.clone(), Vec::new(), None, None)
                .check_principal(who.as_ref())
                .is_ok()
        };
        assert!(check(&info, Some("p")) && check(&info, None));
        info.principal = Some("p".into());
        assert!(check(&info, Some("p")) && check(&info, None));
        assert!(!check(&info, Some("q")));
    }
}
