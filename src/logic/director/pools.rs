//! What the director keeps of a pool and its zones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::affinity::Affinity;
use crate::logic::balance::hash::identity;
use crate::logic::balance::{Kind, Seating};
use crate::logic::id::{EndpointId, Place};
use crate::logic::live::Kin;
use crate::logic::outcome::Failure;
use crate::logic::ratio::{Faded, Ratio};
use crate::logic::recovery::{Flaps, Ramp};
use crate::logic::snapshot::{Cell, PoolLive, PoolView, Target};
use crate::logic::steer::{self, Flow, Nearness};
use crate::logic::tier::WEIGHT_ONE;
use crate::logic::topology::{PoolSpec, ZoneSpec};

use super::Source;
use super::cuts::Held;

/// What an endpoint may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: its verdict is down.
    #[default]
    Out,
    /// Nothing yet.
    Unknown,
    /// Anything.
    Clear,
    /// What can be sent again.
    Doubted,
    /// What nobody else can serve: it is confirmed or cleared within a few probes.
    Suspect,
    /// The same, once there is not even a suspect: its zone is down.
    Resort,
    /// A single request that can be sent again, from time to time.
    Trial,
    /// Nothing: an operator has said so.
    Drained,
}

impl Standing {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Unknown => "unknown",
            Self::Clear => "clear",
            Self::Doubted => "doubted",
            Self::Suspect => "suspect",
            Self::Resort => "last_resort",
            Self::Trial => "trial",
            Self::Drained => "drained",
        }
    }
}

/// One endpoint, as its zone sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) standing: Standing,
    /// In parts of [`crate::logic::tier::WEIGHT_ONE`]: as declared, less what a ramp or a degraded state takes.
    pub(super) weight: u32,
    /// What it counts as capacity, whether it serves or not.
    pub(super) capacity: u32,
    pub(super) is_down: bool,
    /// Could serve if its zone may.
    pub(super) is_ready: bool,
    /// Traffic has put it down.
    pub(super) is_condemned: bool,
    /// It is back, and the next request that can be sent again is its first.
    pub(super) is_awaited: bool,
}

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u32,
    pub(super) known: u32,
    pub(super) clear: u32,
    pub(super) serving: u32,
    pub(super) down: u32,
    pub(super) ready: u32,
    pub(super) condemned: u32,
    pub(super) drained: u32,
}

impl Counts {
    pub(super) fn swap(&mut self, old: Entry, new: Entry) {
        let move_by = |count: &mut u32, was: bool, is: bool| {
            *count = *count + u32::from(is) - u32::from(was);
        };
        let serves = |entry: Entry| {
            matches!(entry.standing, Standing::Clear | Standing::Doubted | Standing::Suspect)
        };
        let known = |entry: Entry| entry.standing != Standing::Unknown;
        let clear = |entry: Entry| entry.standing == Standing::Clear;
        let drained = |entry: Entry| entry.standing == Standing::Drained;
        move_by(&mut self.drained, drained(old), drained(new));
        move_by(&mut self.known, known(old), known(new));
        move_by(&mut self.clear, clear(old), clear(new));
        move_by(&mut self.serving, serves(old), serves(new));
        move_by(&mut self.down, old.is_down, new.is_down);
        move_by(&mut self.ready, old.is_ready, new.is_ready);
        move_by(&mut self.condemned, old.is_condemned, new.is_condemned);
    }
}

/// Whether a zone is down as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ZoneVerdict {
    /// No.
    #[default]
    Up,
    /// Yes.
    Down {
        /// What its endpoints failed by.
        failure: Failure,
        /// Whose failures made the verdict.
        source: Source,
        /// When it was made.
        since: Instant,
        /// It does not return before then.
        held_until: Instant,
    },
}

/// The endpoints of a pool in one zone.
#[derive(Debug)]
pub(super) struct ZoneState {
    pub(super) place: Place,
    pub(super) members: Vec<EndpointId>,
    pub(super) entries: Vec<Entry>,
    pub(super) counts: Counts,
    pub(super) verdict: ZoneVerdict,
    pub(super) flaps: Flaps,
    pub(super) ramp: Ramp,
    pub(super) flow: Flow,
    /// Since when its endpoints are drained that are.
    pub(super) drained_at: BTreeMap<EndpointId, Instant>,
    /// Of answers that were timed at the last look; see [`crate::logic::live::Live::timed`].
    pub(super) timed: (u64, u64),
    pub(super) ratio: Ratio,
    /// So many of its endpoints must be able to serve before it does, unless nobody else can.
    min_capacity: u32,
    /// Failures of connections of late, and how many of them stand.
    pub(super) strikes: VecDeque<(Instant, EndpointId)>,
    pub(super) struck: u32,
    targets: Arc<[Target]>,
    /// What workers write of its endpoints.
    pub(super) kin: Arc<Kin>,
    /// By what keys find `targets`, where the pool has any.
    seating: Option<Arc<Seating>>,
    built: Built,
    is_stale: bool,
}

/// The parts of a zone that a snapshot is put together from.
#[derive(Clone, Debug, Default)]
pub(super) struct Built {
    pub(super) open: Option<Cell>,
    pub(super) clear: Option<Cell>,
    pub(super) suspects: Option<Cell>,
    pub(super) resort: Option<Cell>,
    pub(super) trials: Vec<Target>,
    /// Those that are back and have had no request yet.
    pub(super) awaited: Vec<Target>,
    /// Sum of the capacities of all that something is known of.
    pub(super) known: u64,
    pub(super) has_doubted: bool,
}

impl ZoneState {
    pub(super) fn new(spec: &ZoneSpec, before: Option<&mut Self>, now: Instant) -> Self {
        let fresh = Self {
            place: spec.place.clone(),
            min_capacity: spec.terms.min_capacity,
            members: Vec::new(),
            entries: Vec::new(),
            counts: Counts::default(),
            verdict: ZoneVerdict::Up,
            flaps: Flaps::default(),
            ramp: Ramp::Full,
            flow: Flow::default(),
            drained_at: BTreeMap::new(),
            timed: (0, 0),
            ratio: Ratio::new(now),
            strikes: VecDeque::new(),
            struck: 0,
            kin: Arc::default(),
            targets: Arc::from(Vec::new()),
            seating: None,
            built: Built::default(),
            is_stale: true,
        };
        match before {
            None => fresh,
            Some(before) => Self {
                verdict: before.verdict,
                flaps: before.flaps,
                ramp: before.ramp,
                flow: before.flow,
                drained_at: std::mem::take(&mut before.drained_at),
                timed: before.timed,
                ratio: before.ratio,
                strikes: std::mem::take(&mut before.strikes),
                struck: before.struck,
                kin: Arc::clone(&before.kin),
                seating: before.seating.take(),
                ..fresh
            },
        }
    }

    /// Gives the zone its endpoints, which keys find by `tables` if there are any.
    pub(super) fn seat(&mut self, targets: Vec<Target>, tables: Option<Kind>) {
        let before = self.seating.take();
        self.seating = tables.and_then(|kind| Seating::of(kind, &self.place, &targets, before));
        self.members = targets.iter().map(|target| target.id).collect();
        self.drained_at.retain(|id, _| self.members.contains(id));
        let entry = Entry { standing: Standing::Unknown, ..Entry::default() };
        self.entries = vec![entry; targets.len()];
        self.counts = Counts { all: targets.len() as u32, ..Counts::default() };
        self.targets = targets.into();
        self.is_stale = true;
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.verdict, ZoneVerdict::Down { .. })
    }

    pub(super) fn mark(&mut self) {
        self.is_stale = true;
    }

    /// The parts, made anew if an entry has changed.
    pub(super) fn built(&mut self) -> &Built {
        if std::mem::take(&mut self.is_stale) {
            self.built = self.build();
        }
        &self.built
    }

    fn build(&self) -> Built {
        let mut open = Vec::with_capacity(self.entries.len());
        let (mut suspects, mut resort, mut trials) = (Vec::new(), Vec::new(), Vec::new());
        let (mut known, mut awaited) = (0, Vec::new());
        for (entry, position) in self.entries.iter().zip(0u32..) {
            let seat = (position, entry.weight);
            match entry.standing {
                Standing::Out | Standing::Drained => {}
                Standing::Unknown => continue,
                Standing::Clear | Standing::Doubted => open.push(seat),
                Standing::Suspect => suspects.push(seat),
                Standing::Resort => resort.push(seat),
                Standing::Trial => trials.push(self.targets[position as usize].clone()),
            }
            known += u64::from(entry.capacity);
            if entry.is_awaited {
                awaited.push(self.targets[position as usize].clone());
            }
        }
        if open.len() + suspects.len() < self.min_capacity as usize {
            // A pilot light that has yet to grow: better than nobody.
            resort.append(&mut open);
            resort.append(&mut suspects);
            resort.sort_unstable();
        }
        let seating = self.seating.as_ref();
        let cell = |active: &[(u32, u32)]| Cell::seated(&self.targets, seating, active);
        let has_doubted = self.entries.iter().any(|entry| entry.standing == Standing::Doubted);
        let open_cell = cell(&open);
        let clear = if has_doubted {
            let standing = |seat: &(u32, u32)| self.entries[seat.0 as usize].standing;
            open.retain(|seat| standing(seat) == Standing::Clear);
            cell(&open)
        } else {
            open_cell.clone()
        };
        Built {
            clear,
            open: open_cell,
            suspects: cell(&suspects),
            resort: cell(&resort),
            trials,
            awaited,
            known,
            has_doubted,
        }
    }

    /// By what pins find the endpoints of the zone, which is the pool's number `index`.
    pub(super) fn pins(&self, index: usize) -> impl Iterator<Item = (u64, u32, u32)> {
        let numbered = self.targets.iter().zip(0..);
        numbered.map(move |(target, position)| (identity(target.address), index as u32, position))
    }

    /// Every endpoint of the zone that is not drained, whatever is known of it.
    pub(super) fn everybody(&self) -> Option<Cell> {
        if self.counts.drained == 0 {
            return Cell::everybody(&self.targets, self.seating.as_ref());
        }
        let seats = self.entries.iter().zip(self.targets.iter()).zip(0u32..);
        let seats = seats.filter(|((entry, _), _)| entry.standing != Standing::Drained);
        let active: Vec<(u32, u32)> =
            seats.map(|((_, target), position)| (position, target.weight * WEIGHT_ONE)).collect();
        Cell::seated(&self.targets, self.seating.as_ref(), &active)
    }

    /// Those that are drained and could serve, each with when it was.
    pub(super) fn drained(&self) -> impl Iterator<Item = (&Target, Instant)> {
        let seats = self.targets.iter().zip(&self.entries);
        seats.filter_map(|(target, entry)| {
            let is_well = entry.standing == Standing::Drained && !entry.is_down;
            let since = self.drained_at.get(&target.id).filter(|_| is_well)?;
            Some((target, *since))
        })
    }

    /// An endpoint weighs something else from now on.
    pub(super) fn reweigh(&mut self, position: u32, weight: u32) {
        let is_news =
            self.targets.get(position as usize).is_some_and(|target| target.weight != weight);
        if is_news {
            let mut targets = self.targets.to_vec();
            targets[position as usize].weight = weight;
            self.targets = targets.into();
            self.seating = self.seating.take().and_then(|seating| {
                Seating::of(seating.kind(), &self.place, &self.targets, Some(seating))
            });
            self.is_stale = true;
        }
    }
}

/// One pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) spec: Arc<PoolSpec>,
    pub(super) zones: Vec<ZoneState>,
    /// When it was first configured.
    pub(super) born: Instant,
    /// For each way that requests are led: zones by tier, the first to serve first.
    pub(super) tiers: Vec<Arc<[Vec<usize>]>>,
    pub(super) counts: Counts,
    pub(super) view: Option<Arc<PoolView>>,
    pub(super) members: Arc<[EndpointId]>,
    pub(super) live: Arc<PoolLive>,
    /// Where pins find their endpoints, where the pool has any.
    pub(super) pins: Option<Arc<[(u64, u32, u32)]>>,
    /// What requests got of late in the whole pool.
    pub(super) recent: Ratio,
    /// Endpoints whose share grows.
    pub(super) ramping: Vec<EndpointId>,
    pub(super) ramp_due: Option<Instant>,
    /// Endpoints whose probes fail for good while traffic succeeds.
    pub(super) contradicted: u32,
    pub(super) diverges: bool,
    /// Verdicts withheld since the start.
    pub(super) withheld: u64,
    /// Silent endpoints that are left once somebody else is known to live.
    pub(super) held_cuts: Vec<Held>,
    /// The period of probes of endpoints that are up, as it is.
    pub(super) achieved: Achieved,
    /// How soon its regions answer, where traffic is led by that.
    pub(super) nearness: Nearness,
    /// When its flows were last looked at.
    pub(super) looked_at: Option<Instant>,
    /// What its zones can take of the demand, as the last snapshot has it.
    pub(super) bounds: Vec<u64>,
}

impl PoolState {
    pub(super) fn new(
        spec: &Arc<PoolSpec>,
        here: Option<&Place>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let mut old = before;
        let mut nearness =
            old.as_mut().map(|old| std::mem::take(&mut old.nearness)).unwrap_or_default();
        nearness.configure(spec.zones.iter().map(|zone| &zone.place.region));
        let tiers = tiers(spec, here, &nearness);
        let zones = spec.zones.iter().map(|zone| {
            let old = old
                .as_mut()
                .and_then(|old| old.zones.iter_mut().find(|before| before.place == zone.place));
            ZoneState::new(zone, old, now)
        });
        let zones = zones.collect();
        let fresh = Self {
            spec: Arc::clone(spec),
            zones,
            born: now,
            tiers,
            counts: Counts::default(),
            view: None,
            members: Arc::default(),
            live: Arc::default(),
            pins: None,
            recent: Ratio::new(now),
            ramping: Vec::new(),
            ramp_due: None,
            contradicted: 0,
            diverges: false,
            withheld: 0,
            held_cuts: Vec::new(),
            achieved: Achieved::default(),
            nearness,
            looked_at: None,
            bounds: Vec::new(),
        };
        match old {
            None => fresh,
            Some(old) => Self {
                born: old.born,
                view: old.view,
                live: old.live,
                recent: old.recent,
                ramping: old.ramping,
                ramp_due: old.ramp_due,
                diverges: old.diverges,
                withheld: old.withheld,
                achieved: old.achieved,
                looked_at: old.looked_at,
                ..fresh
            },
        }
    }

    /// The verdict on an endpoint of the zone explains these tries.
    pub(super) fn explain(&mut self, zone: usize, tries: Faded, now: Instant) {
        self.recent.explain(tries, now);
        self.zones[zone].ratio.explain(tries, now);
    }

    pub(super) fn is_drained(&self, id: EndpointId) -> bool {
        let mut seats = self.zones.iter().flat_map(|zone| zone.members.iter().zip(&zone.entries));
        seats.any(|(member, entry)| *member == id && entry.standing == Standing::Drained)
    }

    /// Has pins find the endpoints that all zones have by now.
    pub(super) fn settle_pins(&mut self) {
        let has_pins = matches!(self.spec.affinity.as_deref(), Some(Affinity::Cookie(_)));
        self.pins = has_pins.then(|| {
            let zones = self.zones.iter().enumerate();
            let mut pins: Vec<_> = zones.flat_map(|(index, zone)| zone.pins(index)).collect();
            pins.sort_unstable();
            pins.into()
        });
    }

    pub(super) fn in_panic(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.panic)
    }
}

/// For each way that requests are led: zones by tier.
pub(super) fn tiers(
    spec: &PoolSpec,
    here: Option<&Place>,
    nearness: &Nearness,
) -> Vec<Arc<[Vec<usize>]>> {
    let order = nearness.order();
    spec.steer.ways().map(|way| steer::tiers(spec, &way, here, &order).into()).collect()
}

/// A smoothed time from the start of one probe to the start of the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Achieved {
    pub(super) period: Option<Duration>,
}

impl Achieved {
    pub(super) fn record(&mut self, gap: Duration) {
        self.period = Some(self.period.map_or(gap, |mean| (mean * 31 + gap) / 32));
    }
}
