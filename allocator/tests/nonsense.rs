//! Calls that contradict each other: what a client made the caller say, or what an agent claims.
//! None of them panics, and the tables agree with each other after each one.

use std::time::Duration;
use tepui_allocator::{AgentSpec, Allocator, FrameworkSpec, Options, Quota};
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resources, Role, Scalar, agent::AgentCapabilities,
    attribute::Attributes, time::Instant,
};

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn some(text: &str) -> Resources {
    Resources::parse(text, "*").unwrap()
}

fn in_a(text: &str) -> Resources {
    some(text).allocate(&Role::from("a"))
}

fn cpus(units: i64) -> Quantities {
    let mut all = Quantities::new();
    all.insert("cpus", Scalar::from_units(units));
    all
}

/// One framework in role `a`, one agent.
fn small() -> (Allocator, FrameworkId, AgentId) {
    let mut it = Allocator::new(Options::default(), 1);
    let (framework, agent) = (FrameworkId::from("F1"), AgentId::from("S1"));
    let spec = FrameworkSpec {
        roles: [Role::from("a")].into(),
        active: true,
        ..FrameworkSpec::default()
    };
    it.add_framework(&framework, spec);
    it.add_agent(&agent, agent_spec("cpus:4;mem:100"), true);
    (it, framework, agent)
}

fn agent_spec(total: &str) -> AgentSpec {
    AgentSpec {
        hostname: "h1".into(),
        attributes: Attributes::default(),
        domain: None,
        capabilities: AgentCapabilities::all(),
        total: some(total),
    }
}

/// What the next cycle gives, as text.
fn given(it: &mut Allocator, now: u64) -> Vec<String> {
    let cycle = it.allocate(Instant(now), u32::MAX);
    it.check_invariants();
    let all = cycle.allotments.iter();
    all.map(|it| it.resources.to_string()).collect()
}

#[test]
fn nobody_gets_anything_back_twice() {
    let (mut it, framework, agent) = small();
    let all = in_a("cpus:4;mem:100");
    assert_eq!(given(&mut it, 0), ["cpus:4; mem:100"]);
    for _ in 0..3 {
        it.recover(Instant(0), &framework, &agent, &all, None);
        it.check_invariants();
    }
    // More than was ever held, of what the agent does not have.
    let more = in_a("cpus:400;mem:1;licences:7;ports:[1-9]");
    it.recover(Instant(0), &framework, &agent, &more, None);
    assert_eq!(it.allocated(&framework, &"a".into()), Quantities::new());
    assert_eq!(given(&mut it, 0), ["cpus:4; mem:100"]);
    assert_eq!(given(&mut it, 0), Vec::<String>::new());
}

#[test]
fn more_can_be_held_than_there_is() {
    let (mut it, framework, agent) = small();
    let all = in_a("cpus:9;mem:50");
    it.add_allocation(&framework, &agent, &all);
    assert_eq!(
        it.allocated(&framework, &"a".into()).get("cpus"),
        Scalar::from_units(9)
    );
    assert_eq!(given(&mut it, 0), ["mem:50"]);
    it.set_agent_total(&agent, &some("cpus:1"));
    assert_eq!(given(&mut it, 0), Vec::<String>::new());
    it.recover(Instant(0), &framework, &agent, &all, None);
    assert_eq!(given(&mut it, 0), ["cpus:1"]);
}

#[test]
fn what_is_allocated_to_no_role_counts_for_the_star() {
    let (mut it, framework, agent) = small();
    it.add_allocation(&framework, &agent, &some("cpus:1"));
    it.check_invariants();
    assert_eq!(it.allocated(&framework, &Role::star()), cpus(1));
    // Neither this role, nor the other when it is given back in it, is one it subscribes to.
    it.recover(Instant(0), &framework, &agent, &some("cpus:1"), SECOND);
    it.check_invariants();
    assert_eq!(it.allocated(&framework, &Role::star()), Quantities::new());
    assert_eq!(given(&mut it, 0), ["cpus:4; mem:100"]);
}

#[test]
fn who_is_not_known_changes_nothing() {
    let (mut it, framework, agent) = small();
    let (nobody, nowhere) = (FrameworkId::from("F9"), AgentId::from("S9"));
    let part = in_a("cpus:1");
    it.recover(Instant(0), &nobody, &agent, &part, SECOND);
    it.recover(Instant(0), &framework, &nowhere, &part, SECOND);
    it.add_allocation(&framework, &nowhere, &part);
    it.update_allocation(&nobody, &agent, &part, &part);
    it.update_allocation(&framework, &nowhere, &part, &part);
    it.update_framework(&nobody, FrameworkSpec::default());
    it.update_agent(&nowhere, agent_spec("cpus:1"));
    it.set_agent_total(&nowhere, &part);
    it.activate_agent(&nowhere);
    it.deactivate_agent(&nowhere);
    it.remove_agent(&nowhere);
    it.activate_framework(&nobody);
    it.deactivate_framework(&nobody);
    it.suppress(&nobody, &[]);
    it.revive(&nobody, &[]);
    it.remove_framework(&nobody);
    it.check_invariants();
    assert_eq!(it.next_deadline(), None);
    assert_eq!(given(&mut it, 0), ["cpus:4; mem:100"]);
}

#[test]
fn absurd_settings_are_survived() {
    let (mut it, framework, agent) = small();
    it.set_weight("a".into(), 0);
    it.set_weight("a".into(), u64::MAX);
    let quota = Quota {
        guarantees: cpus(1 << 40),
        limits: cpus(0),
    };
    for role in ["a", "a/b", "nobody's"] {
        it.set_quota(role.into(), Some(quota.clone()));
        it.check_invariants();
    }
    // The limit leaves no cpus, and says nothing of memory.
    assert_eq!(given(&mut it, 0), ["mem:100"]);
    it.recover(
        Instant(0),
        &framework,
        &agent,
        &in_a("mem:100"),
        Some(Duration::MAX),
    );
    assert_eq!(given(&mut it, u64::MAX - 1), Vec::<String>::new());
    for role in ["a", "a/b", "nobody's"] {
        it.set_quota(role.into(), None);
    }
    assert_eq!(given(&mut it, u64::MAX - 1), ["cpus:4; mem:100"]);
}

#[test]
fn an_agent_that_is_added_twice_keeps_what_is_held() {
    let (mut it, framework, agent) = small();
    it.add_allocation(&framework, &agent, &in_a("cpus:3;mem:60"));
    it.add_agent(&agent, agent_spec("cpus:5;mem:100"), true);
    assert_eq!(given(&mut it, 0), ["cpus:2; mem:40"]);
    it.remove_agent(&agent);
    it.check_invariants();
    assert_eq!(it.allocated(&framework, &"a".into()), Quantities::new());
}

/// A name with so many components.
fn deep(levels: usize) -> Role {
    let names: Vec<String> = (0..levels).map(|it| format!("r{it}")).collect();
    Role::from(names.join("/"))
}

#[test]
fn roles_five_hundred_deep_are_roles() {
    let mut allocator = Allocator::new(Options::default(), 1);
    let role = deep(500);
    // Quotas at every level, each within the one around it.
    let (mut around, mut levels) = (Some(role.clone()), 500);
    while let Some(it) = around {
        let mut quota = Quota::default();
        quota
            .limits
            .insert("cpus", Scalar::from_units(10_000 - levels));
        quota
            .guarantees
            .insert("cpus", Scalar::from_units(501 - levels));
        allocator.set_quota(it.clone(), Some(quota));
        allocator.set_weight(it.clone(), 2_000_000);
        around = it.parent();
        levels -= 1;
    }
    for at in 0..20 {
        let spec = FrameworkSpec {
            roles: [role.clone(), deep(400 + at)].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        allocator.add_framework(&FrameworkId::from(format!("F{at}")), spec);
        allocator.add_agent(
            &AgentId::from(format!("S{at}")),
            agent_spec("cpus:4;mem:100"),
            true,
        );
    }
    let cycle = allocator.allocate(Instant(1), u32::MAX);
    assert_eq!(cycle.allotments.len(), 20);
    allocator.check_invariants();
    let answer = allocator.explain(Instant(1), None, Some(&deep(1)), 1000);
    assert!(answer.clients.len() > 20 && answer.looked_at > 0);
    for it in cycle.allotments {
        let refuse = Some(Duration::from_secs(5));
        allocator.recover(
            Instant(1),
            &it.framework,
            &it.agent,
            &it.allocated(),
            refuse,
        );
    }
    allocator.check_invariants();
}

#[test]
fn thousands_of_ranges_and_reservations_take_no_more_than_their_number() {
    let mut allocator = Allocator::new(Options::default(), 1);
    let ranges: Vec<String> = (0..4000)
        .map(|it| format!("{}-{}", 4 * it, 4 * it + 1))
        .collect();
    let mut spec = agent_spec(&format!("cpus:8;mem:1000;ports:[{}]", ranges.join(",")));
    let mut all: Vec<_> = spec.total.iter().cloned().collect();
    for at in 0..6400 {
        let role = Role::from(format!("r{}", at % 1600));
        let labels = tepui_model::wire::Labels {
            labels: vec![tepui_model::wire::Label {
                key: "at".to_owned(),
                value: Some(at.to_string()),
            }],
        };
        let mut reservation = tepui_model::resources::Reservation::dynamic(role, None);
        reservation.labels = Some(tepui_model::label::Labels::from_wire(&labels));
        let one = tepui_model::Resource::scalar("cpus", Scalar::from_units(1));
        all.push(one.with_reservation(reservation));
    }
    spec.total = all.into_iter().collect();
    assert_eq!(spec.total.len(), 6403);
    for at in 0..1600 {
        let spec = FrameworkSpec {
            roles: [Role::from(format!("r{at}"))].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        allocator.add_framework(&FrameworkId::from(format!("F{at:04}")), spec);
    }
    allocator.add_agent(&AgentId::from("S"), spec, true);
    // Each gets its four, and the first what is reserved for nobody. Quadratic work would show.
    let given = allocator.allocate(Instant(1), u32::MAX).allotments;
    assert_eq!(given.len(), 1600);
    assert_eq!(
        given.iter().map(|it| it.resources.len()).sum::<usize>(),
        6403
    );
    for it in &given {
        let refuse = Some(Duration::from_secs(5));
        allocator.recover(
            Instant(1),
            &it.framework,
            &it.agent,
            &it.allocated(),
            refuse,
        );
    }
    let again = allocator.allocate(Instant(1), u32::MAX).allotments;
    // Who refused four refuses them again; what is free goes to another.
    assert!(again.len() <= 2, "{}", again.len());
    allocator.check_invariants();
}

#[test]
fn nobody_in_particular_is_explained_and_kept_for() {
    let mut allocator = Allocator::new(Options::default(), 1);
    let (nobody, role) = (FrameworkId::from("F"), Role::from("r"));
    assert!(
        allocator
            .explain(Instant(0), Some(&nobody), None, 0)
            .clients
            .is_empty()
    );
    assert!(
        allocator
            .explain(Instant(0), None, Some(&role), 0)
            .clients
            .is_empty()
    );
    assert!(
        allocator
            .explain(Instant(0), None, None, 10)
            .clients
            .is_empty()
    );
    allocator.claim_agent(&AgentId::from("S"), &nobody, &role, Instant(5));
    allocator.unclaim_agent(&AgentId::from("S"));
    allocator.set_dormant(&nobody, true);
    allocator.add_agent(&AgentId::from("S"), agent_spec("cpus:1"), true);
    allocator.claim_agent(&AgentId::from("S"), &nobody, &role, Instant(5));
    allocator.remove_agent(&AgentId::from("S"));
    assert!(
        allocator
            .left_for(Instant(0), &AgentId::from("S"), &nobody, &role)
            .is_none()
    );
    assert!(allocator.beyond_guarantees(&role).is_empty());
    allocator.check_invariants();
}

/// An agent that comes with what is used of it: who refused the rest is known from then on, and is
/// not asked again in each round.
#[test]
fn who_declined_the_rest_of_a_used_agent_is_not_asked_again() {
    let mut allocator = Allocator::new(Options::default(), 1);
    let id = |at: usize| FrameworkId::from(format!("F{at}"));
    for at in 0..20 {
        let spec = FrameworkSpec {
            roles: [Role::star()].into(),
            active: true,
            ..FrameworkSpec::default()
        };
        allocator.add_framework(&id(at), spec);
    }
    let agent = AgentId::from("S");
    allocator.add_agent(&agent, agent_spec("cpus:24;mem:4096"), true);
    let used = Resources::parse("cpus:16", "*").unwrap();
    allocator.add_allocation(&id(0), &agent, &used.allocate(&Role::star()));
    for round in 1..=20 {
        let before = allocator.counts().clients_asked;
        let cycle = allocator.allocate(Instant(round), u32::MAX);
        let [it] = &cycle.allotments[..] else {
            panic!("round {round}: {:?}", cycle.allotments);
        };
        assert_eq!(
            allocator.counts().clients_asked - before,
            1,
            "round {round}"
        );
        let forever = Some(Duration::from_secs(1_000_000));
        let given = (&it.role, &it.resources);
        allocator.recover_allotted(Instant(round), &it.framework, &it.agent, given, forever);
    }
    let before = allocator.counts().clients_asked;
    assert!(
        allocator
            .allocate(Instant(21), u32::MAX)
            .allotments
            .is_empty()
    );
    assert_eq!(allocator.counts().clients_asked, before);
}
