//! What the agent shows, from one [`AgentView`](tepui_agent_machine::output::AgentView): the
//! JSON of Mesos' endpoints and the messages of the operator API. No I/O.

pub(crate) mod containers;
pub(crate) mod executors;
pub(crate) mod state;
pub(crate) mod tasks;
pub(crate) mod values;
