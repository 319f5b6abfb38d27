//! Connections of clients: frames become inputs, and what the machine sends becomes frames.
//!
//! What stands here is what the listeners of the master do: who does not lead refuses and names
//! the leader, a stream whose reader is slow is closed, and everything is closed when the
//! leadership ends.

use super::{Body, Process, intake::Class};
use crate::{
    core::Core,
    keeper::ACCOUNT,
    network::{Conn, End, Frame, Hello},
    trace::note,
};
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use tepui_master_machine::{
    input::{
        ConnectionId, Input, OperatorInput, RequestId, SchedulerCall, StateInput, StreamRef,
        SubscribeInput, Transport,
    },
    model::{call::Call, id::Principal, link, wire},
    output::{Destination, Message, Outgoing},
};
use tepui_replication_node::Role;

/// A scheduler's subscription.
#[derive(Debug)]
struct Stream {
    /// `Mesos-Stream-Id`, until the first event says that the subscription was taken.
    accepted: Option<String>,
    /// The machine was told that its reader is behind.
    behind: bool,
    /// The machine waits until everything was read.
    turn: bool,
}

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Door {
    streams: BTreeMap<ConnectionId, Stream>,
    requests: BTreeMap<RequestId, Conn>,
    watches: BTreeSet<ConnectionId>,
}

/// A reader is behind when this part of what may wait for it waits.
const BEHIND: usize = 8;

/// Who operates the cluster authenticates as this.
pub(crate) const OPERATOR: &str = "operator";

impl Process {
    pub(super) fn leader_hint(&self, core: &Core) -> Option<usize> {
        match self.raft.node.role() {
            Role::Follower { leader, .. } => core.nodes.get(&leader?).copied(),
            Role::Candidate { .. } | Role::Leader { .. } => None,
        }
    }

    pub(super) fn frame(&mut self, body: &mut Body, core: &mut Core, conn: Conn, frame: Frame) {
        core.net.read(conn, End::Server);
        let connection = ConnectionId(conn.0);
        match frame {
            Frame::Open(Hello::AgentLink) => self.link_opened(body, core, conn),
            Frame::Open(hello) => {
                if self.thread.leadership.is_none() {
                    let leader = self.leader_hint(core);
                    core.send(conn, End::Client, Frame::Refused(leader));
                    core.send(conn, End::Client, Frame::Closed);
                    return;
                }
                self.open(body, core, conn, hello);
            }
            Frame::FromAgent(bytes) => {
                if self.is_open(core, conn) {
                    self.agent_frame(body, core, conn, bytes);
                }
            }
            Frame::Call(bytes) => {
                if !self.is_open(core, conn) {
                    return;
                }
                let stream = StreamRef::Connection(connection);
                if let Some(input) = scheduler_call(core, bytes, stream, None) {
                    self.input(body, core, Class::Client, connection, input);
                }
            }
            Frame::Closed => {
                if self.links.is_open(conn) {
                    self.link_closed(body, core, conn);
                } else if self.door.streams.remove(&connection).is_some() {
                    let input = Input::SchedulerDisconnected { connection };
                    self.input(body, core, Class::Client, connection, input);
                } else if self.door.watches.remove(&connection) {
                    let input = Input::StateWatchClosed { connection };
                    self.input(body, core, Class::Client, connection, input);
                }
                // A request whose client is gone takes effect all the same.
            }
            Frame::Ping => {
                if self.is_open(core, conn) {
                    core.send(conn, End::Client, Frame::Pong);
                }
            }
            Frame::Accepted(_)
            | Frame::Pong
            | Frame::Refused(_)
            | Frame::ToAgent(_)
            | Frame::Event(_)
            | Frame::Kept(_)
            | Frame::Watched(_)
            | Frame::Answer(..) => {}
        }
    }

    /// What comes on a connection that this process does not know is answered with its end.
    fn is_open(&self, core: &mut Core, conn: Conn) -> bool {
        let id = ConnectionId(conn.0);
        let known = self.links.is_open(conn)
            || self.door.streams.contains_key(&id)
            || self.door.watches.contains(&id);
        if !known {
            core.send(conn, End::Client, Frame::Closed);
        }
        known
    }

    fn open(&mut self, body: &mut Body, core: &mut Core, conn: Conn, hello: Hello) {
        let connection = ConnectionId(conn.0);
        match hello {
            Hello::AgentLink => {}
            Hello::Subscribe { call, inside } => {
                let Some((_, Call::Subscribe(subscribe))) = read(core, call) else {
                    core.violate("wire", "a subscription that cannot be read".to_owned());
                    return;
                };
                let stream_id = format!("stream-{}", conn.0);
                let accepted = Some(stream_id.clone());
                let stream = Stream {
                    accepted,
                    behind: false,
                    turn: false,
                };
                self.door.streams.insert(connection, stream);
                let input = Input::Subscribe(SubscribeInput {
                    connection,
                    stream_id: stream_id.into(),
                    transport: match inside {
                        true => Transport::Grpc,
                        false => Transport::V1Protobuf,
                    },
                    principal: subscribe.framework_info.principal.clone(),
                    subscribe,
                });
                self.input(body, core, Class::Client, connection, input);
            }
            Hello::Call { call, stream_id } => {
                let request = RequestId(conn.0);
                self.door.requests.insert(request, conn);
                let stream = StreamRef::Header(Some(stream_id.as_str().into()));
                if let Some(input) = scheduler_call(core, call, stream, Some(request)) {
                    self.input(body, core, Class::Client, connection, input);
                }
            }
            Hello::State(request) => {
                let reply = RequestId(conn.0);
                self.door.requests.insert(reply, conn);
                let input = Input::State(StateInput {
                    reply,
                    principal: Some(Principal::from(ACCOUNT)),
                    request: *request,
                });
                self.input(body, core, Class::Client, connection, input);
            }
            Hello::Watch => {
                self.door.watches.insert(connection);
                let input = Input::StateWatch {
                    connection,
                    principal: Some(Principal::from(ACCOUNT)),
                    prefix: "".into(),
                };
                self.input(body, core, Class::Client, connection, input);
            }
            Hello::Operate(number) => {
                let reply = RequestId(conn.0);
                if let Some(request) = core.checkers.orders.request(number) {
                    self.door.requests.insert(reply, conn);
                    let input = Input::Operator(OperatorInput {
                        reply,
                        principal: Some(Principal::from(OPERATOR)),
                        request,
                    });
                    self.input(body, core, Class::Client, connection, input);
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, body: &mut Body, core: &mut Core, messages: Vec<Outgoing>) {
        for Outgoing { to, message, .. } in messages {
            match to {
                Destination::Reply(request) => {
                    let Some(conn) = self.door.requests.remove(&request) else {
                        continue;
                    };
                    let frame = match message {
                        Message::Answer { status, message } => {
                            Frame::Answer(status.http_code(), message)
                        }
                        Message::State(answer) => Frame::Kept(answer),
                        _ => continue,
                    };
                    core.send(conn, End::Client, frame);
                    core.send(conn, End::Client, Frame::Closed);
                }
                Destination::Watch(id) => {
                    let conn = Conn(id.0);
                    match message {
                        Message::StateEvent(event) if self.door.watches.contains(&id) => {
                            core.send(conn, End::Client, Frame::Watched(Box::new(event)));
                        }
                        Message::StateEvent(_) => {}
                        _ => {
                            self.door.watches.remove(&id);
                            core.send(conn, End::Client, Frame::Closed);
                        }
                    }
                }
                Destination::Scheduler(id) => self.tell_scheduler(body, core, id, message),
                Destination::Agent(id) => self.tell_agent(body, core, id, message),
            }
        }
    }

    fn tell_agent(&mut self, body: &mut Body, core: &mut Core, id: ConnectionId, message: Message) {
        let Some(conn) = self.links.conn_of(id) else {
            return;
        };
        let Message::ToAgent(message) = message else {
            self.end_link(body, core, conn);
            return;
        };
        if core.net.unread(conn, End::Client) >= core.shape.limits.stream_queue {
            note!(core, body.host(), "the agent on {conn:?} reads too slowly");
            self.end_link(body, core, conn);
            let input = Input::AgentDisconnected { connection: id };
            self.input(body, core, Class::Agent, id, input);
            return;
        }
        let answers = matches!(
            message.kind,
            Some(
                link::master_message::Kind::Registered(_) | link::master_message::Kind::Refused(_)
            )
        );
        core.send(
            conn,
            End::Client,
            Frame::ToAgent(message.encode_to_vec().into()),
        );
        if answers {
            self.answered(body, core, conn);
        }
    }

    fn tell_scheduler(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        id: ConnectionId,
        message: Message,
    ) {
        let Some(stream) = self.door.streams.get_mut(&id) else {
            return;
        };
        let conn = Conn(id.0);
        if let Some(stream_id) = stream.accepted.take() {
            core.send(conn, End::Client, Frame::Accepted(stream_id));
        }
        if matches!(message, Message::Turn) {
            stream.turn = true;
            return;
        }
        let Message::Event { event, format } = message else {
            self.door.streams.remove(&id);
            core.send(conn, End::Client, Frame::Closed);
            return;
        };
        let unread = core.net.unread(conn, End::Client);
        if unread >= core.shape.limits.stream_queue {
            note!(core, body.host(), "{id:?} reads too slowly and is closed");
            self.door.streams.remove(&id);
            core.send(conn, End::Client, Frame::Closed);
            let input = Input::SchedulerDisconnected { connection: id };
            self.input(body, core, Class::Client, id, input);
            return;
        }
        let behind = !stream.behind && unread >= core.shape.limits.stream_queue / BEHIND;
        stream.behind |= behind;
        let frame = Frame::Event(event.to_wire(format).encode_to_vec().into());
        core.send(conn, End::Client, frame);
        if behind {
            note!(core, body.host(), "{id:?} is behind with reading");
            let input = Input::SchedulerPace {
                connection: id,
                behind: true,
            };
            self.input(body, core, Class::Client, id, input);
        }
    }

    /// Tells the machine of readers that have caught up.
    pub(super) fn pace(&mut self, body: &mut Body, core: &mut Core) {
        let enough = core.shape.limits.stream_queue / BEHIND / 4;
        let mut caught_up = Vec::new();
        let mut turns = Vec::new();
        for (id, stream) in &mut self.door.streams {
            let unread = core.net.unread(Conn(id.0), End::Client);
            if stream.behind && unread <= enough {
                stream.behind = false;
                caught_up.push(*id);
            }
            if stream.turn && unread == 0 {
                stream.turn = false;
                turns.push(*id);
            }
        }
        for connection in turns {
            let input = Input::SchedulerTurn { connection };
            self.input(body, core, Class::Client, connection, input);
        }
        for connection in caught_up {
            let input = Input::SchedulerPace {
                connection,
                behind: false,
            };
            self.input(body, core, Class::Client, connection, input);
        }
    }

    /// The leadership ended: every stream closes, and every request fails.
    pub(super) fn close_all(&mut self, core: &mut Core) {
        for (id, _) in std::mem::take(&mut self.door.streams) {
            core.send(Conn(id.0), End::Client, Frame::Closed);
        }
        for (_, conn) in std::mem::take(&mut self.door.requests) {
            core.send(conn, End::Client, Frame::Closed);
        }
        self.close_watches(core);
    }

    /// Who watches variables begins again.
    pub(super) fn close_watches(&mut self, core: &mut Core) {
        for id in std::mem::take(&mut self.door.watches) {
            core.send(Conn(id.0), End::Client, Frame::Closed);
        }
    }

    /// Ends a connection whose input will not be stepped, and what waits on it.
    pub(super) fn refuse(&mut self, body: &mut Body, core: &mut Core, source: ConnectionId) {
        let conn = match self.links.conn_of(source) {
            Some(conn) => return self.end_link(body, core, conn),
            None => Conn(source.0),
        };
        self.door.streams.remove(&source);
        self.door.watches.remove(&source);
        self.door.requests.remove(&RequestId(source.0));
        core.send(conn, End::Client, Frame::Closed);
    }
}

/// Reads a call as the listeners do.
fn read(core: &mut Core, bytes: Bytes) -> Option<(Option<tepui_model::FrameworkId>, Call)> {
    let decoded = wire::scheduler::Call::decode(bytes.clone());
    let read = decoded
        .map_err(|it| it.to_string())
        .and_then(|it| Call::from_wire(it, Some(bytes)).map_err(|it| it.to_string()));
    match read {
        Ok(it) => Some(it),
        Err(text) => {
            core.violate("wire", format!("a call: {text}"));
            None
        }
    }
}

fn scheduler_call(
    core: &mut Core,
    bytes: Bytes,
    stream: StreamRef,
    reply: Option<RequestId>,
) -> Option<Input> {
    let (framework_id, call) = read(core, bytes)?;
    Some(Input::SchedulerCall(SchedulerCall {
        reply,
        framework_id: framework_id?,
        stream,
        principal: None,
        call,
    }))
}
