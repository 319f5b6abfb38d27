//! A stand-in for a private registry: the part of the v2 API that a pull needs, over HTTP on
//! loopback (which engines trust without TLS), with basic authentication.

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::HashMap,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What the registry says to those who are not let in.
pub const REFUSAL: &str = "the librarian does not know you";
const USER: &str = "reader:s3cret:word";

pub struct Registry {
    /// Reference of the one image.
    pub image: String,
    host: String,
    shelf: Arc<Shelf>,
}

struct Shelf {
    manifest: Vec<u8>,
    blobs: HashMap<String, Vec<u8>>,
    manifests_served: AtomicUsize,
}

impl Registry {
    /// A `config.json` that opens it.
    pub fn config(&self) -> String {
        format!(
            r#"{{"auths": {{"{}": {{"auth": "{}"}}}}}}"#,
            self.host,
            STANDARD.encode(USER)
        )
    }

    /// How many manifests were given out.
    pub fn pulls(&self) -> usize {
        self.shelf.manifests_served.load(Ordering::SeqCst)
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum");
    sum.stdin
        .take()
        .expect("piped")
        .write_all(bytes)
        .expect("write");
    let output = sum.wait_with_output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", &text[..64])
}

/// Serves a copy of an image of the engine.
pub async fn start(image: &str) -> Registry {
    let saved = Command::new("docker")
        .args(["save", image])
        .output()
        .expect("docker save");
    let mut files = HashMap::new();
    for entry in tar::Archive::new(saved.stdout.as_slice())
        .entries()
        .expect("tar")
    {
        let mut entry = entry.expect("entry");
        let path = entry.path().expect("path").to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        files.insert(path, content);
    }
    let index: serde_json::Value =
        serde_json::from_slice(&files["manifest.json"]).expect("manifest.json");
    let config = files[index[0]["Config"].as_str().expect("Config")].clone();
    let layer = &files[index[0]["Layers"][0].as_str().expect("Layers")];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(layer).expect("gzip");
    let layer = gz.finish().expect("gzip");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(),
            "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": layer.len(),
            "digest": digest(&layer),
        }],
    });
    let shelf = Arc::new(Shelf {
        manifest: manifest.to_string().into_bytes(),
        blobs: HashMap::from([(digest(&config), config), (digest(&layer), layer)]),
        manifests_served: AtomicUsize::new(0),
    });
    let routes = Router::new()
        .route("/v2/", get(ping))
        .route("/v2/private/bb/manifests/{tag}", get(manifest_of))
        .route("/v2/private/bb/blobs/{digest}", get(blob))
        .with_state(shelf.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    // Ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Registry {
        image: format!("{host}/private/bb:1"),
        host,
        shelf,
    }
}

fn admit(headers: &HeaderMap) -> Result<(), Box<Response>> {
    let wanted = format!("Basic {}", STANDARD.encode(USER));
    let given = headers.get(header::AUTHORIZATION);
    if given.is_some_and(|it| it.as_bytes() == wanted.as_bytes()) {
        return Ok(());
    }
    let body = format!(r#"{{"errors": [{{"code": "UNAUTHORIZED", "message": "{REFUSAL}"}}]}}"#);
    let headers = [
        (header::WWW_AUTHENTICATE, "Basic realm=\"library\""),
        (header::CONTENT_TYPE, "application/json"),
    ];
    Err(Box::new(
        (StatusCode::UNAUTHORIZED, headers, body).into_response(),
    ))
}

async fn ping(headers: HeaderMap) -> Response {
    match admit(&headers) {
        Ok(()) => "{}".into_response(),
        Err(refusal) => *refusal,
    }
}

async fn manifest_of(State(shelf): State<Arc<Shelf>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = admit(&headers) {
        return *refusal;
    }
    shelf.manifests_served.fetch_add(1, Ordering::SeqCst);
    let headers = [
        (
            header::CONTENT_TYPE,
            "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
        ),
        (
            header::HeaderName::from_static("docker-content-digest"),
            digest(&shelf.manifest),
        ),
    ];
    (headers, shelf.manifest.clone()).into_response()
}

async fn blob(
    State(shelf): State<Arc<Shelf>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&headers) {
        return *refusal;
    }
    match shelf.blobs.get(&digest) {
        Some(content) => content.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
