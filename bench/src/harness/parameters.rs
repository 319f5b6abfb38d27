//! Parameters of workloads: names, bounds, and what was given for them.

use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// What a parameter may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A whole number.
    Number {
        /// When it is not given.
        default: u64,
        /// The least that makes sense.
        min: u64,
        /// The most that this harness can do.
        max: u64,
    },
    /// One of some words.
    Choice {
        /// All of them, the default first.
        of: &'static [&'static str],
    },
    /// Any text; empty for none.
    Text,
}

/// One parameter of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// As in `--param name=value`.
    pub(crate) name: &'static str,
    /// What it may be.
    pub(crate) kind: Kind,
    /// What it means.
    pub(crate) help: &'static str,
}

/// A number from `min` to `max`.
pub(crate) const fn number(
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
    help: &'static str,
) -> Parameter {
    let kind = Kind::Number { default, min, max };
    Parameter { name, kind, help }
}

/// One of some words, the default first.
pub(crate) const fn choice(
    name: &'static str,
    of: &'static [&'static str],
    help: &'static str,
) -> Parameter {
    let kind = Kind::Choice { of };
    Parameter { name, kind, help }
}

/// Any text, empty by default.
pub(crate) const fn text(name: &'static str, help: &'static str) -> Parameter {
    let kind = Kind::Text;
    Parameter { name, kind, help }
}

/// Why parameters are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {0:?}: expected name=value")]
    Form(String),
    #[error("no parameter {name:?}; this workload has {known}")]
    Unknown { name: String, known: String },
    #[error("parameter {0} is given twice")]
    Twice(&'static str),
    #[error("{name} is {given:?}; expected a whole number from {min} to {max}")]
    Number {
        name: &'static str,
        given: String,
        min: u64,
        max: u64,
    },
    #[error("{name} is {given:?}; expected one of {of}")]
    Choice {
        name: &'static str,
        given: String,
        of: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Text(String),
}

/// A value for each parameter of a workload, within bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// What `given` (texts of the form `name=value`) says, defaults otherwise.
    ///
    /// # Errors
    /// What cannot be read or is out of bounds, with the bounds.
    pub(crate) fn read(parameters: &[Parameter], given: &[String]) -> Result<Values, Error> {
        let mut values = BTreeMap::new();
        for text in given {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Error::Form(text.clone()))?;
            let name = name.trim();
            let Some(parameter) = parameters.iter().find(|it| it.name == name) else {
                let known: Vec<&str> = parameters.iter().map(|it| it.name).collect();
                let known = match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                };
                let name = name.to_owned();
                return Err(Error::Unknown { name, known });
            };
            let value = parameter.read(value.trim())?;
            if values.insert(parameter.name, value).is_some() {
                return Err(Error::Twice(parameter.name));
            }
        }
        for it in parameters {
            values.entry(it.name).or_insert_with(|| it.default());
        }
        Ok(Values(values))
    }

    /// The same with another value for a number, within its bounds.
    ///
    /// # Errors
    /// It is out of bounds.
    pub(crate) fn with(&self, parameter: &Parameter, value: u64) -> Result<Values, Error> {
        let mut values = self.clone();
        let value = parameter.read(&value.to_string())?;
        values.0.insert(parameter.name, value);
        Ok(values)
    }

    /// The number of this name.
    ///
    /// # Panics
    /// The workload has no such number.
    pub(crate) fn number(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(Value::Number(it)) => *it,
            _ => panic!("no number {name} among the parameters"),
        }
    }

    /// The text or the word of this name.
    ///
    /// # Panics
    /// The workload has no such text.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Value::Text(it)) => it,
            _ => panic!("no text {name} among the parameters"),
        }
    }

    /// For a result.
    pub(crate) fn to_json(&self) -> Map<String, Json> {
        let json = |it: &Value| match it {
            Value::Number(it) => Json::from(*it),
            Value::Text(it) => Json::from(it.as_str()),
        };
        let all = self.0.iter();
        all.map(|(name, it)| ((*name).to_owned(), json(it)))
            .collect()
    }
}

impl Parameter {
    fn read(&self, text: &str) -> Result<Value, Error> {
        match self.kind {
            Kind::Number { min, max, .. } => match whole(text) {
                Some(it) if (min..=max).contains(&it) => Ok(Value::Number(it)),
                _ => Err(Error::Number {
                    name: self.name,
                    given: text.to_owned(),
                    min,
                    max,
                }),
            },
            Kind::Choice { of } if of.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice { of } => Err(Error::Choice {
                name: self.name,
                given: text.to_owned(),
                of: of.join(", "),
            }),
            Kind::Text => Ok(Value::Text(text.to_owned())),
        }
    }

    fn default(&self) -> Value {
        match self.kind {
            Kind::Number { default, .. } => Value::Number(default),
            Kind::Choice { of } => Value::Text(of.first().copied().unwrap_or("").to_owned()),
            Kind::Text => Value::Text(String::new()),
        }
    }

    /// What it may be, in words.
    pub(crate) fn bounds(&self) -> String {
        match self.kind {
            Kind::Number { default, min, max } => format!("{default} ({min} to {max})"),
            Kind::Choice { of } => of.join(" | "),
            Kind::Text => "text".to_owned(),
        }
    }
}

/// A whole number; `k` and `M` behind it for thousands and millions, `_` anywhere.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let text: String = text.chars().filter(|it| *it != '_').collect();
    let (text, scale) = match text.strip_suffix(['k', 'M']) {
        Some(rest) if text.ends_with('k') => (rest, 1000),
        Some(rest) => (rest, 1_000_000),
        None => (text.as_str(), 1),
    };
    let digits_only = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    digits_only.then(|| text.parse::<u64>().ok()?.checked_mul(scale))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Parameter] = &[
        number("agents", 10, 1, 1_000_000, "how many"),
        choice("kind", &["plain", "fancy"], "which"),
    ];

    fn read(given: &[&str]) -> Result<Values, Error> {
        let given: Vec<String> = given.iter().map(|it| (*it).to_owned()).collect();
        Values::read(ALL, &given)
    }

    #[test]
    fn defaults_and_what_is_given() {
        let values = read(&["agents=20k"]).unwrap();
        assert_eq!(values.number("agents"), 20_000);
        assert_eq!(values.text("kind"), "plain");
        assert_eq!(values.with(&ALL[0], 7).unwrap().number("agents"), 7);
        assert!(values.with(&ALL[0], 0).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_bounds() {
        for (given, says) in [
            ("agents", "name=value"),
            ("agent=1", "this workload has agents, kind"),
            ("agents=0", "from 1 to 1000000"),
            ("agents=-1", "from 1 to 1000000"),
            ("agents=1e18", "from 1 to 1000000"),
            ("agents=NaN", "from 1 to 1000000"),
            ("agents=", "from 1 to 1000000"),
            ("agents=99999999999999999999", "from 1 to 1000000"),
            ("agents=99999999999999999M", "from 1 to 1000000"),
            ("kind=x", "plain, fancy"),
        ] {
            let text = read(&[given]).unwrap_err().to_string();
            assert!(text.contains(says), "{given}: {text}");
        }
        assert_eq!(read(&["agents=1", "agents=2"]), Err(Error::Twice("agents")));
    }
}
