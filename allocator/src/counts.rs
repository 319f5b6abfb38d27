//! Work in units that do not depend on a clock.

/// What an allocator has done since it was made; see [`crate::Allocator::counts`]. The same calls
/// give the same counts on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cycles begun.
    pub cycles: u64,
    /// Agents visited, once per stage.
    pub agents_visited: u64,
    /// Clients (a framework in a role) that were asked whether they take what an agent has.
    pub clients_asked: u64,
    /// Clients passed by without asking, because they are known to refuse: a bit test each.
    pub clients_skipped: u64,
    /// Clients and roles that were moved to another place among their siblings or found in the
    /// right one: what a pop and a push are for a heap.
    pub moves: u64,
    /// Times that every list of siblings was sorted anew, since the cluster's total changed.
    pub sorts: u64,
    /// Constraints of a client that were evaluated for a class of agents.
    pub evaluations: u64,
    /// Allotments made.
    pub allotments: u64,
    /// Filters that were added.
    pub filters_added: u64,
}
