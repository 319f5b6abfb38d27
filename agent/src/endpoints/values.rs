//! Values that several endpoints print, in Mesos' forms.

use serde_json::{Map, Value, json};
use tepui_agent_machine::model::{
    Resources, Role,
    resources::{ResourceFormat, Summary, Value as Amount},
    wire,
};
use tepui_server::proto::json::to_value;

/// Resources of the wire; what cannot be read counts as nothing, which validation at the
/// master has made impossible.
pub(crate) fn resources(wire: &[wire::Resource]) -> Resources {
    Resources::from_wire(wire).unwrap_or_default()
}

/// Sums by name: amounts as numbers, ranges and sets as text.
pub(crate) fn summary(resources: &Resources) -> Value {
    let Summary(sums) = resources.summary();
    let print = |value: &Amount| match value {
        Amount::Scalar(amount) => json!(amount.as_f64()),
        Amount::Ranges(ranges) => json!(ranges.to_string()),
        Amount::Set(items) => {
            let items: Vec<&str> = items.iter().collect();
            json!(format!("{{{}}}", items.join(", ")))
        }
    };
    Value::Object(
        sums.iter()
            .map(|(name, value)| (name.clone(), print(value)))
            .collect(),
    )
}

/// Something of each role's reservations, by role.
pub(crate) fn by_role(resources: &Resources, print: impl Fn(&Resources) -> Value) -> Value {
    let reserved = resources.reserved();
    let pairs = reserved
        .iter()
        .map(|(role, its)| (role.as_str().to_owned(), print(its)));
    Value::Object(pairs.collect())
}

/// Every resource as protobuf JSON, in the form that endpoints have.
pub(crate) fn full(resources: &Resources) -> Value {
    resources
        .to_wire_for(ResourceFormat::Endpoint)
        .iter()
        .map(to_value)
        .collect()
}

/// The role to which resources are allocated; `*` when they are to none.
pub(crate) fn role(resources: &Resources) -> String {
    let role = resources.allocations().into_keys().next();
    role.as_ref().map_or("*", Role::as_str).to_owned()
}

/// Name to number or text; the first of several with one name wins.
pub(crate) fn attributes(attributes: &[wire::Attribute]) -> Value {
    let mut map = Map::new();
    for attribute in attributes {
        let value = if let Some(scalar) = &attribute.scalar {
            json!(scalar.value)
        } else if let Some(ranges) = &attribute.ranges {
            let parts = ranges
                .range
                .iter()
                .map(|it| format!("{}-{}", it.begin, it.end));
            json!(format!("[{}]", parts.collect::<Vec<_>>().join(", ")))
        } else if let Some(text) = &attribute.text {
            json!(text.value)
        } else {
            continue;
        };
        map.entry(attribute.name.clone()).or_insert(value);
    }
    Value::Object(map)
}

/// Labels as an array of pairs; nothing when there are none.
pub(crate) fn labels(labels: Option<&wire::Labels>) -> Option<Value> {
    let labels = labels.filter(|it| !it.labels.is_empty())?;
    Some(labels.labels.iter().map(to_value).collect())
}

/// Puts a value under a name, if there is one.
pub(crate) fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_owned(), value);
    }
}
