//! Whether the rest of a pool can carry the traffic of what an operator wants to drain, or of what
//! may be lost.

use std::sync::Arc;

use super::ordered_endpoint;
use crate::logic::director::Director;
use crate::logic::director::endpoint::EndpointMachine;
use crate::logic::director::pools::PoolState;
use crate::logic::director::pools::zone::ZoneState;
use crate::logic::director::publisher;
use crate::logic::model::id::EndpointId;
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::ZoneSpec;
use crate::logic::overload::pool_loss::{PoolLoss, ZoneLoss};
use crate::logic::steering::PoolDemand;

impl Director {
    /// Why the selected endpoints must not be drained: one reason for each pool of which too little
    /// would be left.
    pub(super) fn shortages(&self, selector: &TopologySelector, pool: Option<&str>) -> Vec<String> {
        let lost = std::slice::from_ref(selector);
        let is_selected_pool = |state: &&PoolState| {
            pool.is_none_or(|name| *state.spec().name == *name) && has_selected(state, selector)
        };
        let first_problem = |state: &PoolState| {
            let problem = self.pool_loss(state, lost).problems().into_iter().next()?;
            Some(format!("pool {}: {problem}", state.spec().name))
        };
        self.pools.iter().filter(is_selected_pool).filter_map(first_problem).collect()
    }

    /// Every pool after the loss of these parts, in its steady state.
    pub fn pool_losses(&self, lost: &[TopologySelector]) -> Vec<PoolLoss> {
        self.pools.iter().map(|state| self.pool_loss(state, lost)).collect()
    }

    fn pool_loss(&self, state: &PoolState, lost: &[TopologySelector]) -> PoolLoss {
        let is_drained = |id: EndpointId| {
            self.endpoints.get(id).is_some_and(|endpoint| self.is_drain_ordered(endpoint))
        };
        let is_out = |id: EndpointId| {
            is_drained(id) || self.endpoints.get(id).is_some_and(|one| is_selected(one, lost))
        };
        let shares_before = publisher::steady_zone_shares(state, is_drained);
        let shares = publisher::steady_zone_shares(state, is_out);
        let zones = state.zones().iter().zip(shares_before.into_iter().zip(shares));
        PoolLoss {
            spec: Arc::clone(state.spec()),
            demand: PoolDemand::sum(state.zones().iter().map(ZoneState::load)),
            zones: zones
                .map(|(zone, (share_before, share))| ZoneLoss {
                    share_before,
                    share,
                    ..self.zone_loss(zone, lost)
                })
                .collect(),
            unavailable: self.describe_unavailable(state, lost),
        }
    }

    /// The counts and weights of a zone.
    fn zone_loss(&self, zone: &ZoneState, lost: &[TopologySelector]) -> ZoneLoss {
        let mut loss = ZoneLoss::default();
        for (id, member) in zone.roster().members() {
            let Some(endpoint) = self.endpoints.get(id) else { continue };
            let weight = u64::from(endpoint.location().weight());
            loss.declared_weight += weight;
            if self.is_drain_ordered(endpoint) {
                continue;
            }
            loss.endpoints += 1;
            let is_serving = member.is_serving();
            loss.weight_before += weight * u64::from(is_serving);
            if is_selected(endpoint, lost) {
                loss.lost += 1;
                loss.lost_serving += u32::from(is_serving);
            } else {
                loss.serving += u32::from(is_serving);
                loss.weight += weight * u64::from(is_serving);
            }
        }
        loss
    }

    /// Whether it is drained, or about to be.
    fn is_drain_ordered(&self, endpoint: &EndpointMachine) -> bool {
        self.orders().drains_for(ordered_endpoint(endpoint)).next().is_some()
    }

    /// Describes the endpoints that do not serve, or are drained, apart from those selected.
    fn describe_unavailable(&self, state: &PoolState, lost: &[TopologySelector]) -> Vec<String> {
        let (mut descriptions, mut down) = (Vec::new(), 0);
        let members = state.zones().iter().flat_map(|zone| zone.roster().members());
        for (id, member) in members {
            let Some(endpoint) = self.endpoints.get(id) else { continue };
            if is_selected(endpoint, lost) {
                continue;
            }
            let mut drains = self.orders().drains_for(ordered_endpoint(endpoint)).peekable();
            down += u32::from(drains.peek().is_none() && !member.is_serving());
            for order in drains {
                let description = format!("{} is drained (order {})", order.scope, order.id);
                if !descriptions.contains(&description) {
                    descriptions.push(description);
                }
            }
        }
        match down {
            0 => {}
            1 => descriptions.push("one endpoint does not serve".to_owned()),
            many => descriptions.push(format!("{many} endpoints do not serve")),
        }
        descriptions
    }
}

fn is_selected(endpoint: &EndpointMachine, lost: &[TopologySelector]) -> bool {
    let zone = endpoint.location().zone();
    let locality = &endpoint.pool().zones[zone].locality;
    lost.iter().any(|selector| selector.covers(locality, endpoint.address()))
}

fn has_selected(state: &PoolState, selector: &TopologySelector) -> bool {
    let covers = |zone: &ZoneSpec| {
        zone.endpoints.iter().any(|one| selector.covers(&zone.locality, one.address))
    };
    state.spec().zones.iter().any(covers)
}
