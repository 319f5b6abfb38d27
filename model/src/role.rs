//! Roles: names of shares, nested by `/`.

use std::{borrow::Borrow, fmt, sync::Arc, sync::LazyLock};

static STAR: LazyLock<Role> = LazyLock::new(|| Role("*".into()));

/// Why a role's name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role {role:?} {fault}")]
pub struct Error {
    /// The name.
    pub role: String,
    /// What is wrong about it, as a predicate.
    pub fault: &'static str,
}

/// A role's name: `*`, or components joined by `/`. Ordered as text, so that a role comes right
/// before or among its descendants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Arc<str>);

impl Role {
    /// The role of everything that is not reserved, and of frameworks that name none.
    pub fn star() -> Role {
        STAR.clone()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared name.
    pub fn as_arc(&self) -> &Arc<str> {
        &self.0
    }

    /// Whether this is `*`.
    pub fn is_star(&self) -> bool {
        &*self.0 == "*"
    }

    /// Checks the name and wraps it.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn new(name: &str) -> Result<Role, Error> {
        validate(name)?;
        Ok(Role(name.into()))
    }

    /// Checks a name that is already wrapped.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        validate(&self.0)
    }

    /// Whether this role lies strictly below `ancestor`: `a/b` below `a`.
    pub fn is_strict_subrole_of(&self, ancestor: &Role) -> bool {
        self.0
            .strip_prefix(&*ancestor.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether this role is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Role) -> bool {
        self == ancestor || self.is_strict_subrole_of(ancestor)
    }

    /// Whether the name has more than one component.
    pub fn is_hierarchical(&self) -> bool {
        self.0.contains('/')
    }

    /// The role around this one.
    pub fn parent(&self) -> Option<Role> {
        self.0.rsplit_once('/').map(|(parent, _)| parent.into())
    }

    /// The outermost role around this one, or itself: quota is kept there.
    pub fn top_level(&self) -> Role {
        match self.0.split_once('/') {
            None => self.clone(),
            Some((top, _)) => top.into(),
        }
    }

    /// The components from the outermost to the innermost.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// All roles around this one, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = Role> {
        std::iter::successors(self.parent(), Role::parent)
    }
}

/// Mesos' rules for a role's name: `*`, or not empty, neither starting nor ending with `/`, no
/// `//`, no component that is `.`, `..`, `*` or starts with `-`, no white space, no 0x7f.
///
/// # Errors
/// The rule that is broken.
pub fn validate(name: &str) -> Result<(), Error> {
    match fault(name) {
        None => Ok(()),
        Some(fault) => Err(Error {
            role: name.to_owned(),
            fault,
        }),
    }
}

fn fault(name: &str) -> Option<&'static str> {
    if name == "*" {
        return None;
    }
    if name.is_empty() {
        return Some("is empty");
    }
    if name.starts_with('/') {
        return Some("starts with '/'");
    }
    if name.ends_with('/') {
        return Some("ends with '/'");
    }
    name.split('/').find_map(|component| match component {
        "" => Some("contains '//'"),
        "." | ".." => Some("has a component '.' or '..'"),
        "*" => Some("has a component '*'"),
        it if it.starts_with('-') => Some("has a component that starts with '-'"),
        it if it.chars().any(unprintable) => {
            Some("contains white space or a control character (0x08 to 0x0d, 0x20, 0x7f)")
        }
        _ => None,
    })
}

fn unprintable(it: char) -> bool {
    matches!(it, '\u{8}'..='\u{d}' | ' ' | '\u{7f}')
}

impl From<&str> for Role {
    fn from(name: &str) -> Role {
        if name == "*" {
            Role::star()
        } else {
            Role(name.into())
        }
    }
}

impl From<String> for Role {
    fn from(name: String) -> Role {
        name.as_str().into()
    }
}

impl Borrow<str> for Role {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Role {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["*", "a", "a/b", "a-b", "a.b", "...", "a/**", "ä"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        let bad = [
            "", "/", "/a", "a/", "a//b", ".", "a/..", "*/a", "a/*", "-a", "a/-b", "a b", "a\tb",
            "a\u{7f}",
        ];
        for bad in bad {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nesting_goes_by_components() {
        let role = |it: &str| Role::from(it);
        assert!(role("a/b").is_strict_subrole_of(&role("a")));
        assert!(!role("ab").is_strict_subrole_of(&role("a")));
        assert!(!role("a").is_strict_subrole_of(&role("a")));
        assert!(role("a").is_within(&role("a")));
        assert_eq!(role("a/b/c").top_level(), role("a"));
        let ancestors: Vec<Role> = role("a/b/c").ancestors().collect();
        assert_eq!(ancestors, [role("a/b"), role("a")]);
    }
}
