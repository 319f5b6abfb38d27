//! Volumes of process tasks: bind mounts in the task's mount namespace, or links in the
//! sandbox where there is no such namespace.

use super::{Failure, protocol::SpecWriter};
use crate::{sandbox, spec::ContainerSpec, users::User};
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};
use tepui_model::wire;

/// Puts every volume of the task.
pub(super) fn put(
    out: &mut SpecWriter,
    spec: &ContainerSpec,
    user: Option<&User>,
    mount_namespace: bool,
) -> Result<(), Failure> {
    for (host, container, read_only) in &spec.volumes {
        one(
            out,
            spec,
            user,
            mount_namespace,
            host,
            container,
            *read_only,
        )?;
    }
    let Some(container) = &spec.container else {
        return Ok(());
    };
    if container
        .mesos
        .as_ref()
        .is_some_and(|it| it.image.is_some())
    {
        return Err(Failure::invalid(
            "container.mesos.image: images need the docker containerizer; use a container of \
             type DOCKER",
        ));
    }
    for volume in &container.volumes {
        let host = host_path(volume).ok_or_else(|| {
            Failure::invalid(format!(
                "volume at {}: only host_path volumes are supported for processes",
                volume.container_path
            ))
        })?;
        let read_only = volume.mode() == wire::volume::Mode::Ro;
        let host = if Path::new(host).is_absolute() {
            PathBuf::from(host)
        } else {
            // A relative host path is below the sandbox, and comes into being there.
            let path = inside(&spec.sandbox, host)?;
            make(&path, user).map_err(|error| failed(&path, &error))?;
            path
        };
        one(
            out,
            spec,
            user,
            mount_namespace,
            &host,
            &volume.container_path,
            read_only,
        )?;
    }
    Ok(())
}

fn host_path(volume: &wire::Volume) -> Option<&str> {
    volume.host_path.as_deref().or_else(|| {
        let source = volume.source.as_ref()?;
        Some(source.host_path.as_ref()?.path.as_str())
    })
}

fn one(
    out: &mut SpecWriter,
    spec: &ContainerSpec,
    user: Option<&User>,
    mount_namespace: bool,
    host: &Path,
    container: &str,
    read_only: bool,
) -> Result<(), Failure> {
    let metadata = fs::metadata(host).map_err(|error| failed(host, &error))?;
    let relative = !Path::new(container).is_absolute();
    let target = if relative {
        inside(&spec.sandbox, container)?
    } else {
        PathBuf::from(container)
    };
    if mount_namespace {
        if relative {
            if metadata.is_dir() {
                make(&target, user).map_err(|error| failed(&target, &error))?;
            } else if !target.exists() {
                fs::write(&target, "").map_err(|error| failed(&target, &error))?;
            }
        } else if !target.exists() {
            return Err(Failure::invalid(format!(
                "volume at {container}: an absolute path must exist on the agent"
            )));
        }
        out.put("bind", if read_only { "ro" } else { "rw" })
            .put("from", host)
            .put("to", &target);
        return Ok(());
    }
    if !relative || read_only {
        return Err(Failure::invalid(format!(
            "volume at {container}: absolute and read-only volumes of processes need mount \
             namespaces, which this agent has not"
        )));
    }
    match symlink(host, &target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&target, &error)),
        _ => Ok(()),
    }
}

/// A path below the sandbox, if it is one.
fn inside(sandbox: &Path, path: &str) -> Result<PathBuf, Failure> {
    let below = Path::new(path)
        .components()
        .all(|it| matches!(it, Component::Normal(_) | Component::CurDir));
    if below && !path.is_empty() {
        Ok(sandbox.join(path))
    } else {
        Err(Failure::invalid(format!(
            "volume path {path:?} must stay inside the sandbox"
        )))
    }
}

/// Makes a directory that the user may write to.
fn make(path: &Path, user: Option<&User>) -> io::Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path)?;
        sandbox::give(path, user)?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::runtime(format!("volume {}: {error}", path.display()))
}
