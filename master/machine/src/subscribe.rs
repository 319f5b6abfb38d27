//! SUBSCRIBE and UPDATE_FRAMEWORK (behaviour section 2.2): a new framework, a
//! reconnection, or a failover that takes the stream over. A refusal is one ERROR event
//! on the stream (after the 200), then its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tepui_model::call::Subscribe;
use tepui_model::event::Event;
use tepui_model::framework::FrameworkInfo;
use tepui_model::id::{FrameworkId, Principal};
use tepui_model::link;
use tepui_model::link::master_message::Kind as ToAgent;
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::offer::FrameworkFormat;
use tepui_model::role::Role;
use tepui_model::wire;

use crate::counters::Counter;
use crate::frameworks::Session;
use crate::input::{ConnectionId, SubscribeInput};
use crate::machine::Machine;
use crate::output::{Destination, Message, Needs, Outgoing, Status, ViewChange};

impl Machine {
    pub(crate) fn subscribe(&mut self, input: SubscribeInput) {
        let connection = input.connection;
        if let Err(message) = self.try_subscribe(input) {
            // The subscription that this connection may have had is not touched.
            self.out.send.push(Outgoing {
                to: Destination::Scheduler(connection),
                message: Message::Event {
                    event: Arc::new(Event::Error(message.clone())),
                    format: FrameworkFormat {
                        multi_role: true,
                        refinement: true,
                    },
                },
                needs: Needs::Leadership,
            });
            self.close(
                Destination::Scheduler(connection),
                Status::BadRequest,
                &message,
            );
        }
    }

    fn try_subscribe(&mut self, input: SubscribeInput) -> Result<(), String> {
        if self.frameworks.of_connection(input.connection).is_some() {
            return Err("this stream is subscribed already".to_owned());
        }
        let subscribe = input.subscribe;
        subscribe
            .check_principal(input.principal.as_ref())
            .map_err(|invalid| invalid.message)?;
        let mut info = subscribe.framework_info;
        if let (None, Some(principal)) = (&info.principal, &input.principal) {
            info = info.with_principal(principal);
        }
        let suppressed = subscribe.suppressed_roles;
        self.check_framework(&info, &suppressed, subscribe.offer_constraints.as_deref())?;
        let constraints = subscribe.offer_constraints_payload;
        let session = Session {
            connection: input.connection,
            stream_id: input.stream_id,
            transport: input.transport,
            format: FrameworkFormat::of(&info),
        };
        let known = info
            .id
            .clone()
            .filter(|id| self.state.framework(id).is_some());
        match known {
            Some(framework_id) => {
                self.resubscribe(&framework_id, info, &suppressed, constraints, session)?
            }
            None => self.subscribe_new(info, &suppressed, constraints, session),
        }
        Ok(())
    }

    /// What is wrong about a framework's description, for SUBSCRIBE and UPDATE_FRAMEWORK.
    fn check_framework(
        &self,
        info: &FrameworkInfo,
        suppressed: &[Role],
        constraints: Option<&wire::scheduler::OfferConstraints>,
    ) -> Result<(), String> {
        info.validate().map_err(|error| error.to_string())?;
        if let Some(allowed) = &self.config.roles
            && let Some(role) = info
                .roles
                .iter()
                .find(|role| !role.is_star() && !allowed.contains(role.as_str()))
        {
            return Err(format!(
                "framework_info.roles: '{role}' is not in the master's --roles"
            ));
        }
        if info.user == "root" && !self.config.root_submissions {
            return Err("framework_info.user is 'root', and --root_submissions is off".to_owned());
        }
        if let Some(id) = &info.id
            && self.state.framework(id).is_some_and(|row| row.completed)
        {
            return Err("Framework has been removed".to_owned());
        }
        info.validate_suppressed(suppressed)
            .map_err(|error| error.to_string())?;
        if let Some(constraints) = constraints {
            info.validate_constraints(constraints)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn subscribe_new(
        &mut self,
        info: FrameworkInfo,
        suppressed: &[Role],
        constraints: Bytes,
        session: Session,
    ) {
        self.counters.add(Counter::MessagesRegisterFramework);
        // An id that this cluster does not know is taken as it is (section 2.2).
        let framework_id = match info.id.clone() {
            Some(id) => id,
            None => self.unused_framework_id(),
        };
        let info = info.with_id(&framework_id);
        self.log(Kind::PutFramework(log::PutFramework {
            framework: Some(log::Framework {
                framework_id: framework_id.as_str().to_owned(),
                info_payload: info.payload.clone(),
                suppressed_roles: names(suppressed),
                wall_registered: self.wall.as_secs(),
                offer_constraints_payload: constraints,
                principal: info
                    .principal
                    .as_ref()
                    .map(|it| it.as_str().to_owned())
                    .unwrap_or_default(),
                ..log::Framework::default()
            }),
        }));
        self.framework_infos
            .insert(framework_id.clone(), Arc::new(info));
        let spec = self.framework_spec(&framework_id, false);
        self.allocator.add_framework(&framework_id, spec);
        self.open_session(&framework_id, session);
    }

    /// Somebody may have come with an id that this term would make next.
    fn unused_framework_id(&mut self) -> FrameworkId {
        loop {
            let id = self.ids.framework();
            if self.state.framework(&id).is_none() {
                return id;
            }
        }
    }

    fn resubscribe(
        &mut self,
        framework_id: &FrameworkId,
        info: FrameworkInfo,
        suppressed: &[Role],
        constraints: Bytes,
        session: Session,
    ) -> Result<(), String> {
        let known = self.framework_infos.get(framework_id).cloned();
        let info = match &known {
            Some(known) => {
                // Strictly only by UPDATE_FRAMEWORK: here user and checkpoint stay silently.
                known
                    .validate_update(&info, false)
                    .map_err(|error| error.to_string())?;
                known.updated(&info).with_id(framework_id)
            }
            None => info,
        };
        self.counters.add(Counter::MessagesReregisterFramework);
        // On failover the offers come back silently: the allocator makes new ones.
        self.take_back_offers(framework_id);
        self.take_back_inverse_offers(framework_id);
        if let Some(before) = self.frameworks.close(framework_id) {
            self.out.send.push(Outgoing {
                to: Destination::Scheduler(before.connection),
                message: Message::Event {
                    event: Arc::new(Event::Error("Framework failed over".to_owned())),
                    format: before.format,
                },
                needs: Needs::Committed,
            });
            self.close(
                Destination::Scheduler(before.connection),
                Status::Conflict,
                "Framework failed over",
            );
            self.allocator.deactivate_framework(framework_id);
        }
        self.change_framework(framework_id, info, suppressed, constraints);
        self.log(Kind::FrameworkConnected(log::FrameworkConnected {
            framework_id: framework_id.as_str().to_owned(),
            wall_time: self.wall.as_secs(),
        }));
        self.open_session(framework_id, session);
        // Agents send at once what was not acknowledged, instead of after their back-off.
        self.tell_agents(framework_id);
        Ok(())
    }

    /// Replaces the framework's description, in the log, the allocator and at the agents.
    fn change_framework(
        &mut self,
        framework_id: &FrameworkId,
        info: FrameworkInfo,
        suppressed: &[Role],
        constraints: Bytes,
    ) {
        let Some(row) = self.state.framework(framework_id).cloned() else {
            return;
        };
        let lost: BTreeSet<Role> = match self.framework_infos.get(framework_id) {
            Some(known) => known.roles.difference(&info.roles).cloned().collect(),
            None => BTreeSet::new(),
        };
        let suppressed_roles = names(suppressed);
        let changed = row.info_payload != info.payload
            || row.suppressed_roles != suppressed_roles
            || row.offer_constraints_payload != constraints;
        if changed {
            let mut row = log::Framework::clone(&row);
            row.info_payload = info.payload.clone();
            row.suppressed_roles = suppressed_roles;
            row.offer_constraints_payload = constraints;
            self.log(Kind::PutFramework(log::PutFramework {
                framework: Some(row),
            }));
        }
        self.framework_infos
            .insert(framework_id.clone(), Arc::new(info));
        // Offers for roles that were left are rescinded; tasks run on.
        for number in self.offers.of_framework(framework_id) {
            if self
                .offers
                .get(number)
                .is_some_and(|offer| lost.contains(&offer.role))
            {
                self.rescind(number);
            }
        }
        let active = self.frameworks.is_connected(framework_id);
        let spec = self.framework_spec(framework_id, active);
        self.allocator.update_framework(framework_id, spec);
    }

    fn tell_agents(&mut self, framework_id: &FrameworkId) {
        let Some(info) = self.framework_infos.get(framework_id).cloned() else {
            return;
        };
        // Those that run something of it: the others get it with their first task.
        let agents: BTreeSet<String> = self
            .state
            .tasks_of_framework(framework_id)
            .map(|(_, task)| task.agent_id.clone())
            .chain(
                self.state
                    .executors_of_framework(framework_id)
                    .map(|it| it.agent_id.clone()),
            )
            .collect();
        for agent_id in agents {
            self.send_agent(
                &agent_id.into(),
                ToAgent::UpdateFramework(link::UpdateFramework {
                    framework_id: framework_id.as_str().to_owned(),
                    framework_info_payload: info.payload.clone(),
                }),
            );
        }
    }

    fn open_session(&mut self, framework_id: &FrameworkId, session: Session) {
        self.bind_session(framework_id, session);
        let subscribed = Event::Subscribed {
            framework_id: framework_id.clone(),
            heartbeat_interval_seconds: self.config.heartbeat_interval.as_secs_f64(),
            master_info: self.master_info.clone(),
        };
        self.event(framework_id, subscribed);
        self.event(framework_id, Event::Heartbeat);
    }

    /// The framework is connected and wants offers.
    pub(crate) fn bind_session(&mut self, framework_id: &FrameworkId, session: Session) {
        let transport = session.transport;
        let interval = self.config.heartbeat_interval;
        let before = self
            .frameworks
            .open(framework_id, session, self.now, interval);
        debug_assert!(before.is_none(), "an older session was not closed");
        self.out.view.push(ViewChange::Framework {
            framework_id: framework_id.clone(),
            connected: true,
            active: true,
            transport: Some(transport),
        });
        // Nothing waits on a new connection.
        self.allocator.resume_framework(framework_id);
        self.allocator.activate_framework(framework_id);
        self.allocation.trigger(self.now);
    }

    /// Offers to a framework that does not read would only add to what waits for it.
    pub(crate) fn set_scheduler_pace(&mut self, connection: ConnectionId, behind: bool) {
        let Some(framework_id) = self.frameworks.of_connection(connection).cloned() else {
            return;
        };
        if behind {
            self.allocator.pause_framework(&framework_id);
        } else {
            self.allocator.resume_framework(&framework_id);
            self.allocation.trigger(self.now);
        }
    }

    /// UPDATE_FRAMEWORK: synchronous, 200 when durable. Stricter than a subscription:
    /// `user` and `checkpoint` may not change either.
    pub(crate) fn update_framework(
        &mut self,
        framework_id: &FrameworkId,
        principal: Option<&Principal>,
        update: Subscribe,
    ) -> Result<(), String> {
        let Some(known) = self.framework_infos.get(framework_id).cloned() else {
            return Err(format!("framework '{framework_id}' is not known"));
        };
        update
            .check_principal(principal)
            .map_err(|invalid| invalid.message)?;
        let mut info = update.framework_info;
        if let (None, Some(principal)) = (&info.principal, &known.principal) {
            info = info.with_principal(principal);
        }
        let suppressed = update.suppressed_roles;
        self.check_framework(&info, &suppressed, update.offer_constraints.as_deref())?;
        known
            .validate_update(&info, true)
            .map_err(|error| error.to_string())?;
        let info = info.with_id(framework_id);
        self.frameworks
            .set_format(framework_id, FrameworkFormat::of(&info));
        let changed = known.payload != info.payload;
        self.change_framework(
            framework_id,
            info,
            &suppressed,
            update.offer_constraints_payload,
        );
        if changed {
            self.tell_agents(framework_id);
        }
        self.allocation.trigger(self.now);
        Ok(())
    }

    // ------------------------------------------------------------ SUPPRESS and REVIVE

    /// SUPPRESS and REVIVE: `roles` empty = all. A role that is not the framework's makes
    /// the whole call do nothing.
    pub(crate) fn set_suppressed(
        &mut self,
        framework_id: &FrameworkId,
        roles: &[Role],
        suppress: bool,
    ) {
        let Some(info) = self.framework_infos.get(framework_id).cloned() else {
            return;
        };
        if roles.iter().any(|role| !info.roles.contains(role)) {
            return;
        }
        let roles: Vec<Role> = if roles.is_empty() {
            info.roles.iter().cloned().collect()
        } else {
            roles.to_vec()
        };
        let Some(row) = self.state.framework(framework_id) else {
            return;
        };
        let before = &row.suppressed_roles;
        let mut after: BTreeSet<String> = before.iter().cloned().collect();
        for role in &roles {
            if suppress {
                after.insert(role.as_str().to_owned());
            } else {
                after.remove(role.as_str());
            }
        }
        let after: Vec<String> = after.into_iter().collect();
        if *before != after {
            self.log(Kind::SetSuppressed(log::SetSuppressed {
                framework_id: framework_id.as_str().to_owned(),
                suppressed_roles: after,
            }));
        }
        if suppress {
            self.counters.add(Counter::MessagesSuppressOffers);
            self.allocator.suppress(framework_id, &roles);
        } else {
            self.counters.add(Counter::MessagesReviveOffers);
            self.allocator.revive(framework_id, &roles);
            self.inverse_offers.drop_filters_of(framework_id);
            self.allocation.trigger(self.now);
        }
    }
}

// Sorted and each once, so that equal sets are equal rows.
fn names(roles: &[Role]) -> Vec<String> {
    let names: BTreeSet<&str> = roles.iter().map(Role::as_str).collect();
    names.into_iter().map(str::to_owned).collect()
}
