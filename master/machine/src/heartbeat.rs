//! What time alone does: heartbeats, pings, time-outs, allocation. Run at the end of
//! every step, so that an input which comes before the tick sees no overdue timer.

use tepui_model::event::Event;

use crate::machine::Machine;

impl Machine {
    /// Everything that is due. HEARTBEATs wait in line with the other events, so that a
    /// leader without a quorum looks as dead as it is.
    pub(crate) fn tick(&mut self) {
        let interval = self.config.heartbeat_interval;
        while let Some(framework_id) = self.frameworks.pop_heartbeat(self.now, interval) {
            self.event(&framework_id, Event::Heartbeat);
        }
        self.ping_agents();
        self.expire_agents();
        self.expire_frameworks();
        self.expire_offers();
        self.expire_leases();
        if self.inverse_offers.expire(self.now) {
            self.make_inverse_offers();
        }
        self.run_allocation();
        self.collect_garbage();
        self.stamp_time();
    }
}
