//! Obeying operators: who is drained, from when, and what is left of a share that is going.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::recovery::{FULL_SHARE_PERMILLE, Ramp, ramp_update_interval};
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::orders::{
    ConfigDrain, OperatorOrder, OperatorOrders, OrderAction, OrderDraft, OrderSource,
    OrderedEndpoint, fading_share_permille,
};

use super::endpoint::{EndpointLocation, EndpointState};
use super::pools::PoolState;
use super::{Director, Event, Output};
use crate::logic::model::selector::TopologySelector;

/// What orders mean for one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EndpointOrders {
    drains: SmallVec<[EndpointDrain; 1]>,
    weight: Option<u32>,
    stage: DrainStage,
}

/// An order to drain it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct EndpointDrain {
    since: Instant,
    fade_duration: Duration,
    deadline: Duration,
    /// It is about the endpoint alone, and not about its zone.
    is_endpoint_only: bool,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DrainStage {
    /// Its share is going, if anything is.
    #[default]
    RampingDown,
    /// It gets nothing new.
    Drained,
    /// And what lasted there has been ended.
    Finished,
}

impl EndpointOrders {
    fn from_orders(orders: &OperatorOrders, of: OrderedEndpoint<'_>, stage: DrainStage) -> Self {
        let drain = |order: &OperatorOrder| match order.action {
            OrderAction::Drain { fade_duration: over, deadline } => Some(EndpointDrain {
                since: order.effective_since,
                fade_duration: over,
                deadline,
                is_endpoint_only: matches!(order.scope, TopologySelector::Endpoint(_)),
            }),
            OrderAction::Weight(_) | OrderAction::Serve => None,
        };
        let drains = orders.drains_for(of).filter_map(drain).collect();
        let weight = orders.weight_for(&of).map(|(_, weight)| weight);
        Self { drains, weight, stage }
    }

    fn is_empty(&self) -> bool {
        self.drains.is_empty() && self.weight.is_none()
    }

    /// What is left of its share, in thousandths.
    fn share(&self, now: Instant) -> u32 {
        let shares = self
            .drains
            .iter()
            .map(|drain| fading_share_permille(drain.since, drain.fade_duration, now));
        shares.min().unwrap_or(FULL_SHARE_PERMILLE)
    }

    /// What is left of its capacity: what is drained with its zone is missed there.
    fn capacity(&self, now: Instant) -> u32 {
        let endpoint_drains = self.drains.iter().filter(|drain| drain.is_endpoint_only);
        endpoint_drains
            .map(|drain| fading_share_permille(drain.since, drain.fade_duration, now))
            .min()
            .unwrap_or(FULL_SHARE_PERMILLE)
    }

    /// When what lasts is ended.
    fn deadline(&self) -> Option<Instant> {
        let drain_end = |drain: &EndpointDrain| drain.since + drain.fade_duration + drain.deadline;
        self.drains.iter().map(drain_end).min()
    }

    /// When its share is to be computed again, or something of it is over.
    fn next_update_at(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            DrainStage::Finished => None,
            DrainStage::Drained => self.deadline(),
            DrainStage::RampingDown => {
                let next_step = |drain: &EndpointDrain| {
                    let end = drain.since + drain.fade_duration;
                    end.min(now + ramp_update_interval(drain.fade_duration)).max(now)
                };
                self.drains.iter().map(next_step).min()
            }
        }
    }
}

impl EndpointState {
    /// What orders leave of its share, and of its capacity, in thousandths.
    pub(super) fn ordered_share(&self, now: Instant) -> (u32, u32) {
        self.operator_orders().map_or((FULL_SHARE_PERMILLE, FULL_SHARE_PERMILLE), |bidden| {
            (bidden.share(now), bidden.capacity(now))
        })
    }

    /// It gets nothing, because somebody has said so: whatever becomes of it is no failure.
    pub(super) fn is_drained(&self) -> bool {
        self.operator_orders().is_some_and(|bidden| bidden.stage != DrainStage::RampingDown)
    }

    fn is_draining(&self) -> bool {
        self.operator_orders().is_some_and(|bidden| !bidden.drains.is_empty())
    }
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderChange {
    Given,
    /// It was taken back.
    Lifted,
    /// Its time was up.
    Expired,
}

impl OrderChange {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Lifted => "lifted",
            Self::Expired => "expired",
        }
    }
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCommand {
    /// What it is about.
    pub selector: TopologySelector,
    /// In this pool only.
    pub pool: Option<Arc<str>>,
    /// What is to be done.
    pub action: OperatorAction,
    pub until: Option<Instant>,
    pub note: Option<Arc<str>>,
    /// Whatever is left afterwards.
    pub is_forced: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAction {
    Issue(OrderAction),
    /// Take back what was said of it, and make an exception of it where more than that is drained.
    Restore,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such thing.
    UnknownTarget(String),
    /// It makes no sense.
    Invalid(String),
    /// Too little would be left: one reason for each pool.
    InsufficientCapacity(Vec<String>),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTarget(why) | Self::Invalid(why) => f.write_str(why),
            Self::InsufficientCapacity(reasons) => f.write_str(&reasons.join("\n")),
        }
    }
}

/// What came of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedCommand {
    /// The order that was given, if one was.
    pub order: Option<OperatorOrder>,
    /// Orders that were taken back.
    pub lifted: Vec<OperatorOrder>,
    /// After a restoration: orders by which something of it is drained all the same.
    pub remaining: Vec<OperatorOrder>,
}

/// One endpoint that may be ordered about.
struct EndpointKey {
    pool: Arc<str>,
    place: Locality,
    address: SocketAddr,
}

impl EndpointKey {
    fn ordered_endpoint(&self) -> OrderedEndpoint<'_> {
        OrderedEndpoint { pool: &self.pool, locality: &self.place, address: self.address }
    }
}

impl Director {
    /// The orders that are in force.
    pub fn orders(&self) -> &OperatorOrders {
        &self.orders
    }

    /// Does what an operator wants, unless too little would be left.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn execute_command(
        &mut self,
        command: OperatorCommand,
        now: Instant,
    ) -> Result<AppliedCommand, CommandError> {
        self.now = now;
        let endpoints = self.find_endpoints(&command.selector, command.pool.as_deref())?;
        let applied = match command.action {
            OperatorAction::Issue(act) => {
                if self.orders.is_full() {
                    let why = "there are too many orders already: restore something first";
                    return Err(CommandError::Invalid(why.to_owned()));
                }
                if matches!(act, OrderAction::Drain { .. }) && !command.is_forced {
                    let shortages = self.shortages(&command.selector, command.pool.as_deref());
                    if !shortages.is_empty() {
                        return Err(CommandError::InsufficientCapacity(shortages));
                    }
                }
                let OperatorCommand { selector: what, pool, until, note, .. } = command;
                let order = self
                    .orders
                    .issue(
                        OrderDraft { scope: what, pool, action: act, expires_at: until, note },
                        now,
                    )
                    .clone();
                AppliedCommand { order: Some(order), ..AppliedCommand::default() }
            }
            OperatorAction::Restore => self.restore(command, &endpoints, now),
        };
        for order in applied.lifted.iter().cloned() {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Lifted });
        }
        if let Some(order) = applied.order.clone() {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Given });
        }
        self.apply_orders(now);
        Ok(applied)
    }

    fn restore(
        &mut self,
        command: OperatorCommand,
        endpoints: &[EndpointKey],
        now: Instant,
    ) -> AppliedCommand {
        let OperatorCommand { selector: what, pool, until, note, .. } = command;
        let lifted = self.orders.revoke_matching(&what, pool.as_deref());
        let active_drains = |orders: &OperatorOrders| {
            let drains = endpoints
                .iter()
                .flat_map(|endpoint| orders.drains_for(endpoint.ordered_endpoint()));
            let mut active: Vec<OperatorOrder> = drains.cloned().collect();
            active.sort_by_key(|order| order.id);
            active.dedup_by_key(|order| order.id);
            active
        };
        let before = active_drains(&self.orders);
        let draft =
            OrderDraft { scope: what, pool, action: OrderAction::Serve, expires_at: until, note };
        let mut candidate = self.orders.clone();
        let order = candidate.issue(draft, now).clone();
        let remaining = active_drains(&candidate);
        if remaining == before {
            return AppliedCommand { order: None, lifted, remaining };
        }
        self.orders = candidate;
        AppliedCommand { order: Some(order), lifted, remaining }
    }

    /// Takes an order back by its number.
    ///
    /// # Errors
    /// If there is none, or it is the file's.
    pub fn lift_order(&mut self, id: u64, now: Instant) -> Result<OperatorOrder, CommandError> {
        self.now = now;
        match self.orders.find(id) {
            None => Err(CommandError::UnknownTarget(format!("there is no order {id}"))),
            Some(order) if order.source == OrderSource::Config => {
                Err(CommandError::Invalid(format!(
                    "order {id} is the file's: `restore {}` makes an exception of it",
                    order.scope
                )))
            }
            Some(order) => {
                let order = order.clone();
                self.orders.revoke(id);
                self.push_event(Event::OrderChanged {
                    order: order.clone(),
                    change: OrderChange::Lifted,
                });
                self.apply_orders(now);
                Ok(order)
            }
        }
    }

    /// The endpoints that something is said of.
    fn find_endpoints(
        &self,
        selector: &TopologySelector,
        pool: Option<&str>,
    ) -> Result<Vec<EndpointKey>, CommandError> {
        let is_selected_pool =
            |state: &&PoolState| pool.is_none_or(|name| *state.spec.name == *name);
        let (mut found, mut has_pool) = (Vec::new(), false);
        for state in self.pools.iter().filter(is_selected_pool) {
            has_pool = true;
            for zone in &state.spec.zones {
                for endpoint in &zone.endpoints {
                    let is_match = match selector {
                        TopologySelector::Endpoint(address) => *address == endpoint.address,
                        TopologySelector::Zone(place) => *place == zone.locality,
                        TopologySelector::Region(region) => *region == zone.locality.region,
                    };
                    if is_match {
                        let (pool, place) = (Arc::clone(&state.spec.name), zone.locality.clone());
                        found.push(EndpointKey { pool, place, address: endpoint.address });
                    }
                }
            }
        }
        match pool {
            Some(name) if !has_pool => {
                Err(CommandError::UnknownTarget(format!("there is no pool `{name}`")))
            }
            _ if found.is_empty() => {
                Err(CommandError::UnknownTarget(self.unknown_target_message(selector, pool)))
            }
            _ => Ok(found),
        }
    }

    fn unknown_target_message(&self, selector: &TopologySelector, pool: Option<&str>) -> String {
        let is_same_kind = |one: &TopologySelector| {
            std::mem::discriminant(one) == std::mem::discriminant(selector)
        };
        let alternatives: Vec<String> = self
            .selectors()
            .iter()
            .filter(|one| is_same_kind(one))
            .take(20)
            .map(TopologySelector::to_string)
            .collect();
        let kind = match selector {
            TopologySelector::Endpoint(_) => "endpoint",
            TopologySelector::Zone(_) => "zone",
            TopologySelector::Region(_) => "region",
        };
        let place =
            pool.map_or_else(|| "no pool has".to_owned(), |pool| format!("pool {pool} has no"));
        let a = if pool.is_some() { "" } else { "the " };
        format!("{place} {a}{kind} `{selector}`; there is {}", alternatives.join(", "))
    }

    /// Takes in what the configuration orders.
    pub(super) fn load_configured_orders(&mut self, now: Instant) {
        let configured: Vec<ConfigDrain> = self
            .pools
            .iter()
            .flat_map(|pool| {
                let name = &pool.spec.name;
                pool.spec
                    .drained_scopes
                    .iter()
                    .map(|what| ConfigDrain { scope: what.clone(), pool: Arc::clone(name) })
            })
            .collect();
        let (given, lifted) = self.orders.sync_config_drains(&configured, now);
        for order in lifted {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Lifted });
        }
        for order in given {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Given });
        }
    }

    /// Gives every endpoint what the orders mean for it.
    pub(super) fn apply_orders(&mut self, now: Instant) {
        self.draining.clear();
        for pool in 0..self.pools.len() {
            for zone in 0..self.pools[pool].zones.len() {
                let members = self.pools[pool].zones[zone].members.clone();
                for id in members {
                    self.apply_endpoint_orders(id, now);
                }
            }
        }
        self.advance_orders(now);
    }

    /// The orders that bear on an endpoint.
    pub(super) fn orders_for(&self, endpoint: &EndpointState) -> Vec<OperatorOrder> {
        let place = &self.pools[endpoint.location.pool].zones[endpoint.location.zone].place;
        let of = OrderedEndpoint {
            pool: &endpoint.pool.name,
            locality: place,
            address: endpoint.address,
        };
        let weight = self.orders.weight_for(&of).map(|(order, _)| order);
        self.orders.drains_for(of).chain(weight).cloned().collect()
    }

    fn apply_endpoint_orders(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(id) else { return };
        if endpoint.operator_orders().is_none() && self.orders.is_empty() {
            return;
        }
        let EndpointLocation { pool, zone, position, weight } = endpoint.location;
        let spec = &self.pools[pool].spec.zones[zone];
        let of = OrderedEndpoint {
            pool: &endpoint.pool.name,
            locality: &spec.locality,
            address: endpoint.address,
        };
        let stage =
            endpoint.operator_orders().map_or(DrainStage::RampingDown, |bidden| bidden.stage);
        let mut orders = EndpointOrders::from_orders(&self.orders, of, stage);
        if orders.share(now) > 0 {
            orders.stage = DrainStage::RampingDown;
        }
        let declared = spec.endpoints.get(position as usize).map_or(weight, |one| one.weight);
        let effective_weight = orders.weight.unwrap_or(declared);
        let before = endpoint.ordered_share(now);
        let share = orders.share(now);
        if orders.drains.iter().any(|_| orders.stage != DrainStage::Finished) {
            self.draining.push(id);
        }
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        if endpoint.operator_orders().is_some() || !orders.is_empty() {
            endpoint.rare_mut().operator_orders = (!orders.is_empty()).then(|| Box::new(orders));
        }
        endpoint.location.weight = effective_weight;
        self.pools[pool].zones[zone].set_weight(position, effective_weight);
        if share > before.0 {
            self.ramp_up(id, before, share, now);
        }
        self.update_eligibility(id, now);
    }

    /// A share that was taken grows back from where it is.
    fn ramp_up(&mut self, id: EndpointId, before: (u32, u32), share: u32, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let pool = endpoint.location.pool;
        let length = endpoint.pool.recovery.ramp;
        if length.is_zero() || self.pools[pool].is_in_panic() || !endpoint.can_serve() {
            return;
        }
        let current_share =
            endpoint.ramp.share_permille(length, now) * before.0 / FULL_SHARE_PERMILLE;
        endpoint.ramp =
            Ramp::from_share_permille(current_share * FULL_SHARE_PERMILLE / share, length, now);
        // What its zone did without is no capacity that is missed while it comes back.
        endpoint.is_late_addition |= before.1 < FULL_SHARE_PERMILLE;
        let ramping = &mut self.pools[pool].ramping;
        if endpoint.ramp.is_growing() && !ramping.contains(&id) {
            ramping.push(id);
        }
        self.schedule_ramp(pool, now);
    }

    /// Lets shares go on their way, ends what lasts too long, and orders whose time is up.
    pub(super) fn advance_orders(&mut self, now: Instant) {
        let expired = self.orders.remove_expired(now);
        if !expired.is_empty() {
            for order in expired {
                self.push_event(Event::OrderChanged { order, change: OrderChange::Expired });
            }
            // It comes back here.
            return self.apply_orders(now);
        }
        let mut due = self.orders.next_expiry();
        let mut still_draining = Vec::with_capacity(self.draining.len());
        for id in std::mem::take(&mut self.draining) {
            let Some(endpoint) = self.endpoints.get_mut(id).filter(|one| one.is_draining()) else {
                continue;
            };
            let Some(orders) = &mut endpoint.rare_mut().operator_orders else { continue };
            if orders.stage == DrainStage::RampingDown && orders.share(now) == 0 {
                orders.stage = DrainStage::Drained;
                self.outputs.push_back(Output::Drained { endpoint: id, is_deadline_passed: false });
            }
            if orders.stage == DrainStage::Drained
                && orders.deadline().is_some_and(|end| now >= end)
            {
                orders.stage = DrainStage::Finished;
                self.outputs.push_back(Output::Drained { endpoint: id, is_deadline_passed: true });
            }
            if let Some(next) = orders.next_update_at(now) {
                due = Some(due.map_or(next, |due: Instant| due.min(next)));
                still_draining.push(id);
            }
            self.update_eligibility(id, now);
        }
        self.draining = still_draining;
        self.order_timer = due;
    }
}
