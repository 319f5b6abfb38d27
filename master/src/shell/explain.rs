//! EXPLAIN at its doors: GET `/allocator/explain`, and the call of `/api/v1` and of gRPC.
//!
//! The answer is one message ([`Explanation`]), whose JSON the first of them gives; errors
//! name the field as the door's clients know it.

use crate::shell::door::{App, Failure, settle};
use axum::response::Response;
use http::{Method, StatusCode, request::Parts};
use std::sync::Arc;
use tepui_master_machine::model::{
    FrameworkId, Role, id,
    operator::{Explain, Explanation},
};
use tepui_server::{auth::Realm, body::Refusal, proto::json, respond, respond::Shape, routing};

/// What a door's clients call the fields.
#[derive(Debug)]
struct Fields {
    framework: &'static str,
    role: &'static str,
}

const QUERY: Fields = Fields {
    framework: "framework",
    role: "role",
};

const CALL: Fields = Fields {
    framework: "explain.framework_id",
    role: "explain.role",
};

/// What is asked, checked as far as that needs no state.
#[derive(Debug)]
struct Question {
    framework_id: Option<FrameworkId>,
    role: Option<Role>,
}

impl Question {
    fn new(
        framework_id: Option<&str>,
        role: Option<&str>,
        fields: &Fields,
    ) -> Result<Question, Failure> {
        if framework_id.is_none() && role.is_none() {
            return Err(Failure::bad_request(format!(
                "expected '{}', '{}', or both",
                fields.framework, fields.role
            )));
        }
        if let Some(it) = framework_id {
            id::validate(fields.framework, it)
                .map_err(|error| Failure::bad_request(error.to_string()))?;
        }
        let role = role.map(Role::new).transpose();
        Ok(Question {
            framework_id: framework_id.map(FrameworkId::from),
            role: role
                .map_err(|error| Failure::bad_request(format!("{}: {error}", fields.role)))?,
        })
    }

    async fn ask(self, app: &App, fields: &Fields) -> Result<Explanation, Failure> {
        let answer = app.explain(self.framework_id, self.role).await;
        answer.map_err(|failure| match failure.status {
            StatusCode::NOT_FOUND => Failure {
                message: format!("{}: {}", fields.framework, failure.message),
                ..failure
            },
            _ => failure,
        })
    }
}

/// The call.
///
/// # Errors
/// 400 naming the field; 404 for a framework that is not active.
pub(crate) async fn call(app: &App, call: &Explain) -> Result<Explanation, Failure> {
    let framework_id = call.framework_id.as_ref().map(|it| it.value.as_str());
    let question = Question::new(framework_id, call.role.as_deref(), &CALL)?;
    question.ask(app, &CALL).await
}

/// `/allocator/explain?framework=ID&role=NAME`: at least one of the two.
pub(crate) async fn http(app: &Arc<App>, parts: &Parts) -> Response {
    settle(try_http(app, parts).await)
}

async fn try_http(app: &Arc<App>, parts: &Parts) -> Result<Response, Refusal> {
    app.admit(Realm::ReadOnly, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Box::new(respond::method_not_allowed("GET", &parts.method)));
    }
    let query = parts.uri.query();
    let shape = Shape::of(&parts.method, &parts.headers, query);
    let parameter = |name: &str| routing::parameter(query, name).filter(|it| !it.is_empty());
    let (framework_id, role) = (parameter(QUERY.framework), parameter(QUERY.role));
    let question = Question::new(framework_id.as_deref(), role.as_deref(), &QUERY)?;
    let answer = question.ask(app, &QUERY).await?;
    Ok(shape.json(json::encode(&answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field_as_the_door_has_it() {
        let cases = [
            (
                None,
                None,
                "'explain.framework_id', 'explain.role', or both",
            ),
            (Some(""), None, "explain.framework_id"),
            (Some("a/b"), Some("*"), "explain.framework_id"),
            (Some("f"), Some("a//b"), "explain.role: "),
            (None, Some(""), "explain.role: "),
        ];
        for (framework_id, role, names) in cases {
            let failure = Question::new(framework_id, role, &CALL).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST);
            assert!(failure.message.contains(names), "{}", failure.message);
        }
        let failure = Question::new(None, Some("a b"), &QUERY).unwrap_err();
        assert!(failure.message.starts_with("role: "), "{}", failure.message);
        assert!(Question::new(Some("f"), Some("a/b"), &CALL).is_ok());
        assert!(Question::new(None, Some("*"), &QUERY).is_ok());
    }
}
