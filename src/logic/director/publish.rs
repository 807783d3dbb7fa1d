//! From endpoints to the snapshot that requests read.
//!
//! A publication costs what has changed: a zone is built anew only when one of its endpoints
//! changed, everything else is shared with the snapshot before.

use std::sync::Arc;
use std::time::Instant;

use crate::logic::recovery::{FULL, ramp_step};
use crate::logic::snapshot::{Cell, PoolView, Snapshot, Target, Tier};
use crate::logic::steer::{self, TierWeight};

use super::endpoint::Endpoint;
use super::pools::{Built, PoolState};
use super::{Director, Event};

/// One zone as a tier sees it: its parts, and the share of its ramp in thousandths.
type Part<'a> = (&'a Built, u32);

/// Which endpoints of a zone.
type Choice = fn(&Built) -> Option<&Cell>;

impl Director {
    /// Builds what has become stale, and keeps the rest of the last snapshot.
    pub(super) fn rebuild(&mut self) -> Arc<Snapshot> {
        let now = self.now;
        for pool in std::mem::take(&mut self.stale) {
            if let Some(state) = self.pools.get_mut(pool) {
                let before = state.view.take();
                let view = view(state, before.as_ref(), now);
                let was_panic = before.is_some_and(|before| before.panic);
                let is_panic = view.panic;
                state.view = Some(view);
                if was_panic != is_panic {
                    self.panic_changed(pool, is_panic, now);
                }
            }
        }
        self.version += 1;
        let pools = self.pools.iter().filter_map(|pool| pool.view.clone()).collect();
        let routes = Arc::clone(&self.routes);
        Arc::new(Snapshot { version: self.version, routes, pools, drill: None })
    }

    fn panic_changed(&mut self, pool: usize, on: bool, now: Instant) {
        let name = Arc::clone(&self.pools[pool].spec.name);
        let members = Arc::clone(&self.pools[pool].members);
        for &id in &*members {
            let Some(endpoint) = self.roster.get_mut(id) else { continue };
            if let Some(verdict) = endpoint.down_for() {
                endpoint.repace(now, on);
                if !on {
                    // Nobody was cut while there was nowhere better to go. Now there is.
                    self.cuts.push(verdict);
                }
                self.arm(id);
            }
        }
        self.event(Event::Panic { pool: name, on });
    }

    /// Has the shares of what grows in a pool computed again and again.
    pub(super) fn ramps(&mut self, pool: usize, now: Instant) {
        let state = &mut self.pools[pool];
        if state.ramp_due.is_none() {
            let due = now + ramp_step(state.spec.recover.ramp);
            state.ramp_due = Some(due);
            self.ramp_dues.insert((due, pool));
        }
    }

    /// Computes the shares of what grows.
    pub(super) fn ramp_on(&mut self, now: Instant) {
        while let Some(&(due, pool)) = self.ramp_dues.first() {
            if due > now {
                break;
            }
            self.ramp_dues.pop_first();
            let Some(state) = self.pools.get_mut(pool) else { continue };
            state.ramp_due = None;
            let length = state.spec.recover.ramp;
            let mut grows = false;
            let name = Arc::clone(&state.spec.name);
            let mut whole = Vec::new();
            for zone in state.zones.iter_mut().filter(|zone| zone.ramp.is_growing()) {
                zone.ramp.settle(length, now);
                if zone.ramp.is_growing() {
                    grows = true;
                } else {
                    whole.push((zone.place.clone(), None));
                }
            }
            let ramping = std::mem::take(&mut state.ramping);
            self.stale.insert(pool);
            for id in ramping {
                if let Some(endpoint) = self.roster.get_mut(id) {
                    endpoint.ramp.settle(length, now);
                    let still = endpoint.ramp.is_growing();
                    self.restand(id, now);
                    if still {
                        grows = true;
                        self.pools[pool].ramping.push(id);
                    } else if self.roster.get(id).is_some_and(|one| one.health.serves(false)) {
                        let subject = self.roster.get(id).map(Endpoint::subject);
                        whole.extend(subject.map(|s| (s.place.clone(), Some(s.address))));
                    }
                }
            }
            for (place, address) in whole {
                self.event(Event::RampEnded { pool: Arc::clone(&name), place, address });
            }
            if grows {
                self.ramps(pool, now);
            }
        }
    }
}

fn view(state: &mut PoolState, before: Option<&Arc<PoolView>>, now: Instant) -> Arc<PoolView> {
    if let Some(before) = before
        && !before.tiers.is_empty()
        && state.counts.known == 0
        && state.counts.all > 0
    {
        // A configuration that replaces every endpoint: the old ones serve until something is
        // known of the new, two round trips later.
        return Arc::clone(before);
    }
    let length = state.spec.recover.ramp;
    let PoolState { spec, zones, tiers, counts, members, live, .. } = state;
    let parts: Vec<(Built, u32)> =
        zones.iter_mut().map(|zone| (zone.built().clone(), zone.ramp.share(length, now))).collect();
    let tiers: Vec<Vec<Part<'_>>> = tiers
        .iter()
        .map(|zones| zones.iter().map(|&zone| (&parts[zone].0, parts[zone].1)).collect())
        .collect();
    let known = u64::from(counts.known);
    let has_resort = parts.iter().any(|(built, _)| built.resort.is_some());
    let floor = u64::from(spec.evict.panic_percent) * known;
    let is_short = counts.serving == 0 && !has_resort
        || counts.serving > 0 && u64::from(counts.serving) * 100 < floor;
    // Endpoints that nothing is known of are no reason to panic: their first probe is under way.
    let panic = known > 0 && is_short;
    let (spec, members, live) = (Arc::clone(spec), Arc::clone(members), Arc::clone(live));
    if panic {
        let tiers = everybody(state);
        let (proven, trials) = (None, Vec::new());
        return Arc::new(PoolView { spec, tiers, proven, trials, panic, members, live });
    }
    let open: [Choice; 3] =
        [|zone| zone.open.as_ref(), |zone| zone.suspects.as_ref(), |zone| zone.resort.as_ref()];
    let clear: [Choice; 4] = [|zone| zone.clear.as_ref(), open[0], open[1], open[2]];
    let has_doubted = parts.iter().any(|(built, _)| built.has_doubted);
    let any_clear = parts.iter().any(|(built, _)| built.clear.is_some());
    let trials: Vec<Target> =
        parts.iter().flat_map(|(built, _)| built.trials.iter().cloned()).collect();
    let proven = (has_doubted && any_clear).then(|| assemble(&tiers, &clear));
    Arc::new(PoolView {
        spec,
        tiers: assemble(&tiers, &open),
        proven,
        trials,
        panic,
        members,
        live,
    })
}

/// Tiers of the first choice that anybody fits share the traffic; the others follow in their order,
/// for requests that have been everywhere else.
fn assemble(tiers: &[Vec<Part<'_>>], choices: &[Choice]) -> Vec<Tier> {
    let fits = |choice: &Choice| tiers.iter().flatten().any(|(built, _)| choice(built).is_some());
    let Some(first) = choices.iter().position(fits) else { return Vec::new() };
    let weights: Vec<TierWeight> =
        tiers.iter().map(|tier| tier_weight(tier, choices[first])).collect();
    let shares = steer::shares(&weights);
    let mut assembled = Vec::new();
    for (position, choice) in choices.iter().enumerate().skip(first) {
        for (tier, &share) in tiers.iter().zip(&shares) {
            let cells: Vec<(Cell, u64)> = tier
                .iter()
                .filter_map(|(built, ramp)| {
                    let cell = choice(built)?;
                    Some((cell.clone(), scaled(cell.weight(), *ramp)))
                })
                .collect();
            if !cells.is_empty() {
                assembled.push(Tier::new(if position == first { share } else { 0 }, cells));
            }
        }
    }
    assembled
}

/// The suspected and the doubted count as healthy where their tier has anything better: one among
/// others moves nothing to the next tier; a tier that has only such moves all.
fn tier_weight(tier: &[Part<'_>], choice: Choice) -> TierWeight {
    let total = tier.iter().map(|(built, _)| built.known).sum();
    if !tier.iter().any(|(built, _)| choice(built).is_some()) {
        return TierWeight { total, healthy: 0 };
    }
    let weight = |built: &Built| {
        let of = |cell: Option<&Cell>| cell.map_or(0, Cell::weight);
        let (open, suspects) = (of(built.open.as_ref()), of(built.suspects.as_ref()));
        if open > 0 { open + suspects } else { suspects.max(of(choice(built))) }
    };
    let healthy = tier.iter().map(|(built, ramp)| scaled(weight(built), *ramp)).sum();
    TierWeight { total, healthy }
}

fn scaled(weight: u64, ramp: u32) -> u64 {
    (weight * u64::from(ramp) / u64::from(FULL)).max(u64::from(weight > 0))
}

/// Panic: all endpoints, by their declared weights.
fn everybody(state: &PoolState) -> Vec<Tier> {
    let cells: Vec<Vec<(Cell, u64)>> = state
        .tiers
        .iter()
        .map(|zones| {
            let cells = zones.iter().filter_map(|&zone| state.zones[zone].everybody());
            cells.map(|cell| (cell.clone(), cell.weight())).collect()
        })
        .collect();
    let weight = |cells: &Vec<(Cell, u64)>| {
        let total = cells.iter().map(|(_, weight)| weight).sum();
        TierWeight { total, healthy: total }
    };
    let shares = steer::shares(&cells.iter().map(weight).collect::<Vec<_>>());
    let tiers = cells.into_iter().zip(shares).filter(|(cells, _)| !cells.is_empty());
    tiers.map(|(cells, share)| Tier::new(share, cells)).collect()
}
