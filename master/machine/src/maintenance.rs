//! Maintenance of machines: schedules, modes, inverse offers (behaviour section 14).
//! Nothing is enforced but the mode DOWN.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tepui_model::event::Event;
use tepui_model::id::{AgentId, FrameworkId, OfferId};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::offer::agent_url;
use tepui_model::time::WallTime;
use tepui_model::wire;
use tepui_model::wire::machine_info::Mode;

use crate::machine::Machine;
use crate::output::ViewChange;
use crate::unreachable::Leaving;

/// A machine by host name and IP address, as agents of it are recognised.
type MachineKey = (String, String);

impl Machine {
    // ------------------------------------------------------------ what the schedule says

    /// When the machine is scheduled to be unavailable.
    pub(crate) fn unavailability(&self, hostname: &str, ip: &str) -> Option<wire::Unavailability> {
        let schedules = &self.state.maintenance()?.schedules;
        let windows = schedules.iter().flat_map(|schedule| &schedule.windows);
        windows
            .filter(|window| {
                window
                    .machine_ids
                    .iter()
                    .any(|id| is_machine(id, hostname, ip))
            })
            .map(|window| window.unavailability)
            .next()
    }

    /// Agents of DOWN machines are refused.
    pub(crate) fn is_machine_down(&self, hostname: &str, ip: &str) -> bool {
        self.state.maintenance().is_some_and(|maintenance| {
            maintenance.machines.iter().any(|machine| {
                machine.mode == Mode::Down as i32
                    && is_machine(
                        &wire::MachineId {
                            hostname: Some(machine.hostname.clone()),
                            ip: Some(machine.ip.clone()),
                        },
                        hostname,
                        ip,
                    )
            })
        })
    }

    fn modes(&self) -> BTreeMap<MachineKey, Mode> {
        let machines = self
            .state
            .maintenance()
            .map(|it| it.machines.clone())
            .unwrap_or_default();
        machines
            .into_iter()
            .filter_map(|machine| {
                Some((
                    (machine.hostname, machine.ip),
                    Mode::try_from(machine.mode).ok()?,
                ))
            })
            .collect()
    }

    fn agents_of(&self, machines: &BTreeSet<MachineKey>) -> Vec<AgentId> {
        self.agents
            .iter()
            .filter(|(_, link)| {
                machines.iter().any(|(hostname, ip)| {
                    let id = wire::MachineId {
                        hostname: Some(hostname.clone()),
                        ip: Some(ip.clone()),
                    };
                    is_machine(&id, &link.host.hostname, &link.address.ip)
                })
            })
            .map(|(agent_id, _)| agent_id.clone())
            .collect()
    }

    // ------------------------------------------------------------ the operator's calls

    /// POST of a schedule: replaces the whole. New machines drain, missing ones are up
    /// again; a DOWN machine must stay in it.
    pub(crate) fn update_schedule(
        &mut self,
        schedule: wire::maintenance::Schedule,
    ) -> Result<(), String> {
        let scheduled = check_schedule(&schedule)?;
        let before = self.modes();
        for (key, mode) in &before {
            if *mode == Mode::Down && !scheduled.contains(key) {
                return Err(format!(
                    "machine '{}' ({}) is down and must stay in the schedule until it is up",
                    key.0, key.1
                ));
            }
        }
        let machines: BTreeMap<MachineKey, Mode> = scheduled
            .into_iter()
            .map(|key| {
                let mode = before.get(&key).copied().unwrap_or(Mode::Draining);
                (key, mode)
            })
            .collect();
        let mut touched: BTreeSet<MachineKey> = before.into_keys().collect();
        touched.extend(machines.keys().cloned());
        self.set_maintenance(vec![schedule], machines);
        self.maintenance_changed(&touched);
        Ok(())
    }

    /// `/machine/down`: DRAINING machines go DOWN, their agents are removed.
    pub(crate) fn start_maintenance(&mut self, machines: &[wire::MachineId]) -> Result<(), String> {
        let keys = check_machines(machines)?;
        let mut modes = self.modes();
        for key in &keys {
            match modes.get(key) {
                Some(Mode::Draining) => {}
                _ => {
                    return Err(format!(
                        "machine '{}' ({}) is not in DRAINING mode: schedule it first",
                        key.0, key.1
                    ));
                }
            }
        }
        for key in &keys {
            modes.insert(key.clone(), Mode::Down);
        }
        self.set_maintenance(self.schedules(), modes);
        for agent_id in self.agents_of(&keys) {
            self.remove_agent(&agent_id, Leaving::MachineDown);
        }
        Ok(())
    }

    /// `/machine/up`: DOWN machines leave the schedule.
    pub(crate) fn stop_maintenance(&mut self, machines: &[wire::MachineId]) -> Result<(), String> {
        let keys = check_machines(machines)?;
        let mut modes = self.modes();
        for key in &keys {
            if modes.get(key) != Some(&Mode::Down) {
                return Err(format!(
                    "machine '{}' ({}) is not in DOWN mode",
                    key.0, key.1
                ));
            }
        }
        modes.retain(|key, _| !keys.contains(key));
        let mut schedules = self.schedules();
        for schedule in &mut schedules {
            for window in &mut schedule.windows {
                window.machine_ids.retain(|id| !keys.contains(&key_of(id)));
            }
            schedule
                .windows
                .retain(|window| !window.machine_ids.is_empty());
        }
        schedules.retain(|schedule| !schedule.windows.is_empty());
        self.set_maintenance(schedules, modes);
        Ok(())
    }

    fn schedules(&self) -> Vec<wire::maintenance::Schedule> {
        self.state
            .maintenance()
            .map(|it| it.schedules.clone())
            .unwrap_or_default()
    }

    fn set_maintenance(
        &mut self,
        schedules: Vec<wire::maintenance::Schedule>,
        modes: BTreeMap<MachineKey, Mode>,
    ) {
        let machines = modes
            .into_iter()
            .map(|((hostname, ip), mode)| log::Machine {
                hostname,
                ip,
                mode: mode as i32,
            })
            .collect();
        self.log(Kind::SetMaintenance(log::SetMaintenance {
            schedules,
            machines,
        }));
    }

    /// Agents whose machine's schedule changed: offers and inverse offers are made anew.
    fn maintenance_changed(&mut self, machines: &BTreeSet<MachineKey>) {
        for agent_id in self.agents_of(machines) {
            self.rescind_agent(&agent_id);
            self.withdraw_inverse_offers(&agent_id);
            if let Some(link) = self.agents.get(&agent_id) {
                let unavailability = self.unavailability(&link.host.hostname, &link.address.ip);
                self.allocator.set_unavailability(&agent_id, unavailability);
            }
        }
        self.make_inverse_offers();
        self.allocation.trigger(self.now);
    }

    // ------------------------------------------------------------ inverse offers

    /// At birth: agents that were withdrawn before.
    pub(crate) fn recover_withdrawn(&mut self) {
        for (agent_id, row) in self.state.agents() {
            if row.deactivated || row.drain.is_some() {
                let began = row.drain.as_ref().and_then(|it| it.wall_began);
                let since = began.map_or(self.wall, WallTime);
                self.inverse_offers
                    .withdrawn
                    .insert(agent_id.clone(), since.to_wire());
            }
        }
    }

    /// Operators took the agent out of the offers, or drain it, or did so no longer: who uses
    /// something of it is asked for it, as for maintenance that begins now and does not end.
    pub(crate) fn withdrawal_changed(&mut self, agent_id: &AgentId) {
        match self.is_deactivated(agent_id) {
            true => {
                let since = self.wall.to_wire();
                let withdrawn = &mut self.inverse_offers.withdrawn;
                withdrawn.entry(agent_id.clone()).or_insert(since);
            }
            false => {
                if self.inverse_offers.withdrawn.remove(agent_id).is_some() {
                    self.withdraw_inverse_offers(agent_id);
                }
            }
        }
        self.make_inverse_offers();
    }

    /// One inverse offer to each framework that uses or is offered something of an agent
    /// which is to be maintained, or was withdrawn, unless one is out or was just answered.
    pub(crate) fn make_inverse_offers(&mut self) {
        let is_scheduled = self
            .state
            .maintenance()
            .is_some_and(|it| !it.schedules.is_empty());
        if !is_scheduled && self.inverse_offers.withdrawn.is_empty() {
            return;
        }
        let mut scheduled: BTreeMap<AgentId, wire::Unavailability> = BTreeMap::new();
        let agents = &self.agents;
        self.inverse_offers
            .withdrawn
            .retain(|agent_id, _| agents.get(agent_id).is_some());
        for (agent_id, since) in &self.inverse_offers.withdrawn {
            if self.agents.is_attached(agent_id) {
                let unavailability = wire::Unavailability {
                    start: *since,
                    duration: None,
                };
                scheduled.insert(agent_id.clone(), unavailability);
            }
        }
        let agents = self.agents.iter().filter(|_| is_scheduled);
        for (agent_id, link) in agents {
            if link.connection.is_some()
                && let Some(unavailability) =
                    self.unavailability(&link.host.hostname, &link.address.ip)
            {
                scheduled.insert(agent_id.clone(), unavailability);
            }
        }
        let mut events: BTreeMap<FrameworkId, Vec<Arc<wire::InverseOffer>>> = BTreeMap::new();
        for (agent_id, unavailability) in scheduled {
            for framework_id in self.users_of(&agent_id) {
                if !self.frameworks.is_connected(&framework_id)
                    || !self
                        .inverse_offers
                        .may_offer(&agent_id, &framework_id, self.now)
                {
                    continue;
                }
                let offer = self.make_inverse_offer(&agent_id, &framework_id, &unavailability);
                events.entry(framework_id).or_default().push(offer);
            }
        }
        for (framework_id, offers) in events {
            self.event(&framework_id, Event::InverseOffers(offers));
        }
    }

    fn users_of(&self, agent_id: &AgentId) -> BTreeSet<FrameworkId> {
        let mut users = self.offers.holders(agent_id);
        users.extend(
            self.state
                .tasks_of_agent(agent_id)
                .map(|(framework_id, _, _)| framework_id.clone()),
        );
        users.extend(
            self.state
                .executors_of_agent(agent_id)
                .map(|(framework_id, _, _)| framework_id.clone()),
        );
        users
    }

    fn make_inverse_offer(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        unavailability: &wire::Unavailability,
    ) -> Arc<wire::InverseOffer> {
        let number = self.ids.offer_number();
        let url = self
            .agents
            .get(agent_id)
            .map(|link| agent_url(&link.host.hostname, &link.address.ip, link.address.port));
        let offer = Arc::new(wire::InverseOffer {
            id: self.ids.offer_id(number).to_wire(),
            url,
            framework_id: framework_id.to_wire(),
            agent_id: Some(agent_id.to_wire()),
            unavailability: *unavailability,
            resources: Vec::new(),
        });
        self.inverse_offers
            .insert(number, agent_id.clone(), framework_id.clone());
        self.out
            .view
            .push(ViewChange::InverseOfferAdded(offer.clone()));
        offer
    }

    /// ACCEPT_INVERSE_OFFERS and DECLINE_INVERSE_OFFERS: recorded, and offered again
    /// after the filter.
    pub(crate) fn answer_inverse_offers(
        &mut self,
        framework_id: &FrameworkId,
        offer_ids: &[OfferId],
        refuse: Option<Duration>,
        accepted: bool,
    ) {
        for offer_id in offer_ids {
            let Some(number) = self.ids.parse_offer(offer_id.as_str()) else {
                continue;
            };
            let own = self
                .inverse_offers
                .get(number)
                .is_some_and(|(_, owner)| owner == framework_id);
            if !own {
                continue;
            }
            let Some((agent_id, framework_id)) = self.take_inverse_offer(number) else {
                continue;
            };
            if let Some(refuse) = refuse {
                self.inverse_offers.filter(
                    agent_id.clone(),
                    framework_id.clone(),
                    self.now + refuse,
                );
            }
            self.out.view.push(ViewChange::InverseOfferAnswered {
                agent_id,
                framework_id,
                accepted,
            });
        }
    }

    /// The agent's inverse offers are rescinded (RESCIND_INVERSE_OFFER).
    pub(crate) fn withdraw_inverse_offers(&mut self, agent_id: &AgentId) {
        for number in self.inverse_offers.take_agent(agent_id) {
            if let Some((_, framework_id)) = self.take_inverse_offer(number) {
                self.event(
                    &framework_id,
                    Event::RescindInverseOffer(self.ids.offer_id(number)),
                );
            }
        }
    }

    /// The framework's inverse offers and filters are forgotten silently.
    pub(crate) fn take_back_inverse_offers(&mut self, framework_id: &FrameworkId) {
        for number in self.inverse_offers.of_framework(framework_id) {
            self.take_inverse_offer(number);
        }
        self.inverse_offers.drop_filters_of(framework_id);
    }

    fn take_inverse_offer(&mut self, number: u64) -> Option<(AgentId, FrameworkId)> {
        let pair = self.inverse_offers.remove(number)?;
        self.out
            .view
            .push(ViewChange::InverseOfferRemoved(self.ids.offer_id(number)));
        Some(pair)
    }
}

fn key_of(id: &wire::MachineId) -> MachineKey {
    // Host names are compared in lower case.
    (
        id.hostname.as_deref().unwrap_or_default().to_lowercase(),
        id.ip.clone().unwrap_or_default(),
    )
}

fn is_machine(id: &wire::MachineId, hostname: &str, ip: &str) -> bool {
    let (wanted_hostname, wanted_ip) = key_of(id);
    (wanted_hostname.is_empty() || wanted_hostname == hostname.to_lowercase())
        && (wanted_ip.is_empty() || wanted_ip == ip)
        && !(wanted_hostname.is_empty() && wanted_ip.is_empty())
}

fn check_machines(machines: &[wire::MachineId]) -> Result<BTreeSet<MachineKey>, String> {
    if machines.is_empty() {
        return Err("the list of machines is empty".to_owned());
    }
    let mut keys = BTreeSet::new();
    for id in machines {
        let key = check_machine(id)?;
        if !keys.insert(key.clone()) {
            return Err(format!("machine '{}' ({}) is named twice", key.0, key.1));
        }
    }
    Ok(keys)
}

fn check_machine(id: &wire::MachineId) -> Result<MachineKey, String> {
    let key = key_of(id);
    if key.0.is_empty() && key.1.is_empty() {
        return Err("a machine has neither hostname nor ip: at least one is needed".to_owned());
    }
    let is_ipv4 = || {
        let parts: Vec<&str> = key.1.split('.').collect();
        parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    };
    if !key.1.is_empty() && !is_ipv4() {
        return Err(format!("ip '{}' is no IPv4 address", key.1));
    }
    Ok(key)
}

fn check_schedule(schedule: &wire::maintenance::Schedule) -> Result<BTreeSet<MachineKey>, String> {
    let mut keys = BTreeSet::new();
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            return Err("a window of the schedule has no machines".to_owned());
        }
        if window
            .unavailability
            .duration
            .as_ref()
            .is_some_and(|duration| duration.nanoseconds < 0)
        {
            return Err("unavailability.duration is negative".to_owned());
        }
        for id in &window.machine_ids {
            let key = check_machine(id)?;
            if !keys.insert(key.clone()) {
                return Err(format!(
                    "machine '{}' ({}) is scheduled twice",
                    key.0, key.1
                ));
            }
        }
    }
    Ok(keys)
}
