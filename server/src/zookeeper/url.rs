//! `zk://[user:password@]host:port[,host:port...]/path`.

use std::fmt;

/// The port of servers that are named without one.
const PORT: u16 = 2181;

/// Where masters are published.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// `host:port` each.
    pub(super) servers: Vec<String>,
    /// `user:password`.
    pub(super) credentials: Option<String>,
    /// Begins with a slash and does not end with one.
    pub(super) path: String,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Url {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.as_ref().and_then(|it| it.split_once(':'));
        let user = user.map_or(String::new(), |(user, _)| format!("{user}:***@"));
        write!(f, "zk://{user}{}{}", self.servers.join(","), self.path)
    }
}

/// What is wrong with a text that should be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; expected zk://[user:password@]host:port[,host:port...]/path")]
pub struct InvalidUrl {
    problem: String,
}

impl Url {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, without the password.
    pub fn parse(text: &str) -> Result<Url, InvalidUrl> {
        let wrong = |problem: String| InvalidUrl { problem };
        let rest = text
            .trim()
            .strip_prefix("zk://")
            .ok_or_else(|| wrong("it does not begin with zk://".to_owned()))?;
        // A password may have slashes and at signs; hosts have neither.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        if credentials.is_some_and(|it| !it.contains(':')) {
            return Err(wrong("the user has no password".to_owned()));
        }
        let (hosts, path) = rest
            .split_once('/')
            .ok_or_else(|| wrong("it has no path".to_owned()))?;
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(wrong("the path is /, which is for all".to_owned()));
        }
        let part = |it: &str| !it.is_empty() && it != "." && it != "..";
        if !path.split('/').all(part) || path.chars().any(char::is_control) {
            return Err(wrong(format!("the path /{path} has a part that is none")));
        }
        let servers = hosts.split(',').map(|host| {
            let (name, port) = match host.rsplit_once(':') {
                // An IPv6 address without a port.
                Some((_, port)) if port.ends_with(']') => (host, Some(PORT)),
                Some((name, port)) => (name, port.parse::<u16>().ok()),
                None => (host, Some(PORT)),
            };
            match port {
                Some(port) if !name.is_empty() && port > 0 => Ok(format!("{name}:{port}")),
                _ => Err(wrong(format!("{host:?} is not host:port"))),
            }
        });
        Ok(Url {
            servers: servers.collect::<Result<_, _>>()?,
            credentials: credentials.map(str::to_owned),
            path: format!("/{path}"),
        })
    }

    /// `host:port` of every server.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms() {
        let url = Url::parse("zk://a:1,b,[::1]:3,[::2]/mesos/one/").unwrap();
        assert_eq!(url.servers, ["a:1", "b:2181", "[::1]:3", "[::2]:2181"]);
        assert_eq!((url.path.as_str(), url.credentials), ("/mesos/one", None));
        let url = Url::parse("zk://me:p@ss/word@h:1/mesos").unwrap();
        assert_eq!(url.credentials.as_deref(), Some("me:p@ss/word"));
        assert_eq!(url.to_string(), "zk://me:***@h:1/mesos");
        assert_eq!(format!("{url:?}"), "zk://me:***@h:1/mesos");
    }

    #[test]
    fn others_are_refused() {
        for bad in [
            "",
            "a:1/mesos",
            "zk://a:1",
            "zk://a:1/",
            "zk:///mesos",
            "zk://a:x/mesos",
            "zk://a:0/mesos",
            "zk://a,,b/mesos",
            "zk://me@a:1/mesos",
            "zk://a:1/x//y",
            "zk://a:1/../y",
        ] {
            let error = Url::parse(bad).map(|it| it.to_string());
            assert!(error.is_err(), "{bad:?}: {error:?}");
        }
        let error = Url::parse("zk://me:secret@a:0/x").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
