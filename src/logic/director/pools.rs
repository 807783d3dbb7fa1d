//! What the director keeps of a pool and its zones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::id::{EndpointId, Place};
use crate::logic::outcome::Failure;
use crate::logic::ratio::{Faded, Ratio};
use crate::logic::recovery::{Flaps, Ramp};
use crate::logic::snapshot::{Cell, PoolLive, PoolView, Target};
use crate::logic::steer;
use crate::logic::topology::PoolSpec;

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
    pub(super) ratio: Ratio,
    /// Failures of connections of late, and how many of them stand.
    pub(super) strikes: VecDeque<(Instant, EndpointId)>,
    pub(super) struck: u32,
    targets: Arc<[Target]>,
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
    /// Sum of the capacities of all that something is known of.
    pub(super) known: u64,
    pub(super) has_doubted: bool,
}

impl ZoneState {
    pub(super) fn new(place: Place, before: Option<&mut Self>, now: Instant) -> Self {
        let fresh = Self {
            place,
            members: Vec::new(),
            entries: Vec::new(),
            counts: Counts::default(),
            verdict: ZoneVerdict::Up,
            flaps: Flaps::default(),
            ramp: Ramp::Full,
            ratio: Ratio::new(now),
            strikes: VecDeque::new(),
            struck: 0,
            targets: Arc::from(Vec::new()),
            built: Built::default(),
            is_stale: true,
        };
        match before {
            None => fresh,
            Some(before) => Self {
                verdict: before.verdict,
                flaps: before.flaps,
                ramp: before.ramp,
                ratio: before.ratio,
                strikes: std::mem::take(&mut before.strikes),
                struck: before.struck,
                ..fresh
            },
        }
    }

    pub(super) fn seat(&mut self, targets: Vec<Target>) {
        self.members = targets.iter().map(|target| target.id).collect();
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
        let mut known = 0;
        for (entry, position) in self.entries.iter().zip(0u32..) {
            let seat = (position, entry.weight);
            match entry.standing {
                Standing::Out => {}
                Standing::Unknown => continue,
                Standing::Clear | Standing::Doubted => open.push(seat),
                Standing::Suspect => suspects.push(seat),
                Standing::Resort => resort.push(seat),
                Standing::Trial => trials.push(self.targets[position as usize].clone()),
            }
            known += u64::from(entry.capacity);
        }
        let cell = |active: &[(u32, u32)]| Cell::new(&self.targets, active);
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
            known,
            has_doubted,
        }
    }

    /// Every endpoint of the zone, whatever is known of it.
    pub(super) fn everybody(&self) -> Option<Cell> {
        Cell::everybody(&self.targets)
    }
}

/// One pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) spec: Arc<PoolSpec>,
    pub(super) zones: Vec<ZoneState>,
    /// When it was first configured.
    pub(super) born: Instant,
    /// Zones by tier, nearest first.
    pub(super) tiers: Vec<Vec<usize>>,
    pub(super) counts: Counts,
    pub(super) view: Option<Arc<PoolView>>,
    pub(super) members: Arc<[EndpointId]>,
    pub(super) live: Arc<PoolLive>,
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
}

impl PoolState {
    pub(super) fn new(
        spec: &Arc<PoolSpec>,
        here: Option<&Place>,
        before: Option<Self>,
        now: Instant,
    ) -> Self {
        let tiers = steer::tiers(spec, here);
        let mut old = before;
        let zones = spec.zones.iter().map(|zone| {
            let old = old
                .as_mut()
                .and_then(|old| old.zones.iter_mut().find(|before| before.place == zone.place));
            ZoneState::new(zone.place.clone(), old, now)
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
            recent: Ratio::new(now),
            ramping: Vec::new(),
            ramp_due: None,
            contradicted: 0,
            diverges: false,
            withheld: 0,
            held_cuts: Vec::new(),
            achieved: Achieved::default(),
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
                ..fresh
            },
        }
    }

    /// The verdict on an endpoint of the zone explains these tries.
    pub(super) fn explain(&mut self, zone: usize, tries: Faded, now: Instant) {
        self.recent.explain(tries, now);
        self.zones[zone].ratio.explain(tries, now);
    }

    pub(super) fn in_panic(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.panic)
    }
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
