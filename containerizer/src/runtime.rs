//! Our own files: a folder per container below the runtime directory.
//!
//! | file | written by | holds |
//! |---|---|---|
//! | `launch.json` | containerizer, before anything else | the [`ContainerSpec`] |
//! | `spec`, `control` | containerizer | for the shim, see its protocol |
//! | `state`, `exit` | shim | for us |
//! | `started` | containerizer | start of the task and whether a kill was asked for |
//! | `checks` | containerizer | times and counts that re-arm the checks |
//! | `cursor` | log reader of Docker | how far the engine's log has been copied |
//!
//! Every file is written under another name and renamed, so a reader sees all of it or none.

use crate::{error::Error, spec::ContainerSpec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Longest container id: it has to fit a file name beside a few letters of our own.
const MAX_ID: usize = 200;

/// Refuses ids that could leave the runtime directory or that cgroups would not take.
pub(crate) fn validate_id(id: &str) -> Result<(), Error> {
    let good = !id.is_empty()
        && id.len() <= MAX_ID
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.'));
    if good {
        Ok(())
    } else {
        Err(Error::InvalidId(id.chars().take(MAX_ID).collect()))
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| it.as_millis() as u64)
}

/// Writes all of a file or nothing: temporary name, then rename.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

/// Writes a value as JSON, atomically.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_atomic(path, &serde_json::to_vec(value)?)
}

/// Reads what [`write_json`] wrote; `None` when the file is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What must be known of a started container beyond the shim's and the engine's own records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Start of the task, milliseconds since the epoch; 0 before.
    pub started_ms: u64,
    /// A kill was asked for.
    #[serde(default)]
    pub killed: bool,
    /// The limit that the containerizer itself enforced.
    #[serde(default)]
    pub limitation: Option<crate::event::Limitation>,
}

/// The folder of one container.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn of(runtime_dir: &Path, id: &str) -> Folder {
        Folder {
            path: runtime_dir.join(id),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder with the launch record in it.
    pub fn create(&self, spec: &ContainerSpec) -> Result<(), Error> {
        fs::create_dir_all(&self.path).map_err(Error::file("create", &self.path))?;
        let file = self.file("launch.json");
        write_json(&file, spec).map_err(Error::file("write", file))
    }

    pub fn spec(&self) -> io::Result<Option<ContainerSpec>> {
        read_json(&self.file("launch.json"))
    }

    pub fn progress(&self) -> Progress {
        read_json(&self.file("started"))
            .unwrap_or_default()
            .unwrap_or_default()
    }

    pub fn set_progress(&self, progress: &Progress) -> io::Result<()> {
        write_json(&self.file("started"), progress)
    }

    /// Deletes the folder; may run twice.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Messages of the wire inside our JSON: their protobuf bytes in base64, so that fields that
/// this version does not know of are at least not misread.
pub(crate) mod wire_field {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<M: Message, S: Serializer>(message: &M, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(message.encode_to_vec()))
    }

    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        from: D,
    ) -> Result<M, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).map_err(D::Error::custom)
    }

    fn decode<M: Message + Default>(text: &str) -> Result<M, String> {
        let bytes = STANDARD.decode(text).map_err(|it| it.to_string())?;
        M::decode(bytes.as_slice()).map_err(|it| it.to_string())
    }

    pub mod option {
        use super::*;

        pub fn serialize<M: Message, S: Serializer>(
            message: &Option<M>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match message {
                Some(it) => super::serialize(it, to),
                None => to.serialize_none(),
            }
        }

        pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<M>, D::Error> {
            Option::<String>::deserialize(from)?
                .map(|it| super::decode(&it).map_err(D::Error::custom))
                .transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_directory_are_refused() {
        for id in ["", "..", ".", ".a", "a/b", "a\0", "é", &"x".repeat(201)] {
            assert!(validate_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "5f0e-11.child_2", &"x".repeat(200)] {
            assert!(validate_id(id).is_ok(), "{id:?}");
        }
    }
}
