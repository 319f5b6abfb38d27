//! Resources in the forms of the v0 endpoints.

use super::json::Writer;
use std::collections::BTreeMap;
use tepui_master_machine::model::{
    Quantities, Resources, Role,
    offer::FrameworkFormat,
    resources::{ResourceFormat, Summary, Value},
    wire,
};
use tepui_server::proto::json;

/// Offers as operators see them.
pub(crate) const FORMAT: FrameworkFormat = FrameworkFormat {
    multi_role: true,
    refinement: true,
};

/// Sums by name: amounts as numbers, ranges and sets as text.
pub(crate) fn summary(writer: &mut Writer, resources: &Resources) {
    let Summary(sums) = resources.summary();
    writer.object(|it| {
        for (name, value) in &sums {
            match value {
                Value::Scalar(amount) => it.double_field(name, amount.as_f64()),
                Value::Ranges(ranges) => it.string_field(name, &ranges.to_string()),
                Value::Set(items) => {
                    let items: Vec<&str> = items.iter().collect();
                    it.string_field(name, &format!("{{{}}}", items.join(", ")));
                }
            }
        }
    });
}

/// [`summary`] of each role's reservations.
pub(crate) fn reserved_summaries(writer: &mut Writer, reserved: &BTreeMap<Role, Resources>) {
    writer.object(|it| {
        for (role, resources) in reserved {
            it.key(role.as_str());
            summary(it, resources);
        }
    });
}

/// Amounts by name, only those that there are.
pub(crate) fn quantities(writer: &mut Writer, quantities: &Quantities) {
    writer.object(|it| {
        for (name, amount) in quantities.iter() {
            it.double_field(name, amount.as_f64());
        }
    });
}

/// Every resource as protobuf JSON, in the form that endpoints have.
pub(crate) fn full(writer: &mut Writer, resources: &Resources) {
    writer.array(|it| {
        for resource in resources.to_wire_for(ResourceFormat::Endpoint) {
            it.raw(&json::encode::<wire::Resource>(&resource));
        }
    });
}
