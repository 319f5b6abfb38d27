//! From a [`ContainerSpec`] to the body of the engine's create call: the table of behaviour
//! section 18, row by row. Pure; whatever is invalid is refused with the field's name.

use super::parameters;
use crate::{
    cgroups,
    config::DockerConfig,
    process::protocol_variables,
    spec::{ContainerSpec, Limit},
};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig, PortBinding,
};
use std::collections::HashMap;
use tepui_model::wire::{self, container_info::docker_info::Network};

/// Label that holds [`Config::owner`](crate::Config::owner).
pub const OWNER_LABEL: &str = "tepui.owner";
/// Label that holds the container id.
pub const CONTAINER_LABEL: &str = "tepui.container";
/// Label that holds the task id.
pub const TASK_LABEL: &str = "tepui.task";
/// Label that holds the framework id.
pub const FRAMEWORK_LABEL: &str = "tepui.framework";

/// What the mapping must know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// All memory in bytes, for the score that the out-of-memory killer goes by.
    pub memory: u64,
}

/// The engine's own log is only a buffer between the container and the sandbox, so it is
/// bounded: a task that writes without end fills neither.
const ENGINE_LOG_SIZE: &str = "10m";
/// Files of that size which the engine keeps.
const ENGINE_LOG_FILES: &str = "3";

/// Builds the create call's body.
///
/// # Errors
/// A text that names the field and what would be right.
pub fn create_body(
    spec: &ContainerSpec,
    config: &DockerConfig,
    owner: &str,
    machine: Machine,
) -> Result<ContainerCreateBody, String> {
    let container = spec
        .container
        .as_ref()
        .ok_or("container is missing: a Docker task needs container.docker.image")?;
    let docker = container
        .docker
        .as_ref()
        .ok_or("container.docker is missing: a container of type DOCKER needs it")?;
    if docker.image.is_empty() {
        return Err("container.docker.image must not be empty".into());
    }
    let mut body = ContainerCreateBody {
        image: Some(docker.image.clone()),
        user: spec.command.user.clone(),
        env: Some(environment(spec, config)?),
        labels: Some(labels(spec, owner)),
        host_config: Some(HostConfig {
            privileged: Some(docker.privileged.unwrap_or(false)),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(HashMap::from([
                    ("max-size".into(), ENGINE_LOG_SIZE.into()),
                    ("max-file".into(), ENGINE_LOG_FILES.into()),
                ])),
            }),
            mounts: Some(vec![Mount {
                target: Some(config.sandbox_directory.clone()),
                source: Some(spec.sandbox.to_string_lossy().into_owned()),
                typ: Some(MountType::BIND),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    command(&mut body, &spec.command);
    let host = body.host_config.get_or_insert_default();
    resources(host, spec, config, machine);
    volumes(host, spec, container, docker, config)?;
    network(&mut body, spec, container, docker, config)?;
    for parameter in &docker.parameters {
        parameters::apply(&mut body, &parameter.key, &parameter.value)?;
    }
    dns(&mut body, config);
    Ok(body)
}

fn environment(spec: &ContainerSpec, config: &DockerConfig) -> Result<Vec<String>, String> {
    let mut all: Vec<(String, String)> = spec.environment.clone();
    let its = protocol_variables(&spec.command).map_err(|it| it.message)?;
    let ours = [
        ("MESOS_SANDBOX".to_owned(), config.sandbox_directory.clone()),
        ("MESOS_CONTAINER_NAME".to_owned(), spec.docker_name()),
    ];
    for (name, value) in ours.into_iter().chain(its) {
        match all.iter_mut().find(|(it, _)| *it == name) {
            Some(found) => found.1 = value,
            None => all.push((name, value)),
        }
    }
    Ok(all
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

fn labels(spec: &ContainerSpec, owner: &str) -> HashMap<String, String> {
    let ours = [
        (OWNER_LABEL, owner),
        (CONTAINER_LABEL, &spec.container_id),
        (TASK_LABEL, &spec.task_id),
        (FRAMEWORK_LABEL, &spec.framework_id),
    ];
    // Ours last: recovery depends on them.
    spec.labels
        .iter()
        .cloned()
        .chain(ours.map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect()
}

fn command(body: &mut ContainerCreateBody, command: &wire::CommandInfo) {
    if command.shell.unwrap_or(true) {
        if let Some(value) = &command.value {
            body.entrypoint = Some(vec!["/bin/sh".into()]);
            body.cmd = Some(vec!["-c".into(), value.clone()]);
        }
        return;
    }
    let words: Vec<String> = command
        .value
        .iter()
        .chain(&command.arguments)
        .cloned()
        .collect();
    // Without any the image's own command runs.
    body.cmd = (!words.is_empty()).then_some(words);
}

fn resources(host: &mut HostConfig, spec: &ContainerSpec, config: &DockerConfig, machine: Machine) {
    let amounts = &spec.amounts;
    host.cpu_shares = Some(cgroups::shares(amounts.cpus, amounts.comes_last) as i64);
    let quota = match amounts.cpus_limit {
        Some(Limit::At(cpus)) => Some(cpus),
        Some(Limit::Infinite) => None,
        None => Some(amounts.cpus).filter(|it| config.enable_cfs && *it > 0.0),
    };
    if let Some(cpus) = quota {
        host.cpu_period = Some(cgroups::PERIOD_US as i64);
        host.cpu_quota = Some(cgroups::quota_us(cpus) as i64);
    }
    let request = (amounts.mem > 0.0).then(|| cgroups::memory_bytes(amounts.mem));
    match amounts.mem_limit {
        None => host.memory = request.map(|it| it as i64),
        Some(limit) => {
            if let Limit::At(mem) = limit {
                host.memory = Some(cgroups::memory_bytes(mem) as i64);
            }
            host.memory_reservation = request.map(|it| it as i64);
            if host.memory != host.memory_reservation {
                host.oom_score_adj = Some(burstable_score(request.unwrap_or(0), machine.memory));
            }
        }
    }
    if amounts.gpus > 0.0 {
        host.device_requests = Some(vec![bollard::models::DeviceRequest {
            count: Some(amounts.gpus as i64),
            capabilities: Some(vec![vec!["gpu".into()]]),
            ..Default::default()
        }]);
    }
}

/// The more of the machine a task has asked for, the later it is killed; never as late as the
/// agent and never before tasks that asked for nothing.
fn burstable_score(request: u64, total: u64) -> i64 {
    let share = (u128::from(request) * 1000)
        .checked_div(u128::from(total))
        .unwrap_or(0);
    (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
}

// Deprecated in the messages, still what frameworks send.
#[allow(deprecated)]
fn volumes(
    host: &mut HostConfig,
    spec: &ContainerSpec,
    container: &wire::ContainerInfo,
    docker: &wire::container_info::DockerInfo,
    config: &DockerConfig,
) -> Result<(), String> {
    use wire::volume::{Mode, source::Type};
    let mut binds = Vec::new();
    let mut driver = docker.volume_driver.clone();
    for volume in &container.volumes {
        let at = &volume.container_path;
        let mode = if volume.mode() == Mode::Ro {
            "ro"
        } else {
            "rw"
        };
        let absolute = at.starts_with('/');
        let target = if absolute {
            at.clone()
        } else {
            format!("{}/{at}", config.sandbox_directory)
        };
        let from_source = volume.source.as_ref();
        let source = match (&volume.host_path, from_source.map(|it| it.r#type())) {
            (Some(path), _) if path.starts_with('/') => path.clone(),
            // With a driver a relative path is the name of a volume.
            (Some(path), _) if docker.volume_driver.is_some() => path.clone(),
            (Some(path), _) if absolute => {
                format!("{}/{path}", spec.sandbox.to_string_lossy())
            }
            (Some(path), _) => {
                return Err(format!(
                    "volume {path} at {at}: host_path and container_path must not both be \
                     relative"
                ));
            }
            (None, Some(Type::HostPath)) => {
                match from_source.and_then(|it| it.host_path.as_ref()) {
                    Some(path) => path.path.clone(),
                    None => return Err(format!("volume at {at}: source.host_path is missing")),
                }
            }
            (None, Some(Type::DockerVolume)) => {
                let Some(it) = from_source.and_then(|it| it.docker_volume.as_ref()) else {
                    return Err(format!("volume at {at}: source.docker_volume is missing"));
                };
                match (&driver, &it.driver) {
                    (Some(one), Some(other)) if one != other => {
                        return Err(format!(
                            "volume at {at}: driver {other} and {one} in one task; only one \
                             volume driver is allowed"
                        ));
                    }
                    (_, Some(name)) => driver = Some(name.clone()),
                    _ => {}
                }
                it.name.clone()
            }
            (None, Some(_)) => continue,
            (None, None) => {
                return Err(format!("volume at {at}: host_path or source must be given"));
            }
        };
        binds.push(format!("{source}:{target}:{mode}"));
    }
    for (path, at, read_only) in &spec.volumes {
        let target = if at.starts_with('/') {
            at.clone()
        } else {
            format!("{}/{at}", config.sandbox_directory)
        };
        let mode = if *read_only { "ro" } else { "rw" };
        binds.push(format!("{}:{target}:{mode}", path.to_string_lossy()));
    }
    host.binds = Some(binds);
    host.volume_driver = driver;
    Ok(())
}

fn network(
    body: &mut ContainerCreateBody,
    spec: &ContainerSpec,
    container: &wire::ContainerInfo,
    docker: &wire::container_info::DockerInfo,
    _config: &DockerConfig,
) -> Result<(), String> {
    let network = docker.network.map_or(Network::Host, |it| {
        Network::try_from(it).unwrap_or(Network::Host)
    });
    let mode = match network {
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::User => match container.network_infos.as_slice() {
            [one] => one
                .name
                .clone()
                .filter(|it| !it.is_empty())
                .ok_or("container.network_infos[0].name is missing: a USER network needs it")?,
            other => {
                return Err(format!(
                    "container.network_infos must hold exactly one network for a USER network, \
                     not {}",
                    other.len()
                ));
            }
        },
    };
    if let Some(hostname) = &container.hostname {
        if network == Network::Host {
            return Err("container.hostname must not be set with the HOST network".into());
        }
        body.hostname = Some(hostname.clone());
    }
    if network == Network::User {
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(mode.clone(), EndpointSettings::default())])),
        });
    }
    if !docker.port_mappings.is_empty() && !matches!(network, Network::Bridge | Network::User) {
        return Err("container.docker.port_mappings need the BRIDGE or a USER network".to_owned());
    }
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    let mut exposed = Vec::new();
    for mapping in &docker.port_mappings {
        let owned = u16::try_from(mapping.host_port).is_ok_and(|port| {
            spec.amounts
                .ports
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&port))
        });
        if !owned {
            return Err(format!(
                "container.docker.port_mappings: host_port {} is not in the task's resources",
                mapping.host_port
            ));
        }
        let protocol = mapping.protocol.as_deref().unwrap_or("tcp").to_lowercase();
        let port = format!("{}/{protocol}", mapping.container_port);
        bindings
            .entry(port.clone())
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: None,
                host_port: Some(mapping.host_port.to_string()),
            });
        exposed.push(port);
    }
    exposed.dedup();
    body.exposed_ports = (!exposed.is_empty()).then_some(exposed);
    let host = body.host_config.get_or_insert_default();
    host.network_mode = Some(mode);
    host.port_bindings = (!bindings.is_empty()).then_some(bindings);
    Ok(())
}

/// `--default_container_dns`, unless parameters have set a server; only where the engine runs
/// a resolver of its own: bridge and user networks.
fn dns(body: &mut ContainerCreateBody, config: &DockerConfig) {
    let host = body.host_config.get_or_insert_default();
    let mode = host.network_mode.clone().unwrap_or_default();
    if host.dns.is_some() || matches!(mode.as_str(), "host" | "none") || mode.contains(':') {
        return;
    }
    let wanted = (mode != "bridge").then_some(mode);
    if let Some(dns) = config.dns.iter().find(|it| it.network == wanted) {
        host.dns = Some(dns.nameservers.clone());
        host.dns_search = Some(dns.search.clone());
        host.dns_options = Some(dns.options.clone());
    }
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
