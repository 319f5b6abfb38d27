//! How long a new leader needs for its machine: `birth AGENTS TASKS_PER_AGENT`.
//!
//! Prints the processor time of a copy of the state, of the birth over it, and of the first allocation
//! once some agents are back.

use prost::Message;
use tepui_master_machine::{
    Config, Machine,
    model::{
        log::{self, operation::Kind},
        time::{Instant, WallTime},
        wire,
    },
};
use tepui_model::Resources;
use tepui_state::ClusterState;

/// Time on a processor: other work on the machine does not count.
#[derive(Clone, Copy)]
struct Clock(u64);

impl Clock {
    fn now() -> Clock {
        let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
        let first = text.split(' ').next().and_then(|it| it.parse().ok());
        Clock(first.expect("nanoseconds"))
    }

    fn elapsed(self) -> f64 {
        (Clock::now().0 - self.0) as f64
    }
}

fn apply(state: &mut ClusterState, kind: Kind) {
    let operation = log::Operation { kind: Some(kind) };
    state
        .apply(&operation)
        .expect("an operation of this release");
}

fn put_agent(state: &mut ClusterState, index: usize) -> String {
    let total = Resources::parse("cpus:24;mem:65536;disk:65536;ports:[31000-32000]", "*");
    let total = total.expect("resources").to_wire();
    let info = wire::AgentInfo {
        hostname: format!("host-{index}.example.org"),
        port: Some(5051),
        resources: total.clone(),
        ..Default::default()
    };
    let agent_id = format!("8d2f4a0e-5c1b-4f0a-9d53-0e2b7c9a1f64-S{index}");
    let agent = log::Agent {
        agent_id: agent_id.clone(),
        state: log::AgentState::Admitted as i32,
        info_payload: info.encode_to_vec().into(),
        address: format!(
            "10.{}.{}.{}:5051",
            index >> 16,
            index >> 8 & 255,
            index & 255
        ),
        version: "1.12.0".into(),
        capabilities: ["MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT"]
            .map(str::to_owned)
            .to_vec(),
        boot_id: format!("boot-{index}"),
        total,
        ..Default::default()
    };
    apply(state, Kind::PutAgent(log::PutAgent { agent: Some(agent) }));
    agent_id
}

fn put_task(state: &mut ClusterState, agent_id: &str, framework_id: &str, index: usize) {
    let resources = Resources::parse("cpus:0.1;mem:32", "*").expect("resources");
    let resources = resources.allocate(&"*".into()).to_wire();
    let task = log::Task {
        framework_id: framework_id.to_owned(),
        task_id: format!("task-{index}"),
        agent_id: agent_id.to_owned(),
        container_id: format!("0e2b7c9a-5c1b-4f0a-9d53-{index:012}"),
        task_info_payload: vec![7; 300].into(),
        resources,
        role: "*".into(),
        state: wire::TaskState::TaskRunning as i32,
        statuses: vec![log::TaskStatus::default()],
        ..Default::default()
    };
    let launch = log::LaunchTask {
        task: Some(task),
        executor: None,
        command: None,
    };
    apply(state, Kind::LaunchTask(launch));
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let agents: usize = arguments.next().unwrap_or(40_000);
    let tasks: usize = arguments.next().unwrap_or(10);
    let mut state = ClusterState::new();
    apply(
        &mut state,
        Kind::FormCluster(log::FormCluster {
            cluster_id: "cluster".into(),
            incarnation: 1,
            wall_time: 0.0,
        }),
    );
    for index in 0..10 {
        let info = wire::FrameworkInfo {
            user: "u".into(),
            name: format!("f{index}"),
            id: Some(wire::FrameworkId {
                value: format!("f{index}"),
            }),
            ..Default::default()
        };
        let framework = log::Framework {
            framework_id: format!("f{index}"),
            info_payload: info.encode_to_vec().into(),
            ..Default::default()
        };
        let framework = Some(framework);
        apply(
            &mut state,
            Kind::PutFramework(log::PutFramework { framework }),
        );
    }
    for agent in 0..agents {
        let agent_id = put_agent(&mut state, agent);
        for task in 0..tasks {
            let framework = format!("f{}", (agent + task) % 10);
            put_task(&mut state, &agent_id, &framework, agent * tasks + task);
        }
    }
    let rows = agents * (tasks + 1);
    let report = |what: &str, began: Clock| {
        let took = began.elapsed();
        let each = took / rows as f64;
        println!("{what:<28} {:>9.1} ms {each:>8.0} ns a row", took / 1e6);
    };
    println!("{rows} rows of agents and tasks");
    let began = Clock::now();
    state.hash();
    report("hash of everything", began);
    let began = Clock::now();
    let copy = state.clone();
    report("copy of the state", began);
    let began = Clock::now();
    let (machine, output) = Machine::birth(
        copy,
        2,
        Instant(0),
        WallTime(0.0),
        7,
        "m2",
        Config {
            cluster_id: "cluster".into(),
            ..Config::default()
        },
    );
    report("birth of the machine", began);
    assert!(!output.log.is_empty());
    let began = Clock::now();
    drop(machine);
    report("its end", began);
}
