//! Roles: `/roles`, `/weights`, `/quota` and their v1 calls.

use super::{json::Writer, resources};
use crate::view::{View, totals};
use std::collections::BTreeMap;
use tepui_master_machine::model::{Quantities, Scalar, wire};
use tepui_server::proto::json;

/// Millionths to the number that operators write.
fn weight(micro: Option<u64>) -> f64 {
    micro.map_or(1.0, |micro| micro as f64 / 1e6)
}

fn amounts(amounts: &BTreeMap<String, wire::value::Scalar>) -> Quantities {
    let mut quantities = Quantities::new();
    for (name, amount) in amounts {
        // What is in the log was checked before it went in.
        quantities.insert(
            name,
            Scalar::from_f64(name, amount.value).unwrap_or_default(),
        );
    }
    quantities
}

/// `/roles`.
pub(crate) fn roles(view: &View) -> String {
    let state = view.state();
    let mut writer = Writer::new();
    writer.object(|it| {
        it.array_field("roles", |it| {
            for (role, figures) in totals::by_role(view) {
                let quota = state.quota(role.as_str());
                it.object(|it| {
                    it.string_field("name", role.as_str());
                    it.double_field("weight", weight(state.weight(role.as_str())));
                    it.object_field("quota", |it| {
                        it.string_field("role", role.as_str());
                        let guarantee = quota.map(|it| amounts(&it.guarantees));
                        let limit = quota.map(|it| amounts(&it.limits));
                        resources::quantities(it.key("guarantee"), &guarantee.unwrap_or_default());
                        resources::quantities(it.key("limit"), &limit.unwrap_or_default());
                        resources::quantities(it.key("consumed"), &figures.consumed());
                    });
                    resources::quantities(it.key("resources"), &figures.in_use());
                    resources::quantities(it.key("allocated"), &figures.allocated);
                    resources::quantities(it.key("offered"), &figures.offered);
                    resources::quantities(it.key("reserved"), &figures.reserved);
                    it.array_field("frameworks", |it| {
                        for framework in &figures.frameworks {
                            it.string(framework.as_str());
                        }
                    });
                });
            }
        });
    });
    writer.finish()
}

/// `/weights`.
pub(crate) fn weights(view: &View) -> String {
    let mut writer = Writer::new();
    writer.array(|it| {
        for (role, micro) in view.state().weights() {
            it.object(|it| {
                it.string_field("role", role);
                it.double_field("weight", weight(Some(micro)));
            });
        }
    });
    writer.finish()
}

/// GET_WEIGHTS; `None` when none are set, as Mesos leaves the message out then.
pub(crate) fn get_weights(view: &View) -> Option<wire::master::response::GetWeights> {
    let weight_infos: Vec<wire::WeightInfo> = view
        .state()
        .weights()
        .map(|(role, micro)| wire::WeightInfo {
            role: Some(role.to_owned()),
            weight: weight(Some(micro)),
        })
        .collect();
    (!weight_infos.is_empty()).then_some(wire::master::response::GetWeights { weight_infos })
}

/// GET_ROLES. Resources are those of cpus, mem, disk and gpus, as Mesos has them here.
pub(crate) fn get_roles(view: &View) -> wire::master::response::GetRoles {
    let state = view.state();
    let roles = totals::by_role(view).into_iter().map(|(role, figures)| {
        let sums = figures.in_use();
        let shown = ["cpus", "disk", "gpus", "mem"];
        let resources = shown.iter().filter(|name| !sums.get(name).is_zero());
        wire::Role {
            name: role.as_str().to_owned(),
            weight: weight(state.weight(role.as_str())),
            frameworks: figures.frameworks.iter().map(|it| it.to_wire()).collect(),
            resources: resources
                .map(|name| wire::Resource {
                    name: (*name).to_owned(),
                    r#type: wire::value::Type::Scalar as i32,
                    scalar: Some(sums.get(name).to_wire()),
                    ..Default::default()
                })
                .collect(),
        }
    });
    wire::master::response::GetRoles {
        roles: roles.collect(),
    }
}

/// The quotas as a message, in the old form (`infos`) and the new one (`configs`).
#[expect(deprecated, reason = "clients of Mesos still read the old form")]
pub(crate) fn quota_status(view: &View) -> wire::quota::QuotaStatus {
    let mut status = wire::quota::QuotaStatus::default();
    for (role, config) in view.state().quotas() {
        let guarantee = config
            .guarantees
            .iter()
            .map(|(name, amount)| wire::Resource {
                name: name.clone(),
                r#type: wire::value::Type::Scalar as i32,
                scalar: Some(*amount),
                ..Default::default()
            });
        status.infos.push(wire::quota::QuotaInfo {
            role: Some(role.to_owned()),
            guarantee: guarantee.collect(),
            ..Default::default()
        });
        status.configs.push(config.as_ref().clone());
    }
    status
}

/// `/quota`.
pub(crate) fn quota(view: &View) -> String {
    json::encode(&quota_status(view))
}
