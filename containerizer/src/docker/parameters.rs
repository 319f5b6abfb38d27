//! `DockerInfo.parameters`: options of `docker run` by name, for the engine's API.
//!
//! The command line knows these names, the API does not, so each has its place here. An option
//! that is not listed is refused by name rather than dropped.

use super::mapping::OWNER_LABEL;
use bollard::models::{ContainerCreateBody, DeviceMapping, PortBinding, ResourcesUlimits};

/// Applies one option.
///
/// # Errors
/// Names the parameter and what would be right.
pub fn apply(body: &mut ContainerCreateBody, key: &str, value: &str) -> Result<(), String> {
    let bad = |right: &str| format!("docker parameter {key}={value:?}: must be {right}");
    let number = || value.parse::<i64>().map_err(|_| bad("a whole number"));
    let flag = || match value {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad("true or false")),
    };
    let size = || parse_size(value).ok_or_else(|| bad("a size such as 64m"));
    let pair = || value.split_once('=').ok_or_else(|| bad("name=value"));
    let text = || Some(value.to_owned());
    let host = body.host_config.get_or_insert_default();
    match key {
        "net" | "network" => {
            host.network_mode = text();
            body.networking_config = None;
        }
        "hostname" | "h" => body.hostname = text(),
        "domainname" => body.domainname = text(),
        "user" | "u" => body.user = text(),
        "workdir" | "w" => body.working_dir = text(),
        "entrypoint" => body.entrypoint = Some(vec![value.to_owned()]),
        "stop-signal" => body.stop_signal = text(),
        "interactive" | "i" => body.open_stdin = Some(flag()?),
        "env" | "e" => {
            pair()?;
            body.env.get_or_insert_default().push(value.to_owned());
        }
        "label" | "l" => {
            let (name, content) = value.split_once('=').unwrap_or((value, ""));
            let prefix = OWNER_LABEL.split_once('.').map_or("", |it| it.0);
            if name
                .strip_prefix(prefix)
                .is_some_and(|it| it.starts_with('.'))
            {
                return Err(bad("a label that does not begin with tepui."));
            }
            let labels = body.labels.get_or_insert_default();
            labels.insert(name.to_owned(), content.to_owned());
        }
        "expose" => body.exposed_ports.get_or_insert_default().push(port(value)),
        "publish" | "p" => {
            let (address, inside) = value
                .rsplit_once(':')
                .ok_or_else(|| bad("[address:]host port:container port"))?;
            let (ip, outside) = match address.rsplit_once(':') {
                Some((ip, port)) => (Some(ip.to_owned()), port),
                None => (None, address),
            };
            host.port_bindings
                .get_or_insert_default()
                .entry(port(inside))
                .or_default()
                .get_or_insert_default()
                .push(PortBinding {
                    host_ip: ip,
                    host_port: Some(outside.to_owned()),
                });
            body.exposed_ports
                .get_or_insert_default()
                .push(port(inside));
        }
        "volume" | "v" => push(&mut host.binds, value),
        "volumes-from" => push(&mut host.volumes_from, value),
        "volume-driver" => host.volume_driver = text(),
        "tmpfs" => {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            let all = host.tmpfs.get_or_insert_default();
            all.insert(path.to_owned(), options.to_owned());
        }
        "dns" => push(&mut host.dns, value),
        "dns-search" => push(&mut host.dns_search, value),
        "dns-option" | "dns-opt" => push(&mut host.dns_options, value),
        "add-host" => push(&mut host.extra_hosts, value),
        "link" => push(&mut host.links, value),
        "cap-add" => push(&mut host.cap_add, value),
        "cap-drop" => push(&mut host.cap_drop, value),
        "security-opt" => push(&mut host.security_opt, value),
        "group-add" => push(&mut host.group_add, value),
        "device" => {
            let mut parts = value.splitn(3, ':');
            let outside = parts.next().unwrap_or_default();
            host.devices.get_or_insert_default().push(DeviceMapping {
                path_on_host: Some(outside.to_owned()),
                path_in_container: Some(parts.next().unwrap_or(outside).to_owned()),
                cgroup_permissions: Some(parts.next().unwrap_or("rwm").to_owned()),
            });
        }
        "privileged" => host.privileged = Some(flag()?),
        "read-only" => host.readonly_rootfs = Some(flag()?),
        "init" => host.init = Some(flag()?),
        "ipc" => host.ipc_mode = text(),
        "pid" => host.pid_mode = text(),
        "uts" => host.uts_mode = text(),
        "userns" => host.userns_mode = text(),
        "cgroup-parent" => host.cgroup_parent = text(),
        "runtime" => host.runtime = text(),
        "cpu-shares" | "c" => host.cpu_shares = Some(number()?),
        "cpu-quota" => host.cpu_quota = Some(number()?),
        "cpu-period" => host.cpu_period = Some(number()?),
        "cpus" => {
            let cpus: f64 = value.parse().map_err(|_| bad("a number"))?;
            // The engine takes quota or this, not both.
            host.cpu_quota = None;
            host.cpu_period = None;
            host.nano_cpus = Some((cpus * 1e9) as i64);
        }
        "cpuset-cpus" => host.cpuset_cpus = text(),
        "cpuset-mems" => host.cpuset_mems = text(),
        "memory" | "m" => host.memory = Some(size()?),
        "memory-swap" if value == "-1" => host.memory_swap = Some(-1),
        "memory-swap" => host.memory_swap = Some(size()?),
        "memory-reservation" => host.memory_reservation = Some(size()?),
        "memory-swappiness" => host.memory_swappiness = Some(number()?),
        "oom-kill-disable" => host.oom_kill_disable = Some(flag()?),
        "oom-score-adj" => host.oom_score_adj = Some(number()?),
        "pids-limit" => host.pids_limit = Some(number()?),
        "blkio-weight" => {
            host.blkio_weight = Some(value.parse().map_err(|_| bad("10 to 1000"))?);
        }
        "shm-size" => host.shm_size = Some(size()?),
        "sysctl" => {
            let (name, content) = pair()?;
            let all = host.sysctls.get_or_insert_default();
            all.insert(name.to_owned(), content.to_owned());
        }
        "storage-opt" => {
            let (name, content) = pair()?;
            let all = host.storage_opt.get_or_insert_default();
            all.insert(name.to_owned(), content.to_owned());
        }
        "ulimit" => {
            let (name, limits) = pair()?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let parse = |it: &str| it.parse().map_err(|_| bad("name=soft[:hard]"));
            host.ulimits.get_or_insert_default().push(ResourcesUlimits {
                name: Some(name.to_owned()),
                soft: Some(parse(soft)?),
                hard: Some(parse(hard)?),
            });
        }
        "name" | "rm" | "d" | "detach" | "restart" | "cidfile" | "log-driver" | "log-opt"
        | "detach-keys" | "sig-proxy" | "tty" | "t" => {
            return Err(format!(
                "docker parameter {key} is not allowed: the agent itself decides it"
            ));
        }
        _ => return Err(format!("docker parameter {key} is not supported")),
    }
    Ok(())
}

fn push(list: &mut Option<Vec<String>>, value: &str) {
    list.get_or_insert_default().push(value.to_owned());
}

fn port(text: &str) -> String {
    if text.contains('/') {
        text.to_owned()
    } else {
        format!("{text}/tcp")
    }
}

/// `64m`, `1g`, `1024`, `512kb`: powers of 1024 as the command line has them.
fn parse_size(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match trimmed.chars().last()? {
        'k' => (&trimmed[..trimmed.len() - 1], 10),
        'm' => (&trimmed[..trimmed.len() - 1], 20),
        'g' => (&trimmed[..trimmed.len() - 1], 30),
        't' => (&trimmed[..trimmed.len() - 1], 40),
        _ => (trimmed, 0),
    };
    digits
        .parse::<i64>()
        .ok()
        .filter(|it| *it >= 0)?
        .checked_mul(1 << shift)
}
