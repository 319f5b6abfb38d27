//! The v0 read endpoints: `/state` and its parts, key by key as Mesos has them.
//!
//! Each file writes one kind of object; [`state`] puts them together. Everything here is a
//! function of a [`View`](crate::view::View) and of who the master is.

pub(crate) mod agents;
pub(crate) mod frameworks;
pub(crate) mod json;
pub(crate) mod maintenance;
pub(crate) mod operations;
pub(crate) mod resources;
pub(crate) mod roles;
pub(crate) mod state;
pub(crate) mod tasks;
pub(crate) mod v1;
