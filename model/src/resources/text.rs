//! The text form: `name(role):value;...`, as flags and operators write it.

use super::{Error, Ranges, Reservation, Resource, Resources, Scalar, Set, Value};
use crate::{Role, wire};

impl Resources {
    /// Reads `cpus:4;mem(role):10;ports:[1-2,5-9];set:{a,b}`. Disk and memory are in MB. What
    /// names no role is reserved to `default_role`, or unreserved when that is `*`. White space
    /// does not matter. A JSON array of `Resource` messages is the other form.
    ///
    /// # Errors
    /// What cannot be read, with what would be right.
    pub fn parse(text: &str, default_role: &str) -> Result<Resources, Error> {
        if text.trim_start().starts_with('[') {
            return parse_json(text, default_role);
        }
        let mut all = Resources::new();
        for part in text.split(';') {
            let part = part.trim();
            // Empty parts are skipped, the one behind a final semicolon included.
            if !part.is_empty() {
                all.push(parse_one(part, default_role)?);
            }
        }
        Ok(all)
    }
}

fn parse_json(text: &str, default_role: &str) -> Result<Resources, Error> {
    // The codec reads messages; `Request` is one that holds nothing but resources and an agent.
    let message = format!("{{\"resources\":{text}}}");
    let list: wire::Request = tepui_proto::json::decode(message.as_bytes())
        .map_err(|error| Error::Json(error.to_string()))?;
    Resources::from_wire_with_role(&list.resources, default_role)
}

fn parse_one(part: &str, default_role: &str) -> Result<Resource, Error> {
    let bad = |fault| Error::Text {
        text: part.to_owned(),
        fault,
    };
    let (head, value) = part.split_once(':').ok_or_else(|| bad("no ':'"))?;
    let head = head.trim();
    let (name, role) = match head.split_once('(') {
        None => (head, default_role),
        Some((name, rest)) => {
            let role = rest.strip_suffix(')');
            (name.trim(), role.ok_or_else(|| bad("no ')'"))?.trim())
        }
    };
    if name.is_empty() {
        return Err(bad("no name before the value"));
    }
    let value = parse_value(name, value).map_err(|it| match it {
        ValueError::Text(fault) => bad(fault),
        ValueError::Value(error) => error,
    })?;
    let resource = Resource::new(name, value);
    if role == "*" {
        return Ok(resource);
    }
    let role = Role::new(role).map_err(|source| Error::Role {
        name: name.to_owned(),
        source,
    })?;
    Ok(resource.with_reservation(Reservation::fixed(role)))
}

/// Why a value in text form is refused.
pub(crate) enum ValueError {
    /// It has not the form of a value.
    Text(&'static str),
    /// It has, but it is no good.
    Value(Error),
}

impl From<Error> for ValueError {
    fn from(error: Error) -> ValueError {
        ValueError::Value(error)
    }
}

/// Reads an amount, ranges in brackets or a set in braces.
pub(crate) fn parse_value(name: &str, text: &str) -> Result<Value, ValueError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('[') {
        let inner = rest.strip_suffix(']').ok_or(ValueError::Text("no ']'"))?;
        let mut all = Vec::new();
        for part in list(inner) {
            let ends = part.split_once('-').and_then(|(begin, end)| {
                Some((begin.trim().parse().ok()?, end.trim().parse().ok()?))
            });
            all.push(ends.ok_or(ValueError::Text("a range is not of the form first-last"))?);
        }
        return Ok(Ranges::new(name, all)?.into());
    }
    if let Some(rest) = text.strip_prefix('{') {
        let inner = rest.strip_suffix('}').ok_or(ValueError::Text("no '}'"))?;
        return Ok(Set::new(name, list(inner))?.into());
    }
    let amount = text.parse().map_err(|_| {
        ValueError::Text("the value is neither a number, nor ranges in [], nor a set in {}")
    })?;
    Ok(Scalar::from_f64(name, amount)?.into())
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_kinds() {
        let text = " cpus:4 ; mem(role):10.5;ports:[ 5-9 , 1-2,3-4];set:{ b,a };";
        let all = Resources::parse(text, "*").unwrap();
        let print = "cpus:4; mem(role):10.5; ports:[1-9]; set:{a, b}";
        assert_eq!(all.to_string(), print);
        assert_eq!(Resources::parse(print, "*").unwrap(), all);
        assert_eq!(Resources::parse("", "*").unwrap(), Resources::new());
    }

    #[test]
    fn reads_a_json_array() {
        let text = r#" [{"name":"cpus","type":"SCALAR","scalar":{"value":4}},
            {"name":"disk","type":"SCALAR","scalar":{"value":1},"role":"b"},
            {"name":"ports","type":"RANGES","ranges":{"range":[{"begin":1,"end":2}]}}]"#;
        let all = Resources::parse(text, "a").unwrap();
        assert_eq!(
            all,
            Resources::parse("cpus(a):4;disk(b):1;ports(a):[1-2]", "*").unwrap()
        );
        for bad in [
            "[",
            "[1]",
            r#"[{"type":"SCALAR"}]"#,
            r#"[{"name":"cpus","type":"SCALAR"}]"#,
        ] {
            assert!(Resources::parse(bad, "*").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_role_is_for_what_names_none() {
        let all = Resources::parse("cpus:4;mem(*):10;disk(b):1", "a").unwrap();
        assert_eq!(all.to_string(), "cpus(a):4; mem:10; disk(b):1");
    }

    #[test]
    fn equal_kinds_are_added_up_and_nothing_is_dropped() {
        let all = Resources::parse("cpus:1;cpus(a):1;cpus:2;mem:0", "*").unwrap();
        assert_eq!(all.to_string(), "cpus:3; cpus(a):1");
    }

    #[test]
    fn refusals_say_what_and_where() {
        for (bad, word) in [
            ("cpus", "no ':'"),
            (":4", "no name"),
            ("cpus(a:4", "no ')'"),
            ("cpus(a b):4", "white space"),
            ("cpus:four", "neither"),
            ("cpus:-1", "at least 0"),
            ("cpus:NaN", "finite"),
            ("cpus:inf", "finite"),
            ("cpus:1e300", "1e12"),
            ("ports:[1-2", "no ']'"),
            ("ports:[1]", "first-last"),
            ("ports:[2-1]", "before it begins"),
            ("set:{a", "no '}'"),
            ("set:{a,a}", "twice"),
        ] {
            let text = Resources::parse(bad, "*").unwrap_err().to_string();
            assert!(text.contains(word), "{bad}: {text}");
        }
    }
}
