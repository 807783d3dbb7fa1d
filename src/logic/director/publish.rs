//! From endpoints to the snapshot that requests read.
//!
//! A publication costs what has changed: a zone is built anew only when one of its endpoints
//! changed, everything else is shared with the snapshot before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::affinity::{Affinity, PinZone, Pins};
use crate::logic::recovery::ramp_step;
use crate::logic::snapshot::{Led, PoolView, Snapshot, Target};
use crate::logic::topology::PoolSpec;

use super::divide::{Choice, Division};
use super::endpoint::Endpoint;
use super::pools::{Built, PoolState, ZoneState};
use super::{Director, Event};

impl Director {
    /// Builds what has become stale, and keeps the rest of the last snapshot.
    pub(super) fn rebuild(&mut self) -> Arc<Snapshot> {
        let now = self.now;
        for pool in std::mem::take(&mut self.stale) {
            if let Some(state) = self.pools.get_mut(pool) {
                let before = state.view.take();
                let view = view(state, before.as_ref(), (self.epoch, now));
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
            let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
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
                    endpoint.is_awaited &= still && endpoint.live.is_trial_due(now_us);
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

fn view(
    state: &mut PoolState,
    before: Option<&Arc<PoolView>>,
    (epoch, now): (Instant, Instant),
) -> Arc<PoolView> {
    if let Some(before) = before
        && !before.led.tiers.is_empty()
        && state.counts.known == state.counts.drained
        && state.counts.all > 0
        && before.targets().all(|target| !state.is_drained(target.id))
    {
        // A configuration that replaces every endpoint: the old ones serve until something is
        // known of the new, two round trips later.
        return Arc::clone(before);
    }
    let division = Division::of(state, now);
    let PoolState { spec, zones, counts, members, live, pins, .. } = state;
    // What is drained is neither healthy nor not.
    let known = u64::from(counts.known - counts.drained);
    let is_drained = counts.drained == counts.all && counts.all > 0;
    let has_resort = division.zones().any(|built| built.resort.is_some());
    let floor = u64::from(spec.evict.panic_percent) * known;
    let is_short = counts.serving == 0 && !has_resort
        || counts.serving > 0 && u64::from(counts.serving) * 100 < floor;
    // Endpoints that nothing is known of are no reason to panic: their first probe is under way.
    let panic = known > 0 && is_short;
    let (spec, members, live) = (Arc::clone(spec), Arc::clone(members), Arc::clone(live));
    let pins = pins.as_ref().map(|seats| Pins::new(seats, pin_zones(zones, &spec, panic, epoch)));
    if panic {
        let lead = |way| Led { tiers: division.everybody(way, state), proven: None };
        let (led, others) = every_way(&spec, lead);
        return Arc::new(PoolView {
            spec,
            led,
            others,
            trials: Vec::new(),
            panic,
            is_drained,
            members,
            live,
            pins,
        });
    }
    let open: [Choice; 3] =
        [|zone| zone.open.as_ref(), |zone| zone.suspects.as_ref(), |zone| zone.resort.as_ref()];
    let clear: [Choice; 4] = [|zone| zone.clear.as_ref(), open[0], open[1], open[2]];
    let has_doubted = division.zones().any(|built| built.has_doubted);
    let any_clear = division.zones().any(|built| built.clear.is_some());
    let (led, others) = every_way(&spec, |way| Led {
        tiers: division.assemble(way, &open),
        proven: (has_doubted && any_clear).then(|| division.assemble(way, &clear)),
    });
    // Nobody is fetched from a tier that gets nothing.
    let is_led = |target: &&Target| led.tiers.iter().any(|tier| tier.reaches(target.zone));
    let awaited = division.zones().flat_map(|built| &built.awaited).filter(is_led);
    let trials = division.zones().flat_map(|built| &built.trials).chain(awaited).cloned().collect();
    state.bounds = division.bounds();
    Arc::new(PoolView { spec, led, others, trials, panic, is_drained, members, live, pins })
}

/// Who takes requests that are pinned to it.
fn pin_zones(
    zones: &mut [ZoneState],
    spec: &PoolSpec,
    panic: bool,
    epoch: Instant,
) -> Vec<PinZone> {
    let stay = match spec.affinity.as_deref() {
        Some(Affinity::Cookie(cookie)) => cookie.drain,
        _ => Duration::ZERO,
    };
    let of = |zone: &mut ZoneState| {
        let until_us = |since: Instant| (since + stay).saturating_duration_since(epoch).as_micros();
        let drained =
            zone.drained().map(|(target, since)| (target.clone(), until_us(since) as u64));
        let drained = drained.collect();
        if panic {
            let all = zone.everybody();
            return PinZone { clear: all.clone(), open: all, suspects: None, drained };
        }
        let Built { clear, open, suspects, .. } = zone.built().clone();
        PinZone { clear, open, suspects, drained }
    };
    zones.iter_mut().map(of).collect()
}

/// By the policy of the pool, and by every other way that its requests are led.
fn every_way(spec: &PoolSpec, lead: impl Fn(usize) -> Led) -> (Led, Vec<Led>) {
    (lead(0), (1..=spec.steer.others.len()).map(lead).collect())
}
