//! URIs over HTTP into the sandbox of a real task.

mod world;

use axum::{Router, body::Body, http::StatusCode, response::Redirect, routing::get};
use std::{io::Write, time::Duration};
use tepui_containerizer::{ContainerEvent, FailureClass, Kind};
use tepui_model::wire::command_info::Uri;
use world::{World, read};

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let content = b"#!/bin/sh\necho tool $1\n";
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/tool", content.as_slice())
        .expect("append");
    let tar = tar.into_inner().expect("tar");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).expect("gzip");
    gz.finish().expect("gzip")
}

async fn serve() -> String {
    let routes = Router::new()
        .route("/a/tools.tgz", get(|| async { Redirect::temporary("/b") }))
        .route("/b", get(|| async { Redirect::permanent("/c") }))
        .route("/c", get(|| async { archive() }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/teapot", get(|| async { StatusCode::IM_A_TEAPOT }))
        .route("/script", get(|| async { "echo script" }))
        .route(
            "/stall",
            get(|| async {
                Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>())
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

fn uri(value: String) -> Uri {
    Uri {
        value,
        ..Uri::default()
    }
}

#[tokio::test]
async fn archives_behind_redirects_and_executables_belong_to_the_user() {
    let server = serve().await;
    let mut world = World::new().await;
    let mut spec = world.spec(Kind::Process, "fetch", "bin/tool a; ./script; ls tools.tgz");
    spec.user = Some("nobody".into());
    spec.command.uris = vec![
        uri(format!("{server}/a/tools.tgz?x=1")),
        Uri {
            executable: Some(true),
            ..uri(format!("{server}/script"))
        },
    ];
    let end = world.run(&spec).await;
    let output = read(spec.sandbox.join("stdout"));
    assert_eq!(output, "tool a\nscript\ntools.tgz\n", "{end:?}");
    use std::os::unix::fs::MetadataExt;
    for name in ["bin", "bin/tool", "script", "tools.tgz"] {
        let owner = std::fs::metadata(spec.sandbox.join(name)).map(|it| it.uid());
        assert_eq!(owner.ok(), Some(65534), "{name}");
    }
}

#[tokio::test]
async fn failures_fail_the_launch_and_name_the_uri() {
    let server = serve().await;
    let mut world = World::with(|it| it.fetch.stall = Duration::from_millis(200)).await;
    let secret = world.work.path().join("secret");
    std::fs::write(&secret, "for root only").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).expect("chmod");
    for (at, (value, cause)) in [
        (format!("{server}/none"), "404 Not Found"),
        (format!("{server}/teapot"), "418"),
        (format!("{server}/loop"), "redirect"),
        (format!("{server}/stall"), "nothing arrived"),
        (secret.to_string_lossy().into_owned(), "Permission denied"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = world.spec(Kind::Process, &format!("fail{at}"), "true");
        spec.user = Some("nobody".into());
        spec.command.uris = vec![uri(value.clone())];
        world.containerizer.launch(spec).await.expect("launch");
        match world.next().await {
            ContainerEvent::LaunchFailed { class, message, .. } => {
                assert_eq!(class, FailureClass::Fetch);
                assert!(
                    message.contains(&value) && message.contains(cause),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
