//! A network for one run: a bridge, and a namespace with an address for every node.
//!
//! All of it is made inside a network and a mount namespace of the run's own, so nothing of it
//! is seen outside and nothing is left when the run has ended.

use anyhow::{Context, Result, bail};
use std::{
    net::Ipv4Addr,
    process::{Command, ExitStatus},
};

/// Set for the process that runs inside.
const INSIDE: &str = "TEPUI_TORTURE_INSIDE";

/// Runs this very command line again in namespaces of its own, unless that was done already;
/// `None` when inside.
///
/// # Errors
/// `unshare` is missing, or namespaces may not be made: it takes root.
pub fn enter() -> Result<Option<ExitStatus>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let exe = std::env::current_exe()?;
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation=private", "--"])
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("unshare cannot be run")?;
    Ok(Some(status))
}

/// Runs a command to its end.
///
/// # Errors
/// With what it wrote, when it does not succeed.
pub fn command(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Makes the bridge, with an address for the frameworks.
///
/// # Errors
/// A command failed.
pub fn start() -> Result<()> {
    std::fs::create_dir_all("/run/netns")?;
    command("mount -t tmpfs tmpfs /run/netns")?;
    command("ip link set lo up")?;
    command("ip link add hub type bridge")?;
    command("ip addr add 10.77.0.1/24 dev hub")?;
    command("ip link set hub up")
}

/// A node's end of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The last byte of its address.
    number: u8,
}

impl Place {
    /// Makes a namespace and links it to the bridge.
    ///
    /// # Errors
    /// A command failed.
    pub fn new(number: u8) -> Result<Place> {
        let place = Place { number };
        let name = place.name();
        command(&format!("ip netns add {name}"))?;
        command(&format!(
            "ip link add {name} type veth peer name eth0 netns {name}"
        ))?;
        command(&format!("ip link set {name} master hub up"))?;
        let address = place.address();
        command(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
        command(&format!("ip -n {name} link set eth0 up"))?;
        command(&format!("ip -n {name} link set lo up"))?;
        Ok(place)
    }

    fn name(self) -> String {
        format!("n{}", self.number)
    }

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// A command that will run there. Mounts stay as they are.
    pub fn command(self, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name()))
            .arg("--")
            .arg(program);
        command
    }

    fn filter(self, rule: &str) -> Result<()> {
        let name = self.name();
        command(&format!(
            "nsenter --net=/run/netns/{name} -- iptables -w {rule}"
        ))
    }

    /// Hears nothing of `other` any more.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn deafen_to(self, other: Ipv4Addr) -> Result<()> {
        self.filter(&format!("-A INPUT -s {other} -j DROP"))
    }

    /// Neither hears `other` nor reaches it.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn cut_off_from(self, other: Ipv4Addr) -> Result<()> {
        self.deafen_to(other)?;
        self.filter(&format!("-A OUTPUT -d {other} -j DROP"))
    }

    /// Reaches nobody, and nobody reaches it.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn cut_off(self) -> Result<()> {
        self.filter("-A INPUT -i eth0 -j DROP")?;
        self.filter("-A OUTPUT -o eth0 -j DROP")
    }

    /// All links are whole again.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn heal(self) -> Result<()> {
        self.filter("-F")
    }
}
