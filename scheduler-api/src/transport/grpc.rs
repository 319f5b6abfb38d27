//! gRPC: calls and events share one bidirectional stream.

use super::{
    CALLS_IN_FLIGHT, EVENTS_IN_FLIGHT, LEADER, MASTERS, NOT, OpenError, OutgoingCall, Subscription,
    WAIT,
};
use crate::{error::Error, leader};
use std::time::Duration;
use tepui_proto::{mesos::v1::scheduler, tepui::scheduler::v1::scheduler_client::SchedulerClient};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Status, transport::Endpoint};

/// How long a master's machine may take to accept a connection; another master may lead.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a master may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest event taken, as over HTTP.
const MAX_MESSAGE: usize = 256 << 20;

/// A master that is frozen takes bytes and answers nothing: pings find out, long before
/// heartbeats are missed, so that the framework is there when the next one leads.
const PING: Duration = Duration::from_secs(2);
const PING_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn open(
    master: &str,
    dead: Option<String>,
    subscribe: scheduler::Call,
) -> Result<Subscription, OpenError> {
    let endpoint = Endpoint::from_shared(format!("http://{master}"))
        .map_err(|error| OpenError::Refused(Error::InvalidMaster(error.to_string())))?;
    let channel = tuned(endpoint)
        .connect()
        .await
        .map_err(|error| OpenError::Unavailable(chain(&error)))?;
    let mut client = SchedulerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);

    let (wire_sender, wire_calls) = mpsc::channel(CALLS_IN_FLIGHT);
    // The channel is new and has room.
    let _ = wire_sender.try_send(subscribe);
    let mut request = Request::new(ReceiverStream::new(wire_calls));
    let metadata = request.metadata_mut();
    metadata.insert(WAIT, leader::WAIT.as_secs().into());
    if let Some(dead) = dead.and_then(|it| it.parse().ok()) {
        metadata.insert(NOT, dead);
    }
    let response = tokio::time::timeout(PATIENCE, client.connect(request))
        .await
        .map_err(|_| OpenError::Unavailable(format!("{master} did not answer")))?
        .map_err(refusal)?;
    let masters = response.metadata().get(MASTERS);
    let masters = masters.and_then(|it| it.to_str().ok());
    let masters = masters.map_or_else(Vec::new, super::list);

    let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
    let (calls, call_receiver) = mpsc::channel(CALLS_IN_FLIGHT);
    tokio::spawn(read(response.into_inner(), event_sender));
    tokio::spawn(write(call_receiver, wire_sender));
    Ok(Subscription {
        events,
        calls,
        masters,
    })
}

/// Settings of every connection to a master.
pub(crate) fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

fn refusal(status: Status) -> OpenError {
    if let Some(leader) = status.metadata().get(LEADER) {
        return OpenError::NotLeader(leader.to_str().ok().map(str::to_owned));
    }
    match status.code() {
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
            OpenError::Refused(rejected(&status))
        }
        Code::Unimplemented => OpenError::Refused(Error::Rejected {
            status: 501,
            message: "this master has no gRPC scheduler API: use Transport::Http".into(),
        }),
        // It answers, and may know of a leader soon.
        Code::Unavailable => OpenError::NotLeader(None),
        _ => OpenError::Unavailable(status.message().to_owned()),
    }
}

/// The HTTP status that the same refusal has on the v1 API.
fn rejected(status: &Status) -> Error {
    let code = match status.code() {
        Code::InvalidArgument => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        _ => 500,
    };
    Error::Rejected {
        status: code,
        message: status.message().to_owned(),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

async fn read(
    mut stream: tonic::Streaming<scheduler::Event>,
    events: mpsc::Sender<Result<scheduler::Event, Error>>,
) {
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            () = events.closed() => return,
        };
        let last = match item {
            Some(Ok(event)) => {
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
                continue;
            }
            Some(Err(status)) if status.code() == Code::InvalidArgument => rejected(&status),
            Some(Err(status)) => Error::Disconnected(status.message().to_owned()),
            None => Error::Disconnected("the master closed the stream".into()),
        };
        let _ = events.send(Err(last)).await;
        return;
    }
}

/// A call on the stream has no answer of its own: it is taken when it is written, and a
/// refusal ends the stream.
async fn write(mut calls: mpsc::Receiver<OutgoingCall>, wire: mpsc::Sender<scheduler::Call>) {
    while let Some(OutgoingCall { call, reply }) = calls.recv().await {
        let result = wire
            .send(call)
            .await
            .map_err(|_| Error::Disconnected("the stream ended".into()));
        let _ = reply.send(result);
    }
}
