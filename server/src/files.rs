//! Files below attached folders, under virtual paths: `/files/browse`, `/files/read`,
//! `/files/download`, `/files/debug`, and what LIST_FILES and READ_FILE answer.
//!
//! A virtual path is attached to a real folder (or file); everything below it can be read
//! through it and nothing else: a path is resolved on the disk, links included, and has to
//! end below the real path of what is attached.

use crate::{respond, respond::Shape, routing};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use tepui_proto::mesos::v1;

/// Bytes of one answer of `/files/read` at most: 16 pages.
pub const MAX_READ: u64 = 16 * 4096;

/// Why a file cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 404: nothing is attached there, or the file does not exist.
    #[error("there is no file {0:?}")]
    NotFound(String),
    /// 400: what was asked for cannot be done.
    #[error("{0}")]
    BadRequest(String),
    /// 500: the disk failed.
    #[error("{path:?} cannot be read: {problem}")]
    Disk {
        /// As asked for.
        path: String,
        /// Of the system.
        problem: String,
    },
}

impl Error {
    /// The status of Mesos for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::BadRequest(_) => StatusCode::BAD_REQUEST,
            Error::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn of(path: &str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::NotFound(path.to_owned())
            }
            _ => Error::Disk {
                path: path.to_owned(),
                problem: error.to_string(),
            },
        }
    }

    fn response(&self) -> Response {
        respond::text(self.status(), format!("{self}\n"))
    }
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Size of the whole file in bytes.
    pub size: u64,
    /// The bytes.
    pub data: Bytes,
}

/// What is attached. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Files {
    attached: Arc<RwLock<BTreeMap<String, PathBuf>>>,
}

impl Files {
    /// With nothing attached.
    pub fn new() -> Files {
        Files::default()
    }

    /// Attaches a real path under a virtual one; replaces what was there.
    pub fn attach(&self, path: impl Into<String>, real: impl Into<PathBuf>) {
        let path = trimmed(&path.into());
        let mut attached = self
            .attached
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        attached.insert(path, real.into());
    }

    /// Takes a virtual path away.
    pub fn detach(&self, path: &str) {
        let mut attached = self
            .attached
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        attached.remove(&trimmed(path));
    }

    /// The virtual paths with their real ones.
    pub fn attached(&self) -> BTreeMap<String, PathBuf> {
        self.attached
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The real path behind a virtual one.
    fn resolve(&self, path: &str) -> Result<PathBuf, Error> {
        let not_found = || Error::NotFound(path.to_owned());
        let virtual_path = trimmed(path);
        let (root, rest) = {
            let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner);
            let found = attached.iter().filter_map(|(prefix, real)| {
                let rest = virtual_path.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
                    .then(|| (prefix.len(), real.clone(), rest.to_owned()))
            });
            let (_, root, rest) = found
                .max_by_key(|(length, ..)| *length)
                .ok_or_else(not_found)?;
            (root, rest)
        };
        let rest = Path::new(rest.trim_start_matches('/'));
        let escapes = || {
            Error::BadRequest(format!(
                "{path:?} leaves what is attached: '..' and links may not"
            ))
        };
        let plain = |it: Component| matches!(it, Component::Normal(_) | Component::CurDir);
        if !rest.components().all(plain) {
            return Err(escapes());
        }
        let root = root
            .canonicalize()
            .map_err(|error| Error::of(path, &error))?;
        let wanted = match rest.as_os_str().is_empty() {
            true => root.clone(),
            false => root.join(rest),
        };
        let real = wanted
            .canonicalize()
            .map_err(|error| Error::of(path, &error))?;
        match real.starts_with(&root) {
            true => Ok(real),
            false => Err(escapes()),
        }
    }

    /// The entries of a folder, by name; a file is its own only entry.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list(&self, path: &str) -> Result<Vec<v1::FileInfo>, Error> {
        let real = self.resolve(path)?;
        let metadata = fs::metadata(&real).map_err(|error| Error::of(path, &error))?;
        let names = Names::read();
        if !metadata.is_dir() {
            return Ok(vec![info(path.to_owned(), &metadata, &names)]);
        }
        let entries = fs::read_dir(&real).map_err(|error| Error::of(path, &error))?;
        let mut infos = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::of(path, &error))?;
            // Links are followed as far as they lead to something; one that vanished
            // meanwhile is left out.
            let metadata = fs::metadata(entry.path()).or_else(|_| entry.metadata());
            let Ok(metadata) = metadata else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{}/{name}", trimmed(path));
            infos.push(info(path, &metadata, &names));
        }
        infos.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(infos)
    }

    /// Bytes of a file from `offset` on, `length` of them at most.
    ///
    /// # Errors
    /// See [`Error`]; a folder is a bad request.
    pub fn read(&self, path: &str, offset: u64, length: u64) -> Result<Part, Error> {
        let (mut file, metadata) = self.open(path)?;
        let size = metadata.len();
        let length = length.min(size.saturating_sub(offset));
        if length == 0 {
            let data = Bytes::new();
            return Ok(Part { size, data });
        }
        let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(length).read_to_end(&mut data))
            .map_err(|error| Error::of(path, &error))?;
        Ok(Part {
            size,
            data: data.into(),
        })
    }

    fn open(&self, path: &str) -> Result<(fs::File, fs::Metadata), Error> {
        let real = self.resolve(path)?;
        let metadata = fs::metadata(&real).map_err(|error| Error::of(path, &error))?;
        if metadata.is_dir() {
            return Err(Error::BadRequest(format!(
                "{path:?} is a folder, expected a file"
            )));
        }
        // Opening a pipe or a device would wait or do something.
        if !metadata.is_file() {
            return Err(Error::BadRequest(format!("{path:?} is not a regular file")));
        }
        let file = fs::File::open(&real).map_err(|error| Error::of(path, &error))?;
        Ok((file, metadata))
    }

    /// Answers a request below `/files/`; `action` is what follows. Reads the disk, so it
    /// is to be called where that is allowed.
    pub fn answer(
        &self,
        action: &str,
        method: &Method,
        query: Option<&str>,
        shape: &Shape,
    ) -> Response {
        if method != Method::GET && method != Method::HEAD {
            return respond::method_not_allowed("GET", method);
        }
        let answer = match action {
            "browse" => self.browse(query, shape),
            "read" => self.read_text(query, shape),
            "download" => self.download(query, method),
            "debug" => {
                let attached = self.attached();
                let pairs = attached.iter().map(|(path, real)| {
                    (
                        path.clone(),
                        Value::from(real.to_string_lossy().into_owned()),
                    )
                });
                Ok(shape.json(Value::Object(pairs.collect()).to_string()))
            }
            _ => return respond::not_found(),
        };
        answer.unwrap_or_else(|error| error.response())
    }

    fn browse(&self, query: Option<&str>, shape: &Shape) -> Result<Response, Error> {
        let infos = self.list(&path_of(query)?)?;
        let entries = infos.iter().map(|info| {
            let seconds = info.mtime.as_ref().map_or(0, |it| it.nanoseconds) as f64 / 1e9;
            json!({
                "gid": info.gid(),
                "mode": mode(info.mode()),
                "mtime": seconds,
                "nlink": info.nlink(),
                "path": info.path,
                "size": info.size(),
                "uid": info.uid(),
            })
        });
        Ok(shape.json(Value::Array(entries.collect()).to_string()))
    }

    fn read_text(&self, query: Option<&str>, shape: &Shape) -> Result<Response, Error> {
        let path = path_of(query)?;
        let number = |name: &str| -> Result<Option<u64>, Error> {
            let Some(text) = routing::parameter(query, name) else {
                return Ok(None);
            };
            match text.parse::<i64>() {
                Ok(-1) => Ok(None),
                Ok(number) if number >= 0 => Ok(u64::try_from(number).ok()),
                _ => Err(Error::BadRequest(format!(
                    "{name} is {text:?}: expected a number, -1 or more"
                ))),
            }
        };
        let (offset, length) = (number("offset")?, number("length")?);
        let Some(offset) = offset else {
            let part = self.read(&path, 0, 0)?;
            return Ok(shape.json(json!({"offset": part.size, "data": ""}).to_string()));
        };
        let part = self.read(&path, offset, length.unwrap_or(MAX_READ).min(MAX_READ))?;
        let data = String::from_utf8_lossy(&part.data);
        Ok(shape.json(json!({"offset": offset, "data": data}).to_string()))
    }

    fn download(&self, query: Option<&str>, method: &Method) -> Result<Response, Error> {
        let path = path_of(query)?;
        let (file, metadata) = self.open(&path)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        let kind = mime_guess::from_path(name).first_or_octet_stream();
        let length = metadata.len();
        // A file that grows meanwhile is cut where its announced length ends.
        let body = match *method == Method::HEAD {
            true => Body::empty(),
            false => Body::from_stream(chunks(file, length)),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Ok(kind) = HeaderValue::from_str(kind.as_ref()) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let safe: String = name
            .chars()
            .map(|it| {
                if it.is_ascii_graphic() && it != '"' && it != ';' {
                    it
                } else {
                    '_'
                }
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename={safe}")) {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
        Ok(response)
    }
}

/// The file in pieces, read where blocking is allowed, one ahead of the reader at most.
fn chunks(
    file: fs::File,
    length: u64,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    /// Bytes of a piece.
    const PIECE: u64 = 256 << 10;
    futures_util::stream::try_unfold((file, length), |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let piece = left.min(PIECE);
        let read = tokio::task::spawn_blocking(move || {
            let mut data = Vec::with_capacity(usize::try_from(piece).unwrap_or(0));
            let read = (&file).take(piece).read_to_end(&mut data);
            read.map(|_| (file, data))
        });
        let (file, data) = read.await.map_err(io::Error::other)??;
        if data.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut",
            ));
        }
        let left = left - data.len() as u64;
        Ok(Some((Bytes::from(data), (file, left))))
    })
}

fn path_of(query: Option<&str>) -> Result<String, Error> {
    routing::parameter(query, "path")
        .filter(|it| !it.is_empty())
        .ok_or_else(|| Error::BadRequest("expecting 'path=value' in the query".to_owned()))
}

/// Without slashes at the end.
fn trimmed(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}

fn info(path: String, metadata: &fs::Metadata, names: &Names) -> v1::FileInfo {
    let seconds = metadata.mtime();
    v1::FileInfo {
        path,
        nlink: i32::try_from(metadata.nlink()).ok(),
        size: Some(metadata.len()),
        mtime: Some(v1::TimeInfo {
            nanoseconds: seconds.saturating_mul(1_000_000_000),
        }),
        mode: Some(metadata.mode()),
        uid: Some(names.user(metadata.uid())),
        gid: Some(names.group(metadata.gid())),
    }
}

/// As `ls` shows it: `drwxr-xr-x`.
fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o140_000 => 's',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        _ => '-',
    };
    let mut text = String::from(kind);
    for shift in [6, 3, 0] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(if bits & 1 != 0 { 'x' } else { '-' });
    }
    text
}

/// Names of users and groups by number, of the system's files.
struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn read() -> Names {
        let read = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let mut names = BTreeMap::new();
            for line in text.lines() {
                let mut fields = line.split(':');
                if let (Some(name), Some(Ok(id))) =
                    (fields.next(), fields.nth(1).map(str::parse::<u32>))
                {
                    names.entry(id).or_insert_with(|| name.to_owned());
                }
            }
            names
        };
        Names {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }

    fn user(&self, id: u32) -> String {
        self.users
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    fn group(&self, id: u32) -> String {
        self.groups
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), b"hello\xffworld").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("out")).unwrap();
        std::os::unix::fs::symlink("file", inside.join("link")).unwrap();
        let files = Files::new();
        files.attach("/v/1", &inside);
        (folder, files)
    }

    fn status(files: &Files, action: &str, query: &str) -> u16 {
        let shape = Shape::default();
        files
            .answer(action, &Method::GET, Some(query), &shape)
            .status()
            .as_u16()
    }

    #[test]
    fn nothing_outside_can_be_read() {
        let (_folder, files) = tree();
        assert_eq!(files.read("/v/1/file", 0, 99).unwrap().data.len(), 11);
        assert_eq!(files.read("/v/1/link", 6, 2).unwrap().data, "wo");
        for path in ["/v/1/out", "/v/1/../secret", "/v/1/x/../../secret"] {
            assert!(
                matches!(files.read(path, 0, 9), Err(Error::BadRequest(_))),
                "{path}"
            );
        }
        for path in ["/v/1/none", "/v/12/file", "/v", "/", "/v/1/file/x"] {
            assert!(
                matches!(files.read(path, 0, 9), Err(Error::NotFound(_))),
                "{path}"
            );
        }
        files.detach("/v/1/");
        assert!(matches!(
            files.read("/v/1/file", 0, 9),
            Err(Error::NotFound(_))
        ));
    }

    #[test]
    fn statuses_are_those_of_mesos() {
        let (_folder, files) = tree();
        for (action, query, expected) in [
            ("browse", "path=/v/1", 200),
            ("browse", "path=/", 404),
            ("browse", "", 400),
            ("read", "path=/v/1/file", 200),
            ("read", "path=/v/1/file&offset=-1", 200),
            ("read", "path=/v/1/file&offset=-2", 400),
            ("read", "path=/v/1/file&offset=x", 400),
            ("read", "path=/v/1&offset=0", 400),
            ("download", "path=/v/1", 400),
            ("download", "path=/v/1/file", 200),
            ("debug", "", 200),
            ("nope", "", 404),
        ] {
            assert_eq!(status(&files, action, query), expected, "{action} {query}");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_replaced() {
        let (_folder, files) = tree();
        let answer = files.answer(
            "read",
            &Method::GET,
            Some("path=/v/1/file&offset=0"),
            &Shape::default(),
        );
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20)
            .await
            .unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["data"], "hello\u{fffd}world");
    }

    #[test]
    fn modes() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o040_755), "drwxr-xr-x");
    }
}
