//! The descriptors of every message, compiled once into tables for the JSON codec and for
//! the check of required fields.

use crate::{FILE_DESCRIPTOR_SET, scan::WireType};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label as ProtoLabel, Type as ProtoType},
};
use std::{collections::HashMap, sync::LazyLock};

/// Position of a message in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(u32);

/// Position of an enum in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumId(u32);

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are protobuf's own")]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

impl Kind {
    /// How one value is written.
    pub(crate) const fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::Fixed32,
            Self::String | Self::Bytes | Self::Message(_) => WireType::Bytes,
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_) => WireType::Varint,
        }
    }
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Once or not at all.
    Optional,
    /// Once, checked when a message is read.
    Required,
    /// Any number of times.
    Repeated,
    /// A map: repeated on the wire, an object in JSON.
    Map,
}

/// An explicit default.
#[derive(Debug, Clone, PartialEq)]
pub enum Default {
    /// Of a floating-point field.
    Double(f64),
    /// Of a signed integer field.
    Signed(i64),
    /// Of an unsigned integer field.
    Unsigned(u64),
    /// Of a bool field.
    Bool(bool),
    /// Of a string field.
    Text(String),
    /// Name of an enum's value.
    Name(String),
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    pub(crate) name: String,
    /// `"name":`
    pub(crate) key: String,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) label: Label,
    pub(crate) default: Option<Default>,
    pub(crate) deprecated: bool,
    pub(crate) packed: bool,
    pub(crate) oneof: Option<u16>,
    /// Position among the required fields of its message.
    pub(crate) required: Option<u8>,
}

impl Field {
    /// Name in the `.proto` file, which is the key in JSON.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number on the wire.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Type of one value.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How often it occurs.
    #[must_use]
    pub fn label(&self) -> Label {
        self.label
    }

    /// The default that the `.proto` file gives.
    #[must_use]
    pub fn default(&self) -> Option<&Default> {
        self.default.as_ref()
    }

    /// Whether the `.proto` file marks it so.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        self.deprecated
    }

    /// Which of its message's oneofs it belongs to.
    #[must_use]
    pub fn oneof(&self) -> Option<u16> {
        self.oneof
    }

    /// The default that JSON shows when the field is unset: deprecated fields show none.
    pub(crate) fn shown_default(&self) -> Option<&Default> {
        self.default.as_ref().filter(|_| !self.deprecated)
    }

    /// Whether the wire may carry it several times without the last replacing the others.
    pub(crate) fn is_repeated(&self) -> bool {
        matches!(self.label, Label::Repeated | Label::Map)
    }
}

/// Field numbers below this are found by index.
const DENSE: u32 = 64;
/// Not a field.
const NONE: u16 = u16::MAX;

/// One message.
#[derive(Debug)]
pub struct Message {
    pub(crate) name: String,
    /// As declared.
    pub(crate) fields: Vec<Field>,
    /// Positions, sorted by name.
    by_name: Vec<u16>,
    /// Positions, sorted by number.
    by_number: Vec<u16>,
    /// Number to position.
    dense: Vec<u16>,
    /// One bit per required field.
    pub(crate) required: u64,
    /// Whether it, or a message that can be inside of it, has a required field.
    pub(crate) checked: bool,
}

impl Message {
    /// Full name, as `mesos.v1.scheduler.Call.Accept`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields as declared.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position_of(name)
            .map(|at| &self.fields[usize::from(at)])
    }

    /// Position of the field of that number.
    pub(crate) fn position(&self, number: u32) -> Option<u16> {
        if number < DENSE {
            return self
                .dense
                .get(number as usize)
                .copied()
                .filter(|at| *at != NONE);
        }
        let number_at = |at: &u16| self.fields[usize::from(*at)].number;
        let found = self.by_number.binary_search_by_key(&number, number_at);
        found.ok().map(|at| self.by_number[at])
    }

    /// Position of the field of that name.
    pub(crate) fn position_of(&self, name: &str) -> Option<u16> {
        let name_at = |at: &u16| self.fields[usize::from(*at)].name.as_str();
        let found = self
            .by_name
            .binary_search_by(|at| name_at(at).cmp(name))
            .ok()?;
        Some(self.by_name[found])
    }

    fn new(name: String, fields: Vec<Field>) -> Self {
        let mut by_name: Vec<u16> = (0..).take(fields.len()).collect();
        let mut by_number = by_name.clone();
        by_name.sort_by_key(|at| &fields[usize::from(*at)].name);
        by_number.sort_by_key(|at| fields[usize::from(*at)].number);
        let small = fields.iter().map(|it| it.number).filter(|it| *it < DENSE);
        let mut dense = vec![NONE; small.max().map_or(0, |it| it as usize + 1)];
        for at in &by_number {
            if let Some(slot) = dense.get_mut(fields[usize::from(*at)].number as usize) {
                *slot = *at;
            }
        }
        let required = fields
            .iter()
            .filter_map(|it| it.required)
            .fold(0, |mask, bit| mask | 1 << bit);
        Self {
            name,
            fields,
            by_name,
            by_number,
            dense,
            required,
            checked: required != 0,
        }
    }
}

/// One enum.
#[derive(Debug)]
pub struct Enum {
    pub(crate) name: String,
    /// As declared.
    values: Vec<(String, i32)>,
    by_name: Vec<u16>,
    by_number: Vec<u16>,
}

impl Enum {
    /// Full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names and numbers as declared.
    #[must_use]
    pub fn values(&self) -> &[(String, i32)] {
        &self.values
    }

    /// Name of a number; of several, the one that is declared first.
    #[must_use]
    pub fn name_of(&self, number: i32) -> Option<&str> {
        let number_at = |at: &u16| self.values[usize::from(*at)].1;
        let found = self.by_number.binary_search_by_key(&number, number_at);
        let at = usize::from(self.by_number[found.ok()?]);
        Some(&self.values[at].0)
    }

    /// Number of a name.
    #[must_use]
    pub fn number_of(&self, name: &str) -> Option<i32> {
        let name_at = |at: &u16| self.values[usize::from(*at)].0.as_str();
        let found = self.by_name.binary_search_by(|at| name_at(at).cmp(name));
        let at = usize::from(self.by_name[found.ok()?]);
        Some(self.values[at].1)
    }

    fn new(name: String, values: Vec<(String, i32)>) -> Self {
        let mut by_name: Vec<u16> = (0..).take(values.len()).collect();
        let mut by_number = by_name.clone();
        by_name.sort_by_key(|at| &values[usize::from(*at)].0);
        by_number.sort_by_key(|at| values[usize::from(*at)].1);
        by_number.dedup_by_key(|at| values[usize::from(*at)].1);
        Self {
            name,
            values,
            by_name,
            by_number,
        }
    }
}

/// Every message and enum of the descriptor set.
#[derive(Debug)]
pub struct Registry {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    names: HashMap<String, MessageId>,
    enum_names: HashMap<String, EnumId>,
}

/// The registry of this build's [`FILE_DESCRIPTOR_SET`], compiled at first use.
///
/// # Panics
/// When the descriptor set that was compiled into this binary contradicts itself, which no
/// input can bring about.
#[must_use]
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        Registry::compile(FILE_DESCRIPTOR_SET).expect("the built-in descriptor set is whole")
    });
    &REGISTRY
}

impl Registry {
    /// The message of that full name.
    #[must_use]
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.names.get(name).map(|id| self.message_at(*id))
    }

    /// The message that a field's [`Kind`] names.
    #[must_use]
    pub fn message_at(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// The enum of that full name.
    #[must_use]
    pub fn enumeration(&self, name: &str) -> Option<&Enum> {
        self.enum_names.get(name).map(|id| self.enum_at(*id))
    }

    /// The enum that a field's [`Kind`] names.
    #[must_use]
    pub fn enum_at(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    /// Every message, sub-messages and the entries of maps included.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Every enum.
    #[must_use]
    pub fn enums(&self) -> &[Enum] {
        &self.enums
    }

    /// `None` when a type is named that is not there or a message has too many required
    /// fields for its mask.
    fn compile(encoded: &[u8]) -> Option<Self> {
        let set = FileDescriptorSet::decode(encoded).ok()?;
        let mut source = Source::default();
        for file in &set.file {
            let syntax = file.syntax();
            let scope = file.package();
            for message in &file.message_type {
                source.add_message(scope, syntax, message);
            }
            for enumeration in &file.enum_type {
                source.add_enum(scope, enumeration);
            }
        }
        let ids = (0..).map(MessageId);
        let names: HashMap<_, _> = (source.messages.iter().map(|it| it.name.clone()))
            .zip(ids)
            .collect();
        let ids = (0..).map(EnumId);
        let enum_names: HashMap<_, _> = (source.enums.iter().map(|it| it.0.clone()))
            .zip(ids)
            .collect();
        let mut messages = Vec::new();
        for message in &source.messages {
            let mut fields = Vec::new();
            let mut required = 0..64;
            for field in &message.descriptor.field {
                let mut field = message.field(field, &names, &enum_names, &source)?;
                if field.label == Label::Required {
                    field.required = Some(required.next()?);
                }
                fields.push(field);
            }
            messages.push(Message::new(message.name.clone(), fields));
        }
        mark_checked(&mut messages);
        let enums = source.enums.into_iter();
        Some(Self {
            messages,
            enums: enums
                .map(|(name, values)| Enum::new(name, values))
                .collect(),
            names,
            enum_names,
        })
    }
}

/// Spreads `checked` from a message to those that can contain it.
fn mark_checked(messages: &mut [Message]) {
    loop {
        let newly: Vec<usize> = (messages.iter().enumerate())
            .filter(|(_, message)| !message.checked)
            .filter(|(_, message)| {
                message.fields.iter().any(|field| match field.kind {
                    Kind::Message(id) => messages[id.0 as usize].checked,
                    _ => false,
                })
            })
            .map(|(at, _)| at)
            .collect();
        if newly.is_empty() {
            return;
        }
        for at in newly {
            messages[at].checked = true;
        }
    }
}

/// The descriptor set, flattened.
#[derive(Default)]
struct Source<'a> {
    messages: Vec<SourceMessage<'a>>,
    enums: Vec<(String, Vec<(String, i32)>)>,
}

struct SourceMessage<'a> {
    name: String,
    descriptor: &'a DescriptorProto,
    proto3: bool,
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

impl<'a> Source<'a> {
    fn add_message(&mut self, scope: &str, syntax: &str, descriptor: &'a DescriptorProto) {
        let name = qualified(scope, descriptor.name());
        for nested in &descriptor.nested_type {
            self.add_message(&name, syntax, nested);
        }
        for nested in &descriptor.enum_type {
            self.add_enum(&name, nested);
        }
        let proto3 = syntax == "proto3";
        self.messages.push(SourceMessage {
            name,
            descriptor,
            proto3,
        });
    }

    fn add_enum(&mut self, scope: &str, descriptor: &EnumDescriptorProto) {
        let values = descriptor.value.iter();
        let values = values.map(|it| (it.name().to_owned(), it.number()));
        let name = qualified(scope, descriptor.name());
        self.enums.push((name, values.collect()));
    }
}

impl SourceMessage<'_> {
    fn field(
        &self,
        field: &FieldDescriptorProto,
        names: &HashMap<String, MessageId>,
        enum_names: &HashMap<String, EnumId>,
        source: &Source<'_>,
    ) -> Option<Field> {
        let type_name = field.type_name().trim_start_matches('.');
        let kind = match field.r#type() {
            ProtoType::Double => Kind::Double,
            ProtoType::Float => Kind::Float,
            ProtoType::Int32 => Kind::Int32,
            ProtoType::Int64 => Kind::Int64,
            ProtoType::Uint32 => Kind::Uint32,
            ProtoType::Uint64 => Kind::Uint64,
            ProtoType::Sint32 => Kind::Sint32,
            ProtoType::Sint64 => Kind::Sint64,
            ProtoType::Fixed32 => Kind::Fixed32,
            ProtoType::Fixed64 => Kind::Fixed64,
            ProtoType::Sfixed32 => Kind::Sfixed32,
            ProtoType::Sfixed64 => Kind::Sfixed64,
            ProtoType::Bool => Kind::Bool,
            ProtoType::String => Kind::String,
            ProtoType::Bytes => Kind::Bytes,
            ProtoType::Enum => Kind::Enum(*enum_names.get(type_name)?),
            ProtoType::Message => Kind::Message(*names.get(type_name)?),
            // No file of ours has one.
            ProtoType::Group => return None,
        };
        let is_map = match kind {
            Kind::Message(id) => {
                let message = source.messages.get(id.0 as usize)?.descriptor;
                message.options.as_ref().is_some_and(|it| it.map_entry())
            }
            _ => false,
        };
        let label = match field.label() {
            ProtoLabel::Repeated if is_map => Label::Map,
            ProtoLabel::Repeated => Label::Repeated,
            ProtoLabel::Required => Label::Required,
            ProtoLabel::Optional => Label::Optional,
        };
        let options = field.options.as_ref();
        let packable = label == Label::Repeated && kind.wire_type() != WireType::Bytes;
        let explicit = options.and_then(|it| it.packed);
        let default = match &field.default_value {
            Some(text) => Some(parse_default(kind, text)?),
            None => None,
        };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        Some(Field {
            name: field.name().to_owned(),
            key: format!("\"{}\":", field.name()),
            number: u32::try_from(field.number()).ok()?,
            kind,
            label,
            default,
            deprecated: options.is_some_and(|it| it.deprecated()),
            packed: packable && explicit.unwrap_or(self.proto3),
            oneof: oneof.and_then(|it| u16::try_from(it).ok()),
            required: None,
        })
    }
}

/// Defaults stand in the descriptor as text. Bytes fields with one do not exist here.
fn parse_default(kind: Kind, text: &str) -> Option<Default> {
    Some(match kind {
        Kind::Double | Kind::Float => Default::Double(text.parse().ok()?),
        Kind::Int32
        | Kind::Int64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Sfixed32
        | Kind::Sfixed64 => Default::Signed(text.parse().ok()?),
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
            Default::Unsigned(text.parse().ok()?)
        }
        Kind::Bool => Default::Bool(text.parse().ok()?),
        Kind::String => Default::Text(text.to_owned()),
        Kind::Enum(_) => Default::Name(text.to_owned()),
        Kind::Bytes | Kind::Message(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number_and_by_name() {
        for message in registry().messages() {
            for (at, field) in message.fields.iter().enumerate() {
                let at = u16::try_from(at).ok();
                assert_eq!(message.position(field.number), at, "{}", message.name);
                assert_eq!(message.position_of(&field.name), at, "{}", message.name);
            }
            for absent in [0, 62, 63, 64, 5_000] {
                if message.fields.iter().all(|it| it.number != absent) {
                    assert_eq!(message.position(absent), None, "{}", message.name);
                }
            }
            assert_eq!(message.position_of("no such field"), None);
        }
    }

    #[test]
    fn values_are_found_by_number_and_by_name() {
        for enumeration in registry().enums() {
            for (name, number) in enumeration.values() {
                assert_eq!(enumeration.number_of(name), Some(*number));
                assert_eq!(enumeration.name_of(*number), Some(name.as_str()));
            }
            assert_eq!(enumeration.number_of("NO_SUCH_VALUE"), None);
            assert_eq!(enumeration.name_of(-7), None);
        }
    }

    #[test]
    fn containers_of_required_fields_are_checked() {
        let checked = |name: &str| registry().message(name).unwrap().checked;
        assert!(checked("mesos.v1.FrameworkID"));
        assert!(checked("mesos.v1.scheduler.Call"));
        assert!(!checked("mesos.v1.Value.Text") || checked("mesos.v1.Value"));
        assert!(!checked("google.protobuf.Duration"));
    }
}
