//! The published view of one pool: its tiers, its trials and whether it is in panic.

use std::sync::Arc;
use std::time::Instant;

use super::affinity_view::build_affinity_index;
use super::traffic_split::{SubsetSelector, TrafficSplit};
use crate::logic::director::pools::PoolState;
use crate::logic::director::pools::roster::ZoneSubsets;
use crate::logic::model::id::EndpointId;
use crate::logic::model::snapshot::{PoolView, SteeredTiers, Target};
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering::FULL_SHARE;

/// Each choice is for requests for which the previous one has no endpoint.
const REPEATABLE: [SubsetSelector; 3] =
    [ZoneSubsets::eligible, ZoneSubsets::suspects, ZoneSubsets::last_resort];

/// The same for requests that must not run twice: those go to clear endpoints first.
const NONREPEATABLE: [SubsetSelector; 4] =
    [ZoneSubsets::clear, ZoneSubsets::eligible, ZoneSubsets::suspects, ZoneSubsets::last_resort];

/// The tiers of all steering variants, and the endpoints that are tried.
struct PoolTiers {
    primary: SteeredTiers,
    variants: Vec<SteeredTiers>,
    trial_targets: Vec<Target>,
}

pub(super) fn build_view(pool: &mut PoolState, epoch: Instant, now: Instant) -> Arc<PoolView> {
    if let Some(before) = pool.view()
        && is_replaced_by_unknown(pool, before)
    {
        return Arc::clone(before);
    }
    let split = TrafficSplit::new(pool, now);
    let is_panicking = is_in_panic(pool, &split);
    let affinity_index = build_affinity_index(pool, is_panicking, epoch);
    let tiers =
        if is_panicking { build_panic_tiers(pool, &split) } else { build_tiers(pool, &split) };
    if !is_panicking {
        pool.set_capacity_bounds(split.capacity_bounds());
    }
    let counts = pool.counts();
    Arc::new(PoolView {
        spec: Arc::clone(pool.spec()),
        primary: tiers.primary,
        variants: tiers.variants,
        trial_targets: tiers.trial_targets,
        is_panicking,
        has_several_zones: pool.serving_zones() > 1,
        is_drained: counts.drained() == counts.all() && counts.all() > 0,
        members: Arc::clone(pool.members()),
        stats: Arc::clone(pool.stats()),
        affinity_index,
    })
}

/// The share of each zone by the policy of the pool, in 0..1, once all ramps have ended. The
/// endpoints that `is_out` selects do not serve.
pub(crate) fn steady_zone_shares(
    state: &PoolState,
    is_out: impl Fn(EndpointId) -> bool,
) -> Vec<f64> {
    let zones = state.zones().iter();
    let subsets = zones.map(|zone| zone.roster().steady_subsets(&is_out)).collect();
    let split = TrafficSplit::steady(state, subsets);
    let mut shares = vec![0.0; state.zones().len()];
    for tier in split.build_tiers(0, &REPEATABLE) {
        let tier_share = tier.share as f64 / FULL_SHARE as f64;
        for (target, fraction) in tier.traffic_fractions() {
            shares[target.zone] += tier_share * fraction;
        }
    }
    shares
}

/// Whether a configuration has replaced every endpoint: the old ones serve until something is known
/// of the new, two round trips later.
fn is_replaced_by_unknown(pool: &PoolState, before: &PoolView) -> bool {
    let counts = pool.counts();
    !before.primary.tiers.is_empty()
        && counts.known() == counts.drained()
        && counts.all() > 0
        && before.targets().all(|target| !pool.is_drained(target.id))
}

/// Whether so little is healthy that requests go to all endpoints. Drained endpoints are neither
/// healthy nor not; unknown ones are no reason to panic, because their first probe is under way.
fn is_in_panic(pool: &PoolState, split: &TrafficSplit) -> bool {
    let counts = pool.counts();
    let (serving, known) =
        (u64::from(counts.serving()), u64::from(counts.known() - counts.drained()));
    let has_last_resort = split.zone_subsets().any(|zone| zone.last_resort().is_some());
    let floor = u64::from(pool.spec().eviction.panic_percent) * known;
    known > 0 && (serving == 0 && !has_last_resort || serving > 0 && serving * 100 < floor)
}

fn build_panic_tiers(pool: &PoolState, split: &TrafficSplit) -> PoolTiers {
    let (primary, variants) = build_all_variants(pool.spec(), |variant| SteeredTiers {
        tiers: split.panic_tiers(variant, pool),
        nonsuspect_tiers: None,
    });
    PoolTiers { primary, variants, trial_targets: Vec::new() }
}

fn build_tiers(pool: &PoolState, split: &TrafficSplit) -> PoolTiers {
    let has_doubted = split.zone_subsets().any(ZoneSubsets::has_doubted);
    let has_clear = split.zone_subsets().any(|zone| zone.clear().is_some());
    let (primary, variants) = build_all_variants(pool.spec(), |variant| SteeredTiers {
        tiers: split.build_tiers(variant, &REPEATABLE),
        nonsuspect_tiers: (has_doubted && has_clear)
            .then(|| split.build_tiers(variant, &NONREPEATABLE)),
    });
    // No request is moved from a tier without a share.
    let is_reachable =
        |target: &&Target| primary.tiers.iter().any(|tier| tier.has_traffic_for_zone(target.zone));
    let awaiting = split.zone_subsets().flat_map(ZoneSubsets::awaiting_first_request);
    let trials = split.zone_subsets().flat_map(ZoneSubsets::trials);
    let trial_targets = trials.chain(awaiting.filter(is_reachable)).cloned().collect();
    PoolTiers { primary, variants, trial_targets }
}

/// The tiers by the policy of the pool, and those of every other variant of its steering.
fn build_all_variants(
    spec: &PoolSpec,
    build_variant: impl Fn(usize) -> SteeredTiers,
) -> (SteeredTiers, Vec<SteeredTiers>) {
    (build_variant(0), (1..=spec.steer.extra_variants.len()).map(build_variant).collect())
}
