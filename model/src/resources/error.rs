//! Why resources are refused.

/// Why resources of an input are refused. Each text names the resource.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // The texts say what each is; the fields are what they print.
pub enum Error {
    #[error("a resource has an empty name")]
    EmptyName,
    #[error("resource {name:?} is {value}; expected an amount of at least 0")]
    Negative { name: String, value: f64 },
    #[error("resource {name:?} is {value}; expected a finite number")]
    NotFinite { name: String, value: f64 },
    #[error("resource {name:?} is {value:e}; expected at most 1e12")]
    TooLarge { name: String, value: f64 },
    #[error("resource {name:?} has the range {begin}-{end}, which ends before it begins")]
    BackwardRange { name: String, begin: u64, end: u64 },
    #[error("resource {name:?} has more than {} ranges", super::ranges::MAX_RANGES)]
    TooManyRanges { name: String },
    #[error("resource {name:?} has more than {} items", super::value::MAX_ITEMS)]
    TooManyItems { name: String },
    #[error("resource {name:?} has the item {item:?} twice")]
    DuplicateItem { name: String, item: String },
    #[error("resource {name:?} has type {kind}; expected SCALAR, RANGES or SET")]
    Kind { name: String, kind: String },
    #[error("resource {name:?} has type {kind} but not exactly the field {kind:?} for its value")]
    ValueField { name: String, kind: &'static str },
    #[error("resource {name:?}: {source}")]
    Role {
        name: String,
        source: crate::role::Error,
    },
    #[error("resource {name:?}: {field} {fault}")]
    Reservation {
        name: String,
        field: &'static str,
        fault: String,
    },
    #[error("resource {name:?}: {field} {fault}")]
    Disk {
        name: String,
        field: &'static str,
        fault: &'static str,
    },
    #[error("resource {name:?} is shared; only persistent volumes can be shared")]
    Shared { name: String },
    #[error("resource {name:?} is revocable; {fault}")]
    Revocable { name: String, fault: &'static str },
    #[error("more than {max} resources in one list")]
    TooMany { max: usize },
    #[error(
        "cannot read {text:?}: {fault}; expected name(role):value;..., such as cpus:4;ports:[31000-32000]"
    )]
    Text { text: String, fault: &'static str },
    #[error("cannot read {text:?}: {fault}; expected name:value;..., such as rack:r1;cores:8")]
    Attribute { text: String, fault: &'static str },
    #[error("cannot read the JSON array of resources: {0}")]
    Json(String),
    #[error("{missing} is not contained in {available}")]
    NotContained { missing: String, available: String },
    #[error("resource {name:?} has no reservation to remove")]
    Unreserved { name: String },
}
