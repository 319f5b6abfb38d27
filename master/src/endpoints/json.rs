//! Writes JSON straight into a string: the answers can have hundreds of megabytes, and a
//! tree of values would need several times that.

use tepui_server::proto::json;

/// A JSON string.
fn write_string(value: &str, out: &mut String) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// A floating-point number that reads back as the same value, always with a point.
fn write_double(value: f64, out: &mut String) {
    if value.is_finite() {
        out.push_str(&format!("{value:?}"));
    } else {
        out.push('"');
        out.push_str(match value {
            _ if value.is_nan() => "NaN",
            _ if value > 0.0 => "Infinity",
            _ => "-Infinity",
        });
        out.push('"');
    }
}

/// Where JSON is written to. Commas are set by the writer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: String,
    /// Whether the next value in the innermost object or array needs a comma before it.
    comma: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What was written.
    pub(crate) fn finish(self) -> String {
        self.out
    }

    fn before_value(&mut self) {
        if std::mem::replace(&mut self.comma, true) {
            self.out.push(',');
        }
    }

    fn nested(&mut self, open: char, close: char, content: impl FnOnce(&mut Self)) {
        self.before_value();
        self.out.push(open);
        self.comma = false;
        content(self);
        self.out.push(close);
        self.comma = true;
    }

    /// An object as a value.
    pub(crate) fn object(&mut self, content: impl FnOnce(&mut Self)) {
        self.nested('{', '}', content);
    }

    /// An array as a value.
    pub(crate) fn array(&mut self, content: impl FnOnce(&mut Self)) {
        self.nested('[', ']', content);
    }

    /// A string as a value.
    pub(crate) fn string(&mut self, value: &str) {
        self.before_value();
        write_string(value, &mut self.out);
    }

    /// A floating-point number as a value; always with a decimal point.
    pub(crate) fn double(&mut self, value: f64) {
        self.before_value();
        write_double(value, &mut self.out);
    }

    /// Text that is JSON already, as a value.
    pub(crate) fn raw(&mut self, json: &str) {
        self.before_value();
        self.out.push_str(json);
    }

    /// The message `name` that `wire` holds, as a value; nothing for bytes that are none.
    pub(crate) fn wire(&mut self, name: &str, wire: &[u8]) {
        let mut text = String::new();
        match json::encode_wire(name, wire, &mut text) {
            Ok(()) => self.raw(&text),
            Err(_) => self.raw("{}"),
        }
    }

    /// The name of the next value.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        self.before_value();
        write_string(name, &mut self.out);
        self.out.push(':');
        self.comma = false;
        self
    }

    /// A field that holds a string.
    pub(crate) fn string_field(&mut self, name: &str, value: &str) {
        self.key(name).string(value);
    }

    /// A field that holds a floating-point number.
    pub(crate) fn double_field(&mut self, name: &str, value: f64) {
        self.key(name).double(value);
    }

    /// A field that holds an integer.
    pub(crate) fn integer_field(&mut self, name: &str, value: u64) {
        self.key(name).raw(&value.to_string());
    }

    /// A field that holds a boolean.
    pub(crate) fn bool_field(&mut self, name: &str, value: bool) {
        self.key(name).raw(if value { "true" } else { "false" });
    }

    /// A field that holds an object.
    pub(crate) fn object_field(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.key(name).object(content);
    }

    /// A field that holds an array.
    pub(crate) fn array_field(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.key(name).array(content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_where_they_belong() {
        let mut writer = Writer::new();
        writer.object(|it| {
            it.string_field("a", "x\"y");
            it.array_field("b", |it| {
                it.double(1.0);
                it.object(|_| {});
                it.array(|it| it.string(""));
            });
            it.object_field("c", |it| it.bool_field("d", true));
            it.integer_field("e", 5);
        });
        assert_eq!(
            writer.finish(),
            r#"{"a":"x\"y","b":[1.0,{},[""]],"c":{"d":true},"e":5}"#
        );
    }
}
