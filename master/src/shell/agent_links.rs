//! `tepui.agent.v1.AgentLink`: one stream per agent, frames in, commands out.

use crate::shell::{
    core::ReplicaEvent,
    destinations::Destinations,
    door::App,
    grpc::{admit, not_leading},
    intake::{Class, Producer},
};
use futures_util::{Stream, StreamExt};
use std::{pin::Pin, sync::Arc};
use tepui_master_machine::{
    input::{ConnectionId, Input},
    output::Message,
};
use tepui_server::{
    auth::Realm,
    proto::tepui::agent::v1::{AgentMessage, MasterMessage, agent_link_server::AgentLink},
};
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Debug)]
pub(crate) struct AgentLinks(pub(crate) Arc<App>);

/// One link; its end tells the machine.
#[derive(Debug)]
struct Link {
    connection: ConnectionId,
    producer: Producer<ReplicaEvent>,
    destinations: Arc<Destinations>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.destinations.forget_stream(self.connection);
        self.producer.send_last(Input::AgentDisconnected {
            connection: self.connection,
        });
    }
}

#[tonic::async_trait]
impl AgentLink for AgentLinks {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let app = &self.0;
        let principal = admit(app, Realm::Agents, &request)?;
        not_leading(app)?;
        let (connection, messages) = app.destinations.stream();
        let link = Link {
            connection,
            producer: app.intake.connect(connection, Class::Agent),
            destinations: app.destinations.clone(),
        };
        let mut frames = request.into_inner();
        let incoming = async move {
            // An error ends the link as its orderly end does.
            while let Some(Ok(message)) = frames.next().await {
                let input = Input::AgentMessage {
                    connection: link.connection,
                    principal: principal.clone(),
                    message: Box::new(message),
                };
                link.producer.send(input).await;
            }
            drop(link);
        };
        let reader = tokio::spawn(incoming);
        let outgoing = futures_util::stream::unfold(
            (messages, Reader(reader)),
            |(mut messages, reader)| async move {
                match messages.recv().await {
                    Some(Message::ToAgent(message)) => Some((Ok(*message), (messages, reader))),
                    _ => None,
                }
            },
        );
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Ends the reading half with the writing half.
pub(crate) struct Reader(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}
