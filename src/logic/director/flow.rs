//! What a pool is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::divide::Division;
use super::pools::{PoolState, tiers};
use super::{Director, Event};
use crate::logic::id::Place;
use crate::logic::steer::{Flow, LOOK_EVERY, Nearness, Seen, WHOLE};
use crate::logic::topology::Topology;

/// How often flows are looked at where something is said of what can be taken.
const PERIOD: Duration = Duration::from_millis(250);

/// And where they are only told.
const AT_EASE: Duration = Duration::from_secs(2);

/// So many endpoints are looked at within a period; with more it is longer.
const AT_ONCE: u32 = 10_000;

/// What changes less than this does not make a publication of its own.
const NEWS: u64 = WHOLE / 200;

impl Director {
    /// Begins, or goes on, to look at the flows of all pools.
    pub(super) fn watch_flows(&mut self, now: Instant) {
        self.flow_dues.clear();
        let dues = self.pools.iter().enumerate().map(|(index, pool)| (now + period(pool), index));
        self.flow_dues.extend(dues);
    }

    /// What is obeyed.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Requests to every zone of every pool.
    #[must_use]
    pub fn flows(&self) -> Vec<(Arc<str>, Place, Flow)> {
        let of = |pool: &PoolState| -> Vec<(Arc<str>, Place, Flow)> {
            let zones = pool.zones.iter();
            zones.map(|zone| (Arc::clone(&pool.spec.name), zone.place.clone(), zone.flow)).collect()
        };
        self.pools.iter().flat_map(of).collect()
    }

    /// How soon the regions of every pool answer.
    #[must_use]
    pub fn nearness(&self) -> Vec<(Arc<str>, Nearness)> {
        let of = |pool: &PoolState| (Arc::clone(&pool.spec.name), pool.nearness.clone());
        self.pools.iter().map(of).collect()
    }

    /// Takes these flows for what is asked for, and this for how soon regions answer.
    pub fn presume(
        &mut self,
        flows: &[(Arc<str>, Place, Flow)],
        nearness: &[(Arc<str>, Nearness)],
    ) {
        for (index, pool) in self.pools.iter_mut().enumerate() {
            let known = nearness.iter().find(|(name, _)| *name == pool.spec.name);
            if let Some((_, known)) = known {
                pool.nearness = known.clone();
                pool.tiers = tiers(&pool.spec, self.topology.here.as_ref(), &pool.nearness);
            }
            for zone in &mut pool.zones {
                let known = flows
                    .iter()
                    .find(|(name, place, _)| *name == pool.spec.name && *place == zone.place);
                if let Some((.., flow)) = known {
                    zone.flow = *flow;
                }
            }
            self.stale.insert(index);
        }
    }

    /// Looks at the flows that are due.
    pub(super) fn look_at_flows(&mut self, now: Instant) {
        while let Some(&(due, index)) = self.flow_dues.first() {
            if due > now {
                break;
            }
            self.flow_dues.pop_first();
            let Some(pool) = self.pools.get_mut(index) else { continue };
            let passed =
                pool.looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            pool.looked_at = Some(now);
            for zone in &mut pool.zones {
                let lives = zone.members.iter().filter_map(|&id| Some(&self.roster.get(id)?.live));
                let (ended, in_flight) = lives.fold((0, 0), |(ended, in_flight), live| {
                    let tries = live.tries();
                    (ended + tries.good + tries.bad, in_flight + u64::from(live.in_flight()))
                });
                zone.flow.look(ended + in_flight, in_flight, passed);
            }
            self.flow_dues.insert((now + period(pool), index));
            self.compare_regions(index, now);
            self.compare_bounds(index, now);
        }
    }

    /// Has the pool published when what it can take has changed.
    fn compare_bounds(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        if !pool.spec.states_capacity() {
            return;
        }
        let bounds = Division::of(pool, now).bounds();
        let is_news = bounds.len() != pool.bounds.len()
            || bounds.iter().zip(&pool.bounds).any(|(new, old)| new.abs_diff(*old) > NEWS);
        if is_news {
            pool.bounds = bounds;
            self.stale.insert(index);
        }
    }

    /// Has the pool published when another region answers sooner.
    fn compare_regions(&mut self, index: usize, now: Instant) {
        let pool = &mut self.pools[index];
        if !pool.spec.steer.is_timed() || !pool.nearness.is_due(now) {
            return;
        }
        let mut seen: BTreeMap<Arc<str>, (Seen, f64)> = BTreeMap::new();
        for zone in &mut pool.zones {
            let (seen, probed) = seen.entry(Arc::clone(&zone.place.region)).or_default();
            let (mut answers, mut us) = (0, 0);
            for endpoint in zone.members.iter().filter_map(|&id| self.roster.get(id)) {
                let timed = endpoint.live.timed();
                (answers, us) = (answers + timed.0, us + timed.1);
                if let Some(least) = endpoint.past.least_latency().filter(|_| endpoint.serves()) {
                    *probed += 1.0;
                    let sum = seen.probe_us.get_or_insert(0.0);
                    *sum += (least.as_micros() as f64 - *sum) / *probed;
                }
            }
            // What was counted at endpoints that are gone is gone too.
            let before = std::mem::replace(&mut zone.timed, (answers, us));
            seen.answers.0 += answers.saturating_sub(before.0);
            seen.answers.1 += us.saturating_sub(before.1);
        }
        let of = |region: &str| seen.get(region).map(|(seen, _)| seen.clone()).unwrap_or_default();
        if pool.nearness.look(of, now) {
            pool.tiers = tiers(&pool.spec, self.topology.here.as_ref(), &pool.nearness);
            self.stale.insert(index);
            let (name, order) = (Arc::clone(&pool.spec.name), pool.nearness.order());
            let order = order.into_iter().map(Arc::from).collect();
            self.event(Event::Regions { pool: name, order });
        }
    }
}

fn period(pool: &PoolState) -> Duration {
    let least = match pool.spec.steer.is_timed() {
        _ if pool.spec.states_capacity() => PERIOD,
        true => LOOK_EVERY,
        false => AT_EASE,
    };
    least * (1 + pool.counts.all / AT_ONCE)
}
