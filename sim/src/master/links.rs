//! Links of agents: idle ones say who leads, and a machine's birth turns them into sessions, so
//! many at a time as come back with an answer.
//!
//! What stands here is what `master/src/shell/agent_links.rs` does.

use super::{Body, Event, Process, intake::Class};
use crate::{
    clock::SECOND,
    core::Core,
    network::{Conn, End, Frame, Host},
    world::address_of,
};
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use tepui_master_machine::{
    input::{ConnectionId, Input},
    model::link::{self, agent_message, master_message},
};

/// An invited agent that has not answered for so long gives its place to the next one.
const PATIENCE: u64 = 5 * SECOND;

/// Sessions have numbers beyond those of connections.
const SESSIONS: u64 = 1 << 48;

#[derive(Debug, Default)]
struct Link {
    session: Option<ConnectionId>,
    /// Holds one of the places for invitations.
    place: bool,
    /// What an idle link was told last.
    told: Option<Option<usize>>,
    /// Registered without having been invited, and waits with everything behind it.
    waiting: VecDeque<link::AgentMessage>,
}

/// Links of agents.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<Conn, Link>,
    sessions: BTreeMap<ConnectionId, Conn>,
    made: u64,
    places: usize,
    /// A machine serves: its fence.
    born: Option<link::Fence>,
}

impl Links {
    pub(super) fn is_open(&self, conn: Conn) -> bool {
        self.links.contains_key(&conn)
    }

    /// The connection of a session.
    pub(super) fn conn_of(&self, session: ConnectionId) -> Option<Conn> {
        self.sessions.get(&session).copied()
    }

    fn end_session(&mut self, conn: Conn) -> Option<ConnectionId> {
        let link = self.links.get_mut(&conn)?;
        if std::mem::take(&mut link.place) {
            self.places -= 1;
        }
        link.told = None;
        let session = link.session.take()?;
        self.sessions.remove(&session);
        Some(session)
    }
}

impl Process {
    /// An agent opens a link.
    pub(super) fn link_opened(&mut self, body: &mut Body, core: &mut Core, conn: Conn) {
        self.links.links.insert(conn, Link::default());
        core.send(conn, End::Client, Frame::Accepted(String::new()));
        self.tend_links(body, core);
    }

    /// Its half has ended.
    pub(super) fn link_closed(&mut self, body: &mut Body, core: &mut Core, conn: Conn) {
        let session = self.links.end_session(conn);
        self.links.links.remove(&conn);
        if let Some(connection) = session {
            let input = Input::AgentDisconnected { connection };
            self.input(body, core, Class::Agent, connection, input);
        }
        self.tend_links(body, core);
    }

    /// The machine has done with a session: the link ends with it.
    pub(super) fn end_link(&mut self, body: &mut Body, core: &mut Core, conn: Conn) {
        self.links.end_session(conn);
        self.links.links.remove(&conn);
        core.send(conn, End::Client, Frame::Closed);
        self.tend_links(body, core);
    }

    /// A machine serves from now on.
    pub(super) fn born(&mut self, body: &mut Body, core: &mut Core) {
        if let Some(leadership) = &self.thread.leadership {
            let cluster = leadership.machine.state().cluster();
            self.links.born = Some(link::Fence {
                cluster_id: cluster.cluster_id.clone(),
                incarnation: cluster.incarnation,
                term: leadership.term,
            });
        }
        self.tend_links(body, core);
    }

    /// It does not any more: links are idle again.
    pub(super) fn unborn(&mut self, body: &mut Body, core: &mut Core) {
        self.links.born = None;
        let conns: Vec<Conn> = self.links.links.keys().copied().collect();
        for conn in conns {
            self.links.end_session(conn);
        }
        self.tend_links(body, core);
    }

    /// An answer to an invitation leaves: its place is free.
    pub(super) fn answered(&mut self, body: &mut Body, core: &mut Core, conn: Conn) {
        if let Some(link) = self.links.links.get_mut(&conn)
            && std::mem::take(&mut link.place)
        {
            self.links.places -= 1;
            self.tend_links(body, core);
        }
    }

    /// An invitation has had its time.
    pub(super) fn invitation_late(&mut self, body: &mut Body, core: &mut Core, session: u64) {
        if let Some(conn) = self.links.conn_of(ConnectionId(session)) {
            self.answered(body, core, conn);
        }
    }

    /// Invites who waits for it, or tells who leads.
    pub(super) fn tend_links(&mut self, body: &mut Body, core: &mut Core) {
        let leader = self.leader_hint(core);
        let conns: Vec<Conn> = self
            .links
            .links
            .iter()
            .filter(|(_, it)| it.session.is_none())
            .filter(|(_, it)| self.links.born.is_some() || it.told != Some(leader))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            match self.links.born.clone() {
                Some(fence) => {
                    if self.links.places >= core.shape.limits.invitations {
                        return;
                    }
                    self.invite(body, core, conn, fence);
                }
                None => {
                    if let Some(link) = self.links.links.get_mut(&conn) {
                        link.told = Some(leader);
                    }
                    let said = link::Leader {
                        address: leader.map(address_of).unwrap_or_default(),
                        here: false,
                        masters: (0..core.shape.masters).map(address_of).collect(),
                        own: address_of(body.number),
                    };
                    send(core, conn, None, said);
                }
            }
        }
    }

    fn invite(&mut self, body: &mut Body, core: &mut Core, conn: Conn, fence: link::Fence) {
        self.links.made += 1;
        let session = ConnectionId(SESSIONS + self.links.made);
        let Some(link) = self.links.links.get_mut(&conn) else {
            return;
        };
        link.session = Some(session);
        link.place = true;
        let waiting = std::mem::take(&mut link.waiting);
        self.links.places += 1;
        self.links.sessions.insert(session, conn);
        let own = address_of(body.number);
        let said = link::Leader {
            address: own.clone(),
            here: true,
            masters: (0..core.shape.masters).map(address_of).collect(),
            own,
        };
        send(core, conn, Some(fence), said);
        body.later(core, PATIENCE, Event::InvitationLate(session.0));
        for message in waiting {
            self.agent_said(body, core, conn, message);
        }
    }

    /// A frame of an agent.
    pub(super) fn agent_frame(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        conn: Conn,
        bytes: Bytes,
    ) {
        match link::AgentMessage::decode(bytes) {
            Ok(message) => self.agent_said(body, core, conn, message),
            Err(error) => core.violate("wire", format!("frame of an agent: {error}")),
        }
    }

    fn agent_said(
        &mut self,
        body: &mut Body,
        core: &mut Core,
        conn: Conn,
        message: link::AgentMessage,
    ) {
        let Some(link) = self.links.links.get_mut(&conn) else {
            return;
        };
        let Some(connection) = link.session else {
            let uninvited = matches!(
                &message.kind,
                Some(agent_message::Kind::Register(it)) if it.term == 0
            );
            if uninvited || !link.waiting.is_empty() {
                link.waiting.push_back(message);
            }
            return;
        };
        // Only what answers the master shows that both ways are open.
        let answers = matches!(
            &message.kind,
            Some(
                agent_message::Kind::Pong(_)
                    | agent_message::Kind::Attach(_)
                    | agent_message::Kind::Register(_)
            )
        );
        if let Some(Host::Agent(agent)) = core.net.client(conn)
            && answers
        {
            core.checkers.tasks.contact(core.now, agent);
        }
        let input = Input::AgentMessage {
            connection,
            principal: None,
            message: Box::new(message),
        };
        self.input(body, core, Class::Agent, connection, input);
    }
}

fn send(core: &mut Core, conn: Conn, fence: Option<link::Fence>, said: link::Leader) {
    let message = link::MasterMessage {
        fence,
        kind: Some(master_message::Kind::Leader(said)),
    };
    let frame = Frame::ToAgent(message.encode_to_vec().into());
    core.send(conn, End::Client, frame);
}
