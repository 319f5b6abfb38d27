//! The gRPC services: schedulers, operators, agents' links, health, reflection.

use crate::shell::{
    agent_links::{AgentLinks, Reader},
    door::{App, Failure},
    http_scheduler, operator, operator_stream,
};
use axum::Router;
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use std::{pin::Pin, sync::Arc};
use tepui_master_machine::{
    input::{Input, SchedulerCall, StreamRef, Transport},
    model::{Principal, call::Call, wire},
    output::{self, Message},
};
use tepui_server::{
    auth::Realm,
    proto::{
        FILE_DESCRIPTOR_SET,
        tepui::{
            agent::v1::agent_link_server::AgentLinkServer,
            operator::v1::operator_server::{Operator, OperatorServer},
            scheduler::v1::{
                CallResponse,
                scheduler_server::{Scheduler, SchedulerServer},
            },
        },
    },
};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes};

/// The largest message taken, as for bodies.
const MAX_MESSAGE: usize = tepui_server::body::MAX_BODY;
/// Name of a subscription in metadata.
const STREAM_ID: &str = "mesos-stream-id";
/// The leader's address in the metadata of a refusal.
const LEADER: &str = "tepui-leader";

type EventStream<E> = Pin<Box<dyn Stream<Item = Result<E, Status>> + Send>>;

/// A router with every service.
///
/// # Errors
/// When the descriptors that were built in are damaged.
pub(crate) fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes
        .add_service(
            SchedulerServer::new(Schedulers(app.clone()))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            OperatorServer::new(Operators(app.clone()))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            AgentLinkServer::new(AgentLinks(app.clone()))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(health)
        .add_service(reflection);
    Ok(routes.routes().prepare().into_axum_router())
}

/// Who asks.
pub(crate) fn admit<T>(
    app: &App,
    realm: Realm,
    request: &Request<T>,
) -> Result<Option<Principal>, Status> {
    let headers = request.metadata().clone().into_headers();
    let principal = app
        .authenticate(realm, &headers)
        .map_err(Status::unauthenticated)?;
    match app.is_held_off(principal.as_ref()) {
        true => Err(Status::unavailable(
            "a request of this principal caused a failure a moment ago: it has to wait",
        )),
        false => Ok(principal),
    }
}

/// UNAVAILABLE, with the leader's address if it is known, from one that does not lead.
pub(crate) fn not_leading(app: &App) -> Result<(), Status> {
    if app.shared.is_leading() {
        return Ok(());
    }
    let mut status = Status::unavailable("this master does not lead");
    if let Some(leader) = app.leader().and_then(|it| it.parse().ok()) {
        status.metadata_mut().insert(LEADER, leader);
    }
    Err(status)
}

fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 405 | 406 | 413 | 415 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

fn refuse(failure: Failure) -> Status {
    Status::new(code(failure.status), failure.message)
}

/// Why a stream was closed; nothing for an orderly end.
fn closed(status: output::Status, reason: &str) -> Option<Status> {
    let http =
        StatusCode::from_u16(status.http_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (!http.is_success()).then(|| Status::new(code(http), reason))
}

/// The schedulers' service.
#[derive(Debug)]
struct Schedulers(Arc<App>);

#[tonic::async_trait]
impl Scheduler for Schedulers {
    type ConnectStream = EventStream<wire::scheduler::Event>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::scheduler::Call>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let app = self.0.clone();
        let principal = admit(&app, Realm::Frameworks, &request)?;
        not_leading(&app)?;
        let mut calls = request.into_inner();
        let first = calls
            .next()
            .await
            .ok_or_else(|| Status::invalid_argument("expecting SUBSCRIBE as the first call"))??;
        let (_, Call::Subscribe(subscribe)) = http_scheduler::read(first, None).map_err(refuse)?
        else {
            return Err(Status::invalid_argument(
                "expecting SUBSCRIBE as the first call",
            ));
        };
        subscribe
            .check_principal(principal.as_ref())
            .map_err(|invalid| Status::invalid_argument(invalid.message))?;
        let (subscription, messages) =
            http_scheduler::open(&app, subscribe, principal.clone(), Transport::Grpc).await;
        let stream_id = subscription.stream_id.clone();
        // What a later call is refused for at the door goes to the stream, which it ends.
        let (refused, refusal) = tokio::sync::oneshot::channel::<Status>();
        let reader = tokio::spawn(async move {
            let error = serve_calls(calls, &subscription, principal).await;
            match error {
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
        let mut response: Response<Self::ConnectStream> = Response::new(Box::pin(events));
        if let Ok(stream_id) = stream_id.parse() {
            response.metadata_mut().insert(STREAM_ID, stream_id);
        }
        Ok(response)
    }

    async fn call(
        &self,
        request: Request<wire::scheduler::Call>,
    ) -> Result<Response<CallResponse>, Status> {
        let app = &self.0;
        let principal = admit(app, Realm::Frameworks, &request)?;
        not_leading(app)?;
        let stream_id = request.metadata().get(STREAM_ID);
        let stream_id = stream_id.and_then(|it| it.to_str().ok()).map(Arc::from);
        let (framework_id, call) =
            http_scheduler::read(request.into_inner(), None).map_err(refuse)?;
        let (Some(framework_id), false) = (framework_id, matches!(call, Call::Subscribe(_))) else {
            return Err(Status::invalid_argument(
                "SUBSCRIBE needs a stream: use Connect",
            ));
        };
        app.ask(|reply| {
            Input::SchedulerCall(SchedulerCall {
                reply: Some(reply),
                framework_id,
                stream: StreamRef::Header(stream_id),
                principal,
                call,
            })
        })
        .await
        .map_err(refuse)?;
        Ok(Response::new(CallResponse {}))
    }
}

/// Hands the calls of a subscription to the machine; what the first bad one is refused for.
async fn serve_calls(
    mut calls: Streaming<wire::scheduler::Call>,
    subscription: &http_scheduler::Subscription,
    principal: Option<Principal>,
) -> Option<Status> {
    while let Some(call) = calls.next().await {
        let read = call.and_then(|it| http_scheduler::read(it, None).map_err(refuse));
        let (framework_id, call) = match read {
            Ok((Some(framework_id), call)) => (framework_id, call),
            Ok((None, _)) => {
                return Some(Status::invalid_argument(
                    "Expecting 'framework_id' to be present",
                ));
            }
            Err(status) => return Some(status),
        };
        let input = Input::SchedulerCall(SchedulerCall {
            reply: None,
            framework_id,
            stream: StreamRef::Connection(subscription.connection),
            principal: principal.clone(),
            call,
        });
        subscription.producer.send(input).await;
    }
    None
}

/// The operators' service.
#[derive(Debug)]
struct Operators(Arc<App>);

#[tonic::async_trait]
impl Operator for Operators {
    type WatchStream = EventStream<wire::master::Event>;

    async fn call(
        &self,
        request: Request<wire::master::Call>,
    ) -> Result<Response<wire::master::Response>, Status> {
        let principal = admit(&self.0, Realm::ReadWrite, &request)?;
        not_leading(&self.0)?;
        let call = request.into_inner();
        let kind = operator::check(&call).map_err(refuse)?;
        if kind == wire::master::call::Type::Subscribe {
            return Err(Status::invalid_argument(
                "SUBSCRIBE needs a stream: use Watch",
            ));
        }
        match operator::call(&self.0, principal, kind, call)
            .await
            .map_err(refuse)?
        {
            operator::Reply::Message(message) => Ok(Response::new(*message)),
            operator::Reply::Status(_) => Ok(Response::new(Default::default())),
        }
    }

    async fn watch(
        &self,
        request: Request<wire::master::Call>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        admit(&self.0, Realm::ReadWrite, &request)?;
        not_leading(&self.0)?;
        let kind = operator::check(request.get_ref()).map_err(refuse)?;
        if kind != wire::master::call::Type::Subscribe {
            return Err(Status::invalid_argument(
                "expecting SUBSCRIBE: use Call for the others",
            ));
        }
        let events = operator_stream::events(&self.0).map(|it| Ok(it.event.clone()));
        Ok(Response::new(Box::pin(events)))
    }
}
