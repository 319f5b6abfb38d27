//! Where the agent looks for masters: the forms of `--master`.

use crate::shell::master_links::Links;
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tepui_server::zookeeper::{self, Url};

/// The port of masters that are named without one.
const PORT: u16 = 5050;
/// Between two looks at the addresses of names.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same after a name that has none yet; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A master, or all masters behind one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// An address, or a name that stands for all of its addresses.
    host: String,
    port: u16,
}

impl Place {
    fn parse(text: &str) -> Result<Place> {
        let (host, port) = match text.strip_prefix('[').and_then(|it| it.split_once(']')) {
            Some((host, "")) => (host, None),
            // Without the colon it is no port.
            Some((host, rest)) => (host, rest.strip_prefix(':').or(Some(""))),
            None => match text.rsplit_once(':') {
                // More than one colon without brackets: an address without a port.
                Some((host, _)) if host.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse::<u16>().ok().filter(|it| *it > 0),
            None => Some(PORT),
        };
        let plausible = !host.is_empty()
            && (host.parse::<IpAddr>().is_ok()
                || host
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it)));
        match port {
            Some(port) if plausible => Ok(Place {
                host: host.to_owned(),
                port,
            }),
            _ => bail!("--master: {text:?} is not host:port"),
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

/// How masters are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detector {
    /// Named by the operator.
    Named(Vec<Place>),
    /// Published by the leader.
    Published(Url, Duration),
}

impl Detector {
    /// Reads `--master`: places separated by commas or white space (as in a file with one a
    /// line); the flags have read a `file://` already.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn parse(text: &str, session_timeout: Duration) -> Result<Detector> {
        if text.trim().starts_with("zk://") {
            ensure!(
                (1..=60).contains(&session_timeout.as_secs()),
                "--zk_session_timeout: expected 1secs to 1mins"
            );
            let url = Url::parse(text).context("--master")?;
            return Ok(Detector::Published(url, session_timeout));
        }
        let mut places = Vec::new();
        let parts = text.split(|it: char| it == ',' || it.is_whitespace());
        for part in parts.filter(|it| !it.is_empty()) {
            ensure!(
                !part.contains("zk://"),
                "--master: zk:// stands alone, with commas between its servers only"
            );
            places.push(Place::parse(part)?);
        }
        ensure!(
            !places.is_empty(),
            "--master: expected host:port of at least one master"
        );
        Ok(Detector::Named(places))
    }

    /// Addresses (`host:port`) by which it can be told over which route masters are reached.
    pub(crate) fn routes(&self) -> Vec<String> {
        match self {
            Detector::Named(places) => places.iter().map(Place::address).collect(),
            // Usually in the same network.
            Detector::Published(url, _) => url.servers().to_vec(),
        }
    }

    /// Tells the links where masters are, whenever that changes; ends when it cannot.
    pub(crate) async fn run(self, links: Arc<Links>) {
        match self {
            Detector::Named(places) => watch_names(&places, &links).await,
            Detector::Published(url, timeout) => watch_published(url, timeout, &links).await,
        }
    }
}

/// Follows the leader as it is published. One that is not published any more may lead all the
/// same, and its links tell who the others are: it is forgotten only for another one.
async fn watch_published(url: Url, session_timeout: Duration, links: &Arc<Links>) {
    let mut detector = zookeeper::Detector::start(url, session_timeout);
    loop {
        if let Some(leader) = detector.leader() {
            links.found(BTreeSet::from([leader]));
        }
        detector.changed().await;
    }
}

async fn watch_names(places: &[Place], links: &Arc<Links>) {
    let mut known: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut retry = FIRST_RETRY;
    loop {
        let mut failed = false;
        for (index, place) in places.iter().enumerate() {
            match resolve(place).await {
                Ok(addresses) => {
                    known.insert(index, addresses);
                }
                Err(error) => {
                    // What it stood for last may still be right.
                    failed = true;
                    let host = &place.host;
                    tracing::warn!(host, %error, "--master: this name has no address now");
                }
            }
        }
        links.found(known.values().flatten().cloned().collect());
        if !places.iter().any(Place::is_name) {
            return;
        }
        let wait = match failed {
            true => retry,
            false => INTERVAL,
        };
        retry = match failed {
            true => (retry * 2).min(INTERVAL),
            false => FIRST_RETRY,
        };
        tokio::time::sleep(wait).await;
    }
}

/// All addresses that a place stands for.
async fn resolve(place: &Place) -> std::io::Result<BTreeSet<String>> {
    if !place.is_name() {
        return Ok(BTreeSet::from([place.address()]));
    }
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await?;
    let mut addresses: Vec<_> = found.collect();
    // A name of this machine may have both; one is enough, and older masters bind only to it.
    if addresses.iter().any(|it| it.is_ipv4()) {
        addresses.retain(|it| it.is_ipv4());
    }
    let addresses: BTreeSet<_> = addresses.iter().map(ToString::to_string).collect();
    match addresses.is_empty() {
        true => Err(std::io::Error::other("no addresses")),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(10);

    fn routes(text: &str) -> Vec<String> {
        Detector::parse(text, SESSION).unwrap().routes()
    }

    #[test]
    fn the_forms_of_the_flag() {
        assert_eq!(routes("a:1,b:2"), ["a:1", "b:2"]);
        assert_eq!(
            routes(" masters.example \n10.0.0.1:7\n"),
            ["masters.example:5050", "10.0.0.1:7"]
        );
        assert_eq!(
            routes("[::1]:5,::1,[::2]"),
            ["[::1]:5", "[::1]:5050", "[::2]:5050"]
        );
        assert_eq!(routes("zk://a:1,b/x"), ["a:1", "b:2181"]);
        for bad in [
            "",
            " , ",
            "a:0",
            "a:70000",
            "http://a:5050",
            "a/b:1",
            ":5050",
            "[::1",
            "[::1]5",
            "zk://a:1",
            "a:1,zk://b:2/x",
        ] {
            assert!(Detector::parse(bad, SESSION).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_name_stands_for_its_addresses() {
        let place = Place::parse("localhost:99").unwrap();
        assert!(resolve(&place).await.unwrap().contains("127.0.0.1:99"));
        let place = Place::parse("127.0.0.1:99").unwrap();
        assert_eq!(
            resolve(&place).await.unwrap(),
            BTreeSet::from(["127.0.0.1:99".to_owned()])
        );
    }
}
