//! Offer constraints: which agents a framework can use.
//!
//! Groups of a role are alternatives; within a group every constraint must hold. Text
//! predicates hold for attributes that are not text (behaviour of Mesos 1.11).

use crate::agents::AgentSpec;
use regex::RegexBuilder;
use std::borrow::Cow;
use tepui_model::{
    Role,
    attribute::AttributeValue,
    wire::scheduler::{
        AttributeConstraint, OfferConstraints,
        attribute_constraint::{
            predicate::Predicate,
            selector::{PseudoattributeType, Selector},
        },
    },
};

/// Bytes that a compiled expression may take.
const MAX_EXPRESSION: usize = 64 << 10;

/// Whether the framework can use the agent for the role.
pub(crate) fn allow(constraints: &OfferConstraints, role: &Role, agent: &AgentSpec) -> bool {
    let Some(of_role) = constraints.role_constraints.get(role.as_str()) else {
        return true;
    };
    of_role.groups.iter().any(|group| {
        group
            .attribute_constraints
            .iter()
            .all(|it| holds(it, agent))
    })
}

/// What a selector finds.
enum Found<'a> {
    Nothing,
    Text(Cow<'a, str>),
    NotText,
}

fn holds(constraint: &AttributeConstraint, agent: &AgentSpec) -> bool {
    let found = select(constraint, agent);
    let Some(predicate) = constraint.predicate.predicate.as_ref() else {
        return true;
    };
    match (predicate, &found) {
        (Predicate::Exists(_), found) => !matches!(found, Found::Nothing),
        (Predicate::NotExists(_), found) => matches!(found, Found::Nothing),
        (Predicate::TextEquals(_) | Predicate::TextMatches(_), Found::Nothing) => false,
        (_, Found::Nothing | Found::NotText) => true,
        (Predicate::TextEquals(it), Found::Text(text)) => it.value == *text,
        (Predicate::TextNotEquals(it), Found::Text(text)) => it.value != *text,
        (Predicate::TextMatches(it), Found::Text(text)) => matches(&it.regex, text),
        (Predicate::TextNotMatches(it), Found::Text(text)) => !matches(&it.regex, text),
    }
}

/// Whether the whole text fits the expression. One that does not compile, or is too
/// large, fits nothing: it was refused at the door.
fn matches(expression: &str, text: &str) -> bool {
    RegexBuilder::new(&format!("^(?:{expression})$"))
        .size_limit(MAX_EXPRESSION)
        .build()
        .is_ok_and(|it| it.is_match(text))
}

fn select<'a>(constraint: &AttributeConstraint, agent: &'a AgentSpec) -> Found<'a> {
    let text = |text: Option<&'a str>| text.map_or(Found::Nothing, |it| Found::Text(it.into()));
    let domain = agent.domain.as_ref();
    match constraint.selector.selector.as_ref() {
        None => Found::Nothing,
        Some(Selector::AttributeName(name)) => match agent.attributes.get(name) {
            None => Found::Nothing,
            Some(attribute) => match &attribute.value {
                AttributeValue::Text(it) => Found::Text(it.as_ref().into()),
                _ => Found::NotText,
            },
        },
        Some(Selector::PseudoattributeType(kind)) => match PseudoattributeType::try_from(*kind) {
            Ok(PseudoattributeType::Hostname) => text(Some(&agent.hostname)),
            Ok(PseudoattributeType::Region) => text(domain.map(|it| it.region.as_ref())),
            Ok(PseudoattributeType::Zone) => text(domain.map(|it| it.zone.as_ref())),
            Ok(PseudoattributeType::Unknown) | Err(_) => Found::Nothing,
        },
    }
}
