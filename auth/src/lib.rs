//! Who is asking: credentials and the check of HTTP Basic authentication.
//!
//! Pure: the shell reads the file of `--credentials` and hands its text in.
//!
//! # Invariants
//! - The time of a comparison of secrets does not depend on where they differ.
//! - Without credentials everybody is admitted, and nobody has a principal.
//! - No secret is ever formatted: [`Credentials`] prints names only.

use std::{collections::BTreeMap, fmt, sync::Arc};
use tepui_model::id::Principal;

mod base64;
mod json;

/// Why a text holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither Mesos' JSON nor its lines of `principal secret`.
    #[error(
        "credentials: expected {{\"credentials\": [{{\"principal\": \"...\", \"secret\": \"...\"}}]}} \
         or a line `principal secret` each: {0}"
    )]
    Syntax(String),
    /// One principal, two secrets.
    #[error("credentials: principal {0:?} is listed twice")]
    Twice(String),
    /// A principal nobody can be.
    #[error("credentials: a principal is empty")]
    Empty,
}

/// Principals and their secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    secrets: BTreeMap<String, String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.secrets.keys()).finish()
    }
}

impl Credentials {
    /// Reads the content of Mesos' `--credentials` file: JSON, or its older form with a
    /// line `principal secret` each.
    ///
    /// # Errors
    /// When it is neither, or a principal is empty or listed twice.
    pub fn parse(text: &str) -> Result<Credentials, Error> {
        let pairs = match text.trim_start().starts_with('{') {
            true => json::credentials(text).map_err(Error::Syntax)?,
            false => lines(text)?,
        };
        let mut secrets = BTreeMap::new();
        for (principal, secret) in pairs {
            if principal.is_empty() {
                return Err(Error::Empty);
            }
            if secrets.insert(principal.clone(), secret).is_some() {
                return Err(Error::Twice(principal));
            }
        }
        Ok(Credentials { secrets })
    }

    /// How many principals there are.
    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    /// True when there is no principal.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Whether the secret is this principal's.
    pub fn admits(&self, principal: &str, secret: &str) -> bool {
        match self.secrets.get(principal) {
            Some(known) => equal(known.as_bytes(), secret.as_bytes()),
            None => {
                // As long as for a principal that exists.
                equal(secret.as_bytes(), secret.as_bytes());
                false
            }
        }
    }
}

fn lines(text: &str) -> Result<Vec<(String, String)>, Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .enumerate()
        .map(|(index, line)| {
            // The secret's content must not reach the text of the error.
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(principal), Some(secret), None) => {
                    Ok((principal.to_owned(), secret.to_owned()))
                }
                _ => Err(Error::Syntax(format!(
                    "entry {} has not two words",
                    index + 1
                ))),
            }
        })
        .collect()
}

/// Compares every byte, whatever the first ones say; only the lengths show in the time.
fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let difference = one
        .iter()
        .zip(other)
        .fold(0u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    std::hint::black_box(difference) == 0
}

/// Which realm a request asks for admission to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// `mesos-master-readonly` and its kin: `--authenticate_http_readonly`.
    ReadOnly,
    /// `--authenticate_http_readwrite`.
    ReadWrite,
    /// `--authenticate_http_frameworks`.
    Frameworks,
    /// Agents' links: `--authenticate_agents`.
    Agents,
}

/// A request is not admitted: 401, with a challenge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// What was wrong and what would be right.
    pub reason: &'static str,
}

/// Who is admitted where: a snapshot, replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Authority {
    credentials: Arc<Credentials>,
    readonly: bool,
    readwrite: bool,
    frameworks: bool,
    agents: bool,
}

impl Authority {
    /// Admits everybody everywhere.
    pub fn open() -> Authority {
        Authority::default()
    }

    /// Admits those with credentials, nowhere else than to the realms added later.
    pub fn with(credentials: Credentials) -> Authority {
        Authority {
            credentials: Arc::new(credentials),
            ..Authority::default()
        }
    }

    /// Whether the realm admits those alone who authenticate.
    #[must_use]
    pub fn require(mut self, realm: Realm, required: bool) -> Authority {
        match realm {
            Realm::ReadOnly => self.readonly = required,
            Realm::ReadWrite => self.readwrite = required,
            Realm::Frameworks => self.frameworks = required,
            Realm::Agents => self.agents = required,
        }
        self
    }

    fn is_required(&self, realm: Realm) -> bool {
        match realm {
            Realm::ReadOnly => self.readonly,
            Realm::ReadWrite => self.readwrite,
            Realm::Frameworks => self.frameworks,
            Realm::Agents => self.agents,
        }
    }

    /// Who a request with this `Authorization` header is, `None` for nobody in particular.
    /// A realm that requires nothing ignores the header, as Mesos does.
    ///
    /// # Errors
    /// The realm requires credentials, and these are missing or wrong.
    pub fn admit(
        &self,
        realm: Realm,
        authorization: Option<&str>,
    ) -> Result<Option<Principal>, Refused> {
        if !self.is_required(realm) {
            return Ok(None);
        }
        let refused = |reason| Refused { reason };
        let header = authorization
            .ok_or_else(|| refused("expecting 'Authorization: Basic ...' to be present"))?;
        let malformed = || refused("expecting 'Authorization' to be Basic with principal:secret");
        let (scheme, encoded) = header.split_once(' ').ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(malformed());
        }
        let decoded = base64::decode(encoded.trim()).ok_or_else(malformed)?;
        let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
        let (principal, secret) = decoded.split_once(':').ok_or_else(malformed)?;
        match self.credentials.admits(principal, secret) {
            true => Ok(Some(Principal::from(principal))),
            false => Err(refused(
                "the principal is not known, or the secret is not its",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"credentials": [{"principal": "one", "secret": "s:\u0031"}]}"#;

    #[test]
    fn both_forms_of_the_file_are_read() {
        for text in [JSON, "one s:1\n\n"] {
            let credentials = Credentials::parse(text).unwrap();
            assert!(credentials.admits("one", "s:1"));
            assert!(!credentials.admits("one", "s:2"));
            assert!(!credentials.admits("one", "s:"));
            assert!(!credentials.admits("two", "s:1"));
            assert!(!format!("{credentials:?}").contains("s:1"));
        }
    }

    #[test]
    fn damaged_files_are_refused_without_showing_secrets() {
        for text in [
            "{",
            "{}",
            r#"{"credentials": 5}"#,
            r#"{"credentials": [{"principal": "one"}]}"#,
            r#"{"credentials": [{"principal": "", "secret": "hidden"}]}"#,
            "one hidden hidden",
            "one hidden\none hidden",
        ] {
            let error = Credentials::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn realms_ask_for_what_they_require() {
        let authority =
            Authority::with(Credentials::parse(JSON).unwrap()).require(Realm::ReadWrite, true);
        // one:s:1
        let right = Some("Basic b25lOnM6MQ==");
        assert_eq!(authority.admit(Realm::ReadOnly, None), Ok(None));
        assert_eq!(
            authority.admit(Realm::ReadWrite, right),
            Ok(Some("one".into()))
        );
        for wrong in [
            None,
            Some("Basic"),
            Some("Bearer b25lOnM6MQ=="),
            Some("Basic b25lOnM6Mg=="),
            Some("Basic !"),
        ] {
            assert!(
                authority.admit(Realm::ReadWrite, wrong).is_err(),
                "{wrong:?}"
            );
        }
        assert_eq!(Authority::open().admit(Realm::Frameworks, None), Ok(None));
    }
}
