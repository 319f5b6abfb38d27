//! Attributes: what an operator says about an agent.

use crate::{
    resources::{Error, Ranges, Scalar, Set, Value},
    wire,
};
use std::{fmt, sync::Arc};

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AttributeValue {
    /// A number with three decimal digits; may be negative.
    Scalar(Scalar),
    /// Numbers.
    Ranges(Ranges),
    /// Words.
    Set(Set),
    /// A text.
    Text(Arc<str>),
}

/// One attribute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attribute {
    /// Its name; may come several times.
    pub name: Arc<str>,
    /// Its value.
    pub value: AttributeValue,
}

/// The attributes of an agent in the order given. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes(Arc<[Attribute]>);

impl Attributes {
    /// The attributes in the order given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Attribute> {
        self.0.iter()
    }

    /// The first attribute of the name: offer constraints look at no other.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.iter().find(|it| &*it.name == name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From the messages of the wire.
    ///
    /// # Errors
    /// The attribute whose value does not fit its type.
    pub fn from_wire(attributes: &[wire::Attribute]) -> Result<Attributes, Error> {
        let all: Result<_, _> = attributes.iter().map(Attribute::from_wire).collect();
        Ok(Attributes(all?))
    }

    /// The messages of the wire.
    pub fn to_wire(&self) -> Vec<wire::Attribute> {
        self.iter().map(Attribute::to_wire).collect()
    }

    /// Reads `rack:r1;cores:8;ports:[1-2];set:{a,b}`, as the agent's flag has it. What is neither
    /// a number, ranges nor a set is a text.
    ///
    /// # Errors
    /// A part without name or value.
    pub fn parse(text: &str) -> Result<Attributes, Error> {
        let parts = text.split(';').map(str::trim).filter(|it| !it.is_empty());
        let all: Result<_, _> = parts.map(Attribute::parse).collect();
        Ok(Attributes(all?))
    }
}

impl FromIterator<Attribute> for Attributes {
    fn from_iter<I: IntoIterator<Item = Attribute>>(all: I) -> Attributes {
        Attributes(all.into_iter().collect())
    }
}

impl Attribute {
    fn parse(part: &str) -> Result<Attribute, Error> {
        let bad = |fault| Error::Attribute {
            text: part.to_owned(),
            fault,
        };
        // Only the first colon divides: a text may hold others, such as a URL.
        let (name, value) = part.split_once(':').ok_or_else(|| bad("no ':'"))?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return Err(bad("no name before the value"));
        }
        if value.is_empty() {
            return Err(bad("no value behind the name"));
        }
        let text = || AttributeValue::Text(value.into());
        let value = if value.starts_with(['[', '{']) {
            match crate::resources::parse_value(name, value) {
                Ok(Value::Ranges(it)) => AttributeValue::Ranges(it),
                Ok(Value::Set(it)) => AttributeValue::Set(it),
                Ok(Value::Scalar(_)) | Err(_) => text(),
            }
        } else {
            // Words such as `inf` and `nan` are words here.
            let number = value.parse().ok().filter(|it: &f64| it.is_finite());
            match number.map(|it| Scalar::from_f64_signed(name, it)) {
                Some(Ok(it)) => AttributeValue::Scalar(it),
                Some(Err(_)) | None => text(),
            }
        };
        let name = name.into();
        Ok(Attribute { name, value })
    }

    fn from_wire(attribute: &wire::Attribute) -> Result<Attribute, Error> {
        use wire::value::Type;
        let name = attribute.name.as_str();
        if name.is_empty() {
            return Err(Error::EmptyName);
        }
        let missing = |kind| Error::ValueField {
            name: name.to_owned(),
            kind,
        };
        let value = match Type::try_from(attribute.r#type) {
            Ok(Type::Scalar) => {
                let value = attribute.scalar.as_ref().ok_or_else(|| missing("scalar"))?;
                AttributeValue::Scalar(Scalar::from_f64_signed(name, value.value)?)
            }
            Ok(Type::Ranges) => {
                let value = attribute.ranges.as_ref().ok_or_else(|| missing("ranges"))?;
                AttributeValue::Ranges(Ranges::from_wire(name, value)?)
            }
            Ok(Type::Set) => {
                let value = attribute.set.as_ref().ok_or_else(|| missing("set"))?;
                AttributeValue::Set(Set::new(name, value.item.iter().map(String::as_str))?)
            }
            Ok(Type::Text) => {
                let value = attribute.text.as_ref().ok_or_else(|| missing("text"))?;
                AttributeValue::Text(value.value.as_str().into())
            }
            Err(_) => {
                return Err(Error::Kind {
                    name: name.to_owned(),
                    kind: attribute.r#type.to_string(),
                });
            }
        };
        let name = name.into();
        Ok(Attribute { name, value })
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::Attribute {
        use wire::value::Type;
        let mut attribute = wire::Attribute {
            name: self.name.as_ref().to_owned(),
            ..wire::Attribute::default()
        };
        let kind = match &self.value {
            AttributeValue::Scalar(it) => {
                attribute.scalar = Some(it.to_wire());
                Type::Scalar
            }
            AttributeValue::Ranges(it) => {
                attribute.ranges = Some(it.to_wire());
                Type::Ranges
            }
            AttributeValue::Set(it) => {
                let item = it.iter().map(str::to_owned).collect();
                attribute.set = Some(wire::value::Set { item });
                Type::Set
            }
            AttributeValue::Text(it) => {
                let value = it.as_ref().to_owned();
                attribute.text = Some(wire::value::Text { value });
                Type::Text
            }
        };
        attribute.r#type = kind.into();
        attribute
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            AttributeValue::Text(it) => Some(it),
            _ => None,
        }
    }
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttributeValue::Scalar(it) => it.fmt(f),
            AttributeValue::Ranges(it) => fmt::Display::fmt(it, f),
            AttributeValue::Set(it) => it.fmt(f),
            AttributeValue::Text(it) => f.write_str(it),
        }
    }
}

impl fmt::Display for Attributes {
    /// `rack:r1; cores:8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.iter().enumerate() {
            let semicolon = if index == 0 { "" } else { "; " };
            write!(f, "{semicolon}{}:{}", it.name, it.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_kinds_and_prints_them_again() {
        let text = "rack:r1; cores:8; cold:-1.5; p:[1-2]; s:{a, b}; url:http://h:80; w:inf";
        let all = Attributes::parse(text).unwrap();
        assert_eq!(all.to_string(), text);
        assert_eq!(Attributes::parse(&all.to_string()).unwrap(), all);
        assert_eq!(Attributes::from_wire(&all.to_wire()).unwrap(), all);
        assert_eq!(all.get("rack").unwrap().as_text(), Some("r1"));
        assert_eq!(all.get("url").unwrap().as_text(), Some("http://h:80"));
        assert_eq!(all.get("cores").unwrap().as_text(), None);
    }

    #[test]
    fn refuses_parts_without_name_or_value() {
        for bad in ["rack", ":r1", "rack:"] {
            assert!(Attributes::parse(bad).is_err(), "{bad}");
        }
    }
}
