//! Answers: text with a reason, JSON with jsonp, compressed when the client can.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::io::Write;
use tepui_proto::media::ContentType;

/// Bodies from this size on are compressed when the client takes it.
const COMPRESS_FROM: usize = 1024;

/// What of a request shapes its answer.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    gzip: bool,
    head: bool,
    /// Name of the function around the JSON.
    jsonp: Option<String>,
}

impl Shape {
    /// Of a request's method, headers and query.
    pub fn of(method: &Method, headers: &HeaderMap, query: Option<&str>) -> Shape {
        let gzip = headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(','))
            .any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let refused = parts.any(|it| it == "q=0" || it == "q=0.0");
                (name == "gzip" || name == "*") && !refused
            });
        Shape {
            gzip,
            head: method == Method::HEAD,
            jsonp: crate::routing::parameter(query, "jsonp").filter(|it| !it.is_empty()),
        }
    }

    /// 200 with JSON, as a call of the jsonp function when there is one.
    pub fn json(&self, text: String) -> Response {
        match &self.jsonp {
            Some(function) => self.body("text/javascript", format!("{function}({text})").into()),
            None => self.body(ContentType::Json.as_str(), text.into()),
        }
    }

    /// 200 with a message in the type that was negotiated.
    pub fn message<M: prost::Message + prost::Name>(
        &self,
        accept: ContentType,
        message: &M,
    ) -> Response {
        match accept {
            ContentType::Json => {
                self.body(accept.as_str(), tepui_proto::json::encode(message).into())
            }
            _ => self.body(accept.as_str(), message.encode_to_vec().into()),
        }
    }

    /// 200 with a body.
    pub fn body(&self, content_type: &'static str, body: Bytes) -> Response {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let body = match self.gzip && body.len() >= COMPRESS_FROM {
            true => match compress(&body) {
                Ok(compressed) => {
                    let gzip = HeaderValue::from_static("gzip");
                    headers.insert(header::CONTENT_ENCODING, gzip);
                    compressed
                }
                Err(_) => body,
            },
            false => body,
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if !self.head {
            *response.body_mut() = Body::from(body);
        }
        response
    }
}

fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// A status without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A status with a reason.
pub fn text(status: StatusCode, reason: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(reason.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// 400.
pub fn bad_request(reason: impl Into<String>) -> Response {
    text(StatusCode::BAD_REQUEST, reason)
}

/// 404.
pub fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "there is nothing at this path\n")
}

/// 405 with the methods that would do.
pub fn method_not_allowed(allowed: &'static str, found: &Method) -> Response {
    let reason = format!("expecting one of {{ {allowed} }}, but received '{found}'");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, reason);
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// 307 to a place.
pub fn redirect(location: &str) -> Response {
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    match HeaderValue::from_str(location) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the leader's address is unusable",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(encoding: &str, query: Option<&str>) -> Shape {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, encoding.parse().unwrap());
        Shape::of(&Method::GET, &headers, query)
    }

    #[test]
    fn large_answers_are_compressed_when_asked_for() {
        let large = "x".repeat(COMPRESS_FROM);
        for (encoding, compressed) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
        ] {
            let response = shape(encoding, None).json(large.clone());
            let header = response.headers().get(header::CONTENT_ENCODING);
            assert_eq!(header.is_some(), compressed, "{encoding}");
        }
        let small = shape("gzip", None).json("{}".into());
        assert!(small.headers().get(header::CONTENT_ENCODING).is_none());
    }

    #[test]
    fn jsonp_changes_the_type() {
        let response = shape("br", Some("jsonp=cb")).json("{}".into());
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/javascript");
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "6");
    }
}
