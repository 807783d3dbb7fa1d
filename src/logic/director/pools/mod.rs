//! The state of a pool in the director: its zones, and the machines that span them.

pub(crate) mod deferred_aborts;
pub(crate) mod divergence;
pub(crate) mod member;
pub(crate) mod ramping;
pub(crate) mod roster;
pub(crate) mod zone;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::eligibility::Eligibility;
use super::endpoint::location::EndpointLocation;
use super::outlier::ratios::PoolRatios;
use crate::logic::health::latency_baseline::LatencyBaseline;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::snapshot::{PoolStats, PoolView};
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering;
use crate::logic::steering::LatencyOrder;
use crate::logic::steering::affinity::SessionAffinity;
use deferred_aborts::DeferredAborts;
use divergence::DivergenceTracker;
use member::{EndpointCounts, MemberState};
use ramping::RampingMembers;
use zone::ZoneState;

/// Endpoints of a zone from which on its last resort is not worth a publication of its own.
const LARGE_ZONE: u32 = 64;

/// The index of pinned endpoints: hash, zone and position, in the order of the hashes.
pub(crate) type PinIndex = Arc<[(u64, u32, u32)]>;

/// Zones by tier, the first to serve first.
pub(crate) type ZoneTiers = Arc<[Vec<usize>]>;

#[derive(Debug)]
pub(crate) struct PoolState {
    spec: Arc<PoolSpec>,
    zones: Vec<ZoneState>,
    /// When it was first configured.
    created_at: Instant,
    /// For each steering variant of the pool.
    tiers: Vec<ZoneTiers>,
    counts: EndpointCounts,
    view: Option<Arc<PoolView>>,
    members: Arc<[EndpointId]>,
    stats: Arc<PoolStats>,
    pins: Option<PinIndex>,
    ratios: PoolRatios,
    ramping: RampingMembers,
    divergence: DivergenceTracker,
    /// Verdicts withheld since the start.
    withheld: u64,
    deferred_aborts: DeferredAborts,
    achieved_period: AchievedPeriod,
    latency_order: LatencyOrder,
    load_sampled_at: Option<Instant>,
    /// The part of the demand that its zones can take, as in the last snapshot.
    capacity_bounds: Vec<u64>,
}

/// A smoothed time from the start of one probe to the start of the next.
#[derive(Clone, Copy, Debug, Default)]
struct AchievedPeriod {
    period: Option<Duration>,
}

impl AchievedPeriod {
    fn record(&mut self, gap: Duration) {
        self.period = Some(self.period.map_or(gap, |mean| (mean * 31 + gap) / 32));
    }
}

impl PoolState {
    /// A pool without endpoints; the learned state of its machines is taken from `before`.
    pub(crate) fn new(
        spec: &Arc<PoolSpec>,
        here: Option<&Locality>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let mut old = before;
        let mut latency_order =
            old.as_mut().map(|old| std::mem::take(&mut old.latency_order)).unwrap_or_default();
        latency_order.set_regions(spec.zones.iter().map(|zone| &zone.locality.region));
        let old_ratios = old.as_ref().map(|old| &old.ratios);
        let old_index = |zone: usize| {
            let place = &spec.zones[zone].locality;
            old.as_ref()?.zones.iter().position(|zone| zone.place() == place)
        };
        let ratios = PoolRatios::new(spec.zones.len(), old_ratios, old_index, now);
        let mut baselines = old.as_ref().map(Self::latency_baselines).unwrap_or_default();
        let zones = spec.zones.iter().map(|zone| {
            let region = Arc::clone(&zone.locality.region);
            let latency = Arc::clone(baselines.entry(region).or_default());
            let mut old_zones = old.iter_mut().flat_map(|old| &mut old.zones);
            let before = old_zones.find(|before| *before.place() == zone.locality);
            ZoneState::new(zone, before, latency)
        });
        let zones = zones.collect();
        let fresh = Self {
            spec: Arc::clone(spec),
            zones,
            created_at: now,
            tiers: group_tiers(spec, here, &latency_order),
            counts: EndpointCounts::default(),
            view: None,
            members: Arc::default(),
            stats: Arc::default(),
            pins: None,
            ratios,
            ramping: RampingMembers::default(),
            divergence: DivergenceTracker::default(),
            withheld: 0,
            deferred_aborts: DeferredAborts::default(),
            achieved_period: AchievedPeriod::default(),
            latency_order,
            load_sampled_at: None,
            capacity_bounds: Vec::new(),
        };
        match old {
            None => fresh,
            Some(old) => Self {
                created_at: old.created_at,
                view: old.view,
                stats: old.stats,
                ramping: old.ramping,
                divergence: DivergenceTracker::new(old.divergence.is_active()),
                withheld: old.withheld,
                achieved_period: old.achieved_period,
                load_sampled_at: old.load_sampled_at,
                ..fresh
            },
        }
    }

    /// The latency baseline of each region.
    fn latency_baselines(&self) -> HashMap<Arc<str>, Arc<LatencyBaseline>> {
        let baseline = |zone: &ZoneState| {
            (Arc::clone(&zone.place().region), Arc::clone(zone.stats().latency()))
        };
        self.zones.iter().map(baseline).collect()
    }

    /// All its zones have their endpoints: counts, members and pins follow from them.
    pub(crate) fn index_members(&mut self) {
        let all = self.zones.iter().map(|zone| zone.roster().counts().all()).sum();
        self.counts = EndpointCounts::unknown(all);
        let mut members: Vec<EndpointId> =
            self.zones.iter().flat_map(|zone| zone.roster().ids().iter().copied()).collect();
        members.sort_unstable();
        self.members = members.into();
        let has_pins = matches!(self.spec.affinity.as_deref(), Some(SessionAffinity::Cookie(_)));
        self.pins = has_pins.then(|| {
            let zones = self.zones.iter().enumerate();
            let mut pins: Vec<_> =
                zones.flat_map(|(index, zone)| zone.roster().pins(index)).collect();
            pins.sort_unstable();
            pins.into()
        });
    }

    /// Replaces the state of an endpoint in its zone; returns whether that requires a publication.
    pub(crate) fn replace_member(
        &mut self,
        location: EndpointLocation,
        state: MemberState,
        now: Instant,
    ) -> bool {
        let zone = &mut self.zones[location.zone()];
        let old = zone.roster_mut().replace(location.position(), state, now);
        if old == state {
            return false;
        }
        self.counts.replace(old, state);
        // The last resort of a large zone that is down is published with whatever comes next:
        // verdicts in a zone without traffic move none.
        let has_no_effect = zone.is_down()
            && zone.roster().counts().all() > LARGE_ZONE
            && self.counts.serving() > 0
            && state.stays_last(old);
        state.is_published_differently(old) && !has_no_effect
    }

    pub(crate) fn spec(&self) -> &Arc<PoolSpec> {
        &self.spec
    }

    pub(crate) fn zones(&self) -> &[ZoneState] {
        &self.zones
    }

    pub(crate) fn zones_mut(&mut self) -> &mut [ZoneState] {
        &mut self.zones
    }

    pub(crate) fn zone(&self, zone: usize) -> &ZoneState {
        &self.zones[zone]
    }

    pub(crate) fn zone_mut(&mut self, zone: usize) -> &mut ZoneState {
        &mut self.zones[zone]
    }

    pub(crate) fn created_at(&self) -> Instant {
        self.created_at
    }

    pub(crate) fn tiers(&self) -> &[ZoneTiers] {
        &self.tiers
    }

    pub(crate) fn counts(&self) -> EndpointCounts {
        self.counts
    }

    /// Zones with an endpoint that takes traffic.
    pub(crate) fn serving_zones(&self) -> usize {
        self.zones.iter().filter(|zone| zone.roster().counts().serving() > 0).count()
    }

    /// All its endpoints, in the order of their identities.
    pub(crate) fn members(&self) -> &Arc<[EndpointId]> {
        &self.members
    }

    /// The counters of the pool that workers share.
    pub(crate) fn stats(&self) -> &Arc<PoolStats> {
        &self.stats
    }

    /// `None` where the pool has no pins.
    pub(crate) fn pins(&self) -> Option<&PinIndex> {
        self.pins.as_ref()
    }

    /// The view that was published last.
    pub(crate) fn view(&self) -> Option<&Arc<PoolView>> {
        self.view.as_ref()
    }

    /// Replaces the view; returns whether the pool was in panic before.
    pub(crate) fn replace_view(&mut self, view: Arc<PoolView>) -> bool {
        self.view.replace(view).is_some_and(|before| before.is_panicking)
    }

    pub(crate) fn is_in_panic(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.is_panicking)
    }

    pub(crate) fn is_drained(&self, id: EndpointId) -> bool {
        let mut members = self.zones.iter().flat_map(|zone| zone.roster().members());
        members.any(|(member, state)| member == id && state.eligibility() == Eligibility::Drained)
    }

    pub(crate) fn ratios_mut(&mut self) -> &mut PoolRatios {
        &mut self.ratios
    }

    pub(crate) fn ramping_mut(&mut self) -> &mut RampingMembers {
        &mut self.ramping
    }

    pub(crate) fn divergence(&self) -> &DivergenceTracker {
        &self.divergence
    }

    pub(crate) fn divergence_mut(&mut self) -> &mut DivergenceTracker {
        &mut self.divergence
    }

    pub(crate) fn withheld(&self) -> u64 {
        self.withheld
    }

    pub(crate) fn count_withheld(&mut self) {
        self.withheld += 1;
    }

    pub(crate) fn deferred_aborts_mut(&mut self) -> &mut DeferredAborts {
        &mut self.deferred_aborts
    }

    /// The smoothed period of probes of endpoints that are up.
    pub(crate) fn achieved_period(&self) -> Option<Duration> {
        self.achieved_period.period
    }

    pub(crate) fn record_probe_gap(&mut self, gap: Duration) {
        self.achieved_period.record(gap);
    }

    pub(crate) fn latency_order(&self) -> &LatencyOrder {
        &self.latency_order
    }

    pub(crate) fn latency_order_mut(&mut self) -> &mut LatencyOrder {
        &mut self.latency_order
    }

    /// Groups its zones into tiers again, because the order of regions has changed.
    pub(crate) fn regroup_tiers(&mut self, here: Option<&Locality>) {
        self.tiers = group_tiers(&self.spec, here, &self.latency_order);
    }

    /// The time since the last sample of its load, which is taken now.
    pub(crate) fn begin_load_sample(&mut self, now: Instant) -> Duration {
        let before = self.load_sampled_at.replace(now);
        before.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    pub(crate) fn capacity_bounds(&self) -> &[u64] {
        &self.capacity_bounds
    }

    pub(crate) fn set_capacity_bounds(&mut self, bounds: Vec<u64>) {
        self.capacity_bounds = bounds;
    }

    /// Whether the eviction budget allows `more` endpoints of a zone to go down.
    pub(crate) fn can_evict(&self, zone: usize, more: u32) -> bool {
        let (evict, counts) = (&self.spec.eviction, self.zones[zone].roster().counts());
        self.counts.down() + more <= self.max_down()
            && counts.down() + more <= percent_limit(counts.all(), evict.max_zone_down_percent)
    }

    /// The same for all of a zone that is not down yet.
    pub(crate) fn can_evict_zone(&self, zone: usize) -> bool {
        let counts = self.zones[zone].roster().counts();
        self.can_evict(zone, counts.all() - counts.down())
    }

    /// Endpoints of the pool that may be down.
    pub(crate) fn max_down(&self) -> u32 {
        let evict = &self.spec.eviction;
        evict.max_down_endpoints.min(percent_limit(self.counts.all(), evict.max_down_percent))
    }

    /// Endpoints of a zone that may be down.
    pub(crate) fn max_zone_down(&self, zone: &ZoneState) -> u32 {
        percent_limit(zone.roster().counts().all(), self.spec.eviction.max_zone_down_percent)
    }

    /// Whether another zone than this one has clear endpoints.
    pub(crate) fn has_clear_outside(&self, zone: usize) -> bool {
        self.counts.clear() > self.zones[zone].roster().counts().clear()
    }
}

/// For each steering variant: zones by tier.
fn group_tiers(
    spec: &PoolSpec,
    here: Option<&Locality>,
    latency_order: &LatencyOrder,
) -> Vec<ZoneTiers> {
    let order = latency_order.region_names();
    let variants = spec.steer.variants();
    variants
        .map(|variant| steering::group_into_tiers(spec, &variant, here, &order).into())
        .collect()
}

/// At least one, unless `percent` is zero: a budget that rounds to zero would evict nothing.
fn percent_limit(all: u32, percent: u32) -> u32 {
    let limit = (u64::from(all) * u64::from(percent) / 100) as u32;
    if percent > 0 { limit.max(1) } else { 0 }
}
