//! What the flags mean, checked once at the start.

use crate::flags::INJECT_PANICS;
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tepui_master_machine::{
    Config,
    model::{Quantities, Scalar, role, wire},
};
use tepui_server::{
    accounts,
    auth::{Authority, Realm},
    flags::Flags,
    proto::json,
    version,
};

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
    /// Every flag that has a value.
    pub(crate) flags: Flags,
    advertise_ip: Option<IpAddr>,
    advertise_port: Option<u16>,
    hostname: Option<String>,
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

impl Settings {
    /// Reads and checks the flags.
    ///
    /// # Errors
    /// The first flag that cannot be used, by name.
    pub(crate) fn read(flags: Flags) -> Result<Settings> {
        let work_dir = PathBuf::from(flags.required("work_dir")?);
        let listen_ip = ip(&flags, "ip")?.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let listen = SocketAddr::new(listen_ip, port(&flags, "port")?.unwrap_or(5050));
        port(&flags, "raft_port")?;
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
            (None, true) if self.flags.bool("hostname_lookup") => own_hostname(told),
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

fn own_hostname(told: IpAddr) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => told.to_string(),
        name => name.to_owned(),
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
