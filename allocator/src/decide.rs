//! What one client is given of one agent, and if nothing, why.
//!
//! Cycles and explanations ask the same function. It reads and changes nothing but the [`Lot`],
//! and tells its reasons to a [`Report`], which is nobody in a cycle and costs nothing then.

use crate::{
    agents::Agent, allocator::Allocator, amounts::Amounts, explain::Reason, frameworks::Sees, quota,
};
use std::{collections::BTreeMap, sync::Arc};
use tepui_model::{Quantities, Resource, Resources, Role, Scalar, agent::Capability as AgentCan};

/// Lists of resources longer than this are not gone through once per client.
pub(crate) const LONG: usize = 48;

/// Who hears the reasons.
pub(crate) trait Report {
    fn because(&mut self, reason: impl FnOnce() -> Reason);
}

/// Nobody.
pub(crate) struct NoReport;

impl Report for NoReport {
    fn because(&mut self, _: impl FnOnce() -> Reason) {}
}

impl Report for Option<Reason> {
    fn because(&mut self, reason: impl FnOnce() -> Reason) {
        *self = Some(reason());
    }
}

/// What becomes of a client's turn.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It takes a view, or what quotas leave of it.
    Takes {
        view: usize,
        cut: Option<Arc<Resources>>,
    },
    /// Nobody in its role would be given anything.
    NothingForRole,
    /// The agent is of no use to it, whatever is available.
    CannotUse,
    /// It refuses what there is for it, and so less.
    Refuses,
    /// In the stage of guarantees: it has none that this fills, nor has anybody in its role when
    /// `role`.
    NotForGuarantee { role: bool },
    /// It would take more than quotas leave.
    Held,
}

/// What a client may be given of an agent, before quota.
#[derive(Clone, Debug)]
pub(crate) struct View {
    sees: Sees,
    /// The role's node when something is reserved for it; none for all others.
    node: Option<u32>,
    /// Places in the lot.
    entries: Vec<u32>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) amounts: Amounts,
}

/// What an agent has left in the course of a visit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lot {
    /// What was available when the visit began, or when a part of it was cut out.
    list: Arc<Resources>,
    /// Everybody sees everything.
    is_plain: bool,
    /// By place in the list: given away. Not for plain lots.
    taken: Vec<bool>,
    left: usize,
    /// Places of what is reserved for nobody.
    free: Vec<u32>,
    /// Places by the role of the innermost reservation.
    reserved: BTreeMap<Role, Vec<u32>>,
    /// Shared volumes were given to somebody in this cycle.
    pub(crate) shared_withheld: bool,
    shared_given: bool,
    touched: bool,
    views: Vec<View>,
    /// Clients that refused, and whether they would refuse the most that was available lately.
    pub(crate) refusals: Vec<(u32, bool)>,
}

impl Lot {
    /// A visit begins.
    pub(crate) fn begin(&mut self, agent: &Agent, round: u64) {
        let shared_withheld = agent.shared_given == round;
        self.begin_with(
            agent.available.clone(),
            agent.stock.is_plain,
            shared_withheld,
        );
        if self.is_plain && !self.list.is_empty() {
            self.views.push(View {
                sees: Sees::EVERYTHING,
                node: None,
                entries: Vec::new(),
                resources: self.list.clone(),
                amounts: agent.stock.amounts.clone(),
            });
        }
    }

    /// The same for a list that an agent might have.
    pub(crate) fn begin_with(
        &mut self,
        list: Arc<Resources>,
        is_plain: bool,
        shared_withheld: bool,
    ) {
        self.shared_withheld = shared_withheld;
        self.shared_given = false;
        self.touched = false;
        self.is_plain = is_plain;
        self.refusals.clear();
        self.set_list(list);
    }

    /// Keeps memory, but nothing of the agent.
    pub(crate) fn end(&mut self) {
        self.views.clear();
        self.reserved.clear();
        self.list = Arc::default();
    }

    fn set_list(&mut self, list: Arc<Resources>) {
        self.list = list;
        self.views.clear();
        self.taken.clear();
        self.free.clear();
        self.reserved.clear();
        self.left = self.list.len();
        if self.is_plain {
            return;
        }
        self.taken.resize(self.left, false);
        for (at, it) in self.list.iter().enumerate() {
            let at = at as u32;
            match it.reservation_role() {
                None => self.free.push(at),
                Some(role) => match self.reserved.get_mut(role) {
                    Some(places) => places.push(at),
                    None => {
                        self.reserved.insert(role.clone(), vec![at]);
                    }
                },
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Whether all of it is reserved for nobody, and neither shared nor revocable.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether something was given away.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched
    }

    pub(crate) fn view(&self, at: usize) -> &View {
        &self.views[at]
    }

    /// What is left, and whether shared volumes were given. `nothing` is an empty list.
    pub(crate) fn rest(&self, nothing: &Arc<Resources>) -> (Arc<Resources>, bool) {
        let rest = match self.left {
            0 => nothing.clone(),
            left if left == self.list.len() => self.list.clone(),
            _ => {
                let kept = (0..self.taken.len() as u32).filter(|it| !self.taken[*it as usize]);
                Arc::new(self.list.select(kept))
            }
        };
        (rest, self.shared_given)
    }

    /// All of a view was given. Shared volumes stay, for others in other cycles.
    pub(crate) fn take_view(&mut self, view: usize) {
        self.touched = true;
        if self.is_plain {
            self.left = 0;
            return;
        }
        let view = self.views.swap_remove(view);
        for (at, it) in view.entries.iter().zip(view.resources.iter()) {
            if it.shared {
                self.shared_given = true;
                self.shared_withheld = true;
            } else {
                self.taken[*at as usize] = true;
                self.left -= 1;
            }
        }
        self.views.clear();
    }

    /// A part of what is left was given.
    pub(crate) fn take_part(&mut self, part: &Resources) {
        let (rest, _) = self.rest(&Arc::default());
        self.touched = true;
        if part.iter().any(|it| it.shared) {
            self.shared_given = true;
            self.shared_withheld = true;
        }
        self.set_list(Arc::new(rest.difference(&part.non_shared())));
    }
}

impl Allocator {
    /// What the client takes of what is left of the agent, or why not.
    pub(crate) fn decide(
        &self,
        agent: &Agent,
        client: u32,
        guarantees: bool,
        lot: &mut Lot,
        report: &mut impl Report,
    ) -> Verdict {
        let rules = self.rules(client);
        if !self.can_use(agent, client, report) {
            return Verdict::CannotUse;
        }
        let at = self.see(client, lot);
        let view = &lot.views[at];
        if view.resources.is_empty() {
            report.because(|| self.why_nothing(client, lot));
            return match view.sees == Sees::EVERYTHING {
                true => Verdict::NothingForRole,
                false => Verdict::Refuses,
            };
        }
        if !rules.is_enough(&view.amounts) {
            report.because(|| self.too_small(client, &view.amounts));
            return Verdict::Refuses;
        }
        if let Some(until) = agent.filters.block(client, &view.resources) {
            let resources = &view.resources;
            report.because(|| Reason::filtered(resources, until));
            return Verdict::Refuses;
        }
        if self.quotas.is_empty() {
            return Verdict::Takes {
                view: at,
                cut: None,
            };
        }
        self.decide_quota(agent, client, guarantees, at, lot, report)
    }

    /// Capabilities, GPUs, region and constraints.
    pub(crate) fn can_use(&self, agent: &Agent, client: u32, report: &mut impl Report) -> bool {
        let rules = self.rules(client);
        let can = agent.spec.capabilities;
        let missing = if rules.needs_multi_role && !can.is(AgentCan::MultiRole) {
            Reason::AgentCannot("MULTI_ROLE")
        } else if rules.needs_hierarchical_role && !can.is(AgentCan::HierarchicalRole) {
            Reason::AgentCannot("HIERARCHICAL_ROLE")
        } else if agent.has_gpus && self.options.filter_gpu_resources && !rules.takes_gpus {
            Reason::FrameworkCannot("GPU_RESOURCES")
        } else if agent.is_remote && !rules.takes_remote {
            Reason::FrameworkCannot("REGION_AWARE")
        } else {
            let Some(constraints) = &rules.constraints else {
                return true;
            };
            if constraints.allow(&agent.spec) {
                return true;
            }
            report.because(|| Reason::Constraints(constraints.why_not(&agent.spec)));
            return false;
        };
        report.because(|| missing);
        false
    }

    /// The view of what the client sees of what is left, shared volumes at most once per cycle.
    /// Clients that see the same share one.
    fn see(&self, client: u32, lot: &mut Lot) -> usize {
        if lot.is_plain {
            // What is left of a plain lot after a cut has no view yet.
            if lot.views.is_empty() {
                let amounts = self.dimensions.amounts_of_known(&lot.list, |_| true);
                lot.views.push(View {
                    sees: Sees::EVERYTHING,
                    node: None,
                    entries: Vec::new(),
                    resources: lot.list.clone(),
                    amounts,
                });
            }
            return 0;
        }
        let of_client = self.tree.client(client);
        let sees = self.rules(client).sees;
        let mut places = lot.reserved_for(&of_client.role);
        let node = (!places.is_empty()).then_some(of_client.node);
        let known = |it: &View| it.node == node && it.sees == sees;
        if let Some(at) = lot.views.iter().position(known) {
            return at;
        }
        places.extend(&lot.free);
        places.sort_unstable();
        places.retain(|at| {
            let place = *at as usize;
            let it = lot.list.get(place).expect("a place of the list");
            !lot.taken[place]
                && (!it.shared || sees.shared && !lot.shared_withheld)
                && (!it.revocable || sees.revocable)
                && (!it.is_refined() || sees.refined)
        });
        let resources = lot.list.select(places.iter().copied());
        let amounts = self.dimensions.amounts_of_known(&resources, |_| true);
        lot.views.push(View {
            sees,
            node,
            entries: places,
            resources: Arc::new(resources),
            amounts,
        });
        lot.views.len() - 1
    }

    /// Cuts what quotas have a say in to what they leave.
    fn decide_quota(
        &self,
        agent: &Agent,
        client: u32,
        guarantees: bool,
        at: usize,
        lot: &Lot,
        report: &mut impl Report,
    ) -> Verdict {
        let view = &lot.views[at];
        let quota = self.tree.quota_of(client);
        let whole = Verdict::Takes {
            view: at,
            cut: None,
        };
        if !guarantees && self.quotas.is_unbound(quota) {
            return whole;
        }
        if guarantees {
            let Some(claims) = self.quotas.claims(quota) else {
                return Verdict::NotForGuarantee { role: true };
            };
            let fills = |it: &Resource| {
                let Some(amount) = it.amount() else {
                    return false;
                };
                let dimension = self.dimensions.find(&it.name);
                let claimed = dimension.map_or(0, |it| claims.get(it));
                let fits = i128::from(amount.as_millis()) <= claimed;
                quota::is_free(it) && claimed > 0 && (fits || it.is_divisible())
            };
            if !view.resources.iter().any(fills) {
                // Not for the guarantee; the other stage may give it all the same.
                return Verdict::NotForGuarantee { role: false };
            }
        }
        let of_view;
        let free = match lot.is_plain {
            true => &view.amounts,
            false => {
                of_view = self
                    .dimensions
                    .amounts_of_known(&view.resources, quota::is_free);
                &of_view
            }
        };
        let bound = |at: usize| self.quotas.bound(quota, at, guarantees);
        let mut over = free
            .iter()
            .filter(|(at, amount)| bound(*at).is_some_and(|bound| *amount > bound));
        let Some((tight, _)) = over.next() else {
            return whole;
        };
        let mut limits = Quantities::new();
        for at in 0..self.quotas.dimensions() {
            if let Some(bound) = bound(at) {
                let millis = i64::try_from(bound).unwrap_or(i64::MAX);
                limits.insert(self.dimensions.name(at), Scalar::from_millis(millis));
            }
        }
        let mut cut = view.resources.filter(|it| !quota::is_free(it));
        cut.add(
            &view
                .resources
                .filter(quota::is_free)
                .shrink_to_limits(&limits),
        );
        let amounts = self.dimensions.amounts_of_known(&cut, |_| true);
        let cut = Arc::new(cut);
        let refuses = cut.is_empty()
            || !self.rules(client).is_enough(&amounts)
            || agent.filters.block(client, &cut).is_some();
        if refuses {
            report.because(|| self.why_held(quota, tight));
            return Verdict::Held;
        }
        Verdict::Takes {
            view: at,
            cut: Some(cut),
        }
    }
}

impl Lot {
    /// Places of what is reserved for the role or one around it, and not given away.
    fn reserved_for(&self, role: &Role) -> Vec<u32> {
        let mut places = Vec::new();
        let left = |it: &&u32| !self.taken[**it as usize];
        if self.reserved.len() <= 2 {
            for (owner, of_role) in &self.reserved {
                if role.is_within(owner) {
                    places.extend(of_role.iter().filter(left));
                }
            }
            return places;
        }
        let mut name = role.as_str();
        loop {
            let of_role = self.reserved.get(name);
            places.extend(of_role.into_iter().flatten().filter(left));
            match name.rfind('/') {
                Some(end) => name = &name[..end],
                None => return places,
            }
        }
    }

    /// Whom something that is left is reserved for.
    pub(crate) fn reserved_roles(&self) -> impl Iterator<Item = &Role> {
        self.reserved
            .iter()
            .filter(|(_, places)| places.iter().any(|it| !self.taken[*it as usize]))
            .map(|(role, _)| role)
    }

    /// What is left.
    pub(crate) fn left(&self) -> Arc<Resources> {
        self.rest(&Arc::default()).0
    }
}
