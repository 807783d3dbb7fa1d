//! The part of a pool's traffic that each endpoint receives.

use std::collections::HashMap;

use super::pools::PoolState;
use crate::logic::model::id::EndpointId;
use crate::logic::steering::FULL_SHARE;

/// The part of its pool's traffic that each endpoint receives, in 0..1, by the published view.
pub(crate) type EndpointShares = HashMap<EndpointId, f64>;

/// The shares of requests that are not sent again and may go to any endpoint.
pub(crate) fn endpoint_shares(pool: &PoolState) -> EndpointShares {
    let mut shares = EndpointShares::new();
    for tier in pool.view().iter().flat_map(|view| &view.primary.tiers) {
        let tier_share = tier.share as f64 / FULL_SHARE as f64;
        for (target, target_share) in tier.traffic_fractions() {
            *shares.entry(target.id).or_default() += tier_share * target_share;
        }
    }
    shares
}
