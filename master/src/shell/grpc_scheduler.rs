//! `tepui.scheduler.v1.Scheduler`: the calls and events of `/api/v1/scheduler` over gRPC.
//!
//! The service is written out instead of generated, for the sake of its codec: a call is
//! checked for required fields as every protobuf body is, and its bytes are kept, so that
//! fields which this version does not know reach the agent.

use crate::shell::{
    agent_links::Reader,
    door::{App, MASTERS},
    grpc::{EventStream, MAX_MESSAGE, admit, closed, not_leading, refuse},
    http_scheduler::{self, Subscription},
};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tepui_master_machine::{
    input::{Input, SchedulerCall, StreamRef, Transport},
    model::{Principal, call::Call, wire},
    output::Message,
};
use tepui_server::{auth::Realm, proto, proto::tepui::scheduler::v1::CallResponse};
use tokio::sync::oneshot;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService, UnaryService},
};

/// Name of a subscription in metadata.
const STREAM_ID: &str = "mesos-stream-id";

/// A call with the bytes that it came in.
#[derive(Debug)]
pub(crate) struct RawCall {
    message: wire::scheduler::Call,
    raw: Bytes,
}

/// Decodes calls as the HTTP door does, and encodes messages of one type.
#[derive(Debug)]
struct CallCodec<M>(PhantomData<fn() -> M>);

impl<M: prost::Message + 'static> Codec for CallCodec<M> {
    type Encode = M;
    type Decode = RawCall;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<M: prost::Message + 'static> Encoder for CallCodec<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, item: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<M: prost::Message + 'static> Decoder for CallCodec<M> {
    type Item = RawCall;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<RawCall>, Status> {
        let raw = buffer.copy_to_bytes(buffer.remaining());
        let message = proto::wire::decode(raw.clone())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Some(RawCall { message, raw }))
    }
}

/// The schedulers' service.
#[derive(Debug, Clone)]
pub(crate) struct Schedulers(Arc<App>);

impl Schedulers {
    pub(crate) fn new(app: Arc<App>) -> Schedulers {
        Schedulers(app)
    }

    async fn connect(
        self,
        request: Request<Streaming<RawCall>>,
    ) -> Result<Response<Events>, Status> {
        let Schedulers(app) = self;
        let principal = admit(&app, Realm::Frameworks, &request)?;
        not_leading(&app, &request).await?;
        let mut calls = request.into_inner();
        let expected = || Status::invalid_argument("expecting SUBSCRIBE as the first call");
        let first = calls.next().await.ok_or_else(expected)??;
        let (_, call) = http_scheduler::read(first.message, Some(first.raw)).map_err(refuse)?;
        let Call::Subscribe(subscribe) = call else {
            return Err(expected());
        };
        subscribe
            .check_principal(principal.as_ref())
            .map_err(|invalid| Status::invalid_argument(invalid.message))?;
        let (subscription, messages) =
            http_scheduler::open(&app, subscribe, principal.clone(), Transport::Grpc).await;
        let stream_id = subscription.stream_id.clone();
        // What a later call is refused for at the door goes to the stream, which it ends.
        let (refused, refusal) = oneshot::channel::<Status>();
        let reader = tokio::spawn(async move {
            match serve_calls(calls, &subscription, principal).await {
                // The receiver is gone when the stream has ended already.
                Some(status) => drop(refused.send(status)),
                // The client will say no more, but still listens.
                None => std::future::pending().await,
            }
            drop(subscription);
        });
        let events = futures_util::stream::unfold(
            Some((messages, refusal, Reader(reader))),
            |state| async move {
                let (mut messages, mut refusal, reader) = state?;
                let message = tokio::select! {
                    biased;
                    message = messages.recv() => message,
                    status = &mut refusal => {
                        let gone = || Status::cancelled("the stream of calls ended");
                        return Some((Err(status.unwrap_or_else(|_| gone())), None));
                    }
                };
                match message {
                    Some(Message::Event { event, format }) => {
                        Some((Ok(event.to_wire(format)), Some((messages, refusal, reader))))
                    }
                    Some(Message::Close { status, reason }) => {
                        closed(status, &reason).map(|status| (Err(status), None))
                    }
                    // Closed by the shell: a call was refused, the reader is too slow, or the
                    // leadership ended.
                    _ => {
                        let again = || Status::unavailable("subscribe again");
                        let status = refusal.try_recv().unwrap_or_else(|_| again());
                        Some((Err(status), None))
                    }
                }
            },
        );
        let mut response: Response<Events> = Response::new(Box::pin(events));
        if let Ok(stream_id) = stream_id.parse() {
            response.metadata_mut().insert(STREAM_ID, stream_id);
        }
        if let Some(masters) = app.masters().and_then(|it| it.to_str().ok()?.parse().ok()) {
            response.metadata_mut().insert(MASTERS, masters);
        }
        Ok(response)
    }

    async fn call(self, request: Request<RawCall>) -> Result<Response<CallResponse>, Status> {
        let Schedulers(app) = self;
        let principal = admit(&app, Realm::Frameworks, &request)?;
        not_leading(&app, &request).await?;
        let stream_id = request.metadata().get(STREAM_ID);
        let stream_id = stream_id.and_then(|it| it.to_str().ok()).map(Arc::from);
        let stream = StreamRef::Header(stream_id);
        let call = read(request.into_inner(), stream, principal)?;
        app.call(call).await.map_err(refuse)?;
        Ok(Response::new(CallResponse {}))
    }
}

/// Reads a call that is not the first of a stream, as far as no state is needed.
fn read(
    call: RawCall,
    stream: StreamRef,
    principal: Option<Principal>,
) -> Result<SchedulerCall, Status> {
    let (framework_id, call) =
        http_scheduler::read(call.message, Some(call.raw)).map_err(refuse)?;
    match &call {
        Call::Subscribe(_) => {
            return Err(Status::invalid_argument(
                "SUBSCRIBE has to be the first call of a stream of its own: use Connect",
            ));
        }
        Call::UpdateFramework(update) => update
            .check_principal(principal.as_ref())
            .map_err(|invalid| Status::invalid_argument(invalid.message))?,
        _ => {}
    }
    let framework_id = framework_id
        .ok_or_else(|| Status::invalid_argument("Expecting 'framework_id' to be present"))?;
    Ok(SchedulerCall {
        reply: None,
        framework_id,
        stream,
        principal,
        call,
    })
}

/// Hands the calls of a subscription to the machine; what the first bad one is refused for.
async fn serve_calls(
    mut calls: Streaming<RawCall>,
    subscription: &Subscription,
    principal: Option<Principal>,
) -> Option<Status> {
    while let Some(call) = calls.next().await {
        let stream = StreamRef::Connection(subscription.connection);
        match call.and_then(|call| read(call, stream, principal.clone())) {
            Ok(call) => subscription.producer.send(Input::SchedulerCall(call)).await,
            Err(status) => return Some(status),
        }
    }
    None
}

type Events = EventStream<wire::scheduler::Event>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl StreamingService<RawCall> for Schedulers {
    type Response = wire::scheduler::Event;
    type ResponseStream = Events;
    type Future = Answer<Events>;

    fn call(&mut self, request: Request<Streaming<RawCall>>) -> Self::Future {
        Box::pin(self.clone().connect(request))
    }
}

impl UnaryService<RawCall> for Schedulers {
    type Response = CallResponse;
    type Future = Answer<CallResponse>;

    fn call(&mut self, request: Request<RawCall>) -> Self::Future {
        Box::pin(Schedulers::call(self.clone(), request))
    }
}

impl NamedService for Schedulers {
    const NAME: &'static str = "tepui.scheduler.v1.Scheduler";
}

/// A handler of one method; a message as large as an HTTP body is taken.
fn grpc<M: prost::Message + 'static>() -> Grpc<CallCodec<M>> {
    Grpc::new(CallCodec(PhantomData)).apply_max_message_size_config(Some(MAX_MESSAGE), None)
}

impl tower::Service<http::Request<tonic::body::Body>> for Schedulers {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/tepui.scheduler.v1.Scheduler/Connect" => grpc().streaming(service, request).await,
                "/tepui.scheduler.v1.Scheduler/Call" => grpc().unary(service, request).await,
                _ => Status::unimplemented("there is no such method").into_http(),
            })
        })
    }
}
