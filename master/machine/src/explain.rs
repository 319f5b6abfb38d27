//! EXPLAIN: why a framework or a role is offered what it is offered, as JSON.

use std::fmt::Write as _;

use tepui_allocator::{Explained, Explanation, Reason};
use tepui_model::id::FrameworkId;
use tepui_model::role::Role;
use tepui_model::time::Instant;

use crate::machine::Machine;
use crate::operator::Refused;
use crate::output::Status;

/// Agents times clients looked at: some ten milliseconds.
const WORK: usize = 30_000;

impl Machine {
    /// The answer for a framework, a role, or a framework in a role.
    pub(crate) fn explain(
        &mut self,
        framework_id: Option<&FrameworkId>,
        role: Option<&Role>,
    ) -> Result<String, Refused> {
        if framework_id.is_none() && role.is_none() {
            return Err(Refused::new(
                Status::BadRequest,
                "expected 'framework', 'role', or both",
            ));
        }
        if let Some(id) = framework_id
            && !self.is_live(id)
        {
            let message = format!("framework: no framework '{id}' is active");
            return Err(Refused::new(Status::NotFound, message));
        }
        let answer = self.allocator.explain(self.now, framework_id, role, WORK);
        Ok(render(&answer, self.now))
    }
}

/// Writes JSON by hand: the machine has no other use for a library.
struct Json(String);

impl Json {
    fn text(&mut self, text: &str) {
        self.0.push('"');
        for it in text.chars() {
            match it {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                it if (it as u32) < 0x20 => {
                    let _ = write!(self.0, "\\u{:04x}", it as u32);
                }
                it => self.0.push(it),
            }
        }
        self.0.push('"');
    }

    fn key(&mut self, key: &str) {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        self.text(key);
        self.0.push(':');
    }

    fn field(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text(value);
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    fn list<T>(&mut self, key: &str, all: &[T], each: impl Fn(&mut Json, &T)) {
        self.key(key);
        self.0.push('[');
        for (at, it) in all.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            self.0.push('{');
            each(self, it);
            self.0.push('}');
        }
        self.0.push(']');
    }
}

fn render(answer: &Explanation, now: Instant) -> String {
    let mut json = Json("{".to_owned());
    json.raw("agents", answer.agents);
    json.raw("agents_looked_at", answer.looked_at);
    json.raw("more_clients", answer.more_clients);
    json.raw("complete", answer.is_complete);
    json.list("clients", &answer.clients, |json, it| client(json, it, now));
    json.0.push('}');
    json.0
}

fn client(json: &mut Json, it: &Explained, now: Instant) {
    json.field("framework_id", it.framework.as_str());
    json.field("role", it.role.as_str());
    if let Some(place) = it.place {
        json.raw("place", place);
    }
    json.raw("dormant", it.dormant);
    if let Some(silent) = it.silent {
        json.field("silent", silent);
    }
    json.list("gets", &it.gets, |json, it| {
        json.field("agent_id", it.agent.as_str());
        json.field("resources", &it.resources.unallocate().to_string());
    });
    json.list("reasons", &it.groups, |json, it| {
        json.field("reason", it.reason.name());
        json.field("message", &it.reason.to_string());
        json.raw("agents", it.count);
        json.field("example", it.example.as_str());
        if let Some((first, last)) = it.until {
            json.raw(
                "first_ends_in_seconds",
                first.saturating_since(now).as_secs_f64(),
            );
            json.raw(
                "last_ends_in_seconds",
                last.saturating_since(now).as_secs_f64(),
            );
        }
        match &it.reason {
            Reason::Limit { role, .. } => json.field("of", role.as_str()),
            Reason::Headroom { lacks, .. } => {
                json.list("kept_for", lacks, |json, (role, lacks)| {
                    json.field("role", role.as_str());
                    json.raw("lacks", lacks.as_f64());
                });
            }
            Reason::Used { role, framework } => {
                json.field("by_role", role.as_str());
                json.field("by_framework_id", framework.as_str());
            }
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        let mut json = Json("{".to_owned());
        json.field("a\"b", "c\\d\n");
        json.list("e", &[1, 2], |json, it| json.raw("f", it));
        assert_eq!(json.0, r#"{"a\"b":"c\\d\u000a","e":[{"f":1},{"f":2}]"#);
    }
}
