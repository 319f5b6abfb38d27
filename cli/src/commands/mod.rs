//! One file a command.

pub(crate) mod agents;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod frameworks;
pub(crate) mod kill;
pub(crate) mod local;
pub(crate) mod logs;
pub(crate) mod master;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod state;
