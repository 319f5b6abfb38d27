//! Request bodies: bounded, uncompressed, decoded, with refusals as Mesos has them.

use crate::respond;
use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use std::{io::Read, time::Duration};
use tepui_proto::{json, media::ContentType, wire};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// The largest body taken, also after decompression. An ACCEPT of ten thousand tasks is a
/// few megabytes.
pub const MAX_BODY: usize = 64 << 20;

/// Bodies up to this size are read however many there are.
const SMALL: usize = 1 << 20;

/// Larger ones are read and decoded this many at a time, so that clients together cannot
/// fill the memory; the others wait, and their sockets with them.
static LARGE: Semaphore = Semaphore::const_new(4);

/// How long a small body may take, or the beginning of a large one, and then the rest: a
/// connection, and the place among the large ones, are not held for less.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long, and how far, an upload is read on that was refused: a client that still sends
/// when its connection closes may never see why.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * MAX_BODY;

/// Bodies from this size on are decoded where that delays nobody else.
const DECODE_ASIDE: usize = 256 << 10;

/// A refusal, boxed because it is large and rare.
pub type Refusal = Box<Response>;

fn refuse(response: Response) -> Refusal {
    Box::new(response)
}

fn too_large() -> Refusal {
    let reason = format!("the body is larger than the {MAX_BODY} bytes that are taken");
    refuse(respond::text(StatusCode::PAYLOAD_TOO_LARGE, reason))
}

fn too_slow() -> Refusal {
    let reason = format!(
        "the body comes too slowly: {SMALL} bytes of it, and then the rest, have to arrive \
         within {} s each",
        PATIENCE.as_secs()
    );
    refuse(respond::text(StatusCode::REQUEST_TIMEOUT, reason))
}

/// A place among those whose bodies are large. The semaphore is never closed.
async fn place() -> Option<SemaphorePermit<'static>> {
    LARGE.acquire().await.ok()
}

/// The whole body, uncompressed.
///
/// # Errors
/// 413 beyond [`MAX_BODY`], 408 for one that comes slowly, 400 for a body that is
/// not what Content-Encoding says, 415 for an encoding that is not known.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    Ok(read_within(headers, body, PATIENCE).await?.bytes)
}

/// A body, and its place among the large ones while it is worked on.
#[derive(Debug)]
struct Whole {
    bytes: Bytes,
    place: Option<SemaphorePermit<'static>>,
}

async fn read_within(
    headers: &HeaderMap,
    mut body: Body,
    patience: Duration,
) -> Result<Whole, Refusal> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|it| it > MAX_BODY) {
        // A client that asks first has sent nothing, and needs only the answer.
        if !headers.contains_key(header::EXPECT) {
            linger(&mut body).await;
        }
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    timeout(patience, collect(&mut body, &mut bytes, SMALL))
        .await
        .map_err(|_| too_slow())??;
    let mut large = None;
    if bytes.len() > SMALL {
        large = place().await;
        bytes.reserve(announced.unwrap_or(0).saturating_sub(bytes.len()));
        timeout(patience, collect(&mut body, &mut bytes, MAX_BODY))
            .await
            .map_err(|_| too_slow())??;
    }
    if bytes.len() > MAX_BODY {
        drop((bytes, large));
        linger(&mut body).await;
        return Err(too_large());
    }
    let bytes = bytes.freeze();
    match headers
        .get(header::CONTENT_ENCODING)
        .map(|it| it.as_bytes())
    {
        None | Some(b"identity") => Ok(Whole {
            bytes,
            place: large,
        }),
        Some(b"gzip") => {
            // What a small body unpacks to may be large.
            let place = match large {
                None => place().await,
                held => held,
            };
            let unpacked = tokio::task::spawn_blocking(move || unpack(&bytes)).await;
            let unpacked = unpacked.unwrap_or_else(|error| {
                tracing::error!(%error, "a body could not be unpacked");
                Err(refuse(respond::bad_request("the body cannot be unpacked")))
            });
            unpacked.map(|bytes| Whole { bytes, place })
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

/// Reads until the body ends or there are more bytes than `limit`.
async fn collect(body: &mut Body, bytes: &mut BytesMut, limit: usize) -> Result<(), Refusal> {
    while bytes.len() <= limit {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                // Trailers say nothing here.
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Some(Err(error)) => {
                let reason = format!("the body could not be read: {error}");
                return Err(refuse(respond::bad_request(reason)));
            }
        }
    }
    Ok(())
}

/// Reads and forgets.
async fn linger(body: &mut Body) {
    let forget = async {
        let mut left = LINGER_BYTES;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            let read = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(read);
        }
    };
    // However far it came: the answer leaves now.
    let _ = timeout(LINGER, forget).await;
}

/// The content of gzip.
fn unpack(bytes: &[u8]) -> Result<Bytes, Refusal> {
    let mut content = Vec::new();
    // One more than the limit, to tell a body at the limit from one beyond.
    let mut decoder = GzDecoder::new(bytes).take(MAX_BODY as u64 + 1);
    match decoder.read_to_end(&mut content) {
        Ok(length) if length > MAX_BODY => Err(too_large()),
        Ok(_) => Ok(content.into()),
        Err(_) => Err(refuse(respond::bad_request(
            "Content-Encoding says gzip, but the body is not",
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
pub async fn call<M: prost::Message + prost::Name + Default + 'static>(
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Result<Decoded<M>, Refusal> {
    if method != Method::POST {
        return Err(refuse(respond::method_not_allowed("POST", method)));
    }
    let content_type = content_type(headers)?;
    let Whole { bytes, place } = read_within(headers, body, PATIENCE).await?;
    if bytes.len() < DECODE_ASIDE {
        return decode(content_type, bytes);
    }
    let aside = move || {
        let decoded = decode(content_type, bytes);
        drop(place);
        decoded
    };
    let decoded = tokio::task::spawn_blocking(aside).await;
    decoded.unwrap_or_else(|error| {
        tracing::error!(%error, "a body could not be decoded");
        Err(refuse(respond::bad_request("the body cannot be decoded")))
    })
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

    /// A body that comes in pieces of 64 KiB, `count` of them, and how many were read.
    fn pieces(count: usize) -> (Body, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        let read = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = read.clone();
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        let pieces = (0..count).map(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(piece.clone())
        });
        (Body::from_stream(futures_util::stream::iter(pieces)), read)
    }

    #[tokio::test]
    async fn bodies_in_pieces_are_whole_and_refused_ones_are_read_on() {
        let (body, _) = pieces(100);
        assert_eq!(
            read(&HeaderMap::new(), body).await.unwrap().len(),
            100 << 16
        );
        let (body, count) = pieces(1100);
        let refusal = read(&HeaderMap::new(), body).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1100);
        // Announced, and asked about first: nothing of it is read.
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, (1100u64 << 16).into());
        headers.insert(header::EXPECT, "100-continue".parse().unwrap());
        let (body, count) = pieces(1100);
        let refusal = read(&headers, body).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_that_stops_gives_its_connection_and_place_away() {
        let stopped = |first: usize| {
            let first = Bytes::from(vec![b' '; first]);
            let first = futures_util::stream::once(std::future::ready(Ok::<
                _,
                std::convert::Infallible,
            >(first.clone())));
            let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            tokio::spawn(async {
                let body = Body::from_stream(body);
                read_within(&HeaderMap::new(), body, Duration::from_millis(20)).await
            })
        };
        // More large ones than there are places.
        let mut sizes = vec![SMALL + 1; 9];
        sizes.extend([1, SMALL]);
        for refusal in sizes.into_iter().map(stopped).collect::<Vec<_>>() {
            let refusal = refusal.await.unwrap().unwrap_err();
            assert_eq!(refusal.status(), StatusCode::REQUEST_TIMEOUT);
        }
    }

    #[tokio::test]
    async fn large_bodies_are_few_until_they_are_decoded() {
        let large = || Body::from(vec![b' '; SMALL + 1]);
        let headers = HeaderMap::new();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(read_within(&headers, large(), PATIENCE).await.unwrap());
        }
        let mut fifth = std::pin::pin!(read_within(&headers, large(), PATIENCE));
        let waits = timeout(Duration::from_millis(50), &mut fifth).await;
        assert!(waits.is_err(), "four are worked on");
        // Small ones do not wait.
        assert_eq!(read(&headers, Body::from("small")).await.unwrap(), "small");
        held.pop();
        assert_eq!(fifth.await.unwrap().bytes.len(), SMALL + 1);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413() {
        let large = Body::from(vec![0; MAX_BODY + 1]);
        let refusal = read(&HeaderMap::new(), large).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
