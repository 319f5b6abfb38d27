//! The JSON form of Mesos' `--credentials` file.

use serde_json::Value;

/// Principals and secrets; the error says where, never what.
pub(crate) fn credentials(text: &str) -> Result<Vec<(String, String)>, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
    let list = value
        .get("credentials")
        .and_then(Value::as_array)
        .ok_or("credentials is not an array")?;
    list.iter()
        .enumerate()
        .map(|(index, entry)| {
            let field = |name: &str| {
                entry
                    .get(name)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
                    .ok_or_else(|| format!("credentials[{index}].{name} is not a string"))
            };
            Ok((field("principal")?, field("secret")?))
        })
        .collect()
}
