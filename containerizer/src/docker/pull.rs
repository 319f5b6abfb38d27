//! Images from registries, with credentials from the agent's flag or the task.

use super::engine::Client;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::{auth::DockerCredentials, query_parameters::CreateImageOptions};
use futures_util::StreamExt;
use serde::Deserialize;
use std::{collections::BTreeMap, pin::pin, time::Duration};
use tepui_model::wire;

/// Key that `docker login` uses for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Host that stands for Docker Hub in references without a registry.
const HUB: &str = "docker.io";

/// A Docker `config.json`.
#[derive(Debug, Default, Deserialize)]
struct RegistryConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Registry, repository and tag of a reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    pub registry: &'a str,
    /// What the engine is asked for: the reference without its tag.
    pub name: &'a str,
    /// Tag or digest; `latest` when missing, as in Mesos.
    pub tag: &'a str,
}

pub(super) fn parse_reference(image: &str) -> Reference<'_> {
    let (name, tag) = match image.split_once('@') {
        // The engine takes a digest in the place of the tag.
        Some((name, digest)) => (
            name.rsplit_once(':')
                .filter(|(_, it)| !it.contains('/'))
                .map_or(name, |it| it.0),
            digest,
        ),
        None => match image.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image, "latest"),
        },
    };
    let registry = match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    };
    Reference {
        registry,
        name,
        tag,
    }
}

/// Credentials for a registry out of a Docker `config.json`.
///
/// # Errors
/// When the text is not such a file. Secrets are never part of the message.
pub(super) fn credentials(
    config: &str,
    registry: &str,
) -> Result<Option<DockerCredentials>, String> {
    // The older file, `.dockercfg`, is the inner map alone.
    let parsed: RegistryConfig = serde_json::from_str(config)
        .ok()
        .filter(|it: &RegistryConfig| !it.auths.is_empty())
        .or_else(|| {
            serde_json::from_str(config)
                .ok()
                .map(|auths| RegistryConfig { auths })
        })
        .ok_or("registry credentials must be a JSON object such as {\"auths\": {...}}")?;
    let host = |key: &str| {
        let key = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key)
            .to_owned();
        key.split('/').next().unwrap_or_default().to_owned()
    };
    let found = parsed.auths.iter().find(|(key, _)| {
        if registry == HUB {
            matches!(
                host(key).as_str(),
                "index.docker.io" | "docker.io" | "registry-1.docker.io"
            )
        } else {
            host(key) == registry
        }
    });
    let Some((key, auth)) = found else {
        return Ok(None);
    };
    let (mut username, mut password) = (auth.username.clone(), auth.password.clone());
    if let Some(encoded) = &auth.auth {
        let (user, secret) = STANDARD
            .decode(encoded)
            .ok()
            .and_then(|it| String::from_utf8(it).ok())
            .and_then(|it| {
                let (user, secret) = it.split_once(':')?;
                Some((user.to_owned(), secret.trim_end_matches('\0').to_owned()))
            })
            .ok_or_else(|| format!("auths[{key}].auth must be base64 of user:password"))?;
        username = Some(user);
        password = Some(secret);
    }
    Ok(Some(DockerCredentials {
        username,
        password,
        identitytoken: auth.identitytoken.clone(),
        serveraddress: Some(if registry == HUB {
            HUB_KEY.into()
        } else {
            registry.to_owned()
        }),
        ..DockerCredentials::default()
    }))
}

/// The task's own `config.json`: `container.mesos.image.docker.config` by value, where the
/// wire has it for every kind of container.
///
/// # Errors
/// When it is a reference to a secret store, which this agent has not.
pub(super) fn task_config(
    container: Option<&wire::ContainerInfo>,
) -> Result<Option<String>, String> {
    let secret = container
        .and_then(|it| it.mesos.as_ref())
        .and_then(|it| it.image.as_ref())
        .and_then(|it| it.docker.as_ref())
        .and_then(|it| it.config.as_ref());
    let Some(secret) = secret else {
        return Ok(None);
    };
    let data = secret
        .value
        .as_ref()
        .ok_or("image.docker.config: only secrets given by value are supported")?;
    String::from_utf8(data.data.to_vec())
        .map(Some)
        .map_err(|_| "image.docker.config must be text".into())
}

/// Pulls an image; the error carries the registry's own words.
pub(super) async fn pull(
    client: &Client,
    image: &str,
    credentials: Option<DockerCredentials>,
    idle: Duration,
) -> Result<(), String> {
    let docker = client.docker().await.map_err(|it| it.to_string())?;
    let reference = parse_reference(image);
    let options = CreateImageOptions {
        from_image: Some(reference.name.to_owned()),
        tag: Some(reference.tag.to_owned()),
        ..CreateImageOptions::default()
    };
    let mut stream = pin!(docker.create_image(Some(options), None, credentials));
    loop {
        match tokio::time::timeout(idle, stream.next()).await {
            Err(_) => {
                return Err(format!("no progress for {} s", idle.as_secs()));
            }
            Ok(None) => return Ok(()),
            Ok(Some(Ok(progress))) => {
                if let Some(error) = progress.error_detail {
                    return Err(error.message.unwrap_or_else(|| "refused".into()));
                }
            }
            Ok(Some(Err(error))) => return Err(super::engine::words(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_as_docker_reads_them() {
        for (image, registry, name, tag) in [
            ("busybox", HUB, "busybox", "latest"),
            ("library/busybox:1", HUB, "library/busybox", "1"),
            (
                "127.0.0.1:5000/a/b",
                "127.0.0.1:5000",
                "127.0.0.1:5000/a/b",
                "latest",
            ),
            ("localhost/a:x", "localhost", "localhost/a", "x"),
            ("r.io/a:t@sha256:ab", "r.io", "r.io/a", "sha256:ab"),
        ] {
            assert_eq!(
                parse_reference(image),
                Reference {
                    registry,
                    name,
                    tag
                },
                "{image}"
            );
        }
    }

    #[test]
    fn credentials_by_host_in_both_file_formats() {
        let auth = STANDARD.encode("user:pass:word");
        for config in [
            format!(r#"{{"auths": {{"https://r.io/v2/": {{"auth": "{auth}"}}}}}}"#),
            format!(r#"{{"r.io": {{"auth": "{auth}"}}}}"#),
        ] {
            let found = credentials(&config, "r.io").ok().flatten();
            let found = found.map(|it| (it.username, it.password));
            assert_eq!(found, Some((Some("user".into()), Some("pass:word".into()))));
            assert!(matches!(credentials(&config, "other.io"), Ok(None)));
        }
        assert!(credentials("[]", "r.io").is_err());
        let error = credentials(r#"{"auths": {"r.io": {"auth": "c2VjcmV0"}}}"#, "r.io");
        assert!(error.is_err_and(|it| !it.contains("c2VjcmV0") && it.contains("auths[r.io]")));
    }
}
