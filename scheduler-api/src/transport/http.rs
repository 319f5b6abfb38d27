//! The v1 HTTP API: a streaming POST for the subscription, one POST for each call.

use super::{
    CALLS_IN_FLIGHT, EVENTS_IN_FLIGHT, MASTERS, NOT, OpenError, OutgoingCall, Subscription, WAIT,
};
use crate::{error::Error, leader};
use futures_util::StreamExt;
use prost::Message;
use reqwest::{Client, Response, StatusCode, header};
use std::time::Duration;
use tepui_proto::{mesos::v1::scheduler, recordio};
use tokio::sync::mpsc;

const PROTOBUF: &str = "application/x-protobuf";
const STREAM_ID: &str = "mesos-stream-id";
/// How long a master's machine may take to accept a connection; another master may lead.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a master may take to accept a connection or to answer a call.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest event taken. Offers of 40,000 agents are about 40 MB.
const MAX_RECORD: usize = 256 << 20;

fn client() -> Result<Client, reqwest::Error> {
    // Installing twice is an error that means "already there", which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        // A redirect names the leader: the session follows it, because it must
        // remember where it is subscribed.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

fn post(client: &Client, master: &str, call: &scheduler::Call) -> reqwest::RequestBuilder {
    client
        .post(format!("http://{master}/api/v1/scheduler"))
        .header(header::CONTENT_TYPE, PROTOBUF)
        .header(header::ACCEPT, PROTOBUF)
        .body(call.encode_to_vec())
}

/// The `host:port` of a Location such as `//10.0.0.1:5050/api/v1/scheduler`.
fn location(response: &Response) -> Option<String> {
    let value = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let rest = value
        .strip_prefix("http:")
        .unwrap_or(value)
        .strip_prefix("//")?;
    let authority = rest.split('/').next()?;
    (!authority.is_empty()).then(|| authority.to_owned())
}

pub(crate) async fn open(
    master: &str,
    dead: Option<String>,
    subscribe: scheduler::Call,
) -> Result<Subscription, OpenError> {
    let unavailable = |cause: reqwest::Error| OpenError::Unavailable(cause.to_string());
    let client = client().map_err(unavailable)?;
    let mut request = post(&client, master, &subscribe).header(WAIT, leader::WAIT.as_secs());
    if let Some(dead) = dead {
        request = request.header(NOT, dead);
    }
    let response = tokio::time::timeout(PATIENCE, request.send())
        .await
        .map_err(|_| OpenError::Unavailable(format!("{master} did not answer")))?
        .map_err(unavailable)?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(OpenError::NotLeader(location(&response)));
        }
        // It answers, and may know of a leader soon.
        StatusCode::SERVICE_UNAVAILABLE => return Err(OpenError::NotLeader(None)),
        status if status.is_server_error() => {
            return Err(OpenError::Unavailable(format!(
                "{master} answered {status}"
            )));
        }
        status => {
            let message = response.text().await.unwrap_or_default();
            return Err(OpenError::Refused(Error::Rejected {
                status: status.as_u16(),
                message,
            }));
        }
    }
    let stream_id = response.headers().get(STREAM_ID).cloned();
    let masters = response.headers().get(MASTERS);
    let masters = masters.and_then(|it| it.to_str().ok());
    let masters = masters.map_or_else(Vec::new, super::list);
    let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
    let (calls, call_receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    tokio::spawn(read(response, event_sender));
    tokio::spawn(write(client, master.to_owned(), stream_id, call_receiver));
    Ok(Subscription {
        events,
        calls,
        masters,
    })
}

/// Turns the body of the subscription into events until it ends or nobody listens.
async fn read(response: Response, events: mpsc::Sender<Result<scheduler::Event, Error>>) {
    let mut body = response.bytes_stream();
    let mut decoder = recordio::Decoder::new(MAX_RECORD);
    let cause = loop {
        let chunk = tokio::select! {
            chunk = body.next() => chunk,
            () = events.closed() => return,
        };
        match chunk {
            None => break "the master closed the stream".to_owned(),
            Some(Err(error)) => break error.to_string(),
            Some(Ok(chunk)) => {
                decoder.push(&chunk);
                loop {
                    match decoder.next_record() {
                        Ok(None) => break,
                        Ok(Some(record)) => match scheduler::Event::decode(record) {
                            Ok(event) => {
                                if events.send(Ok(event)).await.is_err() {
                                    return;
                                }
                            }
                            Err(error) => {
                                let cause = format!("an event could not be decoded: {error}");
                                let _ = events.send(Err(Error::Disconnected(cause))).await;
                                return;
                            }
                        },
                        Err(error) => {
                            let _ = events
                                .send(Err(Error::Disconnected(error.to_string())))
                                .await;
                            return;
                        }
                    }
                }
            }
        }
    };
    let _ = events.send(Err(Error::Disconnected(cause))).await;
}

/// Posts the calls one after the other: the API promises order only to a client that
/// waits for each answer.
async fn write(
    client: Client,
    master: String,
    stream_id: Option<header::HeaderValue>,
    mut calls: mpsc::Receiver<OutgoingCall>,
) {
    while let Some(OutgoingCall { call, reply }) = calls.recv().await {
        let mut request = post(&client, &master, &call).timeout(PATIENCE);
        if let Some(id) = &stream_id {
            request = request.header(STREAM_ID, id);
        }
        let result = match request.send().await {
            Err(error) => Err(Error::Disconnected(error.to_string())),
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) if response.status().is_redirection() => {
                let cause = format!("{master} does not lead any more");
                Err(Error::Disconnected(cause))
            }
            Ok(response) => {
                let status = response.status().as_u16();
                let message = response.text().await.unwrap_or_default();
                Err(Error::Rejected { status, message })
            }
        };
        // The caller may have gone; the call was made all the same.
        let _ = reply.send(result);
    }
}
