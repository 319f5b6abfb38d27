//! What the flags mean, checked once at the start.

use crate::{
    resources,
    shell::{detector::Detector, estimator::Estimator},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};
use tepui_agent_machine::{
    Options,
    input::Intervals,
    model::{Resources, attribute::Attributes, wire},
};
use tepui_containerizer as containerizer;
use tepui_server::{
    accounts,
    auth::{Authority, Realm},
    flags::Flags,
    proto::json,
    system::own_hostname,
    version,
};

/// Names of `mesos.v1.AgentInfo.Capability.Type` that this agent has.
pub(crate) const CAPABILITIES: &[&str] = &[
    "MULTI_ROLE",
    "HIERARCHICAL_ROLE",
    "RESERVATION_REFINEMENT",
    "RESIZE_VOLUME",
    "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING",
    "TASK_RESOURCE_LIMITS",
];

/// Which containerizers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) docker: bool,
    pub(crate) process: bool,
    /// Nobody asked for Docker: it need not be there.
    pub(crate) docker_optional: bool,
}

/// Everything that the agent needs to start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Absolute path of the folder for sandboxes and state.
    pub(crate) work_dir: PathBuf,
    /// Where masters are looked for.
    pub(crate) masters: Detector,
    /// `Authorization` for the masters.
    pub(crate) authorization: Option<String>,
    /// Who is admitted.
    pub(crate) authority: Authority,
    /// Resources as started with.
    pub(crate) resources: Resources,
    /// Attributes as started with.
    pub(crate) attributes: Attributes,
    /// `--resource_estimator`: what may be given away once more; nothing without.
    pub(crate) estimator: Option<Estimator>,
    /// Between two estimates.
    pub(crate) estimate_interval: Duration,
    /// Tasks on revocable cpus come last when the processors are contended.
    pub(crate) revocable_last: bool,
    /// Which containerizers are wanted.
    pub(crate) wanted: Wanted,
    /// Variables of every task.
    pub(crate) environment: Vec<(String, String)>,
    /// Between SIGTERM and SIGKILL.
    pub(crate) kill_grace: Duration,
    /// How long an ended Docker container stays.
    pub(crate) docker_remove_delay: Duration,
    /// How long sandboxes stay.
    pub(crate) gc_delay: Duration,
    /// Part of the disk to keep free, 0 to 1.
    pub(crate) gc_headroom: f64,
    /// Between two looks at the disk.
    pub(crate) disk_watch: Duration,
    /// `--recover=cleanup`: end what an earlier life left, and exit.
    pub(crate) cleanup: bool,
    /// `--reconfiguration_policy=additive`.
    pub(crate) additive: bool,
    /// Run tasks as their users.
    pub(crate) switch_user: bool,
    /// Every flag that has a value.
    pub(crate) flags: Flags,
    domain: Option<wire::DomainInfo>,
    advertise_ip: Option<IpAddr>,
    advertise_port: Option<u16>,
    hostname: Option<String>,
}

/// Who this agent is, once its port is known.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Where others reach it.
    pub(crate) address: SocketAddr,
    /// The name told to masters.
    pub(crate) hostname: String,
}

fn port(flags: &Flags, name: &str) -> Result<Option<u16>> {
    flags
        .number(name)
        .map(|it| u16::try_from(it).with_context(|| format!("--{name}: {it} is no port")))
        .transpose()
}

fn ip(flags: &Flags, name: &str) -> Result<Option<IpAddr>> {
    flags
        .text(name)
        .map(|it| {
            it.parse()
                .with_context(|| format!("--{name}: {it:?} is no IP address"))
        })
        .transpose()
}

fn wanted(text: Option<&str>) -> Result<Wanted> {
    let Some(text) = text else {
        return Ok(Wanted {
            docker: true,
            process: true,
            docker_optional: true,
        });
    };
    let mut wanted = Wanted {
        docker: false,
        process: false,
        docker_optional: false,
    };
    for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match part {
            "docker" => wanted.docker = true,
            "process" | "mesos" => wanted.process = true,
            _ => bail!(
                "--containerizers: {part:?} is neither docker nor process (also called mesos)"
            ),
        }
    }
    ensure!(
        wanted.docker || wanted.process,
        "--containerizers: expected docker, process or both"
    );
    Ok(wanted)
}

fn environment(text: Option<&str>) -> Result<Vec<(String, String)>> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let wrong = "--executor_environment_variables: expected a JSON object of texts";
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).context(wrong)?;
    map.into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(value) => Ok((name, value)),
            _ => bail!("{wrong}, {name:?} is none"),
        })
        .collect()
}

/// The flags that ask for credentials, and where.
const REALMS: &[(&str, Realm)] = &[
    ("authenticate_http_readonly", Realm::ReadOnly),
    ("authenticate_http_readwrite", Realm::ReadWrite),
];

/// The header of `--credential`.
fn authorization(flags: &Flags) -> Result<Option<String>> {
    let Some(path) = flags.text("credential") else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--credential: {path} cannot be read"))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("--credential: {path} is not JSON"))?;
    match (value["principal"].as_str(), value["secret"].as_str()) {
        (Some(principal), Some(secret)) => {
            let pair = base64(format!("{principal}:{secret}").as_bytes());
            Ok(Some(format!("Basic {pair}")))
        }
        _ => bail!("--credential: expected {{\"principal\": ..., \"secret\": ...}} in {path}"),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let part = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

impl Settings {
    /// Reads and checks the flags; makes the work folder.
    ///
    /// # Errors
    /// The first flag that cannot be used, by name.
    pub(crate) fn read(flags: Flags) -> Result<Settings> {
        let work_dir = PathBuf::from(flags.required("work_dir")?);
        std::fs::create_dir_all(&work_dir)
            .with_context(|| format!("--work_dir: {} cannot be made", work_dir.display()))?;
        let work_dir = work_dir
            .canonicalize()
            .with_context(|| format!("--work_dir: {}", work_dir.display()))?;
        let listen_ip = ip(&flags, "ip")?.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let gc_headroom = flags.fraction("gc_disk_headroom").unwrap_or(0.1);
        ensure!(
            (0.0..=1.0).contains(&gc_headroom),
            "--gc_disk_headroom: expected 0.0 to 1.0"
        );
        let additive = match flags.text("reconfiguration_policy") {
            Some("additive") => true,
            None | Some("equal") => false,
            Some(it) => bail!("--reconfiguration_policy: {it:?} is neither equal nor additive"),
        };
        let cleanup = match flags.text("recover") {
            Some("cleanup") => true,
            None | Some("reconnect") => false,
            Some(it) => bail!("--recover: {it:?} is neither reconnect nor cleanup"),
        };
        let domain = flags
            .text("domain")
            .map(|it| json::decode(it.as_bytes()).context("--domain: expected DomainInfo as JSON"))
            .transpose()?;
        let attributes = Attributes::parse(flags.text("attributes").unwrap_or_default())
            .context("--attributes")?;
        let default_role = flags.text("default_role").unwrap_or("*");
        let duration =
            |name: &str, default: u64| flags.duration(name).unwrap_or(Duration::from_secs(default));
        Ok(Settings {
            listen: SocketAddr::new(listen_ip, port(&flags, "port")?.unwrap_or(5051)),
            masters: Detector::parse(
                flags.required("master")?,
                duration("zk_session_timeout", 10),
            )?,
            authorization: authorization(&flags)?,
            authority: accounts::authority(&flags, "http_credentials", REALMS)?,
            resources: resources::total(flags.text("resources"), default_role, &work_dir)?,
            attributes,
            estimator: flags
                .text("resource_estimator")
                .map(Estimator::parse)
                .transpose()?,
            // A zero would look without end.
            estimate_interval: duration("oversubscribed_resources_interval", 15)
                .max(Duration::from_millis(100)),
            revocable_last: flags.bool("revocable_cpu_low_priority"),
            wanted: wanted(flags.text("containerizers"))?,
            environment: environment(flags.text("executor_environment_variables"))?,
            kill_grace: duration("executor_shutdown_grace_period", 5),
            docker_remove_delay: duration("docker_remove_delay", 0),
            gc_delay: duration("gc_delay", 7 * 24 * 3600),
            gc_headroom,
            // A zero would look without end.
            disk_watch: duration("disk_watch_interval", 60).max(Duration::from_millis(100)),
            cleanup,
            additive,
            switch_user: flags.bool("switch_user"),
            domain,
            advertise_ip: ip(&flags, "advertise_ip")?,
            advertise_port: port(&flags, "advertise_port")?,
            hostname: flags.text("hostname").map(str::to_owned),
            work_dir,
            flags,
        })
    }

    /// Who this agent is, now that its port is known.
    pub(crate) fn at(&self, bound: SocketAddr) -> Identity {
        let told = self
            .advertise_ip
            .unwrap_or_else(|| match bound.ip().is_unspecified() {
                true => self.own_ip(),
                false => bound.ip(),
            });
        let address = SocketAddr::new(told, self.advertise_port.unwrap_or(bound.port()));
        let hostname = match &self.hostname {
            Some(name) => name.clone(),
            None if bound.ip().is_unspecified() && self.flags.bool("hostname_lookup") => {
                own_hostname(told, self.advertise_ip.is_some())
            }
            None => told.to_string(),
        };
        Identity { address, hostname }
    }

    /// The address from which masters are reached.
    fn own_ip(&self) -> IpAddr {
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        // Connecting a datagram socket chooses a route and sends nothing.
        let route = |master: &String| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(master)?;
            socket.local_addr()
        };
        let found = self.masters.routes().iter().find_map(|it| route(it).ok());
        found.map_or(Ipv4Addr::LOCALHOST.into(), |it| it.ip())
    }

    /// What the machine is started with.
    pub(crate) fn options(&self, identity: &Identity) -> Options {
        let info = wire::AgentInfo {
            hostname: identity.hostname.clone(),
            port: Some(identity.address.port().into()),
            resources: self.resources.to_wire(),
            attributes: self.attributes.to_wire(),
            domain: self.domain.clone(),
            ..Default::default()
        };
        let registration_backoff = self.flags.duration("registration_backoff_factor");
        let defaults = Intervals::default();
        Options {
            info,
            address: identity.address.to_string(),
            version: version::MESOS.to_owned(),
            capabilities: CAPABILITIES.iter().map(|it| (*it).to_owned()).collect(),
            boot_id: boot_id(),
            intervals: Intervals {
                registration_backoff: registration_backoff
                    // A zero would register without end.
                    .map_or(defaults.registration_backoff, |it| {
                        it.max(Duration::from_millis(10))
                    }),
                ..defaults
            },
            reconfiguration_additive: self.additive,
        }
    }

    /// The containerizer's settings.
    ///
    /// # Errors
    /// The folder of its state cannot be made, or the shim is nowhere.
    pub(crate) fn containerizer(&self) -> Result<containerizer::Config> {
        let flags = &self.flags;
        let runtime_dir = match flags.text("runtime_dir") {
            Some(folder) => PathBuf::from(folder),
            None => self.work_dir.join("runtime"),
        };
        let owner = containerizer::Containerizer::owner_of(&self.work_dir.join("meta"))?;
        let mut config = containerizer::Config::new(runtime_dir, owner);
        let enable_cfs = flags.bool("cgroups_enable_cfs");
        config.docker = match self.wanted.docker {
            true => Some(containerizer::DockerConfig {
                socket: flags.text("docker_socket").unwrap_or_default().into(),
                sandbox_directory: flags
                    .text("sandbox_directory")
                    .unwrap_or_default()
                    .to_owned(),
                registry_config: docker_config(flags.text("docker_config"))?,
                enable_cfs,
                kill_orphans: flags.bool("docker_kill_orphans"),
                ..Default::default()
            }),
            false => None,
        };
        let shim = match self.wanted.process {
            true => match shim(flags.text("launcher_dir").map(Path::new)) {
                Ok(shim) => Some(shim),
                // Docker alone may do, when nobody asked for more.
                Err(error) if self.wanted.docker_optional => {
                    tracing::warn!(
                        problem = format!("{error:#}"),
                        "tasks cannot run as processes"
                    );
                    None
                }
                Err(error) => return Err(error),
            },
            false => None,
        };
        config.process = shim.map(|shim| containerizer::ProcessConfig {
            shim,
            cgroups_hierarchy: flags.text("cgroups_hierarchy").map(PathBuf::from),
            cgroups_root: flags.text("cgroups_root").unwrap_or_default().to_owned(),
            enable_cfs,
            limit_swap: flags.bool("cgroups_limit_swap"),
            switch_user: self.switch_user,
            ..Default::default()
        });
        config.frameworks_home = flags
            .text("frameworks_home")
            .filter(|it| !it.is_empty())
            .map(PathBuf::from);
        if flags.bool("enforce_container_disk_quota") {
            config.disk_watch = flags.duration("container_disk_watch_interval");
        }
        Ok(config)
    }
}

/// `--docker_config`: the JSON itself, or a path of a file with it.
fn docker_config(text: Option<&str>) -> Result<Option<String>> {
    match text {
        None => Ok(None),
        Some(text) if text.trim_start().starts_with('{') => Ok(Some(text.to_owned())),
        Some(path) => std::fs::read_to_string(path)
            .map(Some)
            .with_context(|| format!("--docker_config: {path} cannot be read")),
    }
}

/// Where `tepui-shim` is.
fn shim(folder: Option<&Path>) -> Result<PathBuf> {
    const NAME: &str = "tepui-shim";
    if let Some(folder) = folder {
        let shim = folder.join(NAME);
        ensure!(
            shim.is_file(),
            "--launcher_dir: there is no {}",
            shim.display()
        );
        return shim.canonicalize().context("--launcher_dir");
    }
    let program = std::env::current_exe().context("the path of this program")?;
    // Test programs lie a folder below the others.
    let folders = program.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|it| it.join(NAME));
    candidates.find(|it| it.is_file()).with_context(|| {
        format!(
            "{NAME} is not beside {}: name its folder with --launcher_dir, or run tasks as \
             containers alone, with --containerizers=docker",
            program.display()
        )
    })
}

/// Changes with every boot of the machine.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::TABLE;

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let work_dir = format!("--work_dir={}", folder.path().display());
        let mut all = vec![work_dir.as_str()];
        all.extend_from_slice(arguments);
        let flags = TABLE
            .read(all, [], None)
            .map_err(|error| error.to_string())?;
        Settings::read(flags).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn who_the_agent_is() {
        let settings = settings(&["--master=127.0.0.1:5050", "--advertise_port=99"]).unwrap();
        let identity = settings.at("127.0.0.1:5051".parse().unwrap());
        assert_eq!(identity.address.to_string(), "127.0.0.1:99");
        assert_eq!(identity.hostname, "127.0.0.1");
        let everywhere = settings.at("0.0.0.0:5051".parse().unwrap());
        assert_eq!(everywhere.address.ip(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn containerizers_of_mesos_are_known() {
        assert!(wanted(None).unwrap().docker_optional);
        let both = wanted(Some("docker,mesos")).unwrap();
        assert!(both.docker && both.process && !both.docker_optional);
        assert!(!wanted(Some("process")).unwrap().docker);
    }

    #[test]
    fn base64_is_padded() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn flags_that_cannot_be_used_are_named() {
        for (flag, name) in [
            ("--master=zk://x", "--master"),
            ("--master=x/y", "--master"),
            ("--ip=x", "--ip"),
            ("--port=70000", "--port"),
            ("--resources=cpus", "--resources"),
            ("--attributes=x", "--attributes"),
            ("--containerizers=rkt", "--containerizers"),
            ("--recover=x", "--recover"),
            ("--reconfiguration_policy=x", "--reconfiguration_policy"),
            ("--gc_disk_headroom=2", "--gc_disk_headroom"),
            ("--domain={", "--domain"),
            (
                "--executor_environment_variables=[]",
                "--executor_environment_variables",
            ),
            ("--credential=/nowhere", "--credential"),
            ("--authenticate_http_readonly", "--http_credentials"),
            ("--isolation=x", "--isolation"),
        ] {
            let mut all = vec![flag];
            if !flag.starts_with("--master") {
                all.push("--master=127.0.0.1:5050");
            }
            let error = settings(&all).unwrap_err();
            assert!(error.contains(name), "{flag}: {error}");
        }
    }
}
