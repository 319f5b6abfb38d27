//! Checks of the operations that change resources (behaviour 4.2).

use super::{Fault, Rejection, resource};
use crate::{
    Principal, Resource, Resources, Role,
    agent::{AgentCapabilities, Capability},
    operation::{OfferOperation, OperationKind},
    resources::DiskKind,
    wire::resource::disk_info::source,
};
use std::collections::BTreeSet;

/// Whom an operation comes from and what it is checked against.
#[derive(Clone, Copy, Debug)]
pub struct OperationContext<'a> {
    /// The framework's principal, or the operator's. Reservations and volumes must name it.
    pub principal: Option<&'a Principal>,
    /// The framework's roles; none for an operator, who may reserve for any.
    pub roles: Option<&'a BTreeSet<Role>>,
    /// The role of the offers; none for an operator.
    pub allocation_role: Option<&'a Role>,
    /// Whether the framework has SHARED_RESOURCES; true for an operator.
    pub shared_resources: bool,
    /// What the agent can.
    pub agent_capabilities: AgentCapabilities,
    /// All that the agent has, with its reservations and volumes.
    pub agent_total: &'a Resources,
}

/// Whether the operation may have an `id`, before anything else is asked. Launches may not, and
/// the agent must be able to report.
///
/// # Errors
/// It has one that it may not have. The reason is that of a task for launches, and without
/// meaning for the others.
pub fn operation_id(
    operation: &OfferOperation,
    agent_capabilities: AgentCapabilities,
) -> Result<(), Rejection> {
    if operation.id.is_none() {
        return Ok(());
    }
    let text = match operation.kind {
        OperationKind::Launch { .. } => {
            return Err(Rejection::task("'id' is set on a LAUNCH operation"));
        }
        OperationKind::LaunchGroup { .. } => {
            return Err(Rejection::group("'id' is set on a LAUNCH_GROUP operation"));
        }
        _ if !agent_capabilities.is(Capability::ResourceProvider) => "RESOURCE_PROVIDER",
        _ if !has_provider(operation)
            && !agent_capabilities.is(Capability::AgentOperationFeedback) =>
        {
            "AGENT_OPERATION_FEEDBACK"
        }
        _ => return Ok(()),
    };
    Err(Rejection::task(format!(
        "'id' is set, but the agent lacks {text}"
    )))
}

fn has_provider(operation: &OfferOperation) -> bool {
    operation
        .consumed()
        .is_ok_and(|it| it.iter().any(|it| it.provider_id.is_some()))
}

/// Everything about an operation that is not a launch, except whether the pool holds what it
/// consumes and whether a volume to be destroyed is in use.
///
/// # Errors
/// The first fault.
pub fn operation(operation: &OfferOperation, context: &OperationContext<'_>) -> Result<(), String> {
    let fault = operation.fault().or_else(|| match &operation.kind {
        OperationKind::Launch { .. }
        | OperationKind::LaunchGroup { .. }
        | OperationKind::Invalid { .. } => None,
        OperationKind::Reserve { source, resources } => reserve(source, resources, context),
        OperationKind::Unreserve { resources } => unreserve(resources),
        OperationKind::Create { volumes } => create(volumes, context),
        OperationKind::Destroy { volumes } => destroy(volumes, context),
        OperationKind::GrowVolume { volume, addition } => grow(volume, addition, context),
        OperationKind::ShrinkVolume { volume, .. } => {
            resizable(volume, context).or_else(|| shrink(operation, volume))
        }
        OperationKind::CreateDisk {
            source,
            target_type,
            target_profile,
        } => create_disk(source, *target_type, target_profile.is_some(), context),
        OperationKind::DestroyDisk { source } => destroy_disk(source, context),
    });
    fault.map_or(Ok(()), Err)
}

fn none_of(resources: &Resources, what: &str) -> Fault {
    resources.is_empty().then(|| format!("there are no {what}"))
}

fn one_provider(resources: &Resources) -> Fault {
    let providers: BTreeSet<_> = resources.iter().map(|it| &it.provider_id).collect();
    (providers.len() > 1).then(|| "resources are of several resource providers".to_owned())
}

fn reserve(source: &Resources, resources: &Resources, context: &OperationContext<'_>) -> Fault {
    if context.roles.is_some() && !source.is_empty() {
        return Some("'reserve.source' is set, which only operators can do".to_owned());
    }
    none_of(resources, "resources to reserve")
        .or_else(|| resources.iter().find_map(|it| reservation(it, context)))
        .or_else(|| one_provider(resources))
}

fn reservation(resource: &Resource, context: &OperationContext<'_>) -> Fault {
    let Some(top) = resource.reservations.last().filter(|it| it.is_dynamic()) else {
        return Some(format!("{resource} is not dynamically reserved"));
    };
    if resource.revocable {
        return Some(format!("{resource} is revocable; that cannot be reserved"));
    }
    if resource.is_persistent_volume() {
        return Some(format!(
            "{resource} is a persistent volume; it must be destroyed first"
        ));
    }
    if let Some(expected) = context.principal
        && top.principal.as_ref() != Some(expected)
    {
        return Some(format!(
            "{resource}: expecting the reservation's 'principal' to be {expected:?}"
        ));
    }
    let role = &top.role;
    if let Some(allocated) = context.allocation_role
        && allocated != role
    {
        return Some(format!(
            "{resource} is to be reserved for {role:?}, but the offers are for {allocated:?}"
        ));
    }
    let foreign = context.roles.is_some_and(|it| !it.contains(role));
    foreign.then(|| {
        format!("{resource} is to be reserved for {role:?}, which is not a role of the framework")
    })
}

fn unreserve(resources: &Resources) -> Fault {
    none_of(resources, "resources to unreserve")
        .or_else(|| {
            resources.iter().find_map(|it| {
                if !it.is_dynamically_reserved() {
                    return Some(format!("{it} is not dynamically reserved"));
                }
                it.is_persistent_volume()
                    .then(|| format!("{it} is a persistent volume; it must be destroyed before"))
            })
        })
        .or_else(|| one_provider(resources))
}

fn create(volumes: &Resources, context: &OperationContext<'_>) -> Fault {
    none_of(volumes, "volumes to create")
        .or_else(|| resource::volumes_are_complete(volumes))
        .or_else(|| resource::persistence_ids_differ(volumes))
        .or_else(|| volumes.iter().find_map(|it| new_volume(it, context)))
        .or_else(|| one_provider(volumes))
}

fn new_volume(volume: &Resource, context: &OperationContext<'_>) -> Fault {
    use crate::wire::volume::Mode;
    let disk = volume.disk.as_ref();
    let Some((persistence, disk)) = disk.and_then(|it| Some((it.persistence.as_ref()?, it))) else {
        return Some(format!("{volume} is not a persistent volume"));
    };
    // Its presence was checked before.
    let mount = disk.volume.as_ref()?;
    if mount.mode() != Mode::Rw {
        return Some(format!("{volume}: expecting 'disk.volume.mode' to be RW"));
    }
    if mount.container_path.is_empty() {
        return Some(format!(
            "{volume}: expecting 'disk.volume.container_path' to be set"
        ));
    }
    if let Some(expected) = context.principal
        && persistence.principal.as_ref() != Some(expected)
    {
        return Some(format!(
            "{volume}: expecting 'disk.persistence.principal' to be {expected:?}"
        ));
    }
    if volume.shared && !context.shared_resources {
        return Some(format!(
            "{volume} is shared, but the framework lacks SHARED_RESOURCES"
        ));
    }
    let exists = context.agent_total.iter().any(|it| {
        it.persistence_id() == Some(&persistence.id)
            && it.reservation_role() == volume.reservation_role()
    });
    exists.then(|| {
        let id = &persistence.id;
        format!("{volume}: the agent has a volume {id:?} for this role already")
    })
}

fn destroy(volumes: &Resources, context: &OperationContext<'_>) -> Fault {
    none_of(volumes, "volumes to destroy")
        .or_else(|| resource::volumes_are_complete(volumes))
        .or_else(|| {
            volumes.iter().find_map(|it| {
                if !it.is_persistent_volume() {
                    return Some(format!("{it} is not a persistent volume"));
                }
                let mut bare = it.clone();
                bare.allocation_role = None;
                (!context.agent_total.contains_resource(&bare))
                    .then(|| format!("the agent has no volume {it}"))
            })
        })
        .or_else(|| one_provider(volumes))
}

fn resizable(volume: &Resource, context: &OperationContext<'_>) -> Fault {
    if !context.agent_capabilities.is(Capability::ResizeVolume) {
        return Some("the agent lacks RESIZE_VOLUME".to_owned());
    }
    if !volume.is_persistent_volume() {
        return Some(format!("{volume} is not a persistent volume"));
    }
    if volume.shared {
        return Some(format!("{volume} is shared; its size cannot change"));
    }
    if volume.provider_id.is_some() {
        return Some(format!(
            "{volume} is of a resource provider; its size cannot change"
        ));
    }
    volume
        .is_whole_disk()
        .then(|| format!("{volume} is a whole disk; its size cannot change"))
}

fn grow(volume: &Resource, addition: &Resource, context: &OperationContext<'_>) -> Fault {
    resizable(volume, context).or_else(|| {
        if addition.amount().is_none_or(|it| it.is_zero()) {
            return Some(format!("{addition}: expecting an amount above 0"));
        }
        let mut bare = volume.clone();
        bare.strip_volume();
        (!bare.is_same_kind(addition))
            .then(|| format!("{addition} is not of the disk and reservation of {volume}"))
    })
}

fn shrink(operation: &OfferOperation, volume: &Resource) -> Fault {
    let OperationKind::ShrinkVolume { subtract, .. } = &operation.kind else {
        return None;
    };
    if subtract.is_zero() {
        return Some("expecting 'subtract' to be above 0".to_owned());
    }
    let size = volume.amount().unwrap_or_default();
    (*subtract >= size).then(|| format!("'subtract' is {subtract}; expected less than {size}"))
}

fn of_provider(source: &Resource, context: &OperationContext<'_>) -> Fault {
    if !context.agent_capabilities.is(Capability::ResourceProvider) {
        return Some("the agent lacks RESOURCE_PROVIDER".to_owned());
    }
    source
        .provider_id
        .is_none()
        .then(|| format!("{source} is not of a resource provider"))
}

fn create_disk(
    source: &Resource,
    target: source::Type,
    target_profile: bool,
    context: &OperationContext<'_>,
) -> Fault {
    of_provider(source, context).or_else(|| {
        if !source.is_disk(DiskKind::Raw) {
            return Some(format!("{source}: expecting a source of type RAW"));
        }
        if !matches!(target, source::Type::Mount | source::Type::Block) {
            return Some("expecting 'target_type' to be MOUNT or BLOCK".to_owned());
        }
        let disk = source.disk.as_ref().and_then(|it| it.source.as_ref());
        let own = disk.is_some_and(|it| it.profile().is_some());
        (own == target_profile)
            .then(|| format!("{source}: expecting exactly one of its profile and 'target_profile'"))
    })
}

fn destroy_disk(source: &Resource, context: &OperationContext<'_>) -> Fault {
    of_provider(source, context).or_else(|| {
        if source.is_persistent_volume() {
            return Some(format!(
                "{source} is a persistent volume; it must be destroyed before"
            ));
        }
        let disk = source.disk.as_ref().and_then(|it| it.source.as_ref());
        disk.is_none_or(|it| it.id().is_none())
            .then(|| format!("{source}: expecting a source with an id"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        resources::{DiskInfo, Persistence, Reservation, Scalar},
        wire,
    };

    fn reserved(amount: i64) -> Resource {
        let reservation = Reservation::dynamic("a".into(), Some("p".into()));
        Resource::scalar("disk", Scalar::from_units(amount)).with_reservation(reservation)
    }

    fn volume(id: &str, amount: i64) -> Resource {
        reserved(amount).with_disk(DiskInfo {
            persistence: Some(Persistence {
                id: id.into(),
                principal: Some("p".into()),
            }),
            volume: Some(wire::Volume {
                container_path: "data".into(),
                mode: wire::volume::Mode::Rw.into(),
                ..Default::default()
            }),
            source: None,
        })
    }

    /// What is said of the operation of a framework with role `a` and principal `p`, on an agent
    /// with the volume `old`.
    fn text(kind: OperationKind) -> String {
        text_with(kind, AgentCapabilities::all(), true)
    }

    fn text_with(kind: OperationKind, agent: AgentCapabilities, scheduler: bool) -> String {
        let (principal, role) = (Principal::from("p"), Role::from("a"));
        let roles = BTreeSet::from([role.clone()]);
        let total: Resources = [reserved(100), volume("old", 10)].into_iter().collect();
        let context = OperationContext {
            principal: Some(&principal),
            roles: scheduler.then_some(&roles),
            allocation_role: scheduler.then_some(&role),
            shared_resources: false,
            agent_capabilities: agent,
            agent_total: &total,
        };
        let it = OfferOperation { id: None, kind };
        operation(&it, &context).err().unwrap_or_default()
    }

    fn with(mut resource: Resource, change: impl FnOnce(&mut Resource)) -> Resource {
        change(&mut resource);
        resource
    }

    #[test]
    fn reservations_are_the_frameworks_own() {
        let reserve = |it: Resource| {
            text(OperationKind::Reserve {
                source: Resources::new(),
                resources: it.into(),
            })
        };
        assert_eq!(reserve(reserved(1)), "");
        let by = |role: &str, principal: Option<&str>| {
            let reservation = Reservation::dynamic(role.into(), principal.map(Principal::from));
            Resource::scalar("disk", Scalar::from_units(1)).with_reservation(reservation)
        };
        let fixed = Reservation::fixed("a".into());
        for (bad, word) in [
            (by("b", Some("p")), "\"b\""),
            (by("a", Some("q")), "principal"),
            (by("a", None), "principal"),
            (with(reserved(1), |it| it.revocable = true), "revocable"),
            (volume("v", 1), "persistent volume"),
            (
                Resource::scalar("cpus", Scalar::from_units(1)),
                "dynamically",
            ),
            (
                Resource::scalar("cpus", Scalar::from_units(1)).with_reservation(fixed),
                "dynamically",
            ),
        ] {
            let text = reserve(bad);
            assert!(text.contains(word), "{word}: {text}");
        }
        let with_source = || OperationKind::Reserve {
            source: Resource::scalar("disk", Scalar::from_units(1)).into(),
            resources: reserved(1).into(),
        };
        assert!(text(with_source()).contains("source"));
        let all = AgentCapabilities::all();
        assert_eq!(text_with(with_source(), all, false), "");
    }

    #[test]
    fn volumes_are_complete_and_new() {
        let create = |it: Resource| text(OperationKind::Create { volumes: it.into() });
        let disk = |it: &mut Resource, change: fn(&mut DiskInfo)| {
            let mut disk = (**it.disk.as_ref().unwrap()).clone();
            change(&mut disk);
            it.disk = Some(disk.into());
        };
        assert_eq!(create(volume("new", 1)), "");
        let mut read_only = volume("new", 1);
        disk(&mut read_only, |it| {
            it.volume.as_mut().unwrap().mode = wire::volume::Mode::Ro.into();
        });
        let mut nowhere = volume("new", 1);
        disk(&mut nowhere, |it| it.volume = None);
        let mut anonymous = volume("new", 1);
        disk(&mut anonymous, |it| {
            it.persistence.as_mut().unwrap().principal = None
        });
        for (bad, word) in [
            (volume("old", 1), "already"),
            (volume("a/b", 1), "persistence.id"),
            (reserved(1), "not a persistent volume"),
            (
                with(volume("new", 1), |it| it.reservations.clear()),
                "reserved",
            ),
            (
                with(volume("new", 1), |it| it.shared = true),
                "SHARED_RESOURCES",
            ),
            (read_only, "RW"),
            (nowhere, "disk.volume"),
            (anonymous, "principal"),
        ] {
            let text = create(bad);
            assert!(text.contains(word), "{word}: {text}");
        }
        let destroy = |it: Resource| text(OperationKind::Destroy { volumes: it.into() });
        let allocated = volume("old", 10).with_allocation("a".into());
        assert_eq!(destroy(allocated), "");
        assert!(destroy(volume("new", 10)).contains("no volume"));
        assert!(destroy(volume("old", 9)).contains("no volume"));
        assert!(destroy(reserved(1)).contains("not a persistent"));
    }

    #[test]
    fn only_plain_volumes_change_their_size() {
        let grow = |volume: Resource, addition: Resource| {
            text(OperationKind::GrowVolume { volume, addition })
        };
        assert_eq!(grow(volume("v", 1), reserved(1)), "");
        let unreserved = with(reserved(1), |it| it.reservations.clear());
        assert!(grow(volume("v", 1), unreserved).contains("is not of"));
        assert!(grow(volume("v", 1), reserved(0)).contains("above 0"));
        assert!(grow(reserved(1), reserved(1)).contains("not a persistent"));
        let provided = with(volume("v", 1), |it| it.provider_id = Some("r".into()));
        assert!(grow(provided, reserved(1)).contains("provider"));
        let shrink = |amount| {
            text(OperationKind::ShrinkVolume {
                volume: volume("v", 5),
                subtract: Scalar::from_units(amount),
            })
        };
        assert_eq!(shrink(4), "");
        assert!(shrink(5).contains("less than"));
        assert!(shrink(0).contains("above 0"));
        let agent = AgentCapabilities::all().without(Capability::ResizeVolume);
        let kind = OperationKind::ShrinkVolume {
            volume: volume("v", 5),
            subtract: Scalar::from_units(1),
        };
        assert!(text_with(kind, agent, true).contains("RESIZE_VOLUME"));
    }

    #[test]
    fn ids_need_an_agent_that_reports() {
        let with_id = |kind| OfferOperation {
            id: Some("o".into()),
            kind,
        };
        let launch = with_id(OperationKind::Launch { tasks: Vec::new() });
        let all = AgentCapabilities::all();
        assert!(operation_id(&launch, all).is_err());
        let unreserve = with_id(OperationKind::Unreserve {
            resources: reserved(1).into(),
        });
        assert!(operation_id(&unreserve, all).is_ok());
        for lacking in [
            Capability::ResourceProvider,
            Capability::AgentOperationFeedback,
        ] {
            assert!(operation_id(&unreserve, all.without(lacking)).is_err());
        }
    }
}
