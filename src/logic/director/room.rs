//! Whether what is left can carry what an operator wants to take away.

use crate::logic::drill::{PoolRoom, Share, limit};
use crate::logic::operator::{Of, Order};

use super::endpoint::Endpoint;
use super::pools::PoolState;
use super::{Director, What};

/// What of a pool is left, and what is not.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    all: u32,
    /// Of all endpoints.
    weight: u64,
    /// Endpoints that are to be drained, and of these who serves.
    lost: u32,
    lost_serving: u32,
    lost_weight: u64,
    lost_in_flight: u32,
    /// Who is not drained then, and of these who serves.
    left: u32,
    left_serving: u32,
    left_weight: u64,
    left_in_flight: u32,
}

impl Director {
    /// Why this is not to be drained: too little of a pool would be left. One reason for each.
    pub(super) fn shortages(&self, what: &What, pool: Option<&str>) -> Vec<String> {
        let is_meant = |state: &&PoolState| pool.is_none_or(|name| *state.spec.name == *name);
        self.pools.iter().filter(is_meant).filter_map(|state| self.shortage(state, what)).collect()
    }

    fn shortage(&self, state: &PoolState, what: &What) -> Option<String> {
        let name = &state.spec.name;
        let left = self.left(state, what);
        if left.lost == 0 {
            return None;
        }
        if left.left == 0 {
            return Some(format!(
                "pool {name}: nothing would be left: all of its {} endpoints would be drained",
                left.all
            ));
        }
        // What serves nobody can be taken away.
        if left.lost_serving == 0 {
            return None;
        }
        let figures = format!("{} of {} endpoints would be left", left.left_serving, left.all);
        if left.left_serving == 0 {
            return Some(format!(
                "pool {name}: nothing healthy would be left: {} of its endpoints serve, and all of \
                 these would be drained",
                left.lost_serving
            ));
        }
        let panic_percent = state.spec.evict.panic_percent;
        if left.left_serving * 100 < panic_percent * left.all {
            return Some(format!(
                "pool {name}: {figures}, less than `evict.panic_percent` ({panic_percent} %)"
            ));
        }
        let out = left.weight - left.left_weight - left.lost_weight;
        if out > 0 && left.left_weight * 2 < left.weight {
            let Left { left_weight, weight, .. } = left;
            return Some(format!(
                "pool {name}: {left_weight} of {weight} of its weight would be left, less than half: \
                 {} already",
                self.already_out(state, what)
            ));
        }
        let room = PoolRoom {
            pool: name.clone(),
            lost_weight: left.lost_weight,
            left_weight: left.left_weight,
            lost_in_flight: left.lost_in_flight,
            left_in_flight: left.left_in_flight,
            left_limit: limit(&state.spec, u64::from(left.left_serving)),
        };
        Share::new(100).and_then(|share| room.shortage(share))
    }

    fn left(&self, state: &PoolState, what: &What) -> Left {
        let mut left = Left::default();
        for endpoint in state.members.iter().filter_map(|id| self.roster.get(*id)) {
            let weight = u64::from(endpoint.seat.weight);
            let (serves, in_flight) = (u32::from(endpoint.serves()), endpoint.live.in_flight());
            left.all += 1;
            left.weight += weight;
            if self.is_ordered_out(endpoint, state) {
                continue;
            }
            let (count, serving, weighs, flying) = if is_in(endpoint, state, what) {
                (
                    &mut left.lost,
                    &mut left.lost_serving,
                    &mut left.lost_weight,
                    &mut left.lost_in_flight,
                )
            } else {
                (
                    &mut left.left,
                    &mut left.left_serving,
                    &mut left.left_weight,
                    &mut left.left_in_flight,
                )
            };
            *count += 1;
            *serving += serves;
            *weighs += weight * u64::from(serves);
            *flying += in_flight;
        }
        left
    }

    /// Whether it is drained, or about to be.
    fn is_ordered_out(&self, endpoint: &Endpoint, state: &PoolState) -> bool {
        self.orders.drains(of(endpoint, state)).next().is_some()
    }

    /// What does not serve, whoever is drained now.
    fn already_out(&self, state: &PoolState, what: &What) -> String {
        let members = state.members.iter().filter_map(|id| self.roster.get(*id));
        let (mut orders, mut down) = (Vec::new(), 0);
        for endpoint in members.filter(|endpoint| !is_in(endpoint, state, what)) {
            let drains: Vec<&Order> = self.orders.drains(of(endpoint, state)).collect();
            down += u32::from(drains.is_empty() && !endpoint.serves());
            for order in drains {
                let said = format!("{} is drained (order {})", order.what, order.id);
                if !orders.contains(&said) {
                    orders.push(said);
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

fn of<'a>(endpoint: &'a Endpoint, state: &'a PoolState) -> Of<'a> {
    Of {
        pool: &state.spec.name,
        place: &state.zones[endpoint.seat.zone].place,
        address: endpoint.address,
    }
}

fn is_in(endpoint: &Endpoint, state: &PoolState, what: &What) -> bool {
    let place = &state.zones[endpoint.seat.zone].place;
    match what {
        What::Endpoint(address) => *address == endpoint.address,
        What::Zone(zone) => zone == place,
        What::Region(region) => *region == place.region,
    }
}
