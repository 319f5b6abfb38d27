//! Checks of commands and containers.

use super::Fault;
use crate::wire;
use wire::{
    container_info, environment, secret,
    volume::source::{self, Type as SourceType},
};

/// A command's environment: VALUE has a value and no secret, SECRET a secret and no value.
pub(super) fn command(command: &wire::CommandInfo) -> Fault {
    let environment = command.environment.as_ref()?;
    environment.variables.iter().find_map(variable)
}

fn variable(variable: &wire::environment::Variable) -> Fault {
    let bad = |text: &str| Some(format!("environment variable {:?} {text}", variable.name));
    match variable.r#type() {
        environment::variable::Type::Value if variable.secret.is_some() => {
            bad("of type VALUE must not have a secret")
        }
        environment::variable::Type::Value if variable.value.is_none() => {
            bad("of type VALUE must have a value")
        }
        environment::variable::Type::Value => None,
        environment::variable::Type::Secret if variable.value.is_some() => {
            bad("of type SECRET must not have a value")
        }
        environment::variable::Type::Secret => {
            let Some(secret) = &variable.secret else {
                return bad("of type SECRET must have a secret");
            };
            if let Some(fault) = valid_secret(secret) {
                return bad(&format!("has an invalid secret: {fault}"));
            }
            let data = secret.value.as_ref().map(|it| &it.data);
            if data.is_some_and(|it| it.contains(&0)) {
                return bad("has a secret with a NUL byte, which no environment can hold");
            }
            None
        }
        environment::variable::Type::Unknown => {
            bad("has an unknown type; expected VALUE or SECRET")
        }
    }
}

fn valid_secret(secret: &wire::Secret) -> Fault {
    let text = match (secret.r#type(), &secret.reference, &secret.value) {
        (secret::Type::Reference, Some(_), None) | (secret::Type::Value, None, Some(_)) => {
            return None;
        }
        (secret::Type::Reference, ..) => "REFERENCE needs 'reference' and no 'value'",
        (secret::Type::Value, ..) => "VALUE needs 'value' and no 'reference'",
        (secret::Type::Unknown, ..) => "the type is missing; expected REFERENCE or VALUE",
    };
    Some(text.to_owned())
}

/// A container: its volumes, and what the Docker containerizer demands.
pub(super) fn container(container: &wire::ContainerInfo) -> Fault {
    if let Some(fault) = container.volumes.iter().find_map(volume) {
        return Some(fault);
    }
    if container.r#type() != container_info::Type::Docker {
        return None;
    }
    let Some(docker) = &container.docker else {
        return Some("a container of type DOCKER must have 'docker'".to_owned());
    };
    let named = docker.parameters.iter().any(|it| it.key == "name");
    named.then(|| "the docker parameter 'name' is not allowed; the agent names containers".into())
}

fn volume(volume: &wire::Volume) -> Fault {
    let bad = |text: String| Some(format!("volume {:?} {text}", volume.container_path));
    let set = [
        volume.host_path.is_some(),
        volume.image.is_some(),
        volume.source.is_some(),
    ];
    if set.iter().filter(|it| **it).count() != 1 {
        return bad("must have exactly one of 'host_path', 'image' and 'source'".into());
    }
    if let Some(image) = &volume.image {
        let (present, name) = match image.r#type() {
            wire::image::Type::Appc => (image.appc.is_some(), "appc"),
            wire::image::Type::Docker => (image.docker.is_some(), "docker"),
        };
        return match present {
            true => None,
            false => bad(format!("must have 'image.{name}'")),
        };
    }
    let source = volume.source.as_ref()?;
    let (present, name) = match source.r#type() {
        SourceType::DockerVolume => (source.docker_volume.is_some(), "docker_volume"),
        SourceType::HostPath => (source.host_path.is_some(), "host_path"),
        SourceType::SandboxPath => (source.sandbox_path.is_some(), "sandbox_path"),
        SourceType::Secret => (source.secret.is_some(), "secret"),
        SourceType::CsiVolume => (source.csi_volume.is_some(), "csi_volume"),
        SourceType::Unknown => return bad("has no known 'source.type'".into()),
    };
    if !present {
        return bad(format!("must have 'source.{name}'"));
    }
    if let Some(fault) = source.secret.as_ref().and_then(valid_secret) {
        return bad(format!("has an invalid secret: {fault}"));
    }
    let sandbox = source.sandbox_path.as_ref()?;
    let unknown = sandbox.r#type() == source::sandbox_path::Type::Unknown;
    match unknown {
        true => bad("has no known 'source.sandbox_path.type'".into()),
        false => None,
    }
}

/// What a container says about sharing cgroups, if anything.
pub(super) fn share_cgroups(container: Option<&wire::ContainerInfo>) -> Option<bool> {
    container?.linux_info.as_ref()?.share_cgroups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable_of(
        r#type: environment::variable::Type,
        value: Option<&str>,
        secret: Option<wire::Secret>,
    ) -> Fault {
        variable(&environment::Variable {
            name: "V".into(),
            r#type: Some(r#type.into()),
            value: value.map(str::to_owned),
            secret,
        })
    }

    #[test]
    fn variables_have_what_their_type_says() {
        use environment::variable::Type::{Secret, Unknown, Value};
        let secret = |data: &'static [u8]| wire::Secret {
            r#type: Some(secret::Type::Value.into()),
            reference: None,
            value: Some(secret::Value { data: data.into() }),
        };
        assert_eq!(variable_of(Value, Some("v"), None), None);
        assert_eq!(variable_of(Value, Some(""), None), None);
        assert_eq!(variable_of(Secret, None, Some(secret(b"s"))), None);
        for bad in [
            variable_of(Value, None, None),
            variable_of(Value, Some("v"), Some(secret(b"s"))),
            variable_of(Secret, None, None),
            variable_of(Secret, Some("v"), Some(secret(b"s"))),
            variable_of(Secret, None, Some(secret(b"a\0b"))),
            variable_of(Secret, None, Some(wire::Secret::default())),
            variable_of(Unknown, Some("v"), None),
        ] {
            assert!(bad.unwrap().contains("\"V\""));
        }
    }

    #[test]
    fn volumes_have_one_source() {
        let host_path = |path: &str| wire::Volume {
            host_path: Some(path.into()),
            ..Default::default()
        };
        let source = |source| wire::Volume {
            source: Some(source),
            ..Default::default()
        };
        assert_eq!(volume(&host_path("/a")), None);
        assert!(volume(&wire::Volume::default()).is_some());
        let both = wire::Volume {
            image: Some(wire::Image::default()),
            ..host_path("/a")
        };
        assert!(volume(&both).is_some());
        assert!(volume(&source(wire::volume::Source::default())).is_some());
        let typed = wire::volume::Source {
            r#type: Some(SourceType::DockerVolume.into()),
            ..Default::default()
        };
        assert!(
            volume(&source(typed.clone()))
                .unwrap()
                .contains("docker_volume")
        );
        let complete = wire::volume::Source {
            docker_volume: Some(source::DockerVolume::default()),
            ..typed
        };
        assert_eq!(volume(&source(complete)), None);
    }

    #[test]
    fn docker_containers_have_docker_info_and_no_name() {
        let docker = |docker| wire::ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker,
            ..Default::default()
        };
        assert!(container(&docker(None)).is_some());
        let info = container_info::DockerInfo {
            parameters: vec![wire::Parameter {
                key: "label".into(),
                value: "a=b".into(),
            }],
            ..Default::default()
        };
        assert_eq!(container(&docker(Some(info.clone()))), None);
        let mut named = info;
        named.parameters[0].key = "name".into();
        assert!(container(&docker(Some(named))).is_some());
    }
}
