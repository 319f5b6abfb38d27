//! One line: what it asks for, in the allocator's terms.
//!
//! The form is checked here, field by field; whether it can be done is for [`super::session`].
//! A field that an operation does not have is refused: it would be a mistake of the writer, who
//! would go on believing that it was heard.

use serde_json::{Map, Value};
use std::time::Duration;
use tepui_model::{
    AgentId, FrameworkId, Quantities, Resource, Resources, Role, Scalar,
    attribute::{Attribute, AttributeValue, Attributes},
    framework::{Capability, FrameworkCapabilities},
    id,
};

/// Longer than anybody waits.
const MAX_SECONDS: f64 = 1e9;
/// Bounds of weights: what the allocator can tell apart, and what nobody needs.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e9;
/// More roles of one framework are a mistake.
const MAX_ROLES: usize = 1_000;
/// Levels of a role; each costs a comparison in every visit.
const MAX_DEPTH: usize = 1_000;
/// More names in one list are a mistake.
const MAX_NAMES: usize = 1_000;

/// Whose part of which agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) agent: AgentId,
    pub(super) framework: FrameworkId,
    pub(super) role: Role,
}

/// What a line asks for.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Agent {
        id: AgentId,
        hostname: String,
        resources: Resources,
        attributes: Attributes,
    },
    RemoveAgent(AgentId),
    Framework {
        id: FrameworkId,
        roles: Vec<Role>,
        capabilities: FrameworkCapabilities,
    },
    RemoveFramework(FrameworkId),
    Weight {
        role: Role,
        micro: u64,
    },
    Quota {
        role: Role,
        guarantees: Quantities,
        limits: Quantities,
    },
    /// For one role, or for all.
    Suppress(FrameworkId, Option<Role>),
    Revive(FrameworkId, Option<Role>),
    Use {
        part: Part,
        resources: Resources,
        refuse: Option<Duration>,
    },
    Decline {
        part: Part,
        resources: Option<Resources>,
        refuse: Option<Duration>,
    },
    Release {
        part: Part,
        resources: Resources,
    },
    Cycle {
        advance: Duration,
    },
}

const OPERATIONS: &str = "agent, remove_agent, framework, remove_framework, weight, quota, \
                          suppress, revive, use, decline, release, cycle";

/// Reads a line.
///
/// # Errors
/// What is wrong about it, with the field and what would be right.
pub(super) fn read(text: &str) -> Result<Operation, String> {
    let value: Value = serde_json::from_str(text.trim()).map_err(|error| no_json(&error))?;
    let Value::Object(fields) = value else {
        return Err("expected an object, such as {\"op\":\"cycle\"}".to_owned());
    };
    let mut fields = Fields(fields);
    let name = fields.text("op")?;
    let operation = match name.as_str() {
        "agent" => {
            let id = fields.agent("id")?;
            Operation::Agent {
                hostname: match fields.has("hostname") {
                    true => fields.text("hostname")?,
                    false => id.as_str().to_owned(),
                },
                id,
                resources: fields.resources("resources")?,
                attributes: fields.attributes()?,
            }
        }
        "remove_agent" => Operation::RemoveAgent(fields.agent("id")?),
        "framework" => Operation::Framework {
            id: fields.framework("id")?,
            roles: fields.roles()?,
            capabilities: fields.capabilities()?,
        },
        "remove_framework" => Operation::RemoveFramework(fields.framework("id")?),
        "weight" => Operation::Weight {
            role: fields.role("role")?,
            micro: fields.weight()?,
        },
        "quota" => quota(&mut fields)?,
        "suppress" => Operation::Suppress(fields.framework("framework")?, fields.some_role()?),
        "revive" => Operation::Revive(fields.framework("framework")?, fields.some_role()?),
        "use" => Operation::Use {
            part: fields.part()?,
            resources: fields.resources("resources")?,
            refuse: fields.seconds("refuse_s")?,
        },
        "decline" => Operation::Decline {
            part: fields.part()?,
            resources: match fields.has("resources") {
                true => Some(fields.resources("resources")?),
                false => None,
            },
            refuse: fields.seconds("refuse_s")?,
        },
        "release" => Operation::Release {
            part: fields.part()?,
            resources: fields.resources("resources")?,
        },
        "cycle" => Operation::Cycle {
            advance: fields.seconds("advance_s")?.unwrap_or_default(),
        },
        other => return Err(format!("op is {other:?}; expected one of {OPERATIONS}")),
    };
    fields.end(&name)?;
    Ok(operation)
}

/// Without the line's number, which would be one of a document.
fn no_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line")
        .map_or(text.as_str(), |it| it.0);
    format!("no JSON: {what} at column {}", error.column())
}

fn quota(fields: &mut Fields) -> Result<Operation, String> {
    let role = fields.role("role")?;
    let guarantees = fields.quantities("guarantees")?;
    let limits = fields.quantities("limits")?;
    for (name, limit) in limits.iter() {
        let guarantee = guarantees.get(name);
        if guarantee > limit {
            let (guarantee, limit) = (guarantee.as_f64(), limit.as_f64());
            return Err(format!(
                "guarantees.{name} is {guarantee}, above its limit {limit}; expected at most that"
            ));
        }
    }
    Ok(Operation::Quota {
        role,
        guarantees,
        limits,
    })
}

/// The fields that were not read yet.
struct Fields(Map<String, Value>);

/// A value as it is shown in an error: the beginning of it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

impl Fields {
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|it| !it.is_null())
    }

    fn take(&mut self, name: &str) -> Result<Value, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Err(format!("{name} is missing")),
            Some(it) => Ok(it),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name)? {
            Value::String(it) => Ok(it),
            other => Err(format!("{name} is {}; expected a text", shown(&other))),
        }
    }

    fn number(&mut self, name: &str) -> Result<f64, String> {
        let value = self.take(name)?;
        let number = value.as_f64().filter(|it| it.is_finite());
        number.ok_or_else(|| format!("{name} is {}; expected a number", shown(&value)))
    }

    fn id(&mut self, name: &'static str) -> Result<String, String> {
        let text = self.text(name)?;
        id::validate(name, &text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn agent(&mut self, name: &'static str) -> Result<AgentId, String> {
        Ok(AgentId::from(self.id(name)?))
    }

    fn framework(&mut self, name: &'static str) -> Result<FrameworkId, String> {
        Ok(FrameworkId::from(self.id(name)?))
    }

    fn role(&mut self, name: &str) -> Result<Role, String> {
        role(&self.text(name)?)
    }

    fn some_role(&mut self) -> Result<Option<Role>, String> {
        match self.has("role") {
            true => self.role("role").map(Some),
            false => Ok(None),
        }
    }

    fn part(&mut self) -> Result<Part, String> {
        Ok(Part {
            agent: self.agent("agent")?,
            framework: self.framework("framework")?,
            role: self.role("role")?,
        })
    }

    fn names(&mut self, name: &str, most: usize) -> Result<Option<Vec<String>>, String> {
        if !self.has(name) {
            return Ok(None);
        }
        let value = self.take(name)?;
        let bad = |it: &Value| format!("{name} is {}; expected a list of texts", shown(it));
        let Value::Array(all) = value else {
            return Err(bad(&value));
        };
        if all.len() > most {
            return Err(format!(
                "{name} has {} entries; expected at most {most}",
                all.len()
            ));
        }
        let one = |it: Value| match it {
            Value::String(it) => Ok(it),
            other => Err(bad(&other)),
        };
        all.into_iter().map(one).collect::<Result<_, _>>().map(Some)
    }

    /// `*` when there is no such field.
    fn roles(&mut self) -> Result<Vec<Role>, String> {
        let Some(names) = self.names("roles", MAX_ROLES)? else {
            return Ok(vec![Role::star()]);
        };
        if names.is_empty() {
            return Err("roles is empty; expected a role, or no such field for *".to_owned());
        }
        let mut roles: Vec<Role> = Vec::new();
        for name in names {
            let it = role(&name)?;
            if roles.contains(&it) {
                return Err(format!("roles has {name:?} twice"));
            }
            roles.push(it);
        }
        Ok(roles)
    }

    fn capabilities(&mut self) -> Result<FrameworkCapabilities, String> {
        let names = self.names("capabilities", MAX_NAMES)?.unwrap_or_default();
        let read = |it: &String| {
            Capability::from_str_name(it)
                .ok_or_else(|| format!("capabilities has {it:?}, which is none of Mesos'"))
        };
        names.iter().map(read).collect()
    }

    fn weight(&mut self) -> Result<u64, String> {
        let weight = self.number("weight")?;
        if !WEIGHTS.contains(&weight) {
            let (least, most) = (WEIGHTS.start(), WEIGHTS.end());
            return Err(format!(
                "weight is {weight}; expected from {least} to {most}"
            ));
        }
        // In bounds, so a whole number of 64 bits.
        Ok((weight * 1e6).round() as u64)
    }

    fn seconds(&mut self, name: &str) -> Result<Option<Duration>, String> {
        if !self.has(name) {
            return Ok(None);
        }
        let seconds = self.number(name)?;
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(format!(
                "{name} is {seconds}; expected from 0 to {MAX_SECONDS}"
            ));
        }
        Ok(Some(Duration::from_secs_f64(seconds)))
    }

    fn object(&mut self, name: &str) -> Result<Map<String, Value>, String> {
        match self.take(name)? {
            Value::Object(it) if it.len() <= MAX_NAMES => Ok(it),
            Value::Object(it) => Err(format!(
                "{name} has {} entries; expected at most {MAX_NAMES}",
                it.len()
            )),
            other => Err(format!("{name} is {}; expected an object", shown(&other))),
        }
    }

    fn resources(&mut self, name: &str) -> Result<Resources, String> {
        let mut all = Resources::new();
        for (key, value) in self.object(name)? {
            all.push(resource(name, &key, &value)?);
        }
        Ok(all)
    }

    fn quantities(&mut self, field: &str) -> Result<Quantities, String> {
        let mut all = Quantities::new();
        if !self.has(field) {
            return Ok(all);
        }
        for (name, value) in self.object(field)? {
            let number = value.as_f64();
            let number = number
                .ok_or_else(|| format!("{field}.{name} is {}; expected a number", shown(&value)))?;
            if !is_name(&name) {
                return Err(bad_name(field, &name));
            }
            let amount = Scalar::from_f64(&name, number).map_err(|error| error.to_string())?;
            all.insert(&name, amount);
        }
        Ok(all)
    }

    fn attributes(&mut self) -> Result<Attributes, String> {
        if !self.has("attributes") {
            return Ok(Attributes::default());
        }
        let read = |(name, value): (String, Value)| {
            let value = match &value {
                Value::String(it) => AttributeValue::Text(it.as_str().into()),
                Value::Number(it) => {
                    let number = it.as_f64().unwrap_or(f64::NAN);
                    let scalar = Scalar::from_f64_signed(&name, number);
                    AttributeValue::Scalar(scalar.map_err(|error| error.to_string())?)
                }
                other => {
                    let shown = shown(other);
                    return Err(format!(
                        "attributes.{name} is {shown}; expected a text or a number"
                    ));
                }
            };
            if name.is_empty() {
                return Err("attributes has an empty name".to_owned());
            }
            let name = name.as_str().into();
            Ok(Attribute { name, value })
        };
        self.object("attributes")?.into_iter().map(read).collect()
    }

    /// Every field was read.
    fn end(&self, operation: &str) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{operation} has no field {name:?}")),
        }
    }
}

fn role(name: &str) -> Result<Role, String> {
    let depth = name.split('/').count();
    if depth > MAX_DEPTH {
        return Err(format!(
            "the role has {depth} levels; expected at most {MAX_DEPTH}"
        ));
    }
    Role::new(name).map_err(|error| error.to_string())
}

fn is_name(name: &str) -> bool {
    let fits = |it: char| it.is_ascii_alphanumeric() || "_-.".contains(it);
    !name.is_empty() && name.chars().all(fits)
}

fn bad_name(field: &str, name: &str) -> String {
    format!(
        "{field} has the name {name:?}; expected letters, digits, '_', '-' and '.', with a role \
         in brackets behind it for what is reserved"
    )
}

/// A resource from a name, or `name(role)` for a reserved one, and an amount, or a text with
/// ranges or a set as operators write them.
fn resource(field: &str, key: &str, value: &Value) -> Result<Resource, String> {
    let (name, reserved) = match key.split_once('(') {
        None => (key, None),
        Some((name, rest)) => (name, rest.strip_suffix(')')),
    };
    if !is_name(name) || key.contains('(') && reserved.is_none() {
        return Err(bad_name(field, key));
    }
    if let Some(it) = reserved {
        role(it)?;
    }
    let text = match value {
        Value::Number(it) => it.to_string(),
        Value::String(it) if !it.contains(';') => it.clone(),
        other => {
            let shown = shown(other);
            return Err(format!(
                "{field}.{key} is {shown}; expected a number, or a text such as \"[1-5]\""
            ));
        }
    };
    let all = Resources::parse(&format!("{key}:{text}"), "*").map_err(|error| error.to_string())?;
    // Nothing of it is no resource.
    let one = all.iter().next().cloned();
    Ok(one.unwrap_or_else(|| Resource::scalar(name, Scalar::ZERO)))
}
