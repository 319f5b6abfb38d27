//! Comparison with exchanges recorded from a real Mesos.
//!
//! What is compared: the status, the headers that were recorded, and the shape of JSON
//! bodies: which paths exist and of which type their values are. Values such as ids and
//! times differ; where a value is part of the contract, a test of its own says so. A
//! deliberate difference stands in `golden/differences.tsv` with its reason.

use crate::http::{self, Response};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Folder of the recorded exchanges.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// One recorded exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// File without its ending.
    pub file: String,
    /// What the request is.
    pub name: String,
    /// `master` or `agent`.
    pub server: String,
    /// As recorded.
    pub request: Value,
    /// As recorded.
    pub response: Value,
}

/// The exchanges of one file, with `replacements` of recorded ids by live ones.
///
/// # Errors
/// When the file cannot be read.
pub fn load(file: &str, replacements: &BTreeMap<String, String>) -> Result<Vec<Exchange>> {
    let path = folder().join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line)?;
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let recorded = Exchange {
                file: file.to_owned(),
                name: field("name"),
                server: field("server"),
                request: line["request"].clone(),
                response: line["response"].clone(),
            };
            recorded.replaced(replacements)
        })
        .collect()
}

impl Exchange {
    /// The same with recorded ids replaced by live ones; in the response too, where ids
    /// are names of fields.
    ///
    /// # Errors
    /// When a replacement breaks the JSON.
    pub fn replaced(&self, replacements: &BTreeMap<String, String>) -> Result<Exchange> {
        let replace = |value: &Value| -> Result<Value> {
            let mut text = value.to_string();
            for (recorded, live) in replacements {
                text = text.replace(recorded, live);
            }
            Ok(serde_json::from_str(&text)?)
        };
        let mut request = replace(&self.request)?;
        replace_in_gzip(&mut request, replacements)?;
        Ok(Exchange {
            request,
            response: replace(&self.response)?,
            ..self.clone()
        })
    }

    /// What the lines of `differences.tsv` call it.
    pub fn title(&self) -> String {
        format!("{}: {}", self.file, self.name)
    }
}

/// A compressed body holds recorded ids too: it is unpacked, changed and packed again.
fn replace_in_gzip(request: &mut Value, replacements: &BTreeMap<String, String>) -> Result<()> {
    let Some(body) = request["body_base64"].as_str() else {
        return Ok(());
    };
    let packed = STANDARD.decode(body)?;
    let mut text = String::new();
    if GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .is_err()
    {
        // Not compressed: what is wrong about it must stay so.
        return Ok(());
    }
    for (recorded, live) in replacements {
        text = text.replace(recorded, live);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    request["body_base64"] = STANDARD.encode(encoder.finish()?).into();
    Ok(())
}

/// Repeats the recorded request. `None` when the server closes without an answer.
///
/// # Errors
/// When the server cannot be reached.
pub fn replay(exchange: &Exchange, address: SocketAddr) -> Result<Option<Response>> {
    let request = &exchange.request;
    if let Some(raw) = request["raw"].as_str() {
        let raw = raw.replace("<100,000 times a>", &"a".repeat(100_000));
        return http::exchange(address, raw.as_bytes());
    }
    let mut headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    if let Some(body) = request["body_base64"].as_str() {
        let body = STANDARD.decode(body)?;
        let method = request["method"].as_str().unwrap_or("POST");
        let path = request["path"].as_str().unwrap_or("/");
        return http::exchange(address, &http::request_bytes(method, path, &headers, &body));
    }
    let body = match (&request["json"], request["body"].as_str()) {
        (Value::Null, Some(body)) => body.as_bytes().to_vec(),
        (Value::Null, None) => Vec::new(),
        (json, _) => {
            if request["headers"].is_null() {
                headers.push(("Content-Type", "application/json"));
            }
            json.to_string().into_bytes()
        }
    };
    let method = request["method"].as_str().unwrap_or("GET");
    let path = request["path"].as_str().unwrap_or("/");
    http::exchange(address, &http::request_bytes(method, path, &headers, &body))
}

/// Type of every value by its path; elements of an array share one path.
pub fn shape(value: &Value) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut shape = BTreeMap::new();
    describe(value, "$", &mut shape);
    shape
}

fn describe(value: &Value, path: &str, shape: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    shape.entry(path.to_owned()).or_default().insert(kind);
    match value {
        Value::Array(items) => {
            for item in items {
                describe(item, &format!("{path}[]"), shape);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                describe(field, &format!("{path}.{name}"), shape);
            }
        }
        _ => {}
    }
}

/// What two bodies do not have in common: `-path` only recorded, `+path` only ours,
/// `~path` another type.
pub fn compare(recorded: &Value, ours: &Value) -> Vec<String> {
    let (recorded, ours) = (shape(recorded), shape(ours));
    let mut found = Vec::new();
    for (path, kinds) in &recorded {
        match ours.get(path) {
            None => found.push(format!("-{path}")),
            Some(other) if other.is_disjoint(kinds) => {
                found.push(format!("~{path} {kinds:?} {other:?}"));
            }
            Some(_) => {}
        }
    }
    let added = ours.keys().filter(|path| !recorded.contains_key(*path));
    found.extend(added.map(|path| format!("+{path}")));
    // A missing or an additional object is one difference, not one per field of it.
    let roots: Vec<String> = found.clone();
    found.retain(|finding| {
        !roots.iter().any(|root| {
            root != finding
                && root.as_bytes()[0] == finding.as_bytes()[0]
                && finding
                    .strip_prefix(root.as_str())
                    .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['))
        })
    });
    found
}

/// What stands as the finding of an exchange that cannot be repeated.
const NOT_REPLAYED: &str = "not replayed";

/// The deliberate differences: lines of `exchange pattern TAB finding pattern TAB reason`;
/// `*` in a pattern stands for anything.
#[derive(Debug)]
pub struct Differences {
    lines: Vec<(String, String)>,
}

impl Differences {
    /// Reads `golden/differences.tsv`.
    ///
    /// # Errors
    /// When it cannot be read, or a line has no reason.
    pub fn load() -> Result<Differences> {
        let text = std::fs::read_to_string(folder().join("differences.tsv"))?;
        let mut lines = Vec::new();
        for line in text
            .lines()
            .filter(|it| !it.is_empty() && !it.starts_with('#'))
        {
            let columns: Vec<&str> = line.split('\t').collect();
            let [exchange, finding, _reason] = columns.as_slice() else {
                anyhow::bail!("not three columns: {line:?}");
            };
            lines.push(((*exchange).to_owned(), (*finding).to_owned()));
        }
        Ok(Differences { lines })
    }

    /// Whether the exchange cannot be repeated at all: its finding is `not replayed`.
    pub fn skip(&self, exchange: &str) -> bool {
        self.lines
            .iter()
            .any(|(pattern, finding)| finding == NOT_REPLAYED && matches(pattern, exchange))
    }

    /// The findings that nobody meant, each with the exchange that it is about.
    pub fn remaining(&self, exchange: &str, findings: Vec<String>) -> Vec<String> {
        findings
            .into_iter()
            .filter(|finding| !self.cover(exchange, finding))
            .map(|finding| format!("{exchange}\t{finding}"))
            .collect()
    }

    /// Whether the finding is deliberate.
    pub fn cover(&self, exchange: &str, finding: &str) -> bool {
        self.lines
            .iter()
            .any(|(exchange_pattern, finding_pattern)| {
                matches(exchange_pattern, exchange) && matches(finding_pattern, finding)
            })
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let Some(rest) = text.strip_prefix(before) else {
                return false;
            };
            (0..=rest.len())
                .filter(|start| rest.is_char_boundary(*start))
                .any(|start| matches(after, &rest[start..]))
        }
    }
}

/// Everything about the answer that differs from the recorded one and is not deliberate.
pub fn check(
    exchange: &Exchange,
    answer: Option<&Response>,
    differences: &Differences,
) -> Vec<String> {
    let mut findings = Vec::new();
    let recorded = &exchange.response;
    match answer {
        None => {
            if !recorded["status"].is_null() {
                findings.push(format!("status {} closed", recorded["status"]));
            }
        }
        Some(answer) => {
            if recorded["status"] != answer.status {
                findings.push(format!("status {} {}", recorded["status"], answer.status));
            } else {
                compare_heads(recorded, answer, &mut findings);
                if !recorded["json"].is_null() {
                    match answer.json() {
                        Ok(ours) => findings.extend(compare(&recorded["json"], &ours)),
                        Err(_) => findings.push("body is not JSON".to_owned()),
                    }
                }
            }
        }
    }
    differences.remaining(&exchange.title(), findings)
}

/// Headers whose value is the contract; others need only be there.
const EXACT: &[&str] = &[
    "content-type",
    "allow",
    "content-disposition",
    "content-encoding",
];

fn compare_heads(recorded: &Value, answer: &Response, findings: &mut Vec<String>) {
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        match answer.header(name) {
            None => findings.push(format!("header {name} missing")),
            Some(ours) if EXACT.contains(&name.to_ascii_lowercase().as_str()) && ours != value => {
                findings.push(format!("header {name} {value:?} {ours:?}"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn findings_name_paths_and_types() {
        let recorded = json!({ "a": [{ "b": 1 }, { "c": "x" }], "d": { "e": 1.0, "f": 2 } });
        let ours = json!({ "a": [{ "b": 1, "c": 5 }], "g": { "h": 1 } });
        assert_eq!(
            compare(&recorded, &ours),
            ["~$.a[].c {\"string\"} {\"integer\"}", "-$.d", "+$.g",]
        );
        assert!(compare(&recorded, &recorded).is_empty());
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("a*c", "abbbc"));
        assert!(matches("*", ""));
        assert!(matches("-$.flags.*", "-$.flags.zk"));
        assert!(!matches("a*c", "abd"));
        assert!(!matches("abc", "abcd"));
    }
}
