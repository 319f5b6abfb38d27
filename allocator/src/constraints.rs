//! Offer constraints: which agents a framework can use for a role.
//!
//! Groups of a role are alternatives; within a group every constraint must hold. Predicates on
//! text hold for attributes that are not text; what is absent satisfies the negated predicates
//! only; of several attributes of one name the first counts (behaviour of Mesos 1.11).

use crate::agents::AgentSpec;
use regex::{Regex, RegexBuilder};
use tepui_model::{
    Role,
    attribute::AttributeValue,
    wire::scheduler::{
        AttributeConstraint, OfferConstraints,
        attribute_constraint::{
            predicate::Predicate as Wire,
            selector::{PseudoattributeType, Selector as WireSelector},
        },
    },
};

/// Bytes that one compiled expression may take (Mesos: `--offer_constraints_re2_max_mem` and
/// `--offer_constraints_re2_max_program_size`).
const MAX_EXPRESSION_BYTES: usize = 64 << 10;

/// An expression of an offer constraint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offer_constraints.role_constraints[{role:?}]: the expression {expression:?} {fault}")]
pub struct BadExpression {
    /// The role that it is for.
    pub role: String,
    /// The expression.
    pub expression: String,
    /// What is wrong about it, as a predicate.
    pub fault: String,
}

/// Checks the regular expressions of offer constraints: syntax, and size once compiled. They are
/// matched against the whole text, in linear time, and so have neither look-around nor
/// back-references (as RE2 in Mesos).
///
/// # Errors
/// The first expression that cannot be used.
pub fn check_expressions(constraints: &OfferConstraints) -> Result<(), BadExpression> {
    for (role, of_role) in &constraints.role_constraints {
        let groups = of_role.groups.iter();
        for it in groups.flat_map(|group| &group.attribute_constraints) {
            let expression = match &it.predicate.predicate {
                Some(Wire::TextMatches(it)) => &it.regex,
                Some(Wire::TextNotMatches(it)) => &it.regex,
                _ => continue,
            };
            if let Err(error) = compile(expression) {
                return Err(BadExpression {
                    role: role.clone(),
                    expression: expression.to_owned(),
                    fault: match error {
                        regex::Error::CompiledTooBig(_) => {
                            format!("takes more than {MAX_EXPRESSION_BYTES} bytes when compiled")
                        }
                        error => format!("cannot be read: {error}"),
                    },
                });
            }
        }
    }
    Ok(())
}

fn compile(expression: &str) -> Result<Regex, regex::Error> {
    let limited = |expression: &str| {
        RegexBuilder::new(expression)
            .size_limit(MAX_EXPRESSION_BYTES)
            .build()
    };
    // Alone first: `a)(b` would be well-formed inside the brackets.
    limited(expression)?;
    limited(&format!(r"\A(?:{expression})\z"))
}

/// The constraints of one framework for one role, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Constraints {
    groups: Vec<Vec<Constraint>>,
    /// Whether some constraint looks at the host's name; agents of one class differ then.
    pub(crate) by_host: bool,
}

#[derive(Clone, Debug)]
struct Constraint {
    selector: Selector,
    predicate: Predicate,
}

/// Where a constraint looks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selector {
    Attribute(String),
    Hostname,
    Region,
    Zone,
    Unknown,
}

#[derive(Clone, Debug)]
enum Predicate {
    Always,
    Exists,
    NotExists,
    Equals(String),
    NotEquals(String),
    /// Nothing for an expression that does not compile, which matches no text; such ones are
    /// refused at the door.
    Matches(Option<Regex>),
    NotMatches(Option<Regex>),
}

/// What a selector finds.
#[derive(Clone, Copy)]
enum Found<'a> {
    Nothing,
    Text(&'a str),
    NotText,
}

impl Constraints {
    /// The constraints for the role; none when the role is not constrained.
    pub(crate) fn of(constraints: &OfferConstraints, role: &Role) -> Option<Constraints> {
        let of_role = constraints.role_constraints.get(role.as_str())?;
        let group = |constraints: &[AttributeConstraint]| -> Vec<Constraint> {
            constraints.iter().map(Constraint::from_wire).collect()
        };
        let groups: Vec<_> = of_role
            .groups
            .iter()
            .map(|it| group(&it.attribute_constraints))
            .collect();
        let by_host = groups
            .iter()
            .flatten()
            .any(|it| matches!(it.selector, Selector::Hostname));
        Some(Constraints { groups, by_host })
    }

    /// For each group a text that must be equal for the group to hold: the host's name when some
    /// constraint looks at that. None when some group has no such constraint.
    pub(crate) fn keys(&self) -> Option<Vec<(&Selector, &str)>> {
        let mut keys = Vec::new();
        for group in &self.groups {
            let equal = group.iter().filter_map(|it| match &it.predicate {
                Predicate::Equals(text) => Some((&it.selector, text.as_str())),
                _ => None,
            });
            let mut usable = equal.filter(|it| !self.by_host || *it.0 == Selector::Hostname);
            keys.push(usable.next()?);
        }
        Some(keys)
    }

    /// In words, the first constraint of each group that does not hold for the agent.
    pub(crate) fn why_not(&self, agent: &AgentSpec) -> String {
        let failing = |group: &Vec<Constraint>| {
            let failing = group.iter().find(|it| !it.holds(agent));
            failing.map_or_else(|| "a constraint".to_owned(), Constraint::text)
        };
        let all: Vec<String> = self.groups.iter().map(failing).collect();
        all.join(", and ")
    }

    pub(crate) fn allow(&self, agent: &AgentSpec) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| group.iter().all(|it| it.holds(agent)))
    }
}

impl Constraint {
    fn from_wire(constraint: &AttributeConstraint) -> Constraint {
        let selector = match &constraint.selector.selector {
            Some(WireSelector::AttributeName(name)) => Selector::Attribute(name.clone()),
            Some(WireSelector::PseudoattributeType(kind)) => {
                match PseudoattributeType::try_from(*kind) {
                    Ok(PseudoattributeType::Hostname) => Selector::Hostname,
                    Ok(PseudoattributeType::Region) => Selector::Region,
                    Ok(PseudoattributeType::Zone) => Selector::Zone,
                    Ok(PseudoattributeType::Unknown) | Err(_) => Selector::Unknown,
                }
            }
            None => Selector::Unknown,
        };
        let predicate = match &constraint.predicate.predicate {
            None => Predicate::Always,
            Some(Wire::Exists(_)) => Predicate::Exists,
            Some(Wire::NotExists(_)) => Predicate::NotExists,
            Some(Wire::TextEquals(it)) => Predicate::Equals(it.value.to_owned()),
            Some(Wire::TextNotEquals(it)) => Predicate::NotEquals(it.value.to_owned()),
            Some(Wire::TextMatches(it)) => Predicate::Matches(compile(&it.regex).ok()),
            Some(Wire::TextNotMatches(it)) => Predicate::NotMatches(compile(&it.regex).ok()),
        };
        Constraint {
            selector,
            predicate,
        }
    }

    /// What it demands, in words.
    fn text(&self) -> String {
        let name = match &self.selector {
            Selector::Attribute(name) => format!("attribute {name:?}"),
            Selector::Hostname => "HOSTNAME".to_owned(),
            Selector::Region => "REGION".to_owned(),
            Selector::Zone => "ZONE".to_owned(),
            Selector::Unknown => "an unknown selector".to_owned(),
        };
        let regex = |it: &Option<Regex>| match it {
            Some(it) => {
                let text = it.as_str();
                let inner = text
                    .strip_prefix(r"\A(?:")
                    .and_then(|it| it.strip_suffix(r")\z"));
                inner.unwrap_or(text).to_owned()
            }
            None => "an expression that cannot be read".to_owned(),
        };
        match &self.predicate {
            Predicate::Always => format!("{name} is anything"),
            Predicate::Exists => format!("{name} exists"),
            Predicate::NotExists => format!("{name} does not exist"),
            Predicate::Equals(it) => format!("{name} is {it:?}"),
            Predicate::NotEquals(it) => format!("{name} is not {it:?}"),
            Predicate::Matches(it) => format!("{name} matches {:?}", regex(it)),
            Predicate::NotMatches(it) => format!("{name} does not match {:?}", regex(it)),
        }
    }

    fn holds(&self, agent: &AgentSpec) -> bool {
        let found = self.selector.find(agent);
        // Nothing satisfies the negations, what is not text any predicate on text.
        let on_text = |negated: bool, is_so: &dyn Fn(&str) -> bool| match found {
            Found::Nothing => negated,
            Found::NotText => true,
            Found::Text(text) => is_so(text) != negated,
        };
        let matches =
            |it: &Option<Regex>, text: &str| it.as_ref().is_some_and(|it| it.is_match(text));
        match &self.predicate {
            Predicate::Always => true,
            Predicate::Exists => !matches!(found, Found::Nothing),
            Predicate::NotExists => matches!(found, Found::Nothing),
            Predicate::Equals(it) => on_text(false, &|text| it == text),
            Predicate::NotEquals(it) => on_text(true, &|text| it == text),
            Predicate::Matches(it) => on_text(false, &|text| matches(it, text)),
            Predicate::NotMatches(it) => on_text(true, &|text| matches(it, text)),
        }
    }
}

impl Selector {
    fn find<'a>(&self, agent: &'a AgentSpec) -> Found<'a> {
        let text = |text: Option<&'a str>| text.map_or(Found::Nothing, Found::Text);
        let domain = agent.domain.as_ref();
        match self {
            Selector::Attribute(name) => match agent.attributes.get(name) {
                None => Found::Nothing,
                Some(attribute) => match &attribute.value {
                    AttributeValue::Text(it) => Found::Text(it),
                    _ => Found::NotText,
                },
            },
            Selector::Hostname => Found::Text(&agent.hostname),
            Selector::Region => text(domain.map(|it| &*it.region)),
            Selector::Zone => text(domain.map(|it| &*it.zone)),
            Selector::Unknown => Found::Nothing,
        }
    }
}
