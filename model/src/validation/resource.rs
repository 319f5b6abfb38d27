//! Checks of the resources of a task or executor.

use super::Fault;
use crate::{Resource, Resources, id, resources::Value};
use std::collections::BTreeSet;

/// Everything that Mesos demands of resources that are to be used, beyond their form.
pub(super) fn usable(resources: &Resources) -> Fault {
    const CHECKS: [fn(&Resources) -> Fault; 5] = [
        gpus_are_whole,
        volumes_are_complete,
        persistence_ids_differ,
        one_allocation_role,
        not_both_revocable,
    ];
    super::first(&CHECKS, resources)
}

fn gpus_are_whole(resources: &Resources) -> Fault {
    let gpus = resources.gpus()?;
    (!gpus.is_integral()).then(|| format!("'gpus' is {gpus}; expected a whole number"))
}

/// Persistent volumes are reserved, not revocable, and say where a container sees them.
pub(super) fn volumes_are_complete(resources: &Resources) -> Fault {
    resources.iter().find_map(volume_is_complete)
}

fn volume_is_complete(resource: &Resource) -> Fault {
    let disk = resource.disk.as_ref()?;
    let Some(persistence) = &disk.persistence else {
        let empty = disk.source.is_none();
        return empty.then(|| format!("{resource}: 'disk' is set but empty"));
    };
    if resource.is_unreserved() {
        return Some(format!(
            "{resource}: a persistent volume is made of reserved disk only"
        ));
    }
    if let Err(error) = id::validate("disk.persistence.id", persistence.id.as_str()) {
        return Some(format!("{resource}: {error}"));
    }
    let Some(volume) = &disk.volume else {
        return Some(format!(
            "{resource}: expecting 'disk.volume' to be set for a persistent volume"
        ));
    };
    volume.host_path.as_ref().map(|_| {
        format!("{resource}: expecting 'disk.volume.host_path' to be unset for a persistent volume")
    })
}

/// No persistence id comes twice in a role.
pub(super) fn persistence_ids_differ(resources: &Resources) -> Fault {
    let mut seen = BTreeSet::new();
    resources.iter().find_map(|it| {
        let id = it.persistence_id()?;
        let role = it.reservation_role();
        (!seen.insert((role, id))).then(|| format!("persistence id {id:?} is used twice"))
    })
}

fn one_allocation_role(resources: &Resources) -> Fault {
    let roles: BTreeSet<_> = resources
        .iter()
        .map(|it| it.allocation_role.as_ref().map_or("none", |it| it.as_str()))
        .collect();
    let list: Vec<_> = roles.into_iter().collect();
    (list.len() > 1).then(|| {
        let list = list.join(", ");
        format!("resources are allocated to several roles ({list}); expected one")
    })
}

fn not_both_revocable(resources: &Resources) -> Fault {
    resources.iter().filter(|it| it.revocable).find_map(|it| {
        let name = &it.name;
        let both = resources.iter().any(|it| !it.revocable && it.name == *name);
        both.then(|| format!("'{name}' is used both revocable and not; expected one of them"))
    })
}

/// Whether two things use the same port or word, by name.
pub(super) fn overlap(left: &Resources, right: &Resources) -> Option<String> {
    left.iter().find_map(|a| {
        let overlaps =
            right
                .iter()
                .filter(|b| a.name == b.name)
                .any(|b| match (&a.value, &b.value) {
                    (Value::Ranges(a), Value::Ranges(b)) => a.intersects(b),
                    (Value::Set(a), Value::Set(b)) => a.intersects(b),
                    _ => false,
                });
        overlaps.then(|| a.name.as_ref().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{DiskInfo, Persistence, Reservation, Scalar};

    fn volume(role: &str) -> Resource {
        let disk = DiskInfo {
            persistence: Some(Persistence {
                id: "v".into(),
                principal: None,
            }),
            volume: Some(crate::wire::Volume::default()),
            source: None,
        };
        Resource::scalar("disk", Scalar::from_units(1))
            .with_reservation(Reservation::fixed(role.into()))
            .with_disk(disk)
    }

    fn all(resources: impl IntoIterator<Item = Resource>) -> Resources {
        resources.into_iter().collect()
    }

    #[test]
    fn resources_that_are_used() {
        let good = [
            Resources::parse("cpus:1;gpus:2;ports:[1-2]", "*").unwrap(),
            all([volume("a"), volume("b")]),
        ];
        for good in good {
            assert_eq!(usable(&good), None, "{good}");
        }
        let cpus = || Resource::scalar("cpus", Scalar::from_units(1));
        let mut revocable = cpus();
        revocable.revocable = true;
        let mut unreserved = volume("a");
        unreserved.reservations.clear();
        let mut nowhere = volume("a");
        let disk = DiskInfo {
            volume: None,
            ..(**nowhere.disk.as_ref().unwrap()).clone()
        };
        nowhere.disk = Some(disk.into());
        let bad = [
            (Resources::parse("gpus:1.5", "*").unwrap(), "whole"),
            (all([volume("a"), volume("a")]), "twice"),
            (all([cpus(), revocable]), "revocable"),
            (all([unreserved]), "reserved"),
            (all([nowhere]), "disk.volume"),
            (
                all([cpus().with_allocation("a".into()), cpus()]),
                "several roles",
            ),
            (all([cpus().with_disk(DiskInfo::default())]), "empty"),
        ];
        for (bad, word) in bad {
            let text = usable(&bad).unwrap();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn overlaps_are_found_by_name() {
        let of = |it| Resources::parse(it, "*").unwrap();
        let found = overlap(&of("ports:[1-5]"), &of("ports(a):[5-6]"));
        assert_eq!(found.as_deref(), Some("ports"));
        assert_eq!(
            overlap(&of("ports:[1-5];cpus:1"), &of("other:[5-6];cpus:1")),
            None
        );
        assert!(overlap(&of("s:{a,b}"), &of("s:{b}")).is_some());
    }
}
