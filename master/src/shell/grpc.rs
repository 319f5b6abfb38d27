//! The gRPC services: schedulers, operators, agents' links, health, reflection.

use crate::shell::{
    agent_links::AgentLinks,
    door::{App, Failure, Place},
    grpc_scheduler::Schedulers,
    grpc_state::States,
    operator, operator_stream,
};
use axum::Router;
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use std::{pin::Pin, sync::Arc};
use tepui_master_machine::{
    model::{Principal, wire},
    output,
};
use tepui_server::{
    auth::Realm,
    proto::{
        FILE_DESCRIPTOR_SET,
        tepui::{
            agent::v1::agent_link_server::AgentLinkServer,
            operator::v1::operator_server::{Operator, OperatorServer},
            state::v1::state_server::StateServer,
        },
    },
};
use tonic::{Code, Request, Response, Status, service::Routes};

/// The largest message taken, as for bodies.
pub(crate) const MAX_MESSAGE: usize = tepui_server::body::MAX_BODY;
/// The leader's address in the metadata of a refusal.
const LEADER: &str = "tepui-leader";

pub(crate) type EventStream<E> = Pin<Box<dyn Stream<Item = Result<E, Status>> + Send>>;

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
        .add_service(Schedulers::new(app.clone()))
        .add_service(
            OperatorServer::new(Operators(app.clone()))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            StateServer::new(States::new(app.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            AgentLinkServer::new(AgentLinks::new(app.clone()))
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
pub(crate) async fn not_leading<T>(app: &App, request: &Request<T>) -> Result<(), Status> {
    let headers = request.metadata().clone().into_headers();
    let leader = match app.place(&headers).await {
        Place::Here => return Ok(()),
        Place::There(leader) => leader,
        Place::Nowhere => return Err(Status::unavailable("no master leads at the moment")),
    };
    let mut status = Status::unavailable(format!("this master does not lead, {leader} does"));
    if let Ok(leader) = leader.parse() {
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
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// A refusal with the code of its status.
pub(crate) fn refuse(failure: Failure) -> Status {
    Status::new(code(failure.status), failure.message)
}

/// Why a stream was closed; nothing for an orderly end.
pub(crate) fn closed(status: output::Status, reason: &str) -> Option<Status> {
    let http =
        StatusCode::from_u16(status.http_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (!http.is_success()).then(|| Status::new(code(http), reason))
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
        not_leading(&self.0, &request).await?;
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
        not_leading(&self.0, &request).await?;
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
