//! Fetches the URIs of a command into the sandbox, before anything runs: behaviour 11.7.
//!
//! Everything that arrives belongs to the task's user, and a local file is opened with that
//! user's rights. A failure names the URI and the cause. There is no cache: the `cache` flag of
//! a URI is taken and has no effect.

use crate::{
    archive::{self, Extraction, Format},
    sandbox::give,
    users::User,
};
use futures_util::StreamExt;
use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tepui_model::wire::command_info::Uri;

/// Bounds of the fetcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of one downloaded file.
    pub file_bytes: u64,
    /// Most bytes that one archive may unpack to.
    pub extracted_bytes: u64,
    /// Most entries of one archive.
    pub extracted_entries: u64,
    /// A download that brings nothing for this long is given up (`--fetcher_stall_timeout`).
    pub stall: Duration,
    /// Longest time for all URIs of one task together.
    pub total: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            file_bytes: 16 << 30,
            extracted_bytes: 64 << 30,
            extracted_entries: 1_000_000,
            stall: Duration::from_secs(60),
            total: Duration::from_secs(3600),
        }
    }
}

/// Redirections that are followed, as many as curl is told to by Mesos' users in practice.
const MAX_REDIRECTS: usize = 10;

/// Fetches all URIs, one after the other. May be dropped at any time.
///
/// # Errors
/// `Failed to fetch URI '...': <cause>`.
pub async fn fetch(
    uris: &[Uri],
    sandbox: &Path,
    user: Option<&User>,
    frameworks_home: Option<&Path>,
    bounds: &Bounds,
) -> Result<(), String> {
    // Work on other threads is not dropped with this future; it sees this flag.
    let cancelled = Cancel(Arc::new(AtomicBool::new(false)));
    let all = async {
        for uri in uris {
            one(uri, sandbox, user, frameworks_home, bounds, &cancelled.0)
                .await
                .map_err(|cause| format!("Failed to fetch URI '{}': {cause}", uri.value))?;
        }
        Ok(())
    };
    match tokio::time::timeout(bounds.total, all).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "Failed to fetch URIs: not done within {} s",
            bounds.total.as_secs()
        )),
    }
}

struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn one(
    uri: &Uri,
    sandbox: &Path,
    user: Option<&User>,
    frameworks_home: Option<&Path>,
    bounds: &Bounds,
    cancelled: &Arc<AtomicBool>,
) -> Result<(), String> {
    let name = file_name(uri)?;
    let target = archive::place(sandbox, Path::new(&name), user)?;
    let file = archive::create(&target, 0o644)?;
    give(&target, user).map_err(|error| error.to_string())?;
    match source(&uri.value, frameworks_home)? {
        Source::Http(url) => download(url, file, bounds).await?,
        Source::Local(path) => {
            let (user, limit) = (user.cloned(), bounds.file_bytes);
            let cancelled = cancelled.clone();
            blocking(move || copy(&path, file, user.as_ref(), limit, &cancelled)).await?;
        }
    }
    if uri.executable.unwrap_or(false) {
        let mode = std::fs::Permissions::from_mode(0o755);
        return std::fs::set_permissions(&target, mode).map_err(|error| error.to_string());
    }
    if let (true, Some(format)) = (uri.extract.unwrap_or(true), Format::of(&name)) {
        let (destination, user) = (sandbox.to_owned(), user.cloned());
        let (max_bytes, max_entries) = (bounds.extracted_bytes, bounds.extracted_entries);
        let cancelled = cancelled.clone();
        blocking(move || {
            let to = Extraction {
                destination: &destination,
                user: user.as_ref(),
                max_bytes,
                max_entries,
                cancelled: &cancelled,
            };
            archive::extract(&target, format, &to)
        })
        .await
        .map_err(|cause| format!("extracting {name}: {cause}"))?;
    }
    Ok(())
}

async fn blocking(
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

enum Source {
    Http(url::Url),
    Local(PathBuf),
}

fn source(value: &str, frameworks_home: Option<&Path>) -> Result<Source, String> {
    if let Some(path) = value.strip_prefix("file://") {
        // `file:///path` and `file://localhost/path` are this machine's.
        let path = path.strip_prefix("localhost").unwrap_or(path);
        if !path.starts_with('/') {
            return Err("a file URI must name an absolute path on this agent".into());
        }
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
        return Ok(Source::Local(
            decoded
                .map_err(|error| error.to_string())?
                .into_owned()
                .into(),
        ));
    }
    match value.split_once("://") {
        Some(("http" | "https", _)) => value
            .parse()
            .map(Source::Http)
            .map_err(|error| format!("not a URL: {error}")),
        Some((scheme, _)) => Err(format!(
            "scheme {scheme} is not supported; use http, https, file or an absolute path"
        )),
        None if value.starts_with('/') => Ok(Source::Local(value.into())),
        None => match frameworks_home {
            Some(home) => Ok(Source::Local(home.join(value))),
            None => Err("a relative path needs --frameworks_home on the agent".into()),
        },
    }
}

/// Name in the sandbox: `output_file`, else the last part of the path.
fn file_name(uri: &Uri) -> Result<String, String> {
    let value = &uri.value;
    if value.contains(['\\', '\'', '\0']) {
        return Err("a URI must not contain \\, ' or NUL".into());
    }
    if let Some(name) = uri.output_file.as_deref().filter(|it| !it.is_empty()) {
        return Ok(name.to_owned());
    }
    let path = match value.split_once("://") {
        // Without query and fragment, and without the host.
        Some((_, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            rest.split_once('/').map_or("", |it| it.1)
        }
        None => value,
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name == "." || name == ".." {
        return Err("the path must end in a file name, or output_file must be given".into());
    }
    Ok(name.to_owned())
}

/// The client of all downloads; connections are worth sharing, cookies there are none.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    install_crypto();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
        .connect_timeout(Duration::from_secs(20))
        .user_agent(concat!("tepui-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
});

/// TLS needs a provider of cryptography; the first one of the process stays.
pub(crate) fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn download(url: url::Url, file: File, bounds: &Bounds) -> Result<(), String> {
    let client = CLIENT.as_ref().map_err(String::clone)?;
    let stalled = || format!("nothing arrived for {} s", bounds.stall.as_secs());
    let response = tokio::time::timeout(bounds.stall, client.get(url).send())
        .await
        .map_err(|_| stalled())?
        .map_err(|error| chain(&error))?;
    if !response.status().is_success() {
        return Err(format!("the server answered {}", response.status()));
    }
    let announced = response.content_length();
    let too_long = || {
        format!(
            "longer than the limit of {}",
            crate::text::bytes(bounds.file_bytes)
        )
    };
    if announced.is_some_and(|it| it > bounds.file_bytes) {
        return Err(too_long());
    }
    let mut file = tokio::fs::File::from_std(file);
    let mut body = response.bytes_stream();
    let mut total = 0;
    loop {
        let chunk = match tokio::time::timeout(bounds.stall, body.next()).await {
            Err(_) => return Err(stalled()),
            Ok(None) => break,
            Ok(Some(chunk)) => chunk.map_err(|error| chain(&error))?,
        };
        total += chunk.len() as u64;
        if total > bounds.file_bytes {
            return Err(too_long());
        }
        tokio::io::AsyncWriteExt::write_all(&mut file, &chunk)
            .await
            .map_err(|error| error.to_string())?;
    }
    // A write may still be under way on another thread, and its error is told here only.
    tokio::io::AsyncWriteExt::flush(&mut file)
        .await
        .map_err(|error| error.to_string())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        text = format!("{text}: {it}");
        source = it.source();
    }
    text
}

fn copy(
    path: &Path,
    mut to: File,
    user: Option<&User>,
    limit: u64,
    cancelled: &AtomicBool,
) -> Result<(), String> {
    let mut from = open_as(path, user).map_err(|error| error.to_string())?;
    let metadata = from.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(());
        }
        total += count as u64;
        if total > limit {
            return Err(format!(
                "longer than the limit of {}",
                crate::text::bytes(limit)
            ));
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err("cancelled".into());
        }
        to.write_all(&buffer[..count])
            .map_err(|error| error.to_string())?;
    }
}

/// Opens a file for reading with the rights of a user. Rights belong to a thread in Linux, so
/// a thread of its own takes them on and dies with them.
fn open_as(path: &Path, user: Option<&User>) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Without O_NONBLOCK a FIFO would hold us for ever.
    let open = |path: &Path| {
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
    };
    let Some(user) = user.filter(|it| it.uid != 0) else {
        return open(path);
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the raw calls change this thread only (the C library's would change all);
            // the slice is valid for its length.
            unsafe {
                let check = |result: libc::c_long| match result {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                };
                check(libc::syscall(
                    libc::SYS_setgroups,
                    user.groups.len(),
                    user.groups.as_ptr(),
                ))?;
                let (uid, gid) = (user.uid, user.gid);
                check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
            open(path)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the opening thread died")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(value: &str) -> Uri {
        Uri {
            value: value.into(),
            ..Uri::default()
        }
    }

    #[test]
    fn names_come_from_the_path_alone() {
        for (value, name) in [
            ("http://h/a/b.tgz?x=/y#z", "b.tgz"),
            ("/a/b", "b"),
            ("file:///a/b", "b"),
        ] {
            assert_eq!(file_name(&uri(value)).as_deref(), Ok(name));
        }
        for value in ["http://h", "http://h/", "/a/..", "/a/b'c", "http://h/?a=b"] {
            assert!(file_name(&uri(value)).is_err(), "{value}");
        }
    }

    async fn run(uri: Uri, sandbox: &Path, bounds: Bounds) -> Result<(), String> {
        fetch(&[uri], sandbox, None, None, &bounds).await
    }

    #[tokio::test]
    async fn failures_name_the_uri_and_the_cause() {
        let sandbox = tempfile::tempdir().expect("a temporary directory");
        for (value, cause) in [
            ("/no/such/file", "No such file"),
            ("s3://bucket/file", "scheme s3 is not supported"),
            ("relative", "frameworks_home"),
            ("/dev/zero", "not a regular file"),
            ("http://127.0.0.1:1/x", "onnection refused"),
        ] {
            let error = run(uri(value), sandbox.path(), Bounds::default())
                .await
                .unwrap_err();
            assert!(
                error.contains(&format!("'{value}'")) && error.contains(cause),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn output_file_stays_inside_and_executable_is_not_unpacked() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let source = folder.path().join("source.gz");
        std::fs::write(&source, "not compressed").expect("write");
        let sandbox = folder.path().join("sandbox");
        std::fs::create_dir(&sandbox).expect("create");
        let value = source.to_string_lossy().into_owned();
        for name in ["../evil", "/evil", "a/../../evil"] {
            let it = Uri {
                output_file: Some(name.into()),
                ..uri(&value)
            };
            assert!(
                run(it, &sandbox, Bounds::default()).await.is_err(),
                "{name}"
            );
        }
        let it = Uri {
            output_file: Some("bin/tool.gz".into()),
            executable: Some(true),
            ..uri(&value)
        };
        assert_eq!(run(it, &sandbox, Bounds::default()).await, Ok(()));
        let mode = std::fs::metadata(sandbox.join("bin/tool.gz"))
            .expect("stat")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o755);
        let bounds = Bounds {
            file_bytes: 3,
            ..Bounds::default()
        };
        let error = run(uri(&value), &sandbox, bounds).await.unwrap_err();
        assert!(error.contains("limit of 3B"), "{error}");
    }
}
