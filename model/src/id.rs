//! Identifiers: cheap to clone, ordered, and checked by Mesos' rules where clients choose them.
//!
//! A newtype says which kind of id a string is; making one never fails, because ids also come
//! from the log and from other masters. Ids chosen by clients pass [`validate`] (or
//! [`validate_container`]) first.

use crate::wire;
use bytes::Bytes;
use std::{borrow::Borrow, fmt, sync::Arc};

pub use crate::role::Role;

/// Why an id chosen by a client is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No characters at all.
    #[error("{field} is empty; expected 1 to {max} bytes")]
    Empty {
        /// The field that holds the id.
        field: &'static str,
        /// The longest length allowed, in bytes.
        max: usize,
    },
    /// More bytes than a file name can have.
    #[error("{field} has {length} bytes; expected at most {max}")]
    TooLong {
        /// The field that holds the id.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest length allowed, in bytes.
        max: usize,
    },
    /// `.` or `..`, which would leave the sandbox' directory.
    #[error("{field} is {value:?}, which is not allowed as an id")]
    Dots {
        /// The field that holds the id.
        field: &'static str,
        /// The id.
        value: String,
    },
    /// A control character, a separator, or another character that is not allowed.
    #[error("{field} {value:?} contains {character:?}, which is not allowed in an id")]
    Character {
        /// The field that holds the id.
        field: &'static str,
        /// The id.
        value: String,
        /// The first character at fault.
        character: char,
    },
}

/// Longest id a client may choose, in bytes (a file name's limit).
pub const MAX_ID_BYTES: usize = 255;
/// Longest container id a client may choose, in bytes (room for a suffix of a file name).
pub const MAX_CONTAINER_ID_BYTES: usize = 242;

/// Checks an id that a client chose (task, executor, framework, persistence id): 1 to 255 bytes,
/// not `.` or `..`, no control characters, no `/`, no `\`.
///
/// # Errors
/// The rule that is broken, naming `field`.
pub fn validate(field: &'static str, value: &str) -> Result<(), Error> {
    check(field, value, MAX_ID_BYTES, |it| {
        it.is_ascii_control() || it == '/' || it == '\\'
    })
}

/// Checks one component of a container id that a client chose: as [`validate`], at most 242
/// bytes, and neither `.` nor a space (the text form of a nested id joins its parts with `.`).
///
/// # Errors
/// The rule that is broken, naming `field`.
pub fn validate_container(field: &'static str, value: &str) -> Result<(), Error> {
    check(field, value, MAX_CONTAINER_ID_BYTES, |it| {
        it.is_ascii_control() || matches!(it, '/' | '\\' | '.' | ' ')
    })
}

fn check(
    field: &'static str,
    value: &str,
    max: usize,
    refused: fn(char) -> bool,
) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::Empty { field, max });
    }
    if value.len() > max {
        let length = value.len();
        return Err(Error::TooLong { field, length, max });
    }
    if value == "." || value == ".." {
        let value = value.to_owned();
        return Err(Error::Dots { field, value });
    }
    match value.chars().find(|it| refused(*it)) {
        None => Ok(()),
        Some(character) => Err(Error::Character {
            field,
            value: value.to_owned(),
            character,
        }),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $(=> $wire:ident)?;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            /// As texts; who looks for an id that a table shares need not compare it.
            fn cmp(&self, other: &$name) -> core::cmp::Ordering {
                match Arc::ptr_eq(&self.0, &other.0) {
                    true => core::cmp::Ordering::Equal,
                    false => self.0.cmp(&other.0),
                }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &$name) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, for keeping without a copy.
            pub fn as_arc(&self) -> &Arc<str> {
                &self.0
            }

            $(
                /// The message of the wire.
                pub fn to_wire(&self) -> wire::$wire {
                    wire::$wire { value: self.0.as_ref().to_owned() }
                }

                /// From the message of the wire, unchecked.
                pub fn from_wire(id: &wire::$wire) -> $name {
                    $name(id.value.as_str().into())
                }
            )?
        }

        impl From<&str> for $name {
            fn from(value: &str) -> $name {
                $name(value.into())
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> $name {
                $name(value.into())
            }
        }

        impl From<Arc<str>> for $name {
            fn from(value: Arc<str>) -> $name {
                $name(value)
            }
        }

        $(
            impl From<wire::$wire> for $name {
                fn from(id: wire::$wire) -> $name {
                    $name(id.value.into())
                }
            }

            impl From<&wire::$wire> for $name {
                fn from(id: &wire::$wire) -> $name {
                    $name::from_wire(id)
                }
            }
        )?

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )* };
}

ids! {
    /// A master's term of office, made anew at each birth.
    MasterId;
    /// A framework: `<master id>-NNNN`.
    FrameworkId => FrameworkId;
    /// An agent: `<master id>-S<n>`.
    AgentId => AgentId;
    /// An offer or inverse offer: `<master id>-O<n>`.
    OfferId => OfferId;
    /// A task, chosen by its framework.
    TaskId => TaskId;
    /// An executor, chosen by its framework.
    ExecutorId => ExecutorId;
    /// An operation that wants feedback, chosen by its framework.
    OperationId => OperationId;
    /// A resource provider on an agent.
    ResourceProviderId => ResourceProviderId;
    /// A persistent volume, unique per role on an agent.
    PersistenceId;
    /// Who an authenticated connection speaks for.
    Principal;
}

/// A container, by itself or nested in another.
///
/// The text form joins the components from the outermost to the innermost with `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId {
    /// This container's own component.
    pub value: Arc<str>,
    /// The container around it.
    pub parent: Option<Arc<ContainerId>>,
}

/// Deepest nesting read from the wire; deeper ids are cut off from outside, since Mesos itself
/// refuses nesting far below this.
const MAX_CONTAINER_DEPTH: usize = 32;

impl ContainerId {
    /// A container without a parent.
    pub fn root(value: impl Into<Arc<str>>) -> ContainerId {
        ContainerId {
            value: value.into(),
            parent: None,
        }
    }

    /// A container inside this one.
    pub fn child(&self, value: impl Into<Arc<str>>) -> ContainerId {
        ContainerId {
            value: value.into(),
            parent: Some(Arc::new(self.clone())),
        }
    }

    /// The outermost container.
    pub fn outermost(&self) -> &ContainerId {
        let mut it = self;
        while let Some(parent) = &it.parent {
            it = parent;
        }
        it
    }

    /// How many containers are around this one.
    pub fn depth(&self) -> usize {
        std::iter::successors(self.parent.as_deref(), |it| it.parent.as_deref()).count()
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::ContainerId {
        wire::ContainerId {
            value: self.value.as_ref().to_owned(),
            parent: self.parent.as_ref().map(|it| Box::new(it.to_wire())),
        }
    }

    /// From the message of the wire, unchecked.
    pub fn from_wire(id: &wire::ContainerId) -> ContainerId {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(it) = next
            && chain.len() < MAX_CONTAINER_DEPTH
        {
            chain.push(it.value.as_str());
            next = it.parent.as_deref();
        }
        let mut id: Option<ContainerId> = None;
        for value in chain.into_iter().rev() {
            id = Some(ContainerId {
                value: value.into(),
                parent: id.map(Arc::new),
            });
        }
        // The chain holds at least the id itself.
        id.unwrap_or_else(|| ContainerId::root(""))
    }

    /// Checks every component by [`validate_container`].
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn validate(&self, field: &'static str) -> Result<(), Error> {
        let mut next = Some(self);
        while let Some(it) = next {
            validate_container(field, &it.value)?;
            next = it.parent.as_deref();
        }
        Ok(())
    }
}

impl From<&str> for ContainerId {
    fn from(value: &str) -> ContainerId {
        ContainerId::root(value)
    }
}

impl From<String> for ContainerId {
    fn from(value: String) -> ContainerId {
        ContainerId::root(value)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(&self.value)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Sixteen bytes that name a status update, an operation, a stream or a container.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// From raw bytes; `None` unless there are exactly sixteen.
    pub fn from_slice(bytes: &[u8]) -> Option<Uuid> {
        bytes.try_into().ok().map(Uuid)
    }

    /// A version 4 uuid made of the given 128 bits (from a seeded hash, or the shell's randomness).
    pub fn from_random_bits(bits: u128) -> Uuid {
        let mut bytes = bits.to_be_bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// From the text form with hyphens, in either case.
    pub fn parse(text: &str) -> Option<Uuid> {
        let text = text.as_bytes();
        if text.len() != 36 || [8, 13, 18, 23].iter().any(|it| text[*it] != b'-') {
            return None;
        }
        let mut digits = text.iter().filter(|it| **it != b'-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let mut digit = || char::from(*digits.next()?).to_digit(16);
            *byte = u8::try_from(digit()? * 16 + digit()?).ok()?;
        }
        match digits.next() {
            None => Some(Uuid(bytes)),
            Some(_) => None,
        }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The raw bytes as a field of a message.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The message of the wire.
    pub fn to_wire(&self) -> wire::Uuid {
        wire::Uuid {
            value: self.to_bytes(),
        }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_file_names() {
        for good in ["a", "task 1", "ä", "a.b", "...", &"x".repeat(255)] {
            assert_eq!(validate("task_id", good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "\u{7f}",
            &"x".repeat(256),
        ] {
            assert!(validate("task_id", bad).is_err(), "{bad:?}");
        }
        let text = validate("task_id", "a/b").unwrap_err().to_string();
        assert!(text.contains("task_id") && text.contains("'/'"), "{text}");
    }

    #[test]
    fn container_ids_have_neither_dots_nor_spaces() {
        let outer = ContainerId::root("outer");
        assert!(outer.child("inner").validate("container_id").is_ok());
        for bad in ["a.b", "a b", "", &"x".repeat(243)] {
            assert!(
                outer.child(bad).validate("container_id").is_err(),
                "{bad:?}"
            );
            let nested = ContainerId::root(bad).child("inner");
            assert!(nested.validate("container_id").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nested_container_ids_keep_their_order() {
        let id = ContainerId::root("a").child("b").child("c");
        assert_eq!(id.to_string(), "a.b.c");
        assert_eq!(id.outermost().to_string(), "a");
        assert_eq!(id.depth(), 2);
        assert_eq!(ContainerId::from_wire(&id.to_wire()), id);
    }

    #[test]
    fn uuids_print_and_parse() {
        let uuid = Uuid::from_random_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let text = uuid.to_string();
        assert_eq!(text, "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(Uuid::parse(&text), Some(uuid));
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(uuid));
        assert_eq!(Uuid::from_slice(&uuid.to_bytes()), Some(uuid));
        assert_eq!(Uuid::from_slice(&[0; 15]), None);
        for bad in [
            "",
            "0123",
            &text.replace('-', "0"),
            &text.replace('0', "-"),
            "é",
        ] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }
}
