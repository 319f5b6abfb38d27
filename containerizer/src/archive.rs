//! Unpacks archives into a sandbox, and nowhere else.
//!
//! An archive is hostile until proven otherwise: entries may name absolute paths or `..`, go
//! through links made by earlier entries, be links or devices themselves, or swell without
//! end. The rules here are few and strict:
//!
//! - every directory on the way to an entry is a real directory below the destination, never a
//!   link;
//! - a symbolic link's target is relative, begins with at most as many `..` as there are
//!   directories above it, and has none later (behind another link one would lead astray);
//! - a hard link's target follows the rules of an entry;
//! - only files, directories and links exist; set-user-id bits do not;
//! - bytes and entries are counted while unpacking.

use crate::{sandbox::give, users::User};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// What an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Tar,
    TarGz,
    TarBz2,
    TarXz,
    Zip,
    /// One compressed file.
    Gz,
}

impl Format {
    pub fn of(name: &str) -> Option<Format> {
        const SUFFIXES: [(&str, Format); 9] = [
            (".tar", Format::Tar),
            (".tgz", Format::TarGz),
            (".tar.gz", Format::TarGz),
            (".tbz2", Format::TarBz2),
            (".tar.bz2", Format::TarBz2),
            (".txz", Format::TarXz),
            (".tar.xz", Format::TarXz),
            (".zip", Format::Zip),
            // Last: the others end in it too.
            (".gz", Format::Gz),
        ];
        SUFFIXES
            .iter()
            .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(suffix))
            .map(|(_, format)| *format)
    }
}

/// Bounds and circumstances of one extraction.
pub(crate) struct Extraction<'a> {
    pub destination: &'a Path,
    pub user: Option<&'a User>,
    pub max_bytes: u64,
    pub max_entries: u64,
    /// Set when nobody waits for the result any more.
    pub cancelled: &'a AtomicBool,
}

/// Unpacks `archive`; the error says which entry and why.
pub(crate) fn extract(archive: &Path, format: Format, to: &Extraction<'_>) -> Result<(), String> {
    let file = File::open(archive).map_err(|error| error.to_string())?;
    let file = io::BufReader::with_capacity(64 << 10, file);
    let mut writer = Writer {
        to,
        bytes: 0,
        entries: 0,
    };
    match format {
        Format::Tar => writer.tar(file),
        Format::TarGz => writer.tar(flate2::bufread::MultiGzDecoder::new(file)),
        Format::TarBz2 => writer.tar(bzip2::bufread::MultiBzDecoder::new(file)),
        Format::TarXz => writer.tar(xz2::bufread::XzDecoder::new_multi_decoder(file)),
        Format::Zip => writer.zip(file),
        Format::Gz => {
            let name = archive.file_stem().ok_or("no file name")?;
            let target = archive.with_file_name(name);
            let below = target
                .strip_prefix(to.destination)
                .map_err(|_| "not inside the sandbox")?;
            let mut content = flate2::bufread::MultiGzDecoder::new(file);
            writer.file(below, 0o644, &mut content)
        }
    }
}

struct Writer<'a> {
    to: &'a Extraction<'a>,
    bytes: u64,
    entries: u64,
}

impl Writer<'_> {
    fn tar(&mut self, content: impl Read) -> Result<(), String> {
        let mut archive = tar::Archive::new(content);
        for entry in archive.entries().map_err(text)? {
            let mut entry = entry.map_err(text)?;
            let path = entry.path().map_err(text)?.into_owned();
            let named = |error: String| format!("entry {}: {error}", path.display());
            self.count_entry().map_err(named)?;
            let kind = entry.header().entry_type();
            let link = match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => Some(
                    entry
                        .link_name()
                        .map_err(text)?
                        .ok_or_else(|| named("a link without a target".into()))?
                        .into_owned(),
                ),
                _ => None,
            };
            let mode = entry.header().mode().unwrap_or(0o644);
            match (kind, link) {
                (tar::EntryType::Regular | tar::EntryType::Continuous, _) => {
                    self.file(&path, mode, &mut entry)
                }
                (tar::EntryType::Directory, _) => self.directory(&path),
                (tar::EntryType::Symlink, Some(target)) => self.symlink(&path, &target),
                (tar::EntryType::Link, Some(target)) => self.hard_link(&path, &target),
                (tar::EntryType::XGlobalHeader, _) => Ok(()),
                (other, _) => Err(format!("kind {other:?} is not allowed")),
            }
            .map_err(named)?;
        }
        Ok(())
    }

    fn zip(&mut self, content: impl Read + io::Seek) -> Result<(), String> {
        let mut archive = zip::ZipArchive::new(content).map_err(|it| it.to_string())?;
        for at in 0..archive.len() {
            let mut entry = archive.by_index(at).map_err(|it| it.to_string())?;
            let name = entry.name().map_err(|it| it.to_string())?.into_owned();
            let named = |error: String| format!("entry {name}: {error}");
            self.count_entry().map_err(named)?;
            let path = PathBuf::from(&name);
            let mode = entry.unix_mode().unwrap_or(0o644);
            let kind = mode & libc::S_IFMT;
            if entry.is_symlink() {
                let mut target = String::new();
                // A path longer than the kernel takes is none.
                (&mut entry)
                    .take(libc::PATH_MAX as u64)
                    .read_to_string(&mut target)
                    .map_err(text)?;
                self.symlink(&path, Path::new(&target))
            } else if entry.is_dir() {
                self.directory(&path)
            } else if kind == 0 || kind == libc::S_IFREG {
                self.file(&path, mode, &mut entry)
            } else {
                Err("only files, directories and links are allowed".into())
            }
            .map_err(named)?;
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), String> {
        self.entries += 1;
        if self.entries > self.to.max_entries {
            return Err(format!("more than {} entries", self.to.max_entries));
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), String> {
        let target = place(self.to.destination, path, self.to.user)?;
        // Set-user-id bits and the like stay behind.
        let mut file = create(&target, mode & 0o777 | 0o400)?;
        give(&target, self.to.user).map_err(text)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.to.cancelled.load(Ordering::Relaxed) {
                return Err("cancelled".into());
            }
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            self.bytes += count as u64;
            if self.bytes > self.to.max_bytes {
                return Err(format!(
                    "unpacks to more than the limit of {}",
                    crate::text::bytes(self.to.max_bytes)
                ));
            }
            io::Write::write_all(&mut file, &buffer[..count]).map_err(text)?;
        }
    }

    fn directory(&mut self, path: &Path) -> Result<(), String> {
        let parts = parts(path)?;
        real_directory(self.to.destination, &parts, self.to.user).map(|_| ())
    }

    fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), String> {
        let depth = parts(path)?.len().saturating_sub(1);
        let mut up = 0;
        let mut down = false;
        for component in target.components() {
            match component {
                Component::ParentDir if !down => up += 1,
                Component::Normal(_) => down = true,
                Component::CurDir => {}
                _ => up = usize::MAX,
            }
        }
        if up > depth {
            return Err(format!(
                "a link to {} would leave the sandbox",
                target.display()
            ));
        }
        let place = place(self.to.destination, path, self.to.user)?;
        clear(&place)?;
        symlink(target, &place).map_err(text)?;
        match self.to.user {
            Some(user) => {
                std::os::unix::fs::lchown(&place, Some(user.uid), Some(user.gid)).map_err(text)
            }
            None => Ok(()),
        }
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), String> {
        let target = place(self.to.destination, target, self.to.user)?;
        let metadata = fs::symlink_metadata(&target).map_err(text)?;
        if !metadata.is_file() {
            return Err("a hard link must name a file".into());
        }
        let place = place(self.to.destination, path, self.to.user)?;
        clear(&place)?;
        fs::hard_link(&target, &place).map_err(text)
    }
}

/// Normal components of a relative path that goes nowhere up.
fn parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>, String> {
    path.components()
        .filter_map(|it| match it {
            Component::Normal(name) => Some(Ok(name)),
            Component::CurDir => None,
            _ => Some(Err("path would leave the sandbox".to_owned())),
        })
        .collect()
}

/// Where a file may be put: its directory is made, and made sure to be real.
pub(crate) fn place(
    destination: &Path,
    path: &Path,
    user: Option<&User>,
) -> Result<PathBuf, String> {
    let parts = parts(path)?;
    let (name, above) = parts.split_last().ok_or("empty path")?;
    Ok(real_directory(destination, above, user)?.join(name))
}

fn real_directory(
    destination: &Path,
    parts: &[&std::ffi::OsStr],
    user: Option<&User>,
) -> Result<PathBuf, String> {
    let mut directory = destination.to_owned();
    for part in parts {
        directory.push(part);
        match fs::symlink_metadata(&directory) {
            Ok(it) if it.is_dir() => {}
            Ok(_) => {
                return Err(format!(
                    "{} is in the way and not a directory",
                    part.to_string_lossy()
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&directory).map_err(text)?;
                give(&directory, user).map_err(text)?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(directory)
}

/// Makes a file in the place of whatever file or link is there.
pub(crate) fn create(path: &Path, mode: u32) -> Result<File, String> {
    clear(path)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(text)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(text)?;
    Ok(file)
}

fn clear(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
