//! Bytes of our own for everything that reaches the wire or the disk.
//!
//! Protobuf messages with permanent field numbers, decoded by `prost` and converted by
//! hand, so that no byte of a peer or of a disk reaches the consensus crate's own,
//! unmaintained decoder.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;

use crate::{
    disk::Origin,
    members::{MemberChange, Members},
};

/// An entry of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    /// 0 normal, 2 change of members (1 was its older form and is never written).
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
    /// See [`Decision`]; empty in entries that consensus itself makes.
    #[prost(bytes = "bytes", tag = "5")]
    context: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ticket {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(message, optional, tag = "3")]
    members: Option<MembersRecord>,
}

/// A message between nodes.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(uint64, tag = "5")]
    log_term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    #[prost(message, repeated, tag = "7")]
    entries: Vec<Entry>,
    #[prost(uint64, tag = "8")]
    commit: u64,
    #[prost(uint64, tag = "9")]
    commit_term: u64,
    #[prost(message, optional, tag = "10")]
    ticket: Option<Ticket>,
    #[prost(uint64, tag = "11")]
    request_snapshot: u64,
    #[prost(bool, tag = "12")]
    reject: bool,
    #[prost(uint64, tag = "13")]
    reject_hint: u64,
    #[prost(bytes = "bytes", tag = "14")]
    context: Bytes,
    #[prost(int64, tag = "15")]
    priority: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MembersRecord {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    auto_leave: bool,
    #[prost(btree_map = "uint64, bytes", tag = "6")]
    notes: BTreeMap<u64, Vec<u8>>,
    #[prost(uint64, tag = "7")]
    last_id: u64,
}

/// What travels with a change of members, beside what consensus reads.
#[derive(Clone, PartialEq, prost::Message)]
struct NotesRecord {
    #[prost(btree_map = "uint64, bytes", tag = "1")]
    notes: BTreeMap<u64, Vec<u8>>,
}

/// Where rows that came from another master stand.
#[derive(Clone, PartialEq, prost::Message)]
struct OriginRecord {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(message, optional, tag = "3")]
    members: Option<MembersRecord>,
}

/// The one record beside the entries.
#[derive(Clone, PartialEq, prost::Message)]
struct StateRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
    #[prost(message, optional, tag = "4")]
    members: Option<MembersRecord>,
    #[prost(uint64, tag = "5")]
    members_index: u64,
    #[prost(uint64, tag = "6")]
    cut_index: u64,
    #[prost(uint64, tag = "7")]
    cut_term: u64,
}

/// Numbers equal those that consensus itself parses when it is handed a proposal.
#[derive(Clone, PartialEq, prost::Message)]
struct ChangeRecord {
    #[prost(int32, tag = "1")]
    transition: i32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<SingleRecord>,
    /// A [`NotesRecord`]; consensus hands it through.
    #[prost(bytes = "bytes", tag = "3")]
    context: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SingleRecord {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    node_id: u64,
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("not a message of this protocol")]
    Protobuf(#[from] prost::DecodeError),
    #[error("unknown {what} {number}")]
    Unknown { what: &'static str, number: u32 },
}

/// What the disk must keep beside entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
    pub(crate) members: Members,
    /// Entry that made the members what they are; 0 for the founders.
    pub(crate) members_index: u64,
    /// Last entry that is not in the log any more, and its term.
    pub(crate) cut_index: u64,
    pub(crate) cut_term: u64,
}

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let record = StateRecord {
            term: self.term,
            vote: self.vote,
            commit: self.commit,
            members: Some(members_record(&self.members)),
            members_index: self.members_index,
            cut_index: self.cut_index,
            cut_term: self.cut_term,
        };
        record.encode_to_vec().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        let record = StateRecord::decode(bytes)?;
        Ok(State {
            term: record.term,
            vote: record.vote,
            commit: record.commit,
            members: record.members.map(members).unwrap_or_default(),
            members_index: record.members_index,
            cut_index: record.cut_index,
            cut_term: record.cut_term,
        })
    }
}

/// Who decided an entry: in which term, and as which of the term's proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) term: u64,
    pub(crate) sequence: u64,
}

impl Decision {
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.term.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Decision> {
        let (term, rest) = bytes.split_first_chunk::<8>()?;
        let sequence: [u8; 8] = rest.try_into().ok()?;
        Some(Decision {
            term: u64::from_be_bytes(*term),
            sequence: u64::from_be_bytes(sequence),
        })
    }
}

pub(crate) fn encode_entry(entry: &eraftpb::Entry) -> Bytes {
    entry_record(entry).encode_to_vec().into()
}

/// The data is a slice of `bytes`, not a copy.
pub(crate) fn decode_entry(bytes: Bytes) -> Result<eraftpb::Entry, DecodeError> {
    entry(Entry::decode(bytes)?)
}

fn entry_record(entry: &eraftpb::Entry) -> Entry {
    Entry {
        kind: entry.entry_type as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}

fn entry(record: Entry) -> Result<eraftpb::Entry, DecodeError> {
    let entry_type = match record.kind {
        0 => eraftpb::EntryType::EntryNormal,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        number => {
            let what = "kind of entry";
            return Err(DecodeError::Unknown { what, number });
        }
    };
    Ok(eraftpb::Entry {
        entry_type,
        term: record.term,
        index: record.index,
        data: record.data,
        context: record.context,
        ..eraftpb::Entry::default()
    })
}

pub(crate) fn encode_message(message: &eraftpb::Message) -> Bytes {
    let ticket = message.snapshot.as_ref().map(|it| {
        let metadata = it.get_metadata();
        Ticket {
            index: metadata.index,
            term: metadata.term,
            members: Some(members_record(&ticket_members(it))),
        }
    });
    let record = Message {
        kind: message.msg_type as u32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_record).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        ticket,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.clone(),
        priority: message.priority,
    };
    record.encode_to_vec().into()
}

/// Data of entries are slices of `bytes`, not copies.
pub(crate) fn decode_message(bytes: Bytes) -> Result<eraftpb::Message, DecodeError> {
    let record = Message::decode(bytes)?;
    let entries: Result<Vec<_>, _> = record.entries.into_iter().map(entry).collect();
    let mut message = eraftpb::Message {
        msg_type: message_kind(record.kind)?,
        to: record.to,
        from: record.from,
        term: record.term,
        log_term: record.log_term,
        index: record.index,
        entries: entries?.into(),
        commit: record.commit,
        commit_term: record.commit_term,
        request_snapshot: record.request_snapshot,
        reject: record.reject,
        reject_hint: record.reject_hint,
        context: record.context,
        priority: record.priority,
        ..eraftpb::Message::default()
    };
    if let Some(ticket) = record.ticket {
        let members = ticket.members.map(members).unwrap_or_default();
        message.set_snapshot(snapshot(ticket.index, ticket.term, &members));
    }
    Ok(message)
}

fn message_kind(number: u32) -> Result<eraftpb::MessageType, DecodeError> {
    // The numbers are those of the crate, kept here so that its next release cannot move them.
    use eraftpb::MessageType::*;
    Ok(match number {
        2 => MsgPropose,
        3 => MsgAppend,
        4 => MsgAppendResponse,
        5 => MsgRequestVote,
        6 => MsgRequestVoteResponse,
        7 => MsgSnapshot,
        8 => MsgHeartbeat,
        9 => MsgHeartbeatResponse,
        13 => MsgTransferLeader,
        14 => MsgTimeoutNow,
        15 => MsgReadIndex,
        16 => MsgReadIndexResp,
        17 => MsgRequestPreVote,
        18 => MsgRequestPreVoteResponse,
        // 0, 1, 10, 11 and 12 never leave a node.
        number => {
            let what = "kind of message";
            return Err(DecodeError::Unknown { what, number });
        }
    })
}

pub(crate) fn snapshot(index: u64, term: u64, members: &Members) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(to_conf_state(members));
    // Consensus knows ids alone.
    snapshot.data = members_record(members).encode_to_vec().into();
    snapshot
}

/// The members that a ticket names.
pub(crate) fn ticket_members(snapshot: &eraftpb::Snapshot) -> Members {
    match MembersRecord::decode(snapshot.data.clone()) {
        Ok(record) if !snapshot.data.is_empty() => members(record),
        _ => from_conf_state(snapshot.get_metadata().get_conf_state()),
    }
}

pub(crate) fn encode_origin(origin: &Origin) -> Bytes {
    let record = OriginRecord {
        index: origin.index,
        term: origin.term,
        members: Some(members_record(&origin.members)),
    };
    record.encode_to_vec().into()
}

pub(crate) fn decode_origin(bytes: &[u8]) -> Result<Origin, DecodeError> {
    let record = OriginRecord::decode(bytes)?;
    Ok(Origin {
        index: record.index,
        term: record.term,
        members: record.members.map(members).unwrap_or_default(),
    })
}

fn members_record(members: &Members) -> MembersRecord {
    MembersRecord {
        voters: members.voters.iter().copied().collect(),
        learners: members.learners.iter().copied().collect(),
        voters_outgoing: members.voters_outgoing.iter().copied().collect(),
        learners_next: members.learners_next.iter().copied().collect(),
        auto_leave: members.auto_leave,
        notes: to_notes(&members.notes),
        last_id: members.last_id,
    }
}

fn to_notes(notes: &BTreeMap<u64, Bytes>) -> BTreeMap<u64, Vec<u8>> {
    notes.iter().map(|(id, it)| (*id, it.to_vec())).collect()
}

fn from_notes(notes: BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, Bytes> {
    notes.into_iter().map(|(id, it)| (id, it.into())).collect()
}

fn members(record: MembersRecord) -> Members {
    let mut members = Members {
        voters: record.voters.into_iter().collect(),
        learners: record.learners.into_iter().collect(),
        voters_outgoing: record.voters_outgoing.into_iter().collect(),
        learners_next: record.learners_next.into_iter().collect(),
        auto_leave: record.auto_leave,
        notes: from_notes(record.notes),
        last_id: record.last_id,
    };
    // Records of before it was kept.
    let largest = members.ids().last().copied().unwrap_or_default();
    members.last_id = members.last_id.max(largest);
    members
}

pub(crate) fn to_conf_state(members: &Members) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: members.voters.iter().copied().collect(),
        learners: members.learners.iter().copied().collect(),
        voters_outgoing: members.voters_outgoing.iter().copied().collect(),
        learners_next: members.learners_next.iter().copied().collect(),
        auto_leave: members.auto_leave,
        ..eraftpb::ConfState::default()
    }
}

pub(crate) fn from_conf_state(state: &eraftpb::ConfState) -> Members {
    Members {
        voters: state.voters.iter().copied().collect(),
        learners: state.learners.iter().copied().collect(),
        voters_outgoing: state.voters_outgoing.iter().copied().collect(),
        learners_next: state.learners_next.iter().copied().collect(),
        auto_leave: state.auto_leave,
        ..Members::default()
    }
}

/// The data of a proposal that changes the members.
pub(crate) fn encode_change(changes: &[MemberChange], notes: &BTreeMap<u64, Bytes>) -> Bytes {
    let single = |change: &MemberChange| {
        let (kind, node_id) = match *change {
            MemberChange::AddVoter(id) => (0, id),
            MemberChange::Remove(id) => (1, id),
            MemberChange::AddLearner(id) => (2, id),
        };
        SingleRecord { kind, node_id }
    };
    let record = ChangeRecord {
        // Joint when more than one changes, left without being asked.
        transition: 0,
        changes: changes.iter().map(single).collect(),
        context: match notes.is_empty() {
            true => Bytes::new(),
            false => {
                let notes = to_notes(notes);
                NotesRecord { notes }.encode_to_vec().into()
            }
        },
    };
    record.encode_to_vec().into()
}

/// The change and its notes. No bytes at all are the change that leaves a joint configuration.
pub(crate) fn decode_change(
    bytes: &[u8],
) -> Result<(eraftpb::ConfChangeV2, BTreeMap<u64, Bytes>), DecodeError> {
    let record = ChangeRecord::decode(bytes)?;
    let transition = match record.transition {
        0 => eraftpb::ConfChangeTransition::Auto,
        1 => eraftpb::ConfChangeTransition::Implicit,
        2 => eraftpb::ConfChangeTransition::Explicit,
        number => {
            let (what, number) = ("transition of members", number.cast_unsigned());
            return Err(DecodeError::Unknown { what, number });
        }
    };
    let changes: Result<Vec<_>, _> = record.changes.iter().map(single).collect();
    let notes = from_notes(NotesRecord::decode(record.context)?.notes);
    let change = eraftpb::ConfChangeV2 {
        transition,
        changes: changes?.into(),
        ..eraftpb::ConfChangeV2::default()
    };
    Ok((change, notes))
}

fn single(record: &SingleRecord) -> Result<eraftpb::ConfChangeSingle, DecodeError> {
    let change_type = match record.kind {
        0 => eraftpb::ConfChangeType::AddNode,
        1 => eraftpb::ConfChangeType::RemoveNode,
        2 => eraftpb::ConfChangeType::AddLearnerNode,
        number => {
            let (what, number) = ("change of a member", number.cast_unsigned());
            return Err(DecodeError::Unknown { what, number });
        }
    };
    Ok(eraftpb::ConfChangeSingle {
        change_type,
        node_id: record.node_id,
        ..eraftpb::ConfChangeSingle::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    proptest! {
        #[test]
        fn messages_survive(kind in 2_u32..19, numbers in any::<[u64; 10]>(), reject: bool,
                            context: Vec<u8>, datas in prop::collection::vec(any::<(u64, Vec<u8>)>(), 0..4),
                            with_ticket: bool, voters: Vec<u64>) {
            prop_assume!(!(10..13).contains(&kind));
            let mut message = eraftpb::Message {
                msg_type: message_kind(kind).expect("known"),
                ..eraftpb::Message::default()
            };
            [message.to, message.from, message.term, message.log_term, message.index,
             message.commit, message.commit_term, message.request_snapshot,
             message.reject_hint, _] = numbers;
            message.priority = numbers[9].cast_signed();
            message.reject = reject;
            message.context = text(&context);
            let entries: Vec<_> = datas.iter().map(|(number, data)| {
                eraftpb::Entry {
                    entry_type: match number % 2 {
                        0 => eraftpb::EntryType::EntryConfChangeV2,
                        _ => eraftpb::EntryType::EntryNormal,
                    },
                    term: *number,
                    index: number.wrapping_mul(3),
                    data: text(data),
                    context: Decision { term: *number, sequence: 7 }.encode(),
                    ..eraftpb::Entry::default()
                }
            }).collect();
            message.entries = entries.into();
            if with_ticket {
                let mut members = Members::voters(voters);
                members.notes.insert(3, text(&context));
                message.set_snapshot(snapshot(numbers[0], numbers[1], &members));
            }
            prop_assert_eq!(decode_message(encode_message(&message)).expect("own bytes"), message);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = decode_message(bytes.clone());
            let _ = decode_entry(bytes.clone());
            let _ = decode_change(&bytes);
            let _ = State::decode(&bytes);
        }
    }

    #[test]
    fn local_messages_are_refused() {
        for number in [0, 1, 10, 11, 12, 19, 900] {
            assert!(message_kind(number).is_err(), "{number}");
        }
    }

    #[test]
    fn changes_survive() {
        let changes = [
            MemberChange::AddVoter(1),
            MemberChange::Remove(2),
            MemberChange::AddLearner(3),
        ];
        let notes = BTreeMap::from([(3, text(b"where it is"))]);
        let bytes = encode_change(&changes, &notes);
        let (change, found) = decode_change(&bytes).expect("own bytes");
        let ids: Vec<_> = change.changes.iter().map(|it| it.node_id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(found, notes);
        // Consensus reads the same bytes with a decoder of its own, and must find the same.
        let bytes = encode_change(&changes, &BTreeMap::new());
        assert_eq!(decode_change(&bytes).expect("own bytes").0, change);
        let (leave, _) = decode_change(&[]).expect("leave joint");
        assert!(leave.changes.is_empty());
    }

    #[test]
    fn an_origin_survives_and_old_members_have_a_last_id() {
        let mut members = Members::voters([2, 9]);
        members.notes.insert(9, text(b"note"));
        let origin = Origin {
            index: 7,
            term: 3,
            members,
        };
        let bytes = encode_origin(&origin);
        assert_eq!(decode_origin(&bytes).expect("own bytes"), origin);
        let old = MembersRecord {
            voters: vec![1, 4],
            ..MembersRecord::default()
        };
        assert_eq!(super::members(old).last_id, 4);
    }

    #[test]
    fn state_survives() {
        let state = State {
            term: 1,
            vote: 2,
            commit: 3,
            members: Members::voters([1, 2, 3]),
            members_index: 4,
            cut_index: 5,
            cut_term: 6,
        };
        assert_eq!(State::decode(&state.encode()).expect("own bytes"), state);
    }
}
