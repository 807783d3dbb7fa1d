//! The effects of orders: shares shrink, drains end, weights change, and orders expire.

pub(crate) mod book;
mod capacity_check;
pub(crate) mod command;
pub(crate) mod endpoint_orders;

use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, OrderChange};
use super::{Director, EndpointMachine, Output};
use crate::logic::health::recovery::{FULL_SHARE_PERMILLE, Ramp};
use crate::logic::model::id::EndpointId;
use crate::logic::orders::{ConfigDrain, OperatorOrder, OperatorOrders, OrderedEndpoint};
use endpoint_orders::{DrainStep, EndpointOrders, OrderedShare};

impl Director {
    /// The orders that are in force.
    pub fn orders(&self) -> &OperatorOrders {
        self.order_book.orders()
    }

    /// Brings the orders in line with the drains of the configuration.
    pub(super) fn load_configured_orders(&mut self, now: Instant) {
        let pools = self.pools.iter();
        let configured: Vec<ConfigDrain> = pools
            .flat_map(|pool| {
                let pool = pool.spec();
                pool.drained_scopes.iter().map(move |scope| ConfigDrain {
                    scope: scope.clone(),
                    pool: Arc::clone(&pool.name),
                })
            })
            .collect();
        let (given, lifted) = self.order_book.orders_mut().sync_config_drains(&configured, now);
        for order in lifted {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Lifted });
        }
        for order in given {
            self.push_event(Event::OrderChanged { order, change: OrderChange::Given });
        }
    }

    /// Applies the orders to every endpoint.
    pub(super) fn apply_orders(&mut self, now: Instant) {
        self.order_book.clear_draining();
        for pool in 0..self.pools.len() {
            for zone in 0..self.pools[pool].zones().len() {
                let members = self.pools[pool].zone(zone).roster().ids().to_vec();
                members.into_iter().for_each(|id| self.apply_endpoint_orders(id, now));
            }
        }
        self.advance_orders(now);
    }

    /// The orders that concern an endpoint.
    pub(super) fn orders_for(&self, endpoint: &EndpointMachine) -> Vec<OperatorOrder> {
        let (ordered, orders) = (ordered_endpoint(endpoint), self.order_book.orders());
        let weight = orders.weight_for(&ordered).map(|(order, _)| order);
        orders.drains_for(ordered).chain(weight).cloned().collect()
    }

    fn apply_endpoint_orders(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let before = endpoint.history().operator_orders();
        if before.is_none() && self.order_book.orders().is_empty() {
            return;
        }
        let ordered = ordered_endpoint(endpoint);
        let orders = EndpointOrders::new(self.order_book.orders(), ordered, before, now);
        let location = endpoint.location();
        let declared = &endpoint.pool().zones[location.zone()].endpoints;
        let declared = declared.get(location.position() as usize);
        let declared_weight = declared.map_or_else(|| location.weight(), |one| one.weight);
        let weight = orders.weight().unwrap_or(declared_weight);
        let (before, after) = (endpoint.ordered_share(now), orders.ordered_share(now));
        if orders.is_draining() {
            self.order_book.add_draining(id);
        }
        endpoint.history_mut().set_operator_orders((!orders.is_empty()).then_some(orders));
        endpoint.set_weight(weight);
        let zone = self.pools[location.pool()].zone_mut(location.zone());
        zone.roster_mut().set_weight(location.position(), weight);
        if after.share_permille() > before.share_permille() {
            self.ramp_up(id, before, after.share_permille(), now);
        }
        self.update_eligibility(id, now);
    }

    /// Lets a share that an order had taken grow back from where it is.
    fn ramp_up(&mut self, id: EndpointId, before: OrderedShare, share: u32, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id) else { return };
        let index = endpoint.location().pool();
        let length = endpoint.pool().recovery.ramp;
        if length.is_zero() || self.pools[index].is_in_panic() || !endpoint.can_serve() {
            return;
        }
        let ramped = endpoint.ramp().ramp().share_permille(length, now);
        let current_share = ramped * before.share_permille() / FULL_SHARE_PERMILLE;
        let ramp =
            Ramp::from_share_permille(current_share * FULL_SHARE_PERMILLE / share, length, now);
        // Capacity that its zone did without does not count as lost while it returns.
        endpoint.resume_ramp(ramp, before.capacity_permille() < FULL_SHARE_PERMILLE);
        if endpoint.ramp().is_growing() {
            self.pools[index].ramping_mut().insert(id);
        }
        self.schedule_ramp(index, now);
    }

    /// Advances drains, and removes expired orders.
    pub(super) fn advance_orders(&mut self, now: Instant) {
        let expired = self.order_book.orders_mut().remove_expired(now);
        if !expired.is_empty() {
            for order in expired {
                self.push_event(Event::OrderChanged { order, change: OrderChange::Expired });
            }
            // Which calls this function again.
            return self.apply_orders(now);
        }
        let (mut next_update, mut still_draining) = (None, Vec::new());
        for id in self.order_book.take_draining() {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            let orders = endpoint.history_mut().operator_orders_mut();
            let Some(orders) = orders.filter(|orders| orders.has_drains()) else { continue };
            for step in orders.advance(now) {
                let is_deadline_passed = step == DrainStep::DeadlinePassed;
                self.outputs.push_back(Output::Drained { endpoint: id, is_deadline_passed });
            }
            if let Some(next) = orders.next_update_at(now) {
                next_update = Some(next_update.map_or(next, |due: Instant| due.min(next)));
                still_draining.push(id);
            }
            self.update_eligibility(id, now);
        }
        self.order_book.set_draining(still_draining, next_update);
    }
}

/// The endpoint, as orders select it.
fn ordered_endpoint(endpoint: &EndpointMachine) -> OrderedEndpoint<'_> {
    let pool = endpoint.pool();
    OrderedEndpoint {
        pool: &pool.name,
        locality: &pool.zones[endpoint.location().zone()].locality,
        address: endpoint.address(),
    }
}
