//! Who is admitted where, as the flags say it.

use crate::{
    auth::{Authority, Credentials, Realm},
    flags::Flags,
};

/// Why the accounts cannot be set up; each names the flag.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the credentials cannot be read.
    #[error("--{flag}: {path} cannot be read")]
    Read {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no credentials.
    #[error("--{flag}: {path}")]
    Parse {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: String,
        /// What is wrong in it.
        source: tepui_auth::Error,
    },
    /// Credentials are asked for and none are known.
    #[error("--{asks} needs --{flag}, the file of those who are admitted")]
    Nobody {
        /// The flag that asks for credentials.
        asks: &'static str,
        /// The flag that would name them.
        flag: &'static str,
    },
}

/// Reads the credentials that the flag `file` names. `realms` are asked for them when their
/// flag says so.
///
/// # Errors
/// When the file cannot be read, or a realm asks for credentials that nobody has.
pub fn authority(
    flags: &Flags,
    file: &'static str,
    realms: &[(&'static str, Realm)],
) -> Result<Authority, Error> {
    let path = flags.text(file);
    let credentials = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
                flag: file,
                path: path.to_owned(),
                source,
            })?;
            Credentials::parse(&text).map_err(|source| Error::Parse {
                flag: file,
                path: path.to_owned(),
                source,
            })?
        }
        None => Credentials::default(),
    };
    let mut authority = Authority::with(credentials);
    for (asks, realm) in realms {
        if flags.bool(asks) && path.is_none() {
            return Err(Error::Nobody { asks, flag: file });
        }
        authority = authority.require(*realm, flags.bool(asks));
    }
    Ok(authority)
}
