//! The laws of the algebra of resources.

use proptest::{collection::vec, option, prelude::*, sample::select};
use tepui_model::{
    Resource, Resources, Scalar,
    resources::{
        DiskInfo, DiskSource, Persistence, Quantities, Ranges, Reservation, ResourceFormat, Set,
    },
    wire,
};

/// A resource as it comes from a client: any kind, any reservations, any disk.
///
/// Numbers and words are taken from the part of their line that belongs to `side`: sets hold each
/// thing once, so only the sum of disjoint ones can be taken apart again.
fn resource(side: u64) -> impl Strategy<Value = Resource> {
    let value = prop_oneof![
        4 => (select(vec!["cpus", "mem", "gpus"]), 0..5000i64)
            .prop_map(|(name, it)| Resource::scalar(name, Scalar::from_millis(it))),
        2 => vec((0..40u64, 0..6u64), 0..4).prop_map(move |all| {
            let all = all.into_iter().map(|(begin, len)| {
                let begin = side * 100 + begin;
                (begin, begin + len)
            });
            Resource::ranges("ports", Ranges::new("ports", all).unwrap())
        }),
        1 => vec(0..5u64, 0..3).prop_map(move |mut all| {
            all.sort_unstable();
            all.dedup();
            let all: Vec<_> = all.iter().map(|it| format!("w{}", side * 100 + it)).collect();
            Resource::set("words", Set::new("words", all.iter().map(|it| &**it)).unwrap())
        }),
        3 => disk(),
    ];
    let reservations = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![Reservation::fixed("a".into())]),
        1 => Just(vec![Reservation::dynamic("a".into(), Some("p".into()))]),
        1 => Just(vec![
            Reservation::fixed("a".into()),
            Reservation::dynamic("a/b".into(), None),
        ]),
    ];
    let provider = option::weighted(0.1, Just("r".into()));
    let role = option::weighted(0.3, select(vec!["a", "b"]));
    (value, reservations, any::<bool>(), provider, role).prop_map(
        |(resource, reservations, revocable, provider_id, role)| Resource {
            reservations,
            revocable: revocable && !resource.is_persistent_volume(),
            provider_id,
            allocation_role: role.map(Into::into),
            ..resource
        },
    )
}

fn disk() -> impl Strategy<Value = Resource> {
    use wire::resource::disk_info::{Source, source};
    let source = option::of((1..5i32, option::of(select(vec!["id1", "id2"]))).prop_map(
        |(kind, id)| {
            DiskSource::from_wire(&Source {
                r#type: kind,
                mount: (kind == 2).then(|| source::Mount {
                    root: Some("/mnt".into()),
                }),
                id: id.map(str::to_owned),
                profile: id.map(|_| "fast".into()),
                vendor: Some("v".into()),
                ..Default::default()
            })
        },
    ));
    let volume = option::of(select(vec!["v1", "v2"]));
    (1..4i64, source, volume, any::<bool>()).prop_map(|(size, source, volume, shared)| {
        let persistence = volume.map(|it| Persistence {
            id: it.into(),
            principal: Some("p".into()),
        });
        let info = DiskInfo {
            volume: persistence.is_some().then(|| wire::Volume {
                mode: wire::volume::Mode::Rw.into(),
                container_path: "data".into(),
                ..Default::default()
            }),
            persistence,
            source,
        };
        let mut disk = Resource::scalar("disk", Scalar::from_units(size));
        disk.shared = shared && info.persistence.is_some();
        if info != DiskInfo::default() {
            disk = disk.with_disk(info);
        }
        disk
    })
}

fn resources(side: u64) -> impl Strategy<Value = Resources> {
    vec(resource(side), 0..8).prop_map(|all| all.into_iter().collect())
}

/// What the text form can say.
fn plain() -> impl Strategy<Value = Resources> {
    resources(0).prop_map(|all| {
        let plain = |it: &Resource| {
            it.disk.is_none()
                && !it.revocable
                && it.provider_id.is_none()
                && it.allocation_role.is_none()
                && matches!(it.reservations.len(), 0 | 1)
                && !it.is_dynamically_reserved()
        };
        all.filter(plain)
    })
}

/// The same list with each shared resource held once: the wire says no more.
fn held_once(all: &Resources) -> Resources {
    all.iter().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_added_can_be_taken_away(a in resources(0), b in resources(1)) {
        let mut sum = a.union(&b);
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert!(sum.try_sub(&b));
        prop_assert!(sum.is_equivalent(&a), "{sum:?} instead of {a:?}");
        prop_assert!(sum.try_sub(&a));
        prop_assert!(sum.is_empty());
    }

    #[test]
    fn the_order_of_a_sum_does_not_matter(
        a in resources(0), b in resources(0), c in resources(1),
    ) {
        prop_assert!(a.union(&b).is_equivalent(&b.union(&a)));
        let left = a.union(&b).union(&c);
        let right = a.union(&b.union(&c));
        prop_assert!(left.is_equivalent(&right));
        prop_assert_eq!(left.quantities(), right.quantities());
    }

    #[test]
    fn sums_are_normal(a in resources(0), b in resources(0)) {
        let sum = a.union(&b);
        prop_assert!(sum.iter().all(|it| !it.is_empty()));
        // Adding it up once more, entry by entry, changes nothing.
        prop_assert_eq!(held_once(&sum), held_once(&held_once(&sum)));
        prop_assert_eq!(held_once(&sum).len(), sum.len());
    }

    #[test]
    fn containment_is_an_order(a in resources(0), b in resources(0), c in resources(0)) {
        prop_assert!(a.contains(&a));
        prop_assert!(a.contains(&Resources::new()));
        if a.contains(&b) && b.contains(&c) {
            prop_assert!(a.contains(&c));
        }
        let small = a.filter(|it| it.name.as_ref() != "mem");
        prop_assert!(a.contains(&small));
        prop_assert!(a.union(&b).contains(&small));
        for it in b.iter() {
            prop_assert_eq!(a.contains_resource(it), a.contains(&it.clone().into()));
        }
    }

    #[test]
    fn nothing_is_taken_unless_all_is_there(a in resources(0), b in resources(0)) {
        let mut rest = a.clone();
        let taken = rest.try_sub(&b);
        prop_assert_eq!(taken, a.contains(&b));
        if taken {
            prop_assert_eq!(&rest, &a.difference(&b));
            prop_assert!(rest.union(&b).is_equivalent(&a));
        } else {
            prop_assert_eq!(&rest, &a);
            prop_assert!(a.contains(&a.difference(&b)));
        }
    }

    #[test]
    fn quantities_add_up(a in resources(0), b in resources(0)) {
        let (a, b) = (a.non_shared(), b.non_shared());
        let mut sum = a.quantities();
        sum.add(&b.quantities());
        prop_assert_eq!(a.union(&b).quantities(), sum.clone());
        sum.saturating_sub(&b.quantities());
        prop_assert_eq!(sum, a.quantities());
    }

    #[test]
    fn parts_make_up_the_whole(a in resources(0)) {
        let mut sum = a.unreserved();
        for it in a.reserved().values() {
            sum.add(it);
        }
        prop_assert!(sum.is_equivalent(&a));
        prop_assert!(a.scalars().union(&a.non_scalars()).is_equivalent(&a));
        prop_assert!(a.revocable().union(&a.non_revocable()).is_equivalent(&a));
        prop_assert!(a.shared().union(&a.non_shared()).is_equivalent(&a));
        for (role, part) in a.allocations() {
            prop_assert_eq!(part.unallocate().allocate(&role), part);
        }
        let reservation = Reservation::dynamic("a/b/c".into(), None);
        prop_assert_eq!(a.push_reservation(&reservation).pop_reservation(), Ok(a));
    }

    #[test]
    fn what_is_shrunk_fits(a in resources(0), cpus in 0..6000i64, disk in 0..6i64) {
        let mut limits = Quantities::new();
        limits.insert("cpus", Scalar::from_millis(cpus));
        limits.insert("disk", Scalar::from_units(disk));
        let a = a.scalars().non_shared();
        let shrunk = a.shrink_to(&limits);
        prop_assert!(a.contains(&shrunk));
        prop_assert!(limits.contains(&shrunk.quantities()));
        let cpus = Scalar::from_millis(cpus).min(a.cpus().unwrap_or_default());
        prop_assert_eq!(shrunk.cpus().unwrap_or_default(), cpus);
        prop_assert_eq!(shrunk.mem(), None);
        prop_assert_eq!(a.shrink_to_limits(&limits).mem(), a.mem());
    }

    #[test]
    fn texts_are_read_as_they_were_printed(a in plain()) {
        if !a.is_empty() {
            prop_assert_eq!(Resources::parse(&a.to_string(), "*"), Ok(a));
        }
    }

    #[test]
    fn every_format_is_read_as_it_was_written(a in resources(0)) {
        let once = held_once(&a);
        for format in [
            ResourceFormat::PostRefinement,
            ResourceFormat::PreRefinement,
            ResourceFormat::Endpoint,
        ] {
            let wire = a.to_wire_for(format);
            prop_assert_eq!(Resources::from_wire(&wire), Ok(once.clone()));
        }
    }

    #[test]
    fn no_input_makes_it_panic(
        text in "[a-c:;,(){}\\[\\]0-9. *-]{0,40}",
        value in any::<f64>(),
        ranges in vec((any::<u64>(), any::<u64>()), 0..6),
    ) {
        let _ = Resources::parse(&text, "*");
        let range = ranges.iter().map(|(begin, end)| wire::value::Range {
            begin: *begin,
            end: *end,
        });
        let wire = [
            wire::Resource {
                name: "cpus".into(),
                scalar: Some(wire::value::Scalar { value }),
                ..Default::default()
            },
            wire::Resource {
                name: "ports".into(),
                r#type: wire::value::Type::Ranges.into(),
                ranges: Some(wire::value::Ranges { range: range.collect() }),
                ..Default::default()
            },
        ];
        for it in &wire {
            if let Ok(it) = Resource::from_wire(it) {
                let mut all = Resources::from(it.clone());
                all.add(&it.clone().into());
                prop_assert!(all.contains_resource(&it) || it.is_empty());
            }
        }
    }
}

#[test]
fn a_shared_volume_is_counted_and_is_one_volume() {
    let disk = DiskInfo {
        persistence: Some(Persistence {
            id: "v".into(),
            principal: None,
        }),
        volume: None,
        source: None,
    };
    let mut volume = Resource::scalar("disk", Scalar::from_units(5))
        .with_reservation(Reservation::fixed("a".into()))
        .with_disk(disk);
    volume.shared = true;
    let one = Resources::from(volume);
    let mut two = one.union(&one);
    assert_eq!(two.len(), 1);
    assert_eq!(two.disk(), Some(Scalar::from_units(5)));
    assert_eq!(two.iter_counted().map(|(_, copies)| copies).sum::<u32>(), 2);
    assert!(two.contains(&one) && !one.contains(&two));
    assert!(two.try_sub(&one) && !two.is_empty());
    assert!(two.try_sub(&one) && two.is_empty());
    assert!(!two.try_sub(&one));
}

#[test]
fn whole_disks_are_taken_whole() {
    let mount = |size| {
        let source = wire::resource::disk_info::Source {
            r#type: wire::resource::disk_info::source::Type::Mount.into(),
            ..Default::default()
        };
        let info = DiskInfo {
            source: Some(DiskSource::from_wire(&source)),
            ..Default::default()
        };
        Resources::from(Resource::scalar("disk", Scalar::from_units(size)).with_disk(info))
    };
    let all = mount(10);
    assert!(!all.contains(&mount(5)));
    assert!(all.contains(&mount(10)));
    assert_eq!(all.union(&all).len(), 2);
    assert!(!all.contains(&all.union(&all)));
    let mut limit = Quantities::new();
    limit.insert("disk", Scalar::from_units(9));
    assert!(all.shrink_to(&limit).is_empty());
    limit.insert("disk", Scalar::from_units(10));
    assert_eq!(all.shrink_to(&limit), all);
}
