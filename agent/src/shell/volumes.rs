//! The folders of persistent volumes: made with their operation, destroyed with theirs and
//! never otherwise.

use crate::shell::spec::volume_path;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tepui_agent_machine::{
    model::{Resource, resources::DiskKind, wire},
    output::VolumeCommand,
};

/// Destroyed volumes wait here for their deletion, beside the others.
const TRASH: &str = ".destroyed";

/// Makes and destroys volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    work_dir: PathBuf,
    destroyed: AtomicU64,
}

impl Volumes {
    /// Of a work folder. Deletes what an earlier life did not come to delete.
    pub(crate) fn new(work_dir: &Path) -> Volumes {
        let trash = work_dir.join("volumes").join(TRASH);
        if trash.exists() {
            delete_later(trash);
        }
        Volumes {
            work_dir: work_dir.to_owned(),
            destroyed: AtomicU64::new(0),
        }
    }

    /// Carries out an order. A disk that refuses is reported: tasks that ask for a volume that
    /// could not be made fail with that, and what is left of a destroyed one is for the
    /// operator.
    pub(crate) fn obey(&self, command: &VolumeCommand) {
        let (wire, action) = match command {
            VolumeCommand::Create(it) => (it, "made"),
            VolumeCommand::Destroy(it) => (it, "destroyed"),
        };
        let Some((volume, path)) = self.find(wire) else {
            tracing::error!(
                name = wire.name,
                "a volume cannot be {action}: it has no place"
            );
            return;
        };
        let result = match command {
            VolumeCommand::Create(_) => fs::create_dir_all(&path),
            VolumeCommand::Destroy(_) => self.destroy(&volume, &path),
        };
        match result {
            Ok(()) => tracing::info!(volume = %path.display(), "{action}"),
            Err(error) => {
                tracing::error!(volume = %path.display(), %error, "cannot be {action}");
            }
        }
    }

    fn find(&self, wire: &wire::Resource) -> Option<(Resource, PathBuf)> {
        let volume = Resource::from_wire(wire).ok()?;
        let path = volume_path(&volume, &self.work_dir)?;
        Some((volume, path))
    }

    fn destroy(&self, volume: &Resource, path: &Path) -> io::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        if volume.is_disk(DiskKind::Mount) {
            // The folder is the mount itself: only what is in it goes.
            for entry in fs::read_dir(path)? {
                let entry = entry?.path();
                match entry.is_dir() && !entry.is_symlink() {
                    true => fs::remove_dir_all(entry)?,
                    false => fs::remove_file(entry)?,
                }
            }
            return Ok(());
        }
        // A large volume must not keep the agent waiting: out of the way at once, deleted after.
        let above = path.ancestors().nth(3).ok_or(io::ErrorKind::InvalidInput)?;
        let trash = above.join(TRASH);
        fs::create_dir_all(&trash)?;
        let number = self.destroyed.fetch_add(1, Relaxed);
        let target = trash.join(format!("{}-{number}", std::process::id()));
        fs::rename(path, &target)?;
        delete_later(target);
        Ok(())
    }
}

fn delete_later(path: PathBuf) {
    let delete = move || {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot be deleted");
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("volumes".to_owned())
        .spawn(delete)
    {
        // The next start of the agent deletes it.
        tracing::warn!(%error, "no thread to delete a volume");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Box<wire::Resource> {
        let text = r#"{"name":"disk","type":"SCALAR","scalar":{"value":5},
            "reservations":[{"type":"DYNAMIC","role":"a/b"}],
            "disk":{"persistence":{"id":"v"},
                "volume":{"mode":"RW","container_path":"data"}}}"#;
        Box::new(tepui_server::proto::json::decode(text.as_bytes()).unwrap())
    }

    #[test]
    fn volumes_are_made_kept_and_destroyed() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(folder.path());
        volumes.obey(&VolumeCommand::Create(volume()));
        let path = folder.path().join("volumes/roles/a b/v");
        fs::write(path.join("file"), "kept").unwrap();
        volumes.obey(&VolumeCommand::Create(volume()));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
        volumes.obey(&VolumeCommand::Destroy(volume()));
        assert!(!path.exists());
        volumes.obey(&VolumeCommand::Destroy(volume()));
        volumes.obey(&VolumeCommand::Create(volume()));
        assert!(
            fs::read_dir(&path).unwrap().next().is_none(),
            "a new volume is empty"
        );
    }
}
