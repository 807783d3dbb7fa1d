//! The capacity check of a drain: whether the rest of a pool can carry the traffic.

use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::OperatorOrder;
use crate::logic::overload::remaining_capacity::{PoolCapacity, in_flight_limit};

use super::ordered_endpoint;
use crate::logic::director::Director;
use crate::logic::director::endpoint::EndpointMachine;
use crate::logic::director::pools::PoolState;

/// The parts of a pool that a drain takes and leaves. Endpoints that are drained already are in
/// neither part.
#[derive(Clone, Copy, Debug, Default)]
struct DrainImpact {
    all: u32,
    weight: u64,
    lost: u32,
    lost_serving: u32,
    lost_weight: u64,
    lost_in_flight: u32,
    remaining: u32,
    remaining_serving: u32,
    remaining_weight: u64,
    remaining_in_flight: u32,
}

impl Director {
    /// Why the selected endpoints must not be drained: one reason for each pool of which too little
    /// would be left.
    pub(super) fn shortages(&self, selector: &TopologySelector, pool: Option<&str>) -> Vec<String> {
        let is_selected_pool =
            |state: &&PoolState| pool.is_none_or(|name| *state.spec().name == *name);
        self.pools
            .iter()
            .filter(is_selected_pool)
            .filter_map(|state| self.shortage(state, selector))
            .collect()
    }

    fn shortage(&self, state: &PoolState, selector: &TopologySelector) -> Option<String> {
        let name = &state.spec().name;
        let impact = self.drain_impact(state, selector);
        if impact.lost == 0 {
            return None;
        }
        if impact.remaining == 0 {
            return Some(format!(
                "pool {name}: nothing would be left: all of its {} endpoints would be drained",
                impact.all
            ));
        }
        // An endpoint that does not serve can be removed.
        if impact.lost_serving == 0 {
            return None;
        }
        let figures =
            format!("{} of {} endpoints would be left", impact.remaining_serving, impact.all);
        if impact.remaining_serving == 0 {
            return Some(format!(
                "pool {name}: nothing healthy would be left: {} of its endpoints serve, and all of \
                 these would be drained",
                impact.lost_serving
            ));
        }
        let panic_percent = state.spec().eviction.panic_percent;
        if impact.remaining_serving * 100 < panic_percent * impact.all {
            return Some(format!(
                "pool {name}: {figures}, less than `evict.panic_percent` ({panic_percent} %)"
            ));
        }
        let unavailable_weight = impact.weight - impact.remaining_weight - impact.lost_weight;
        if unavailable_weight > 0 && impact.remaining_weight * 2 < impact.weight {
            let DrainImpact { remaining_weight: left_weight, weight, .. } = impact;
            return Some(format!(
                "pool {name}: {left_weight} of {weight} of its weight would be left, less than half: \
                 {} already",
                self.describe_unavailable(state, selector)
            ));
        }
        let capacity = PoolCapacity {
            pool: name.clone(),
            lost_weight: impact.lost_weight,
            remaining_weight: impact.remaining_weight,
            lost_in_flight: impact.lost_in_flight,
            remaining_in_flight: impact.remaining_in_flight,
            remaining_limit: in_flight_limit(state.spec(), u64::from(impact.remaining_serving)),
        };
        capacity.shortage(1.0)
    }

    fn drain_impact(&self, state: &PoolState, selector: &TopologySelector) -> DrainImpact {
        let mut impact = DrainImpact::default();
        for endpoint in state.members().iter().filter_map(|id| self.endpoints.get(*id)) {
            let weight = u64::from(endpoint.location().weight());
            let (serves, in_flight) =
                (u32::from(endpoint.can_serve()), endpoint.stats().in_flight());
            impact.all += 1;
            impact.weight += weight;
            if self.is_drain_ordered(endpoint) {
                continue;
            }
            let (count, serving, serving_weight, in_flight_sum) = if is_selected(endpoint, selector)
            {
                (
                    &mut impact.lost,
                    &mut impact.lost_serving,
                    &mut impact.lost_weight,
                    &mut impact.lost_in_flight,
                )
            } else {
                (
                    &mut impact.remaining,
                    &mut impact.remaining_serving,
                    &mut impact.remaining_weight,
                    &mut impact.remaining_in_flight,
                )
            };
            *count += 1;
            *serving += serves;
            *serving_weight += weight * u64::from(serves);
            *in_flight_sum += in_flight;
        }
        impact
    }

    /// Whether it is drained, or about to be.
    fn is_drain_ordered(&self, endpoint: &EndpointMachine) -> bool {
        self.orders().drains_for(ordered_endpoint(endpoint)).next().is_some()
    }

    /// Describes the endpoints that do not serve, or are drained, apart from those selected.
    fn describe_unavailable(&self, state: &PoolState, selector: &TopologySelector) -> String {
        let members = state.members().iter().filter_map(|id| self.endpoints.get(*id));
        let (mut orders, mut down) = (Vec::new(), 0);
        for endpoint in members.filter(|endpoint| !is_selected(endpoint, selector)) {
            let drains: Vec<&OperatorOrder> =
                self.orders().drains_for(ordered_endpoint(endpoint)).collect();
            down += u32::from(drains.is_empty() && !endpoint.can_serve());
            for order in drains {
                let description = format!("{} is drained (order {})", order.scope, order.id);
                if !orders.contains(&description) {
                    orders.push(description);
                }
            }
        }
        match down {
            0 => {}
            1 => orders.push("one endpoint does not serve".to_owned()),
            many => orders.push(format!("{many} endpoints do not serve")),
        }
        orders.join(", ")
    }
}

fn is_selected(endpoint: &EndpointMachine, selector: &TopologySelector) -> bool {
    let zone = endpoint.location().zone();
    selector.covers(&endpoint.pool().zones[zone].locality, endpoint.address())
}
