//! Request bodies: bounded, uncompressed, decoded, with refusals as Mesos has them.

use crate::respond;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Method, StatusCode, header};
use std::io::Read;
use tepui_proto::{json, media::ContentType, wire};

/// The largest body taken, also after decompression. An ACCEPT of ten thousand tasks is a
/// few megabytes.
pub const MAX_BODY: usize = 64 << 20;

/// A refusal, boxed because it is large and rare.
pub type Refusal = Box<Response>;

fn refuse(response: Response) -> Refusal {
    Box::new(response)
}

/// The whole body, uncompressed.
///
/// # Errors
/// 413 beyond [`MAX_BODY`], 400 for a body that is not what Content-Encoding says, 415 for
/// an encoding that is not known.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || {
        let reason = format!("the body is larger than the {MAX_BODY} bytes that are taken");
        refuse(respond::text(StatusCode::PAYLOAD_TOO_LARGE, reason))
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|it| it > MAX_BODY) {
        return Err(too_large());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        // The only error with a known cause is the limit.
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            if cause.to_string().contains("length limit") {
                return too_large();
            }
            source = cause.source();
        }
        refuse(respond::bad_request(format!("the body could not be read: {error}")))
    })?;
    match headers.get(header::CONTENT_ENCODING).map(|it| it.as_bytes()) {
        None | Some(b"identity") => Ok(bytes),
        Some(b"gzip") => {
            let mut text = Vec::new();
            // One more than the limit, to tell a body at the limit from one beyond.
            let mut decoder = GzDecoder::new(bytes.as_ref()).take(MAX_BODY as u64 + 1);
            match decoder.read_to_end(&mut text) {
                Ok(length) if length > MAX_BODY => Err(too_large()),
                Ok(_) => Ok(text.into()),
                Err(_) => Err(refuse(respond::bad_request(
                    "Content-Encoding says gzip, but the body is not",
                ))),
            }
        }
        Some(other) => Err(refuse(respond::text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "Content-Encoding {:?} is not known: gzip or none",
                String::from_utf8_lossy(other)
            ),
        ))),
    }
}

/// What the Content-Type header says of an API call.
///
/// # Errors
/// 400 without the header, 415 for a type that is not one of JSON and protobuf.
pub fn content_type(headers: &HeaderMap) -> Result<ContentType, Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(refuse(respond::bad_request(
            "Expecting 'Content-Type' to be present",
        )));
    };
    match value.to_str().ok().and_then(ContentType::from_header) {
        Some(found @ (ContentType::Json | ContentType::Protobuf)) => Ok(found),
        _ => Err(refuse(respond::text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        ))),
    }
}

/// The value of the Accept headers, joined.
pub fn accept(headers: &HeaderMap) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The type in which to answer an API call.
///
/// # Errors
/// 406 when neither JSON nor protobuf is taken.
pub fn negotiate(headers: &HeaderMap) -> Result<ContentType, Refusal> {
    tepui_proto::media::negotiate(accept(headers).as_deref()).map_err(|_| {
        refuse(respond::text(
            StatusCode::NOT_ACCEPTABLE,
            "Expecting 'Accept' to allow application/json or application/x-protobuf",
        ))
    })
}

/// A decoded call.
#[derive(Debug)]
pub struct Decoded<M> {
    /// The message.
    pub message: M,
    /// The body, when it was protobuf: it holds fields that this version does not know.
    pub raw: Option<Bytes>,
    /// How it came.
    pub content_type: ContentType,
}

/// Reads an API call: method, type, body, in Mesos' order.
///
/// # Errors
/// 405, 400, 415, 413 with a text.
pub async fn call<M: prost::Message + prost::Name + Default>(
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Result<Decoded<M>, Refusal> {
    if method != Method::POST {
        return Err(refuse(respond::method_not_allowed("POST", method)));
    }
    let content_type = content_type(headers)?;
    let body = read(headers, body).await?;
    decode(content_type, body)
}

/// Decodes a body.
///
/// # Errors
/// 400 that names the field.
pub fn decode<M: prost::Message + prost::Name + Default>(
    content_type: ContentType,
    body: Bytes,
) -> Result<Decoded<M>, Refusal> {
    let bad = |error: String| refuse(respond::bad_request(error));
    let (message, raw) = match content_type {
        ContentType::Json => {
            let message = json::decode(&body).map_err(|error| bad(error.to_string()))?;
            (message, None)
        }
        _ => {
            let message = wire::decode(body.clone()).map_err(|error| bad(error.to_string()))?;
            (message, Some(body))
        }
    };
    Ok(Decoded {
        message,
        raw,
        content_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    async fn read_gzip(content: &[u8]) -> Result<Bytes, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let read = read(&headers, Body::from(content.to_vec())).await;
        read.map_err(|refusal| refusal.status().as_u16())
    }

    #[tokio::test]
    async fn compressed_bodies_are_bounded() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"hello").unwrap();
        let small = encoder.finish().unwrap();
        assert_eq!(read_gzip(&small).await.unwrap(), "hello");
        assert_eq!(read_gzip(b"hello").await, Err(400));

        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..65 {
            encoder.write_all(&zeros).unwrap();
        }
        assert_eq!(read_gzip(&encoder.finish().unwrap()).await, Err(413));
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        let large = Body::from(vec![0; MAX_BODY + 1]);
        let refusal = read(&HeaderMap::new(), large).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
