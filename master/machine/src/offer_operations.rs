//! RESERVE, UNRESERVE, CREATE, DESTROY, GROW_VOLUME, SHRINK_VOLUME: by a framework on
//! what it was offered, by an operator on what is free (behaviour section 4.2).
//!
//! They are speculative: pool, totals and allocator change at once, the agent is told by
//! a command that carries its totals afterwards. The log owns reservations and volumes.

use core::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tepui_model::framework::{Capability, FrameworkInfo};
use tepui_model::id::{AgentId, FrameworkId};
use tepui_model::log;
use tepui_model::log::operation::Kind;
use tepui_model::operation::{OfferOperation, OperationKind};
use tepui_model::resources::{Conversion, Resources};
use tepui_model::role::Role;
use tepui_model::validation::{self, OperationContext};
use tepui_model::wire;

use crate::accept::Accepting;
use crate::machine::Machine;
use crate::operator::Refused;
use crate::output::Status;

/// Offers that an operator's write took away are not made again for this long.
const OPERATOR_REFUSE: Duration = Duration::from_secs(5);

impl Machine {
    /// One operation of an ACCEPT against its pool.
    pub(crate) fn operate_on_offer(
        &mut self,
        accepting: &mut Accepting,
        operation: &OfferOperation,
    ) -> Result<(), String> {
        let Some(info) = self.framework_infos.get(&accepting.framework_id).cloned() else {
            return Err("the framework is not known".to_owned());
        };
        self.check_operation(
            &accepting.agent_id,
            operation,
            Some((&info, &accepting.role)),
        )?;
        if let OperationKind::Destroy { volumes } = &operation.kind {
            self.rescind_offers_with(&accepting.agent_id, volumes);
        }
        let conversion = operation.conversion().map_err(|error| error.to_string())?;
        let stays = operation.result_stays_in_pool();
        let mut pool = accepting.pool.clone();
        if !pool.try_sub(&conversion.consumed) {
            return Err(format!(
                "{} are not in what is left of the offers: {}",
                conversion.consumed, accepting.pool
            ));
        }
        let total = self.converted_total(&accepting.agent_id, &conversion)?;
        if stays {
            pool.add(&conversion.converted);
        }
        accepting.pool = pool;
        self.agents.set_total(&accepting.agent_id, total);
        self.tell_total(&accepting.agent_id);
        self.allocator.update_allocation(
            &accepting.framework_id,
            &accepting.agent_id,
            &conversion.consumed,
            &conversion.converted,
        );
        let framework_id = accepting.framework_id.clone();
        let role = accepting.role.clone();
        self.commit_operation(&accepting.agent_id, Some((&framework_id, &role)), operation);
        if !stays {
            // It can be used from a later offer on.
            self.recover(
                &framework_id,
                &accepting.agent_id,
                &conversion.converted,
                None,
            );
        }
        Ok(())
    }

    /// An operator's operation: just enough offers are taken back, then it is applied to
    /// what is free; 409 when that is not enough.
    pub(crate) fn operator_operation(
        &mut self,
        agent_id: &AgentId,
        operation: &wire::offer::Operation,
    ) -> Result<(), Refused> {
        let bad = |message: String| Refused::new(Status::BadRequest, message);
        let operation = OfferOperation::from_wire(operation.clone(), None);
        if self.agents.get(agent_id).is_none() {
            return Err(bad(format!("agent_id: no agent '{agent_id}' is admitted")));
        }
        self.check_operation(agent_id, &operation, None)
            .map_err(bad)?;
        let conversion = operation
            .conversion()
            .map_err(|error| bad(error.to_string()))?;
        if let OperationKind::Destroy { volumes } = &operation.kind {
            self.rescind_offers_with(agent_id, volumes);
        }
        // Whether taking every offer back would be enough is known beforehand.
        let mut reachable = self.free_on(agent_id);
        for number in self.offers.of_agent(agent_id) {
            if let Some(offer) = self.offers.get(number) {
                reachable.add(&offer.resources);
            }
        }
        let conflict = || {
            Refused::new(
                Status::Conflict,
                format!("{} are not free on agent '{agent_id}'", conversion.consumed),
            )
        };
        if !reachable.contains(&conversion.consumed) {
            return Err(conflict());
        }
        for number in self.offers.of_agent(agent_id) {
            if self.free_on(agent_id).contains(&conversion.consumed) {
                break;
            }
            self.rescind_filtered(number, Some(OPERATOR_REFUSE));
        }
        let total = self
            .converted_total(agent_id, &conversion)
            .map_err(|_| conflict())?;
        self.agents.set_total(agent_id, total);
        self.tell_total(agent_id);
        self.commit_operation(agent_id, None, &operation);
        self.allocation.trigger(self.now);
        Ok(())
    }

    /// Neither used nor offered.
    pub(crate) fn free_on(&self, agent_id: &AgentId) -> Resources {
        let Some(link) = self.agents.get(agent_id) else {
            return Resources::default();
        };
        let mut taken = self.used_on(agent_id);
        for number in self.offers.of_agent(agent_id) {
            if let Some(offer) = self.offers.get(number) {
                taken.add(&offer.resources);
            }
        }
        link.offerable().difference(&taken)
    }

    fn converted_total(
        &self,
        agent_id: &AgentId,
        conversion: &Conversion,
    ) -> Result<Resources, String> {
        let Some(link) = self.agents.get(agent_id) else {
            return Err(format!("agent '{agent_id}' is not known"));
        };
        let mut total = Resources::clone(&link.total);
        let conversion = Conversion {
            consumed: conversion.consumed.unallocate(),
            converted: conversion.converted.unallocate(),
        };
        total
            .apply(&conversion)
            .map_err(|error| error.to_string())?;
        Ok(total)
    }

    /// Facts and command of an operation that was checked; the table has the new total already.
    fn commit_operation(
        &mut self,
        agent_id: &AgentId,
        origin: Option<(&FrameworkId, &Role)>,
        operation: &OfferOperation,
    ) {
        let uuid = self.ids.uuid().to_string();
        let info_payload = Bytes::from(operation.to_wire().encode_to_vec());
        let link = self.agents.get(agent_id);
        let wire_total = link.map(|it| it.total.to_wire()).unwrap_or_default();
        self.log(Kind::SetAgentResources(log::SetAgentResources {
            agent_id: agent_id.as_str().to_owned(),
            total: wire_total.clone(),
        }));
        let framework_id = origin
            .map(|(framework_id, _)| framework_id.as_str().to_owned())
            .unwrap_or_default();
        if let (Some((framework_id, role)), Some(id)) = (origin, &operation.id) {
            self.put_operation(
                &uuid,
                framework_id,
                agent_id,
                id.as_str(),
                info_payload.clone(),
                role.as_str(),
            );
        }
        self.order(
            agent_id,
            log::command::Kind::ApplyOperation(log::ApplyOperation {
                uuid,
                framework_id,
                info_payload,
                total: wire_total,
                operation_id: operation
                    .id
                    .as_ref()
                    .map(|id| id.as_str().to_owned())
                    .unwrap_or_default(),
            }),
        );
    }

    /// DESTROY: other offers that hold the volume are rescinded first.
    fn rescind_offers_with(&mut self, agent_id: &AgentId, volumes: &Resources) {
        let volumes = volumes.unallocate();
        for number in self.offers.of_agent(agent_id) {
            let holds = self.offers.get(number).is_some_and(|offer| {
                let resources = &offer.resources;
                volumes
                    .iter()
                    .any(|volume| resources.contains_resource(volume))
            });
            if holds {
                self.rescind(number);
            }
        }
    }

    // ------------------------------------------------------------ checks

    /// What needs no table is said by the model; here follow CSI, and volumes in use.
    /// `framework` is whose offer of which role it is; none for an operator.
    fn check_operation(
        &self,
        agent_id: &AgentId,
        operation: &OfferOperation,
        framework: Option<(&FrameworkInfo, &Role)>,
    ) -> Result<(), String> {
        let Some(link) = self.agents.get(agent_id) else {
            return Err(format!("agent '{agent_id}' is not admitted"));
        };
        let context = OperationContext {
            principal: framework.and_then(|(info, _)| info.principal.as_ref()),
            roles: framework.map(|(info, _)| &info.roles),
            allocation_role: framework.map(|(_, role)| role),
            shared_resources: framework
                .is_none_or(|(info, _)| info.is(Capability::SharedResources)),
            agent_capabilities: link.capabilities.mesos,
            agent_total: &link.total,
        };
        validation::operation_id(operation, context.agent_capabilities)
            .map_err(|rejection| rejection.message)?;
        validation::operation(operation, &context)?;
        match &operation.kind {
            OperationKind::Destroy { volumes } => {
                match self.is_volume_used(agent_id, &volumes.unallocate()) {
                    Some(user) => Err(format!("{volumes} are in use by framework '{user}'")),
                    None => Ok(()),
                }
            }
            OperationKind::CreateDisk { .. } | OperationKind::DestroyDisk { .. } => Err(format!(
                "{}: disks of resource providers (CSI) are not supported yet",
                operation.kind.kind().as_str_name()
            )),
            OperationKind::Launch { .. } | OperationKind::LaunchGroup { .. } => {
                Err("tasks are launched by ACCEPT alone".to_owned())
            }
            OperationKind::Reserve { .. }
            | OperationKind::Unreserve { .. }
            | OperationKind::Create { .. }
            | OperationKind::GrowVolume { .. }
            | OperationKind::ShrinkVolume { .. }
            | OperationKind::Invalid { .. } => Ok(()),
        }
    }
}
