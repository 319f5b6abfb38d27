//! What the flags mean, checked once at the start.

use crate::{flags::INJECT_PANICS, shell::peers::channel::Security};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tepui_master_machine::{
    Config,
    config::{Preemption, RolePriority},
    model::{Quantities, Scalar, role, wire},
};
use tepui_server::{
    accounts,
    auth::{Authority, Realm},
    flags::Flags,
    proto::json,
    system::own_hostname,
    version, zookeeper,
};

/// The newest version of log and rows that this master knows. Tests of upgrades let it pretend
/// to know a newer one.
pub(crate) fn supported_version() -> u64 {
    let test = std::env::var_os("TEPUI_TEST").is_some_and(|it| it == "1");
    let pretended = std::env::var("TEPUI_TEST_CLUSTER_VERSION").ok();
    pretended
        .filter(|_| test)
        .and_then(|it| it.parse().ok())
        .unwrap_or(tepui_state::VERSION)
}

/// Everything that the master needs to start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where the state is kept.
    pub(crate) work_dir: PathBuf,
    /// The machine's part; `master_info` has no address before [`Settings::at`].
    pub(crate) machine: Config,
    /// Who is admitted.
    pub(crate) authority: Authority,
    /// `--cluster`.
    pub(crate) cluster: Option<String>,
    /// `--log_dir`.
    pub(crate) log_dir: Option<String>,
    /// The file of `--whitelist`.
    pub(crate) whitelist: Option<PathBuf>,
    /// Weights for a cluster that has none, in millionths.
    pub(crate) weights: Vec<(String, u64)>,
    /// Subscriptions of operators at a time.
    pub(crate) subscribers: usize,
    /// A request may make the machine panic.
    pub(crate) inject_panics: bool,
    /// Where the leader is published.
    pub(crate) zookeeper: Option<ZooKeeper>,
    /// Every flag that has a value.
    pub(crate) flags: Flags,
    /// Where other masters are listened to.
    pub(crate) raft_listen: SocketAddr,
    /// Another port will do: nobody has been told of this one.
    pub(crate) any_raft_port: bool,
    /// `--peers`, sorted.
    pub(crate) peers: Vec<String>,
    /// `--join`.
    pub(crate) join: Option<String>,
    /// Who may speak as a master.
    pub(crate) security: Security,
    election_timeout: Duration,
    raft_advertise: Option<String>,
    advertise_ip: Option<IpAddr>,
    advertise_port: Option<u16>,
    hostname: Option<String>,
}

/// What `--zk` and its companion say.
#[derive(Debug, Clone)]
pub(crate) struct ZooKeeper {
    pub(crate) url: zookeeper::Url,
    pub(crate) session_timeout: Duration,
}

impl ZooKeeper {
    fn read(flags: &Flags) -> Result<Option<ZooKeeper>> {
        let session_timeout = flags.duration("zk_session_timeout");
        let session_timeout = session_timeout.unwrap_or(Duration::from_secs(10));
        ensure!(
            (1..=60).contains(&session_timeout.as_secs()),
            "--zk_session_timeout: expected 1secs to 1mins"
        );
        let url = flags.text("zk").map(zookeeper::Url::parse).transpose();
        let url = url.context("--zk")?;
        Ok(url.map(|url| ZooKeeper {
            url,
            session_timeout,
        }))
    }
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

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty())
}

/// A name that means nothing is a mistake.
fn only(value: &serde_json::Value, names: &[&str]) -> Result<()> {
    let mut given = value.as_object().into_iter().flatten();
    match given.find(|(name, _)| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => bail!("--preemption: {name}: expected one of {}", names.join(", ")),
    }
}

/// `--preemption`.
fn preemption(text: &str) -> Result<Preemption> {
    let value: serde_json::Value =
        serde_json::from_str(text).context("--preemption: expected JSON")?;
    let mut preemption = Preemption::default();
    only(&value, &["grace_seconds", "roles"])?;
    if let Some(grace) = value.get("grace_seconds") {
        let seconds = grace.as_f64().unwrap_or(-1.0);
        preemption.grace = Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|it| *it <= Duration::from_secs(86_400))
            .context("--preemption: grace_seconds: expected 0 to 86400")?;
    }
    let roles = value.get("roles").and_then(serde_json::Value::as_array);
    for it in roles.context("--preemption: roles: expected a list")? {
        let role = it.get("role").and_then(serde_json::Value::as_str);
        let role = role.context("--preemption: roles: role: expected a name")?;
        role::validate(role).with_context(|| format!("--preemption: role {role:?}"))?;
        only(it, &["role", "priority", "preempts", "preemptible"])?;
        let flag = |name: &str| match it.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().with_context(|| {
                format!("--preemption: role {role:?}: {name}: expected true or false")
            }),
        };
        let priority = RolePriority {
            priority: match it.get("priority") {
                None => 0,
                Some(value) => value.as_i64().with_context(|| {
                    format!("--preemption: role {role:?}: priority: expected an integer")
                })?,
            },
            preempts: flag("preempts")?,
            preemptible: flag("preemptible")?,
        };
        ensure!(
            preemption.roles.insert(role.to_owned(), priority).is_none(),
            "--preemption: role {role:?} is named twice"
        );
    }
    Ok(preemption)
}

/// `cpus:0.01|mem:32`: alternatives, each of several amounts separated by `;`.
fn minima(text: &str) -> Result<Vec<Quantities>> {
    let wrong = || format!("--min_allocatable_resources: {text:?} is not such as cpus:0.01|mem:32");
    text.split('|')
        .filter(|it| !it.trim().is_empty())
        .map(|alternative| {
            let mut quantities = Quantities::new();
            for part in alternative.split(';') {
                let (name, amount) = part.split_once(':').with_context(wrong)?;
                let amount: f64 = amount.trim().parse().ok().with_context(wrong)?;
                let amount = Scalar::from_f64(name.trim(), amount)
                    .ok()
                    .with_context(wrong)?;
                quantities.insert(name.trim(), amount);
            }
            Ok(quantities)
        })
        .collect()
}

fn weights(text: &str) -> Result<Vec<(String, u64)>> {
    list(text)
        .map(|pair| {
            let wrong = || format!("--weights: {pair:?} is not such as role=2.5");
            let (name, weight) = pair.split_once('=').with_context(wrong)?;
            role::validate(name).with_context(|| format!("--weights: role {name:?}"))?;
            let weight: f64 = weight.parse().ok().with_context(wrong)?;
            let micro = micro(weight).with_context(wrong)?;
            Ok((name.to_owned(), micro))
        })
        .collect()
}

/// A weight in millionths; `None` for one that is not positive, or too large.
pub(crate) fn micro(weight: f64) -> Option<u64> {
    let micro = (weight * 1e6).round();
    ((1.0..=1e15).contains(&micro)).then_some(micro as u64)
}

/// The port of `--raft_port` when it is not given.
const RAFT_PORT: u16 = 5052;

/// `HOST:PORT`, for a flag.
fn host_and_port(flag: &str, text: &str) -> Result<()> {
    let parts = text.rsplit_once(':');
    let fits = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|it| it != 0)
    });
    ensure!(fits, "--{flag}: {text:?} is not of the form HOST:RAFT_PORT");
    Ok(())
}

fn peers(flags: &Flags) -> Result<Vec<String>> {
    // A variable that was not set, more likely than a wish for a cluster of one.
    ensure!(
        flags.text("peers").is_none_or(|it| !it.trim().is_empty()),
        "--peers is empty: name every master as HOST:RAFT_PORT, this one too, or leave it out for \
         a single one"
    );
    let mut peers: Vec<String> = list(flags.text("peers").unwrap_or_default())
        .map(str::to_owned)
        .collect();
    for peer in &peers {
        host_and_port("peers", peer)?;
    }
    peers.sort();
    let count = peers.len();
    peers.dedup();
    ensure!(
        peers.len() == count,
        "--peers: a master is named twice; name every master once"
    );
    Ok(peers)
}

fn security(flags: &Flags) -> Result<Security> {
    let path = |name: &str| flags.text(name).map(PathBuf::from);
    let tls = [
        "peer_tls_cert_file",
        "peer_tls_key_file",
        "peer_tls_ca_file",
    ]
    .map(path);
    match (path("cluster_key_file"), tls) {
        (None, [None, None, None]) => Ok(Security::Open),
        (Some(key), [None, None, None]) => Security::key(&key),
        (None, [Some(certificate), Some(key), Some(authority)]) => {
            Security::tls(&certificate, &key, &authority)
        }
        (None, _) => bail!(
            "--peer_tls_cert_file, --peer_tls_key_file and --peer_tls_ca_file belong together"
        ),
        (Some(_), _) => bail!("--cluster_key_file and --peer_tls_*: give one of them"),
    }
}

fn raft_listen(
    flags: &Flags,
    ip_of_clients: IpAddr,
    security: &Security,
    peers: &[String],
) -> Result<(SocketAddr, bool)> {
    let told = ip(flags, "raft_ip")?;
    let open = security.is_open() && !flags.bool("insecure_peers");
    let given = port(flags, "raft_port")?;
    let port = given.unwrap_or(RAFT_PORT);
    let is_alone = peers.is_empty() && flags.text("join").is_none();
    let chosen = match told {
        Some(told) => told,
        // Nobody else is spoken of: the port waits for masters of this machine.
        None if open && is_alone => match ip_of_clients.is_loopback() {
            true => ip_of_clients,
            false => Ipv4Addr::LOCALHOST.into(),
        },
        None => ip_of_clients,
    };
    ensure!(
        !open || chosen.is_loopback(),
        "--raft_ip: masters would take messages from anybody who reaches {chosen}:{port}; give \
         them a --cluster_key_file or certificates (--peer_tls_cert_file, --peer_tls_key_file, \
         --peer_tls_ca_file), or say --insecure_peers"
    );
    Ok((SocketAddr::new(chosen, port), is_alone && given.is_none()))
}

impl Settings {
    /// Reads and checks the flags.
    ///
    /// # Errors
    /// The first flag that cannot be used, by name.
    pub(crate) fn read(flags: Flags) -> Result<Settings> {
        let work_dir = PathBuf::from(flags.required("work_dir")?);
        let listen_ip = ip(&flags, "ip")?.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let listen = SocketAddr::new(listen_ip, port(&flags, "port")?.unwrap_or(5050));
        let security = security(&flags)?;
        let peers = peers(&flags)?;
        let (raft_listen, any_raft_port) = raft_listen(&flags, listen_ip, &security, &peers)?;
        let join = flags.text("join").map(str::to_owned);
        ensure!(
            join.is_none() || peers.is_empty(),
            "--join is for a cluster that there is, --peers for a new one: give one of them"
        );
        if let Some(it) = join.as_deref().filter(|it| *it != "wait") {
            host_and_port("join", it)?;
        }
        let raft_advertise = flags.text("raft_advertise").map(str::to_owned);
        if let Some(it) = &raft_advertise {
            host_and_port("raft_advertise", it)?;
        }
        let election_timeout = flags
            .duration("election_timeout")
            .unwrap_or(Duration::from_millis(150));
        ensure!(
            (Duration::from_millis(50)..=Duration::from_secs(60)).contains(&election_timeout),
            "--election_timeout: expected 50ms to 60secs"
        );
        let mut machine = Config {
            root_submissions: flags.bool("root_submissions"),
            require_agent_domain: flags.bool("require_agent_domain"),
            offer_timeout: flags.duration("offer_timeout"),
            ..Config::default()
        };
        if let Some(it) = flags.duration("agent_ping_timeout") {
            ensure!(
                (1..=900).contains(&it.as_secs()),
                "--agent_ping_timeout: expected 1secs to 15mins"
            );
            machine.agent_ping_timeout = it;
        }
        if let Some(it) = flags.number("max_agent_ping_timeouts") {
            ensure!(it > 0, "--max_agent_ping_timeouts: expected at least 1");
            machine.max_agent_ping_timeouts = u32::try_from(it).unwrap_or(u32::MAX);
        }
        if let Some(it) = flags.duration("agent_reregister_timeout") {
            machine.agent_reregister_timeout = it;
        }
        if let Some(it) = flags.size("state_quota") {
            machine.state_quota = it;
        }
        if let Some(it) = flags.duration("allocation_interval") {
            ensure!(!it.is_zero(), "--allocation_interval: expected more than 0");
            machine.allocator.allocation_interval = it;
        }
        if let Some(it) = flags.text("roles") {
            let roles: BTreeSet<String> = list(it).map(str::to_owned).collect();
            for name in &roles {
                role::validate(name).with_context(|| format!("--roles: role {name:?}"))?;
            }
            machine.roles = Some(roles);
        }
        if let Some(it) = flags.text("fair_sharing_excluded_resource_names") {
            machine.allocator.fair_sharing_excluded = list(it).map(str::to_owned).collect();
        }
        if let Some(it) = flags.text("min_allocatable_resources") {
            machine.allocator.min_allocatable = minima(it)?;
        }
        if let Some(it) = flags.text("preemption") {
            machine.preemption = preemption(it)?;
        }
        machine.allocator.filter_gpu_resources = flags.bool("filter_gpu_resources");
        if let Some(it) = flags.text("domain") {
            let domain: wire::DomainInfo =
                json::decode(it.as_bytes()).context("--domain: expected DomainInfo as JSON")?;
            let zone = domain.fault_domain.as_ref();
            machine.allocator.region = zone.map(|it| it.region.name.clone());
            machine.master_info.domain = Some(domain);
        }
        Ok(Settings {
            listen,
            raft_listen,
            any_raft_port,
            peers,
            join,
            security,
            election_timeout,
            raft_advertise,
            work_dir,
            machine,
            authority: accounts::authority(&flags, "credentials", REALMS)?,
            cluster: flags.text("cluster").map(str::to_owned),
            log_dir: flags.text("log_dir").map(str::to_owned),
            whitelist: flags
                .text("whitelist")
                .filter(|it| *it != "*")
                .map(PathBuf::from),
            weights: flags
                .text("weights")
                .map(weights)
                .transpose()?
                .unwrap_or_default(),
            subscribers: usize::try_from(
                flags
                    .number("max_operator_event_stream_subscribers")
                    .unwrap_or(1000),
            )?,
            inject_panics: flags.bool(INJECT_PANICS),
            zookeeper: ZooKeeper::read(&flags)?,
            advertise_ip: ip(&flags, "advertise_ip")?,
            advertise_port: port(&flags, "advertise_port")?,
            hostname: flags.text("hostname").map(str::to_owned),
            flags,
        })
    }

    /// Where clients reach this master: `host:port`.
    pub(crate) fn client_address(&self) -> String {
        let info = &self.machine.master_info;
        match info.hostname().contains(':') {
            // An IPv6 address in place of a name.
            true => format!("[{}]:{}", info.hostname(), info.port),
            false => format!("{}:{}", info.hostname(), info.port),
        }
    }

    /// `host:port` at which other masters reach this one, when it is bound to `bound` and nothing
    /// else says so.
    pub(crate) fn raft_address(&self, bound: SocketAddr) -> String {
        if let Some(told) = &self.raft_advertise {
            return told.clone();
        }
        match (bound.ip().is_unspecified(), self.advertise_ip) {
            (false, _) => bound.to_string(),
            (true, Some(ip)) => SocketAddr::new(ip, bound.port()).to_string(),
            (true, None) => format!("{}:{}", self.machine.master_info.hostname(), bound.port()),
        }
    }

    /// Whether `--raft_advertise` was given.
    pub(crate) fn is_raft_address_given(&self) -> bool {
        self.raft_advertise.is_some()
    }

    /// `--raft_log_keep`, in bytes.
    pub(crate) fn raft_log_keep(&self) -> u64 {
        self.flags.number("raft_log_keep").unwrap_or(16 << 20)
    }

    /// Length of a tick, and ticks of silence before an election at least.
    pub(crate) fn election_ticks(&self) -> (Duration, usize) {
        // Fifteen at the default of 150 ms; heartbeats take a fifth of it.
        let ticks = 15;
        (self.election_timeout / ticks, ticks as usize)
    }

    /// Fills in who this master is, now that its port is known.
    pub(crate) fn at(&mut self, bound: SocketAddr) {
        let told = self
            .advertise_ip
            .unwrap_or_else(|| match bound.ip().is_unspecified() {
                true => Ipv4Addr::LOCALHOST.into(),
                false => bound.ip(),
            });
        let port = self.advertise_port.unwrap_or(bound.port());
        let hostname = match (&self.hostname, bound.ip().is_unspecified()) {
            (Some(name), _) => name.clone(),
            (None, true) if self.flags.bool("hostname_lookup") => {
                own_hostname(told, self.advertise_ip.is_some())
            }
            (None, _) => told.to_string(),
        };
        let capability =
            |kind: wire::master_info::capability::Type| wire::master_info::Capability {
                r#type: Some(kind as i32),
            };
        use wire::master_info::capability::Type;
        let info = &mut self.machine.master_info;
        // Mesos has the four bytes as they lie in memory, first byte lowest.
        info.ip = match told {
            IpAddr::V4(it) => u32::from_le_bytes(it.octets()),
            IpAddr::V6(_) => 0,
        };
        info.port = port.into();
        info.pid = Some(format!("master@{}", SocketAddr::new(told, port)));
        info.hostname = Some(hostname.clone());
        info.version = Some(version::MESOS.to_owned());
        info.address = Some(wire::Address {
            hostname: Some(hostname),
            ip: Some(told.to_string()),
            port: port.into(),
        });
        info.capabilities = [Type::AgentUpdate, Type::AgentDraining, Type::QuotaV2]
            .map(capability)
            .to_vec();
    }
}

/// The flags that ask for credentials, and where.
const REALMS: &[(&str, Realm)] = &[
    ("authenticate_http_readonly", Realm::ReadOnly),
    ("authenticate_http_readwrite", Realm::ReadWrite),
    ("authenticate_http_frameworks", Realm::Frameworks),
    ("authenticate_agents", Realm::Agents),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::TABLE;

    fn settings(arguments: &[&str]) -> Result<Settings, String> {
        let mut all = vec!["--work_dir=/tmp/x"];
        all.extend_from_slice(arguments);
        let flags = TABLE
            .read(all, [], None)
            .map_err(|error| error.to_string())?;
        Settings::read(flags).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn who_the_master_is() {
        let mut settings = settings(&["--advertise_port=99"]).unwrap();
        settings.at("127.0.0.1:5050".parse().unwrap());
        let info = &settings.machine.master_info;
        assert_eq!(info.pid(), "master@127.0.0.1:99");
        assert_eq!(info.ip, 16_777_343);
        assert_eq!(info.hostname(), "127.0.0.1");
    }

    #[test]
    fn priorities_are_read_whole_or_refused() {
        let text = r#"{"grace_seconds": 2.5, "roles": [
            {"role": "prod", "priority": 10, "preempts": true},
            {"role": "batch/night", "preemptible": true}]}"#;
        let read = preemption(text).unwrap();
        assert_eq!(read.grace, Duration::from_millis(2_500));
        let prod = RolePriority {
            priority: 10,
            preempts: true,
            preemptible: false,
        };
        assert_eq!(read.roles["prod"], prod);
        assert!(read.roles["batch/night"].preemptible);
        for (text, named) in [
            ("{", "JSON"),
            ("{}", "roles"),
            (r#"{"roles": {}}"#, "roles"),
            (r#"{"roles": [], "grace": 1}"#, "grace"),
            (r#"{"roles": [], "grace_seconds": -1}"#, "grace_seconds"),
            (r#"{"roles": [], "grace_seconds": 1e9}"#, "grace_seconds"),
            (r#"{"roles": [{}]}"#, "role"),
            (r#"{"roles": [{"role": "a//b"}]}"#, "a//b"),
            (r#"{"roles": [{"role": "a", "priority": 1.5}]}"#, "priority"),
            (r#"{"roles": [{"role": "a", "preempts": 1}]}"#, "preempts"),
            (r#"{"roles": [{"role": "a", "preempt": true}]}"#, "preempt:"),
            (r#"{"roles": [{"role": "a"}, {"role": "a"}]}"#, "twice"),
        ] {
            let refused = format!("{:#}", preemption(text).unwrap_err());
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }

    #[test]
    fn flags_that_cannot_be_used_are_named() {
        for (flag, name) in [
            ("--ip=x", "--ip"),
            ("--port=70000", "--port"),
            ("--weights=a=-1", "--weights"),
            ("--roles=a b", "--roles"),
            (
                "--min_allocatable_resources=cpus",
                "--min_allocatable_resources",
            ),
            ("--domain={", "--domain"),
            ("--agent_ping_timeout=1ms", "--agent_ping_timeout"),
            ("--authenticate_http_readonly", "--credentials"),
            ("--credentials=/nowhere", "--credentials"),
            ("--zk=zk://somewhere", "--zk"),
            ("--zk_session_timeout=1ms", "--zk_session_timeout"),
            ("--peers=a:1,b", "--peers"),
            ("--peers=a:1,a:1", "--peers"),
            ("--join=a:0", "--join"),
            ("--raft_ip=0.0.0.0", "--raft_ip"),
            ("--raft_advertise=a", "--raft_advertise"),
            ("--election_timeout=1ms", "--election_timeout"),
            ("--cluster_key_file=/nowhere", "--cluster_key_file"),
            ("--peer_tls_key_file=/nowhere", "--peer_tls_cert_file"),
        ] {
            let error = settings(&[flag]).unwrap_err();
            assert!(error.contains(name), "{flag}: {error}");
        }
    }

    #[test]
    fn weights_are_millionths() {
        let settings = settings(&["--weights=a=2.5,b=1"]).unwrap();
        assert_eq!(
            settings.weights,
            [("a".to_owned(), 2_500_000), ("b".to_owned(), 1_000_000)]
        );
    }
}
