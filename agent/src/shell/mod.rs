//! What surrounds the machine: its thread, links, containers, sandboxes.

pub(crate) mod agent_loop;
pub(crate) mod clock;
pub(crate) mod containers;
pub(crate) mod detector;
pub(crate) mod estimator;
pub(crate) mod gc;
pub(crate) mod master_links;
pub(crate) mod spec;
pub(crate) mod volumes;
