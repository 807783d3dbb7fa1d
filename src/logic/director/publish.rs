//! From endpoints to the snapshot that requests read.
//!
//! A publication costs what has changed: a zone is built anew only when one of its endpoints
//! changed, everything else is shared with the snapshot before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::recovery::ramp_update_interval;
use crate::logic::model::snapshot::{PoolView, Snapshot, SteeredTiers, Target};
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering::affinity::{AffinityIndex, AffinityZone, SessionAffinity};

use super::endpoint::EndpointState;
use super::pools::{PoolState, ZoneState, ZoneSubsets};
use super::traffic_split::{SubsetSelector, TrafficSplit};
use super::{Director, Event};

impl Director {
    /// Builds what has become stale, and keeps the rest of the last snapshot.
    pub(super) fn rebuild_snapshot(&mut self) -> Arc<Snapshot> {
        let now = self.now;
        for pool in std::mem::take(&mut self.dirty_pools) {
            if let Some(state) = self.pools.get_mut(pool) {
                let before = state.view.take();
                let view = build_view(state, before.as_ref(), (self.epoch, now));
                let was_panic = before.is_some_and(|before| before.is_panicking);
                let is_panic = view.is_panicking;
                state.view = Some(view);
                if was_panic != is_panic {
                    self.on_panic_change(pool, is_panic, now);
                }
            }
        }
        self.version += 1;
        let pools = self.pools.iter().filter_map(|pool| pool.view.clone()).collect();
        let routes = Arc::clone(&self.routes);
        Arc::new(Snapshot { version: self.version, routes, pools })
    }

    fn on_panic_change(&mut self, pool: usize, is_active: bool, now: Instant) {
        let name = Arc::clone(&self.pools[pool].spec.name);
        let members = Arc::clone(&self.pools[pool].members);
        for &id in &*members {
            let Some(endpoint) = self.endpoints.get_mut(id) else { continue };
            if let Some(verdict) = endpoint.down_failure() {
                endpoint.reschedule_probes(now, is_active);
                if !is_active {
                    // Nobody was cut while there was nowhere better to go. Now there is.
                    self.pending_aborts.push(verdict);
                }
                self.schedule_probe(id);
            }
        }
        self.push_event(Event::Panic { pool: name, is_active });
    }

    /// Has the shares of what grows in a pool computed again and again.
    pub(super) fn schedule_ramp(&mut self, pool: usize, now: Instant) {
        let state = &mut self.pools[pool];
        if state.ramp_due.is_none() {
            let due = now + ramp_update_interval(state.spec.recovery.ramp);
            state.ramp_due = Some(due);
            self.ramp_timers.insert((due, pool));
        }
    }

    /// Computes the shares of what grows.
    pub(super) fn advance_ramps(&mut self, now: Instant) {
        while let Some(&(due, pool)) = self.ramp_timers.first() {
            if due > now {
                break;
            }
            self.ramp_timers.pop_first();
            let Some(state) = self.pools.get_mut(pool) else { continue };
            state.ramp_due = None;
            let length = state.spec.recovery.ramp;
            let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
            let mut has_growing = false;
            let name = Arc::clone(&state.spec.name);
            let mut completed = Vec::new();
            for zone in state.zones.iter_mut().filter(|zone| zone.ramp.is_growing()) {
                zone.ramp.finish_if_full(length, now);
                if zone.ramp.is_growing() {
                    has_growing = true;
                } else {
                    completed.push((zone.place.clone(), None));
                }
            }
            let ramping = std::mem::take(&mut state.ramping);
            self.dirty_pools.insert(pool);
            for id in ramping {
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    endpoint.ramp.finish_if_full(length, now);
                    let is_growing = endpoint.ramp.is_growing();
                    endpoint.is_awaiting_first_request &=
                        is_growing && endpoint.stats.is_trial_due(now_us);
                    self.update_eligibility(id, now);
                    if is_growing {
                        has_growing = true;
                        self.pools[pool].ramping.push(id);
                    } else if self.endpoints.get(id).is_some_and(|one| one.health.can_serve(false))
                    {
                        let subject = self.endpoints.get(id).map(EndpointState::subject);
                        completed.extend(subject.map(|s| (s.locality.clone(), Some(s.address))));
                    }
                }
            }
            for (place, address) in completed {
                self.push_event(Event::RampEnded { pool: Arc::clone(&name), place, address });
            }
            if has_growing {
                self.schedule_ramp(pool, now);
            }
        }
    }
}

fn build_view(
    state: &mut PoolState,
    before: Option<&Arc<PoolView>>,
    (epoch, now): (Instant, Instant),
) -> Arc<PoolView> {
    if let Some(before) = before
        && !before.primary.tiers.is_empty()
        && state.counts.known == state.counts.drained
        && state.counts.all > 0
        && before.targets().all(|target| !state.is_drained(target.id))
    {
        // A configuration that replaces every endpoint: the old ones serve until something is
        // known of the new, two round trips later.
        return Arc::clone(before);
    }
    let split = TrafficSplit::new(state, now);
    let PoolState { spec, zones, counts, members, stats: live, pins, .. } = state;
    // What is drained is neither healthy nor not.
    let known = u64::from(counts.known - counts.drained);
    let is_drained = counts.drained == counts.all && counts.all > 0;
    let has_last_resort = split.zone_subsets().any(|built| built.last_resort.is_some());
    let floor = u64::from(spec.eviction.panic_percent) * known;
    let is_below_threshold = counts.serving == 0 && !has_last_resort
        || counts.serving > 0 && u64::from(counts.serving) * 100 < floor;
    // Endpoints that nothing is known of are no reason to panic: their first probe is under way.
    let panic = known > 0 && is_below_threshold;
    let (spec, members, live) = (Arc::clone(spec), Arc::clone(members), Arc::clone(live));
    let pins = pins
        .as_ref()
        .map(|seats| AffinityIndex::new(seats, build_pin_zones(zones, &spec, panic, epoch)));
    if panic {
        let build_variant =
            |way| SteeredTiers { tiers: split.panic_tiers(way, state), nonsuspect_tiers: None };
        let (led, others) = build_all_variants(&spec, build_variant);
        return Arc::new(PoolView {
            spec,
            primary: led,
            variants: others,
            trial_targets: Vec::new(),
            is_panicking: panic,
            is_drained,
            members,
            stats: live,
            affinity_index: pins,
        });
    }
    let eligible: [SubsetSelector; 3] = [
        |zone| zone.eligible.as_ref(),
        |zone| zone.suspects.as_ref(),
        |zone| zone.last_resort.as_ref(),
    ];
    let clear: [SubsetSelector; 4] =
        [|zone| zone.clear.as_ref(), eligible[0], eligible[1], eligible[2]];
    let has_doubted = split.zone_subsets().any(|built| built.has_doubted);
    let has_clear = split.zone_subsets().any(|built| built.clear.is_some());
    let (led, others) = build_all_variants(&spec, |way| SteeredTiers {
        tiers: split.build_tiers(way, &eligible),
        nonsuspect_tiers: (has_doubted && has_clear).then(|| split.build_tiers(way, &clear)),
    });
    // Nobody is fetched from a tier that gets nothing.
    let is_reachable =
        |target: &&Target| led.tiers.iter().any(|tier| tier.has_traffic_for_zone(target.zone));
    let awaiting_first_request =
        split.zone_subsets().flat_map(|built| &built.awaiting_first_request).filter(is_reachable);
    let trials = split
        .zone_subsets()
        .flat_map(|built| &built.trials)
        .chain(awaiting_first_request)
        .cloned()
        .collect();
    state.capacity_bounds = split.capacity_bounds();
    Arc::new(PoolView {
        spec,
        primary: led,
        variants: others,
        trial_targets: trials,
        is_panicking: panic,
        is_drained,
        members,
        stats: live,
        affinity_index: pins,
    })
}

/// Who takes requests that are pinned to it.
fn build_pin_zones(
    zones: &mut [ZoneState],
    spec: &PoolSpec,
    panic: bool,
    epoch: Instant,
) -> Vec<AffinityZone> {
    let drain_timeout = match spec.affinity.as_deref() {
        Some(SessionAffinity::Cookie(cookie)) => cookie.drain_timeout,
        _ => Duration::ZERO,
    };
    let of = |zone: &mut ZoneState| {
        let until_us =
            |since: Instant| (since + drain_timeout).saturating_duration_since(epoch).as_micros();
        let drained =
            zone.drained_targets().map(|(target, since)| (target.clone(), until_us(since) as u64));
        let drained = drained.collect();
        if panic {
            let all = zone.undrained_cell();
            return AffinityZone {
                any_request: all.clone(),
                repeatable_only: all,
                suspects: None,
                draining: drained,
            };
        }
        let ZoneSubsets { clear, eligible: open, suspects, .. } = zone.subsets().clone();
        AffinityZone { any_request: clear, repeatable_only: open, suspects, draining: drained }
    };
    zones.iter_mut().map(of).collect()
}

/// By the policy of the pool, and by every other way that its requests are led.
fn build_all_variants(
    spec: &PoolSpec,
    build_variant: impl Fn(usize) -> SteeredTiers,
) -> (SteeredTiers, Vec<SteeredTiers>) {
    (build_variant(0), (1..=spec.steer.extra_variants.len()).map(build_variant).collect())
}
