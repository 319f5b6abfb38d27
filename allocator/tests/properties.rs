//! Properties that the papers prove of dominant resource fairness, as tests of this allocator.
//!
//! *DRF*: Ghodsi, Zaharia, Hindman, Konwinski, Shenker, Stoica: Dominant Resource Fairness, NSDI
//! 2011. *H-DRF*: Bhattacharya, Culler, Friedman, Ghodsi, Shenker, Stoica: Hierarchical Scheduling
//! for Diverse Datacenter Workloads, SoCC 2013.
//!
//! The papers divide one pool, task by task: whoever has the smallest dominant share launches the
//! next task. Mesos divides agents, and offers each whole. The two are the same when the pool is
//! one agent, whoever is offered it launches one task and gives the rest back, and whoever finds
//! no room refuses for good: that is [`Pool`]. Each docstring says what becomes of the property
//! when there are many agents.

use std::time::Duration;
use tepui_allocator::{AgentSpec, Allocator, FrameworkSpec, Options};
use tepui_model::{
    AgentId, FrameworkId, Resources, Role, Scalar, agent::AgentCapabilities, attribute::Attributes,
    time::Instant,
};

const NAMES: [&str; 3] = ["cpus", "mem", "disk"];

/// What one task needs, or a pool has, of each name.
type Amounts = [u64; 3];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % bound
    }
}

fn resources(amounts: &Amounts) -> Resources {
    let named = NAMES.iter().zip(amounts).filter(|(_, amount)| **amount > 0);
    let all = named.map(|(name, amount)| {
        tepui_model::Resource::scalar(name, Scalar::from_units(i64::try_from(*amount).unwrap()))
    });
    all.collect()
}

/// A user: the role, its weight and what a task needs. The framework's id is its number.
#[derive(Clone, Debug)]
struct User {
    role: String,
    weight: u64,
    task: Amounts,
}

fn user(task: Amounts) -> User {
    User {
        role: String::new(),
        weight: 1,
        task,
    }
}

/// One agent, divided task by task.
struct Pool {
    total: Amounts,
    users: Vec<User>,
    tasks: Vec<u64>,
    allocator: Allocator,
    /// Who is offered the rest now.
    now: u64,
}

impl Pool {
    fn new(total: Amounts, users: &[User]) -> Pool {
        let options = Options {
            min_allocatable: Vec::new(),
            ..Options::default()
        };
        let mut allocator = Allocator::new(options, 1);
        let spec = AgentSpec {
            hostname: "h".into(),
            attributes: Attributes::default(),
            domain: None,
            capabilities: AgentCapabilities::all(),
            total: resources(&total),
        };
        allocator.add_agent(&"S".into(), spec, true);
        let mut users = users.to_vec();
        for (at, user) in users.iter_mut().enumerate() {
            if user.role.is_empty() {
                user.role = format!("r{at}");
            }
            let role = Role::from(user.role.as_str());
            allocator.set_weight(role.clone(), user.weight * 1_000_000);
            let spec = FrameworkSpec {
                roles: [role].into(),
                active: true,
                ..FrameworkSpec::default()
            };
            allocator.add_framework(&id(at), spec);
        }
        Pool {
            total,
            tasks: vec![0; users.len()],
            users,
            allocator,
            now: 0,
        }
    }

    /// The next task: whose it is; none when nobody has room for one.
    fn step(&mut self) -> Option<usize> {
        loop {
            self.now += 1;
            let cycle = self.allocator.allocate(Instant(self.now), u32::MAX);
            let offer = cycle.allotments.into_iter().next()?;
            let at: usize = offer.framework.as_str().parse().unwrap();
            let task = resources(&self.users[at].task).allocate(&offer.role);
            let agent = AgentId::from("S");
            let offered = offer.allocated();
            if !offered.contains(&task) {
                // It would refuse whatever is left from now on.
                let forever = Some(Duration::from_secs(1_000_000));
                self.allocator.recover(
                    Instant(self.now),
                    &offer.framework,
                    &agent,
                    &offered,
                    forever,
                );
                continue;
            }
            let rest = offered.difference(&task);
            self.allocator
                .recover(Instant(self.now), &offer.framework, &agent, &rest, None);
            self.tasks[at] += 1;
            return Some(at);
        }
    }

    /// A task of the user ends.
    fn finish(&mut self, user: usize) {
        let role = Role::from(self.users[user].role.as_str());
        let task = resources(&self.users[user].task).allocate(&role);
        let now = Instant(self.now);
        self.allocator
            .recover(now, &id(user), &AgentId::from("S"), &task, None);
        self.tasks[user] -= 1;
    }

    fn fill(mut self) -> Pool {
        while self.step().is_some() {}
        self
    }

    /// The dominant share of so many tasks of a user, by weight.
    fn share(&self, user: usize, tasks: u64) -> f64 {
        let user = &self.users[user];
        let share = |at: usize| (user.task[at] * tasks) as f64 / self.total[at] as f64;
        (0..3).map(share).fold(0.0, f64::max) / user.weight as f64
    }

    fn used(&self) -> Amounts {
        let mut used = [0; 3];
        for (user, tasks) in self.users.iter().zip(&self.tasks) {
            for (used, each) in used.iter_mut().zip(&user.task) {
                *used += each * tasks;
            }
        }
        used
    }
}

fn id(at: usize) -> FrameworkId {
    FrameworkId::from(at.to_string())
}

fn fits(task: &Amounts, into: &Amounts) -> u64 {
    let times = (0..3)
        .filter(|at| task[*at] > 0)
        .map(|at| into[at] / task[at]);
    times.min().unwrap_or(0)
}

/// Users with tasks of 1 to 9 units of each name, in a pool of some hundreds.
fn random_world(seed: u64, weighted: bool) -> (Amounts, Vec<User>) {
    let mut random = Random(seed);
    let total = [0; 3].map(|_| 100 + random.below(400));
    let count = 2 + random.below(4);
    let users = (0..count).map(|_| {
        let mut it = user([0; 3].map(|_| random.below(10)));
        it.task[random.below(3) as usize] += 1;
        if weighted {
            it.weight = 1 + random.below(4);
        }
        it
    });
    (total, users.collect())
}

const WORLDS: u64 = 150;

/// DRF, section 4.1, figure 3: 9 CPUs and 18 GB; a task of A needs 1 CPU and 4 GB, one of B 3 CPUs
/// and 1 GB. A launches three tasks and B two; both have two thirds of their dominant resource.
///
/// With several agents the numbers are the same as long as a task fits on each of them.
#[test]
fn the_example_of_the_paper() {
    let pool = Pool::new([9, 18, 0], &[user([1, 4, 0]), user([3, 1, 0])]).fill();
    assert_eq!(pool.tasks, [3, 2]);
}

/// DRF, section 3, sharing incentive: everybody does at least as well as with an n-th of the pool
/// for itself. Tasks are not divisible, which may cost one task.
///
/// Whole-agent offers keep this in the long run only: somebody may hold all agents as offers for
/// as long as it takes to answer; see `docs/decisions` on offers that lie.
#[test]
fn sharing_incentive() {
    for seed in 0..WORLDS {
        let (total, users) = random_world(seed, false);
        let pool = Pool::new(total, &users).fill();
        let slice = total.map(|it| it / users.len() as u64);
        for (at, user) in users.iter().enumerate() {
            let alone = fits(&user.task, &slice);
            assert!(
                pool.tasks[at] + 1 >= alone,
                "seed {seed}: {at} has {} and alone {alone}",
                pool.tasks[at]
            );
        }
    }
}

/// DRF, section 3, strategy-proofness: nobody runs more tasks by saying that a task needs more
/// than it does. Tasks are not divisible: a lie may by luck be worth one task, never more.
///
/// With many agents a framework does not say what it needs; it can lie by accepting more than it
/// needs, which is this lie, or by declining, which gives the offer to others.
#[test]
fn strategy_proofness() {
    for seed in 0..WORLDS {
        let (total, users) = random_world(seed, false);
        let honest = Pool::new(total, &users).fill();
        let mut random = Random(seed ^ 0xabcd);
        let mut liars = users.clone();
        for at in 0..3 {
            liars[0].task[at] += random.below(4);
        }
        let lying = Pool::new(total, &liars).fill();
        // What it was given for the lie, used for what it really needs.
        let useful = fits(&users[0].task, &liars[0].task.map(|it| it * lying.tasks[0]));
        assert!(
            useful <= honest.tasks[0] + 1,
            "seed {seed}: {users:?} lies with {:?} and runs {useful} instead of {}",
            liars[0].task,
            honest.tasks[0]
        );
    }
}

/// DRF, section 3, envy-freeness: nobody would run more tasks with what another has. Tasks are
/// not divisible: the last task of the other, which it was given when it had no more than oneself,
/// is left out of the comparison.
///
/// With many agents what another has may lie together where one's own is scattered: a framework
/// with larger tasks than others may envy them the agents that they hold whole.
#[test]
fn envy_freeness() {
    for seed in 0..WORLDS {
        let (total, users) = random_world(seed, false);
        let pool = Pool::new(total, &users).fill();
        for (one, user) in users.iter().enumerate() {
            for (other, tasks) in pool.tasks.iter().enumerate() {
                let holds = pool.users[other]
                    .task
                    .map(|it| it * tasks.saturating_sub(1));
                let with_that = fits(&user.task, &holds);
                assert!(
                    with_that <= pool.tasks[one] + 1,
                    "seed {seed}: {one} has {} tasks, and with what {other} has {with_that}",
                    pool.tasks[one]
                );
            }
        }
    }
}

/// DRF, section 3, Pareto efficiency: when nobody launches any more, there is no room for another
/// task of anybody.
///
/// With many agents this holds agent by agent, once everybody has seen each of them: what was
/// refused is offered to the others, and again when there is more.
#[test]
fn pareto_efficiency() {
    for seed in 0..WORLDS {
        let (total, users) = random_world(seed, seed % 2 == 0);
        let pool = Pool::new(total, &users).fill();
        let used = pool.used();
        let rest: Vec<u64> = (0..3).map(|at| total[at] - used[at]).collect();
        let rest = [rest[0], rest[1], rest[2]];
        for user in &users {
            assert_eq!(
                fits(&user.task, &rest),
                0,
                "seed {seed}: {rest:?} is left for {user:?}"
            );
        }
    }
}

/// DRF, section 3, bottleneck fairness: when all have the same dominant resource, it is divided by
/// max-min fairness: nobody has more of it than another but for one task, and what is left when
/// the largest task does not fit any more.
///
/// With many agents of which everybody uses everything, "one task" becomes "one agent".
#[test]
fn bottleneck_fairness() {
    for seed in 0..WORLDS {
        let mut random = Random(seed);
        let total = [200 + random.below(200), 4000, 4000];
        let users: Vec<User> = (0..2 + random.below(4))
            .map(|_| user([1 + random.below(6), random.below(6), random.below(6)]))
            .collect();
        let pool = Pool::new(total, &users).fill();
        let largest = users.iter().map(|it| it.task[0]).max().unwrap();
        let cpus: Vec<u64> = users
            .iter()
            .zip(&pool.tasks)
            .map(|(it, n)| it.task[0] * n)
            .collect();
        let (low, high) = (cpus.iter().min().unwrap(), cpus.iter().max().unwrap());
        assert!(
            high - low <= largest,
            "seed {seed}: {cpus:?} of tasks {users:?}"
        );
    }
}

/// DRF, section 4, algorithm 1, with the weights of section 4.3: as long as everybody has room for
/// a task, two weighted dominant shares never differ by more than one task.
///
/// With many agents "one task" becomes "what one offer holds": the first in order is offered the
/// whole of the next agent.
#[test]
fn weighted_shares_differ_by_at_most_one_task() {
    for seed in 0..WORLDS {
        let (total, users) = random_world(seed, true);
        let mut pool = Pool::new(total, &users);
        let everybody_fits = |pool: &Pool| {
            let used = pool.used();
            let rest = [0, 1, 2].map(|at| total[at] - used[at]);
            users.iter().all(|it| fits(&it.task, &rest) > 0)
        };
        while everybody_fits(&pool) && pool.step().is_some() {
            for one in 0..users.len() {
                for other in 0..users.len() {
                    let before = pool.share(one, pool.tasks[one].saturating_sub(1));
                    let theirs = pool.share(other, pool.tasks[other]);
                    // Its last task was given when nobody had less.
                    assert!(
                        before <= theirs + 1e-9,
                        "seed {seed}: {one} is more than a task ahead of {other}: {:?}",
                        pool.tasks
                    );
                }
            }
        }
    }
}

/// Who has the larger weight has as many times more, at the same demands.
#[test]
fn weights_divide_in_proportion() {
    let mut users = vec![user([1, 1, 0]); 3];
    users[1].weight = 2;
    users[2].weight = 3;
    let pool = Pool::new([60, 600, 0], &users).fill();
    assert_eq!(pool.tasks, [10, 20, 30]);
}

/// H-DRF, section 3.2, figure 3: the role `n2` has two users, one that needs the CPU and one that
/// needs what nobody else does (here disk). A role's share is that of the resource of which its
/// subtree holds most, as in Mesos. So the disk that `n2/2` has, which nobody else wants, counts
/// against `n2/1`: whenever one of its tasks ends, the CPU goes to `n1`. That is the paper's
/// starvation, and the reason for its rescaling, which neither Mesos nor this allocator does: the
/// order of roles is Mesos'.
///
/// What an operator has against it is tested here too: a guarantee for `n2/1`.
#[test]
fn the_starvation_of_hierarchies_and_the_way_out() {
    let user = |role: &str, task| User {
        role: role.to_owned(),
        weight: 1,
        task,
    };
    let users = [
        user("n1", [1, 0, 0]),
        user("n2/1", [1, 0, 0]),
        user("n2/2", [0, 0, 1]),
    ];
    let mut pool = Pool::new([10, 0, 10], &users).fill();
    assert_eq!(pool.tasks, [5, 5, 10]);
    while pool.tasks[1] > 0 {
        pool.finish(1);
        pool = pool.fill();
        assert_eq!(pool.tasks[0] + pool.tasks[1], 10, "the CPUs are used");
    }
    assert_eq!(pool.tasks, [10, 0, 10]);

    let mut pool = Pool::new([10, 0, 10], &users);
    let mut quota = tepui_allocator::Quota::default();
    quota.guarantees.insert("cpus", Scalar::from_units(5));
    pool.allocator.set_quota(Role::from("n2/1"), Some(quota));
    let mut pool = pool.fill();
    for _ in 0..10 {
        pool.finish(1);
        pool = pool.fill();
    }
    assert_eq!(pool.tasks, [5, 5, 10]);
}
