//! The table of behaviour section 18, row by row.

use super::*;
use crate::{
    config::DockerDns,
    spec::{Amounts, Kind},
};
use std::time::Duration;
use wire::container_info::{DockerInfo, docker_info};

const GIB: u64 = 1 << 30;

fn spec() -> ContainerSpec {
    ContainerSpec {
        container_id: "c-1".into(),
        framework_id: "F".into(),
        executor_id: "t".into(),
        task_id: "t".into(),
        kind: Kind::Docker,
        command: wire::CommandInfo {
            value: Some("echo hi".into()),
            ..Default::default()
        },
        container: Some(wire::ContainerInfo {
            r#type: wire::container_info::Type::Docker as i32,
            docker: Some(DockerInfo {
                image: "bb:1".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        amounts: Amounts {
            cpus: 0.5,
            mem: 64.0,
            ports: vec![(31000, 31005)],
            ..Amounts::default()
        },
        user: Some("nobody".into()),
        environment: vec![("MESOS_ALLOCATION_ROLE".into(), "*".into())],
        sandbox: "/work:dir/sandbox".into(),
        volumes: Vec::new(),
        kill_grace: Duration::from_secs(3),
        max_completion_time: None,
        health_check: None,
        check: None,
        labels: vec![
            ("a".into(), "b".into()),
            (OWNER_LABEL.into(), "thief".into()),
        ],
    }
}

fn with(change: impl FnOnce(&mut ContainerSpec)) -> ContainerSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

fn docker(spec: &mut ContainerSpec) -> &mut DockerInfo {
    spec.container
        .as_mut()
        .and_then(|it| it.docker.as_mut())
        .expect("spec() has one")
}

fn container(spec: &mut ContainerSpec) -> &mut wire::ContainerInfo {
    spec.container.as_mut().expect("spec() has one")
}

fn try_map(spec: &ContainerSpec) -> Result<ContainerCreateBody, String> {
    create_body(
        spec,
        &DockerConfig::default(),
        "owner-1",
        Machine { memory: 16 * GIB },
    )
}

fn map(spec: &ContainerSpec) -> (ContainerCreateBody, HostConfig) {
    let body = try_map(spec).expect("a valid spec");
    let host = body.host_config.clone().expect("always set");
    (body, host)
}

#[track_caller]
fn refused(spec: &ContainerSpec, text: &str) {
    let error = try_map(spec).expect_err("must be refused");
    assert!(error.contains(text), "{error:?} should contain {text:?}");
}

fn volume(container_path: &str, host_path: Option<&str>, mode: wire::volume::Mode) -> wire::Volume {
    wire::Volume {
        mode: mode as i32,
        container_path: container_path.into(),
        host_path: host_path.map(Into::into),
        ..Default::default()
    }
}

#[test]
fn always_sandbox_name_labels_and_bounded_log() {
    let (body, host) = map(&spec());
    let mounts = host.mounts.expect("the sandbox");
    assert_eq!(mounts[0].source.as_deref(), Some("/work:dir/sandbox"));
    assert_eq!(mounts[0].target.as_deref(), Some("/mnt/mesos/sandbox"));
    assert_eq!(spec().docker_name(), "mesos-c-1");
    let labels = body.labels.expect("labels");
    assert_eq!(labels[OWNER_LABEL], "owner-1");
    assert_eq!(labels[CONTAINER_LABEL], "c-1");
    assert_eq!(labels["a"], "b");
    let log = host.log_config.expect("log");
    assert!(log.config.is_some_and(|it| it.contains_key("max-size")));
}

#[test]
fn privileged() {
    assert_eq!(map(&spec()).1.privileged, Some(false));
    let it = with(|it| docker(it).privileged = Some(true));
    assert_eq!(map(&it).1.privileged, Some(true));
}

#[test]
fn cpu_shares_and_quota() {
    for (cpus, limit, shares, quota) in [
        (0.5, None, 512, Some(50_000)),
        (0.001, None, 2, Some(1000)),
        (2.0, None, 2048, Some(200_000)),
        (0.5, Some(Limit::At(1.5)), 512, Some(150_000)),
        (0.5, Some(Limit::Infinite), 512, None),
    ] {
        let it = with(|it| {
            it.amounts.cpus = cpus;
            it.amounts.cpus_limit = limit;
        });
        let (_, host) = map(&it);
        assert_eq!((host.cpu_shares, host.cpu_quota), (Some(shares), quota));
    }
    let last = with(|it| {
        it.amounts.cpus = 2.0;
        it.amounts.comes_last = true;
    });
    assert_eq!(map(&last).1.cpu_shares, Some(20));
}

#[test]
fn memory_limit_reservation_and_score() {
    let mb = |it: i64| Some(it << 20);
    for (mem, limit, hard, soft, score) in [
        (64.0, None, mb(64), None, None),
        (1.0, None, mb(32), None, None),
        (64.0, Some(Limit::At(128.0)), mb(128), mb(64), Some(997)),
        (64.0, Some(Limit::At(64.0)), mb(64), mb(64), None),
        (8192.0, Some(Limit::Infinite), None, mb(8192), Some(500)),
    ] {
        let it = with(|it| {
            it.amounts.mem = mem;
            it.amounts.mem_limit = limit;
        });
        let (_, host) = map(&it);
        assert_eq!(
            (host.memory, host.memory_reservation, host.oom_score_adj),
            (hard, soft, score),
            "{mem} {limit:?}"
        );
    }
}

#[test]
fn environment_of_the_command_wins() {
    let it = with(|it| {
        it.command.environment = Some(wire::Environment {
            variables: vec![wire::environment::Variable {
                name: "MESOS_SANDBOX".into(),
                value: Some("mine".into()),
                ..Default::default()
            }],
        });
    });
    assert_eq!(
        map(&it).0.env.expect("env"),
        [
            "MESOS_ALLOCATION_ROLE=*",
            "MESOS_SANDBOX=mine",
            "MESOS_CONTAINER_NAME=mesos-c-1"
        ]
    );
}

#[allow(deprecated)]
#[test]
fn host_path_volumes() {
    use wire::volume::Mode::{Ro, Rw};
    let it = with(|it| {
        container(it).volumes = vec![
            volume("/data", Some("/srv"), Ro),
            volume("/in", Some("sub"), Rw),
            volume("rel", Some("/srv"), Rw),
        ];
    });
    assert_eq!(
        map(&it).1.binds.expect("binds"),
        [
            "/srv:/data:ro",
            "/work:dir/sandbox/sub:/in:rw",
            "/srv:/mnt/mesos/sandbox/rel:rw"
        ]
    );
    let it = with(|it| container(it).volumes = vec![volume("rel", Some("sub"), Rw)]);
    refused(&it, "must not both be relative");
    let it = with(|it| {
        docker(it).volume_driver = Some("nfs".into());
        container(it).volumes = vec![volume("/data", Some("name"), Rw)];
    });
    let (_, host) = map(&it);
    assert_eq!(host.binds.expect("binds"), ["name:/data:rw"]);
    assert_eq!(host.volume_driver.as_deref(), Some("nfs"));
    let it = with(|it| container(it).volumes = vec![volume("/data", None, Rw)]);
    refused(&it, "host_path or source must be given");
}

#[test]
fn docker_volumes_have_one_driver() {
    let named = |name: &str, driver: &str| wire::Volume {
        source: Some(wire::volume::Source {
            r#type: Some(wire::volume::source::Type::DockerVolume as i32),
            docker_volume: Some(wire::volume::source::DockerVolume {
                name: name.into(),
                driver: Some(driver.into()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..volume("/data", None, wire::volume::Mode::Rw)
    };
    let it = with(|it| container(it).volumes = vec![named("v", "rexray")]);
    let (_, host) = map(&it);
    assert_eq!(host.binds.expect("binds"), ["v:/data:rw"]);
    assert_eq!(host.volume_driver.as_deref(), Some("rexray"));
    let it = with(|it| container(it).volumes = vec![named("v", "a"), named("w", "b")]);
    refused(&it, "only one volume driver");
}

#[test]
fn networks() {
    let mode = |it: &ContainerSpec| map(it).1.network_mode;
    assert_eq!(mode(&spec()).as_deref(), Some("host"));
    for (network, name) in [
        (docker_info::Network::Bridge, "bridge"),
        (docker_info::Network::None, "none"),
    ] {
        let it = with(|it| docker(it).network = Some(network as i32));
        assert_eq!(mode(&it).as_deref(), Some(name));
    }
    let user = |infos: usize| {
        with(|it| {
            docker(it).network = Some(docker_info::Network::User as i32);
            container(it).network_infos = vec![
                wire::NetworkInfo {
                    name: Some("overlay".into()),
                    ..Default::default()
                };
                infos
            ];
        })
    };
    assert_eq!(mode(&user(1)).as_deref(), Some("overlay"));
    refused(&user(0), "exactly one");
    refused(&user(2), "exactly one");
}

#[test]
fn hostname_needs_a_network_of_its_own() {
    let it = with(|it| container(it).hostname = Some("h".into()));
    refused(&it, "HOST network");
    let it = with(|it| {
        container(it).hostname = Some("h".into());
        docker(it).network = Some(docker_info::Network::Bridge as i32);
    });
    assert_eq!(map(&it).0.hostname.as_deref(), Some("h"));
}

#[test]
fn port_mappings() {
    let mapped = |network: docker_info::Network, host_port: u32| {
        with(|it| {
            docker(it).network = Some(network as i32);
            docker(it).port_mappings = vec![docker_info::PortMapping {
                host_port,
                container_port: 80,
                protocol: Some("UDP".into()),
            }];
        })
    };
    let (body, host) = map(&mapped(docker_info::Network::Bridge, 31002));
    let bindings = host.port_bindings.expect("bindings");
    let binding = bindings["80/udp"].as_ref().expect("one");
    assert_eq!(binding[0].host_port.as_deref(), Some("31002"));
    assert_eq!(body.exposed_ports.expect("exposed"), ["80/udp"]);
    for port in [80, 31006, 70_000] {
        refused(
            &mapped(docker_info::Network::Bridge, port),
            "not in the task's resources",
        );
    }
    refused(&mapped(docker_info::Network::Host, 31002), "BRIDGE");
}

#[test]
fn parameters_become_options() {
    let parameter = |key: &str, value: &str| {
        with(|it| {
            docker(it).parameters = vec![wire::Parameter {
                key: key.into(),
                value: value.into(),
            }];
        })
    };
    let host = |key, value| map(&parameter(key, value)).1;
    assert_eq!(host("net", "mynet").network_mode.as_deref(), Some("mynet"));
    assert_eq!(
        host("cap-add", "SYS_ADMIN").cap_add.expect("caps"),
        ["SYS_ADMIN"]
    );
    assert_eq!(host("memory-swap", "1g").memory_swap, Some(1 << 30));
    assert_eq!(host("read-only", "true").readonly_rootfs, Some(true));
    let ulimit = host("ulimit", "nofile=10:20").ulimits.expect("ulimits");
    assert_eq!((ulimit[0].soft, ulimit[0].hard), (Some(10), Some(20)));
    let body = map(&parameter("label", "k=v")).0;
    assert_eq!(body.labels.expect("labels")["k"], "v");
    refused(&parameter("colour", "red"), "parameter colour");
    refused(&parameter("memory-swap", "much"), "memory-swap");
    refused(&parameter("label", "tepui.owner=x"), "tepui.");
    refused(&parameter("name", "x"), "parameter name");
    refused(&parameter("rm", "true"), "parameter rm");
    refused(&parameter("log-driver", "none"), "parameter log-driver");
}

#[test]
fn default_dns_yields_to_parameters_and_needs_a_bridge() {
    let config = DockerConfig {
        dns: vec![DockerDns {
            nameservers: vec!["9.9.9.9".into()],
            ..DockerDns::default()
        }],
        ..DockerConfig::default()
    };
    let dns = |spec: &ContainerSpec| {
        create_body(spec, &config, "o", Machine { memory: GIB })
            .ok()
            .and_then(|it| it.host_config)
            .and_then(|it| it.dns)
    };
    assert_eq!(dns(&spec()), None);
    let bridge =
        |it: &mut ContainerSpec| docker(it).network = Some(docker_info::Network::Bridge as i32);
    assert_eq!(dns(&with(bridge)), Some(vec!["9.9.9.9".into()]));
    let it = with(|it| {
        bridge(it);
        docker(it).parameters = vec![wire::Parameter {
            key: "dns".into(),
            value: "1.1.1.1".into(),
        }];
    });
    assert_eq!(dns(&it), Some(vec!["1.1.1.1".into()]));
}

#[test]
fn commands() {
    let (body, _) = map(&spec());
    assert_eq!(body.entrypoint.expect("shell"), ["/bin/sh"]);
    assert_eq!(body.cmd.expect("shell"), ["-c", "echo hi"]);
    for (value, arguments, cmd) in [
        (Some("a"), vec!["b", "c"], Some(vec!["a", "b", "c"])),
        (None, vec!["b"], Some(vec!["b"])),
        (None, vec![], None),
    ] {
        let it = with(|it| {
            it.command.shell = Some(false);
            it.command.value = value.map(Into::into);
            it.command.arguments = arguments.iter().map(|it| (*it).into()).collect();
        });
        let (body, _) = map(&it);
        assert_eq!(body.entrypoint, None);
        assert_eq!(
            body.cmd,
            cmd.map(|it| it.into_iter().map(Into::into).collect())
        );
    }
}

#[test]
fn the_user_is_the_commands_and_never_the_frameworks() {
    assert_eq!(map(&spec()).0.user, None);
    let it = with(|it| it.command.user = Some("daemon".into()));
    assert_eq!(map(&it).0.user.as_deref(), Some("daemon"));
}

#[test]
fn what_is_missing_is_named() {
    refused(&with(|it| it.container = None), "container is missing");
    refused(
        &with(|it| container(it).docker = None),
        "container.docker is missing",
    );
    refused(
        &with(|it| docker(it).image.clear()),
        "container.docker.image",
    );
}
