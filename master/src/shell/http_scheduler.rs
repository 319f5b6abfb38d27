//! `/api/v1/scheduler`: calls of frameworks over HTTP, and their streams of events.

use crate::shell::{
    core::ReplicaEvent,
    destinations::{Destinations, Messages},
    door::{App, Failure, MASTERS},
    intake::{Class, Producer},
    sessions::Sessions,
};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, request::Parts};
use prost::Message as _;
use std::sync::Arc;
use tepui_master_machine::{
    input::{ConnectionId, Input, SchedulerCall, StreamRef, SubscribeInput, Transport},
    model::{
        Principal,
        call::{Call, Subscribe},
        wire,
    },
    output::Message,
};
use tepui_server::{
    auth::Realm,
    body,
    proto::{json, media::ContentType, recordio},
    respond,
};

/// The header that names a subscription.
pub(crate) const STREAM_ID: &str = "Mesos-Stream-Id";

/// Answers one call. The order of the checks is that of Mesos.
pub(crate) async fn call(app: &Arc<App>, parts: &Parts, content: Body) -> Response {
    match try_call(app, parts, content).await {
        Ok(response) => response,
        Err(refusal) => *refusal,
    }
}

async fn try_call(app: &Arc<App>, parts: &Parts, content: Body) -> Result<Response, body::Refusal> {
    let principal = app.admit(Realm::Frameworks, &parts.headers)?;
    app.elsewhere(&parts.uri, &parts.headers).await?;
    let decoded =
        body::call::<wire::scheduler::Call>(&parts.method, &parts.headers, content).await?;
    let refuse = |failure: Failure| Box::new(failure.response());
    let (framework_id, call) = read(decoded.message, decoded.raw).map_err(refuse)?;
    let stream_id = parts.headers.get(STREAM_ID);
    let stream_id = stream_id.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
    match call {
        Call::Subscribe(subscribe) => {
            subscribe
                .check_principal(principal.as_ref())
                .map_err(|invalid| refuse(Failure::bad_request(invalid.message)))?;
            let accept = body::negotiate(&parts.headers)?;
            if stream_id.is_some() {
                let reason = "Subscribe calls should not include the 'Mesos-Stream-Id' header";
                return Err(refuse(Failure::bad_request(reason)));
            }
            subscribed(app, subscribe, principal, accept)
                .await
                .map_err(refuse)
        }
        call => {
            if matches!(call, Call::ReconcileOperations { .. }) {
                body::negotiate(&parts.headers)?;
            }
            if let Call::UpdateFramework(update) = &call {
                update
                    .check_principal(principal.as_ref())
                    .map_err(|invalid| refuse(Failure::bad_request(invalid.message)))?;
            }
            let Some(framework_id) = framework_id else {
                let reason = "Expecting 'framework_id' to be present";
                return Err(refuse(Failure::bad_request(reason)));
            };
            let stream = StreamRef::Header(stream_id.map(Arc::from));
            let call = SchedulerCall {
                reply: None,
                framework_id,
                stream,
                principal,
                call,
            };
            let status = app.call(call).await;
            status.map(respond::empty).map_err(refuse)
        }
    }
}

/// Reads a call as far as no state is needed.
pub(crate) fn read(
    call: wire::scheduler::Call,
    raw: Option<Bytes>,
) -> Result<(Option<tepui_master_machine::model::FrameworkId>, Call), Failure> {
    // Said, not left out: a call of some later version.
    if call.r#type == Some(wire::scheduler::call::Type::Unknown as i32) {
        let reason = "a call of type UNKNOWN cannot be served";
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, reason));
    }
    Call::from_wire(call, raw).map_err(|invalid| Failure::bad_request(invalid.message))
}

/// One open subscription; its end tells the machine.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) connection: ConnectionId,
    pub(crate) stream_id: Arc<str>,
    pub(crate) producer: Arc<Producer<ReplicaEvent>>,
    destinations: Arc<Destinations>,
    sessions: Arc<Sessions>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.sessions.close(&self.stream_id);
        self.destinations.forget_stream(self.connection);
        self.producer.send_last(Input::SchedulerDisconnected {
            connection: self.connection,
        });
    }
}

/// Opens a stream and hands the subscription to the machine.
pub(crate) async fn open(
    app: &App,
    subscribe: Subscribe,
    principal: Option<Principal>,
    transport: Transport,
) -> (Subscription, Messages) {
    let (connection, messages) = app.destinations.stream();
    let stream_id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
    let subscription = Subscription {
        connection,
        stream_id: stream_id.clone(),
        producer: Arc::new(app.intake.connect(connection, Class::Client)),
        destinations: app.destinations.clone(),
        sessions: app.sessions.clone(),
    };
    let producer = subscription.producer.clone();
    app.sessions.open(stream_id.clone(), producer);
    let input = Input::Subscribe(SubscribeInput {
        connection,
        stream_id,
        transport,
        principal,
        subscribe,
    });
    subscription.producer.send(input).await;
    (subscription, messages)
}

async fn subscribed(
    app: &App,
    subscribe: Subscribe,
    principal: Option<Principal>,
    accept: ContentType,
) -> Result<Response, Failure> {
    let transport = match accept {
        ContentType::Json => Transport::V1Json,
        _ => Transport::V1Protobuf,
    };
    let (subscription, mut messages) = open(app, subscribe, principal, transport).await;
    // The answer leaves with the first event: until then the subscription may be lost with
    // the leadership, and a client has to be told so.
    let first = messages.recv().await.ok_or_else(Failure::lost)?;
    let stream_id = subscription.stream_id.clone();
    let stream = futures_util::stream::unfold(
        (Some(first), messages, subscription),
        move |(first, mut messages, subscription)| async move {
            let message = match first {
                Some(first) => Some(first),
                None => messages.recv().await,
            };
            match message {
                Some(Message::Event { event, format }) => {
                    let event = event.to_wire(format);
                    let payload = match accept {
                        ContentType::Json => Bytes::from(json::encode(&event)),
                        _ => event.encode_to_vec().into(),
                    };
                    let record = Ok::<_, std::convert::Infallible>(recordio::encode(&payload));
                    Some((record, (None, messages, subscription)))
                }
                _ => None,
            }
        },
    );
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(accept.as_str()),
    );
    if let Ok(stream_id) = HeaderValue::from_str(&stream_id) {
        headers.insert(STREAM_ID, stream_id);
    }
    if let Some(masters) = app.masters() {
        headers.insert(MASTERS, masters);
    }
    Ok(response)
}
