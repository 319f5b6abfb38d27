//! What the agent oversubscribes: told when it changes, and again to each master that it
//! registers with, which knows of nothing. Kept on no disk: an estimate of an earlier life is
//! worth nothing.

use crate::machine::Machine;
use tepui_model::{Resources, link, link::agent_message};

impl Machine {
    /// The estimator's word, in the place of the one before.
    pub(crate) fn estimated(&mut self, estimate: Resources) {
        if !self.oversubscribed.is_equivalent(&estimate) {
            self.oversubscribed = estimate;
            self.tell_oversubscribed();
        }
    }

    /// Registered with a master: it is told, unless there is nothing to tell.
    pub(crate) fn repeat_oversubscribed(&mut self) {
        if !self.oversubscribed.is_empty() {
            self.tell_oversubscribed();
        }
    }

    fn tell_oversubscribed(&mut self) {
        if let Some(link) = self.registered {
            let resources = self.oversubscribed.to_wire();
            let told = link::Oversubscribed { resources };
            self.send(link, agent_message::Kind::Oversubscribed(told));
        }
    }
}
