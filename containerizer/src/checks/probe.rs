//! One look at a task: connect, ask over HTTP, or (by the containerizer) run a command.
//!
//! HTTP and TCP checks go to the loopback address of the task's network namespace. Namespaces
//! belong to threads in Linux, so a check of a container with its own network runs on a thread
//! of its own that enters the namespace and dies afterwards.

use crate::fetcher::install_crypto;
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::LazyLock,
    time::Duration,
};
use tepui_model::wire;

/// Redirections that are followed.
const MAX_REDIRECTS: usize = 10;
/// Longest time of a check without a limit of its own, on a thread that has to end some day.
const LONGEST: Duration = Duration::from_secs(3600);

/// What to look at over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// GET this URL; the answer is the final status.
    Http { url: String },
    /// Connect; the answer is 0.
    Tcp { address: SocketAddr },
}

/// For tasks on our own network: making a client reads every root certificate of the machine.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(client);

fn client() -> Result<reqwest::Client, String> {
    install_crypto();
    // As Mesos has it: whoever runs in the container answers for itself, so its certificate
    // proves nothing.
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
        .tls_danger_accept_invalid_certs(true)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())
}

fn loopback(protocol: Option<i32>) -> IpAddr {
    match protocol.map(wire::network_info::Protocol::try_from) {
        Some(Ok(wire::network_info::Protocol::IPv6)) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

impl Target {
    pub fn http(
        scheme: Option<&str>,
        port: u32,
        path: Option<&str>,
        protocol: Option<i32>,
    ) -> Target {
        let host = match loopback(protocol) {
            IpAddr::V4(it) => it.to_string(),
            IpAddr::V6(it) => format!("[{it}]"),
        };
        Target::Http {
            url: format!(
                "{}://{host}:{port}{}",
                scheme.unwrap_or("http"),
                path.unwrap_or("")
            ),
        }
    }

    pub fn tcp(port: u32, protocol: Option<i32>) -> Result<Target, String> {
        let port = u16::try_from(port).map_err(|_| format!("port {port} is too large"))?;
        Ok(Target::Tcp {
            address: SocketAddr::new(loopback(protocol), port),
        })
    }

    /// Looks once, in the network namespace of a process.
    pub async fn look(self, pid: u32, timeout: Option<Duration>) -> Result<u32, String> {
        let namespace = match foreign_namespace(pid) {
            Ok(it) => it,
            Err(error) => return Err(format!("network of process {pid}: {error}")),
        };
        let limit = timeout.unwrap_or(LONGEST);
        let own_network = namespace.is_none();
        let timed = async move {
            match tokio::time::timeout(limit, self.ask(own_network)).await {
                Ok(result) => result,
                Err(_) => Err(format!("timed out after {} ms", limit.as_millis())),
            }
        };
        let Some(namespace) = namespace else {
            return timed.await;
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("check".into())
            .stack_size(256 << 10)
            .spawn(move || {
                let result = rustix::thread::move_into_link_name_space(
                    namespace.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .map_err(|error| format!("enter the task's network: {error}"))
                .and_then(|()| {
                    // Its helper threads are born in the same namespace.
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .map_err(|error| error.to_string())
                })
                .and_then(|runtime| runtime.block_on(timed));
                // Nobody waits when the container has ended meanwhile.
                let _ = sender.send(result);
            });
        thread.map_err(|error| format!("start a thread: {error}"))?;
        receiver
            .await
            .unwrap_or_else(|_| Err("the checking thread died".into()))
    }

    async fn ask(self, own_network: bool) -> Result<u32, String> {
        match self {
            Target::Tcp { address } => tokio::net::TcpStream::connect(address)
                .await
                .map(|_| 0)
                .map_err(|error| format!("connect to {address}: {error}")),
            Target::Http { url } => {
                let client = match own_network {
                    true => CLIENT.as_ref().map_err(String::clone)?.clone(),
                    // A client belongs to the runtime, hence to the network, that it was made in.
                    false => client()?,
                };
                let answer = client.get(&url).send().await;
                answer
                    .map(|it| u32::from(it.status().as_u16()))
                    .map_err(|error| {
                        let cause = std::error::Error::source(&error);
                        let cause = cause.map(|it| format!(": {it}")).unwrap_or_default();
                        format!("GET {url}: {error}{cause}")
                    })
            }
        }
    }
}

/// The network namespace of a process, unless it is our own.
fn foreign_namespace(pid: u32) -> io::Result<Option<File>> {
    let its = File::open(format!("/proc/{pid}/ns/net"))?;
    let ours = std::fs::metadata("/proc/self/ns/net")?;
    let metadata = its.metadata()?;
    let same = (metadata.dev(), metadata.ino()) == (ours.dev(), ours.ino());
    Ok((!same).then_some(its))
}
