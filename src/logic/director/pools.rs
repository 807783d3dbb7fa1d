//! What the director keeps of a pool and its zones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::failure_ratio::{DecayedCounts, FailureRatioTest};
use crate::logic::health::recovery::{FlapHistory, Ramp};
use crate::logic::model::endpoint_stats::ZoneStats;
use crate::logic::model::id::{EndpointId, Locality};
use crate::logic::model::outcome::Failure;
use crate::logic::model::snapshot::{PoolStats, PoolView, Target, ZoneTargets};
use crate::logic::model::topology::{PoolSpec, ZoneSpec};
use crate::logic::steering;
use crate::logic::steering::affinity::SessionAffinity;
use crate::logic::steering::balance::hash::endpoint_hash;
use crate::logic::steering::balance::{HashTableKind, ZoneHashTable};
use crate::logic::steering::target::WEIGHT_ONE;
use crate::logic::steering::{LatencyOrder, ZoneLoad};

use super::EvidenceSource;
use super::aborts::DeferredAbort;

/// What an endpoint may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eligibility {
    /// Nothing: its verdict is down.
    #[default]
    Out,
    Unknown,
    Clear,
    /// What can be sent again.
    Doubted,
    /// What nobody else can serve: it is confirmed or cleared within a few probes.
    Suspect,
    /// The same, once there is not even a suspect: its zone is down.
    LastResort,
    /// A single request that can be sent again, from time to time.
    Trial,
    /// Nothing: an operator has said so.
    Drained,
}

impl Eligibility {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Unknown => "unknown",
            Self::Clear => "clear",
            Self::Doubted => "doubted",
            Self::Suspect => "suspect",
            Self::LastResort => "last_resort",
            Self::Trial => "trial",
            Self::Drained => "drained",
        }
    }
}

/// One endpoint, as its zone sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberState {
    pub(super) eligibility: Eligibility,
    /// In parts of [`crate::logic::steering::target::WEIGHT_ONE`]: as declared, less what a ramp or a degraded state takes.
    pub(super) weight: u32,
    /// What it counts as capacity, whether it serves or not.
    pub(super) capacity: u32,
    pub(super) is_down: bool,
    /// Could serve if its zone may.
    pub(super) is_ready: bool,
    /// Traffic has put it down.
    pub(super) is_ejected: bool,
    /// It is back, and the next request that can be sent again is its first.
    pub(super) is_awaiting_first_request: bool,
}

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointCounts {
    pub(super) all: u32,
    pub(super) known: u32,
    pub(super) clear: u32,
    pub(super) serving: u32,
    pub(super) down: u32,
    pub(super) ready: u32,
    pub(super) ejected: u32,
    pub(super) drained: u32,
}

impl EndpointCounts {
    pub(super) fn replace(&mut self, old: MemberState, new: MemberState) {
        let adjust = |count: &mut u32, was: bool, is: bool| {
            *count = *count + u32::from(is) - u32::from(was);
        };
        let is_serving = |entry: MemberState| {
            matches!(
                entry.eligibility,
                Eligibility::Clear | Eligibility::Doubted | Eligibility::Suspect
            )
        };
        let is_known = |entry: MemberState| entry.eligibility != Eligibility::Unknown;
        let is_clear = |entry: MemberState| entry.eligibility == Eligibility::Clear;
        let is_drained = |entry: MemberState| entry.eligibility == Eligibility::Drained;
        adjust(&mut self.drained, is_drained(old), is_drained(new));
        adjust(&mut self.known, is_known(old), is_known(new));
        adjust(&mut self.clear, is_clear(old), is_clear(new));
        adjust(&mut self.serving, is_serving(old), is_serving(new));
        adjust(&mut self.down, old.is_down, new.is_down);
        adjust(&mut self.ready, old.is_ready, new.is_ready);
        adjust(&mut self.ejected, old.is_ejected, new.is_ejected);
    }
}

/// Whether a zone is down as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ZoneVerdict {
    #[default]
    Up,
    Down {
        /// What its endpoints failed by.
        failure: Failure,
        /// Whose failures made the verdict.
        source: EvidenceSource,
        /// When it was made.
        since: Instant,
        /// It does not return before then.
        held_until: Instant,
    },
}

/// The endpoints of a pool in one zone.
#[derive(Debug)]
pub(super) struct ZoneState {
    pub(super) place: Locality,
    pub(super) members: Vec<EndpointId>,
    pub(super) member_states: Vec<MemberState>,
    pub(super) counts: EndpointCounts,
    pub(super) verdict: ZoneVerdict,
    pub(super) flaps: FlapHistory,
    pub(super) ramp: Ramp,
    pub(super) load: ZoneLoad,
    /// Since when its endpoints are drained that are.
    pub(super) drained_at: BTreeMap<EndpointId, Instant>,
    /// Of answers that were timed at the last look; see [`crate::logic::model::endpoint_stats::Live::timed`].
    pub(super) latency_totals: (u64, u64),
    pub(super) ratio: FailureRatioTest,
    /// So many of its endpoints must be able to serve before it does, unless nobody else can.
    min_capacity: u32,
    /// Failures of connections of late, and how many of them stand.
    pub(super) strikes: VecDeque<(Instant, EndpointId)>,
    pub(super) active_strikes: u32,
    targets: Arc<[Target]>,
    /// What workers write of its endpoints.
    pub(super) stats: Arc<ZoneStats>,
    /// By what keys find `targets`, where the pool has any.
    hash_table: Option<Arc<ZoneHashTable>>,
    subsets: ZoneSubsets,
    is_dirty: bool,
}

/// The parts of a zone that a snapshot is put together from.
#[derive(Clone, Debug, Default)]
pub(super) struct ZoneSubsets {
    pub(super) eligible: Option<ZoneTargets>,
    pub(super) clear: Option<ZoneTargets>,
    pub(super) suspects: Option<ZoneTargets>,
    pub(super) last_resort: Option<ZoneTargets>,
    pub(super) trials: Vec<Target>,
    /// Those that are back and have had no request yet.
    pub(super) awaiting_first_request: Vec<Target>,
    /// Sum of the capacities of all that something is known of.
    pub(super) known_capacity: u64,
    pub(super) has_doubted: bool,
}

impl ZoneState {
    pub(super) fn new(spec: &ZoneSpec, before: Option<&mut Self>, now: Instant) -> Self {
        let fresh = Self {
            place: spec.locality.clone(),
            min_capacity: spec.settings.min_capacity,
            members: Vec::new(),
            member_states: Vec::new(),
            counts: EndpointCounts::default(),
            verdict: ZoneVerdict::Up,
            flaps: FlapHistory::default(),
            ramp: Ramp::Full,
            load: ZoneLoad::default(),
            drained_at: BTreeMap::new(),
            latency_totals: (0, 0),
            ratio: FailureRatioTest::new(now),
            strikes: VecDeque::new(),
            active_strikes: 0,
            stats: Arc::default(),
            targets: Arc::from(Vec::new()),
            hash_table: None,
            subsets: ZoneSubsets::default(),
            is_dirty: true,
        };
        match before {
            None => fresh,
            Some(before) => Self {
                verdict: before.verdict,
                flaps: before.flaps,
                ramp: before.ramp,
                load: before.load,
                drained_at: std::mem::take(&mut before.drained_at),
                latency_totals: before.latency_totals,
                ratio: before.ratio,
                strikes: std::mem::take(&mut before.strikes),
                active_strikes: before.active_strikes,
                stats: Arc::clone(&before.stats),
                hash_table: before.hash_table.take(),
                ..fresh
            },
        }
    }

    /// Gives the zone its endpoints, which keys find by `tables` if there are any.
    pub(super) fn set_targets(&mut self, targets: Vec<Target>, tables: Option<HashTableKind>) {
        let before = self.hash_table.take();
        self.hash_table = tables
            .and_then(|kind| ZoneHashTable::build_or_reuse(kind, &self.place, &targets, before));
        self.members = targets.iter().map(|target| target.id).collect();
        self.drained_at.retain(|id, _| self.members.contains(id));
        let member_state =
            MemberState { eligibility: Eligibility::Unknown, ..MemberState::default() };
        self.member_states = vec![member_state; targets.len()];
        self.counts = EndpointCounts { all: targets.len() as u32, ..EndpointCounts::default() };
        self.targets = targets.into();
        self.is_dirty = true;
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.verdict, ZoneVerdict::Down { .. })
    }

    pub(super) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// The parts, made anew if an entry has changed.
    pub(super) fn subsets(&mut self) -> &ZoneSubsets {
        if std::mem::take(&mut self.is_dirty) {
            self.subsets = self.build_subsets();
        }
        &self.subsets
    }

    fn build_subsets(&self) -> ZoneSubsets {
        let mut eligible = Vec::with_capacity(self.member_states.len());
        let (mut suspects, mut last_resort, mut trials) = (Vec::new(), Vec::new(), Vec::new());
        let (mut known_capacity, mut awaiting_first_request) = (0, Vec::new());
        for (member, position) in self.member_states.iter().zip(0u32..) {
            let weighted_position = (position, member.weight);
            match member.eligibility {
                Eligibility::Out | Eligibility::Drained => {}
                Eligibility::Unknown => continue,
                Eligibility::Clear | Eligibility::Doubted => eligible.push(weighted_position),
                Eligibility::Suspect => suspects.push(weighted_position),
                Eligibility::LastResort => last_resort.push(weighted_position),
                Eligibility::Trial => trials.push(self.targets[position as usize].clone()),
            }
            known_capacity += u64::from(member.capacity);
            if member.is_awaiting_first_request {
                awaiting_first_request.push(self.targets[position as usize].clone());
            }
        }
        if eligible.len() + suspects.len() < self.min_capacity as usize {
            // A pilot light that has yet to grow: better than nobody.
            last_resort.append(&mut eligible);
            last_resort.append(&mut suspects);
            last_resort.sort_unstable();
        }
        let hash_table = self.hash_table.as_ref();
        let cell =
            |active: &[(u32, u32)]| ZoneTargets::with_hash_table(&self.targets, hash_table, active);
        let has_doubted =
            self.member_states.iter().any(|entry| entry.eligibility == Eligibility::Doubted);
        let eligible_cell = cell(&eligible);
        let clear = if has_doubted {
            let eligibility_of =
                |seat: &(u32, u32)| self.member_states[seat.0 as usize].eligibility;
            eligible.retain(|seat| eligibility_of(seat) == Eligibility::Clear);
            cell(&eligible)
        } else {
            eligible_cell.clone()
        };
        ZoneSubsets {
            clear,
            eligible: eligible_cell,
            suspects: cell(&suspects),
            last_resort: cell(&last_resort),
            trials,
            awaiting_first_request,
            known_capacity,
            has_doubted,
        }
    }

    /// By what pins find the endpoints of the zone, which is the pool's number `index`.
    pub(super) fn pins(&self, index: usize) -> impl Iterator<Item = (u64, u32, u32)> {
        let numbered = self.targets.iter().zip(0..);
        numbered
            .map(move |(target, position)| (endpoint_hash(target.address), index as u32, position))
    }

    /// Every endpoint of the zone that is not drained, whatever is known of it.
    pub(super) fn undrained_cell(&self) -> Option<ZoneTargets> {
        if self.counts.drained == 0 {
            return ZoneTargets::all_targets(&self.targets, self.hash_table.as_ref());
        }
        let members = self.member_states.iter().zip(self.targets.iter()).zip(0u32..);
        let members = members.filter(|((entry, _), _)| entry.eligibility != Eligibility::Drained);
        let active: Vec<(u32, u32)> =
            members.map(|((_, target), position)| (position, target.weight * WEIGHT_ONE)).collect();
        ZoneTargets::with_hash_table(&self.targets, self.hash_table.as_ref(), &active)
    }

    /// Those that are drained and could serve, each with when it was.
    pub(super) fn drained_targets(&self) -> impl Iterator<Item = (&Target, Instant)> {
        let members = self.targets.iter().zip(&self.member_states);
        members.filter_map(|(target, entry)| {
            let is_healthy = entry.eligibility == Eligibility::Drained && !entry.is_down;
            let since = self.drained_at.get(&target.id).filter(|_| is_healthy)?;
            Some((target, *since))
        })
    }

    /// An endpoint weighs something else from now on.
    pub(super) fn set_weight(&mut self, position: u32, weight: u32) {
        let is_changed =
            self.targets.get(position as usize).is_some_and(|target| target.weight != weight);
        if is_changed {
            let mut targets = self.targets.to_vec();
            targets[position as usize].weight = weight;
            self.targets = targets.into();
            self.hash_table = self.hash_table.take().and_then(|seating| {
                ZoneHashTable::build_or_reuse(
                    seating.kind(),
                    &self.place,
                    &self.targets,
                    Some(seating),
                )
            });
            self.is_dirty = true;
        }
    }
}

#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) spec: Arc<PoolSpec>,
    pub(super) zones: Vec<ZoneState>,
    /// When it was first configured.
    pub(super) created_at: Instant,
    /// For each way that requests are led: zones by tier, the first to serve first.
    pub(super) tiers: Vec<Arc<[Vec<usize>]>>,
    pub(super) counts: EndpointCounts,
    pub(super) view: Option<Arc<PoolView>>,
    pub(super) members: Arc<[EndpointId]>,
    pub(super) stats: Arc<PoolStats>,
    /// Where pins find their endpoints, where the pool has any.
    pub(super) pins: Option<Arc<[(u64, u32, u32)]>>,
    /// What requests got of late in the whole pool.
    pub(super) recent: FailureRatioTest,
    /// Endpoints whose share grows.
    pub(super) ramping: Vec<EndpointId>,
    pub(super) ramp_due: Option<Instant>,
    /// Endpoints whose probes fail for good while traffic succeeds.
    pub(super) contradicted: u32,
    pub(super) is_diverging: bool,
    /// Verdicts withheld since the start.
    pub(super) withheld: u64,
    /// Silent endpoints that are left once somebody else is known to live.
    pub(super) deferred_aborts: Vec<DeferredAbort>,
    /// The period of probes of endpoints that are up, as it is.
    pub(super) achieved_period: AchievedPeriod,
    /// How soon its regions answer, where traffic is led by that.
    pub(super) latency_order: LatencyOrder,
    /// When its flows were last looked at.
    pub(super) load_sampled_at: Option<Instant>,
    /// What its zones can take of the demand, as the last snapshot has it.
    pub(super) capacity_bounds: Vec<u64>,
}

impl PoolState {
    pub(super) fn new(
        spec: &Arc<PoolSpec>,
        here: Option<&Locality>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let mut old = before;
        let mut nearness =
            old.as_mut().map(|old| std::mem::take(&mut old.latency_order)).unwrap_or_default();
        nearness.set_regions(spec.zones.iter().map(|zone| &zone.locality.region));
        let tiers = tiers(spec, here, &nearness);
        let zones = spec.zones.iter().map(|zone| {
            let old = old
                .as_mut()
                .and_then(|old| old.zones.iter_mut().find(|before| before.place == zone.locality));
            ZoneState::new(zone, old, now)
        });
        let zones = zones.collect();
        let fresh = Self {
            spec: Arc::clone(spec),
            zones,
            created_at: now,
            tiers,
            counts: EndpointCounts::default(),
            view: None,
            members: Arc::default(),
            stats: Arc::default(),
            pins: None,
            recent: FailureRatioTest::new(now),
            ramping: Vec::new(),
            ramp_due: None,
            contradicted: 0,
            is_diverging: false,
            withheld: 0,
            deferred_aborts: Vec::new(),
            achieved_period: AchievedPeriod::default(),
            latency_order: nearness,
            load_sampled_at: None,
            capacity_bounds: Vec::new(),
        };
        match old {
            None => fresh,
            Some(old) => Self {
                created_at: old.created_at,
                view: old.view,
                stats: old.stats,
                recent: old.recent,
                ramping: old.ramping,
                ramp_due: old.ramp_due,
                is_diverging: old.is_diverging,
                withheld: old.withheld,
                achieved_period: old.achieved_period,
                load_sampled_at: old.load_sampled_at,
                ..fresh
            },
        }
    }

    /// The verdict on an endpoint of the zone explains these tries.
    pub(super) fn discount_explained_failures(
        &mut self,
        zone: usize,
        tries: DecayedCounts,
        now: Instant,
    ) {
        self.recent.exclude(tries, now);
        self.zones[zone].ratio.exclude(tries, now);
    }

    pub(super) fn is_drained(&self, id: EndpointId) -> bool {
        let mut members =
            self.zones.iter().flat_map(|zone| zone.members.iter().zip(&zone.member_states));
        members.any(|(member, entry)| *member == id && entry.eligibility == Eligibility::Drained)
    }

    /// Has pins find the endpoints that all zones have by now.
    pub(super) fn rebuild_pins(&mut self) {
        let has_pins = matches!(self.spec.affinity.as_deref(), Some(SessionAffinity::Cookie(_)));
        self.pins = has_pins.then(|| {
            let zones = self.zones.iter().enumerate();
            let mut pins: Vec<_> = zones.flat_map(|(index, zone)| zone.pins(index)).collect();
            pins.sort_unstable();
            pins.into()
        });
    }

    pub(super) fn is_in_panic(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.is_panicking)
    }
}

/// For each way that requests are led: zones by tier.
pub(super) fn tiers(
    spec: &PoolSpec,
    here: Option<&Locality>,
    latency_order: &LatencyOrder,
) -> Vec<Arc<[Vec<usize>]>> {
    let order = latency_order.region_names();
    spec.steer
        .variants()
        .map(|way| steering::group_into_tiers(spec, &way, here, &order).into())
        .collect()
}

/// A smoothed time from the start of one probe to the start of the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AchievedPeriod {
    pub(super) period: Option<Duration>,
}

impl AchievedPeriod {
    pub(super) fn record(&mut self, gap: Duration) {
        self.period = Some(self.period.map_or(gap, |mean| (mean * 31 + gap) / 32));
    }
}
