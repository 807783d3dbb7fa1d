//! What the director keeps of one endpoint.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::{Change, Health};
use crate::logic::id::EndpointId;
use crate::logic::incident::Subject;
use crate::logic::incident::Touched;
use crate::logic::live::Tries;
use crate::logic::outcome::Failure;
use crate::logic::probe::Role;
use crate::logic::ratio::Ratio;
use crate::logic::recovery::{Flaps, Ramp};
use crate::logic::schedule::{self, Timer};
use crate::logic::snapshot::{Live, Tally};
use crate::logic::topology::PoolSpec;

use super::Source;
use super::orders::Bidden;
use super::past::Past;
use super::trust::Trust;

/// Pieces of evidence against an endpoint that are kept for `explain`.
pub(super) const REMEMBERED_EVIDENCE: usize = 4;

/// Where an endpoint sits in the topology.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) pool: usize,
    pub(super) zone: usize,
    /// Its place among the zone's endpoints.
    pub(super) position: u32,
    pub(super) weight: u32,
}

/// One probe of an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) timer: Timer,
    /// It has passed since the last piece of evidence was put to the verdict machine.
    pub(super) has_passed: bool,
}

/// Why an endpoint with enough strikes is still in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The eviction budget is spent.
    Budget,
    /// Probes fail in much of the pool while traffic succeeds.
    Divergence,
}

impl Withheld {
    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Divergence => "divergence",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Budget, Self::Divergence].into_iter().find(|one| one.as_str() == word)
    }
}

/// A piece of evidence against an endpoint, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// When it was weighed.
    pub at: Instant,
    /// Who saw it.
    pub source: Source,
    /// What was seen.
    pub failure: Failure,
}

/// Where an endpoint stands with its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bond {
    /// It is judged by its own deeds.
    Free,
    /// The zone went down then, and it has not proved since that it is an exception.
    Unproven(Instant),
}

/// What most endpoints never have: what is remembered against one, and what is ordered of it.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) evidence: VecDeque<Piece>,
    /// What made the verdict, for as long as it stands.
    pub(super) cause: Option<Piece>,
    pub(super) last_strike: Option<Instant>,
    /// The first failure of a connection in the running row of strikes.
    pub(super) struck: Option<Instant>,
    pub(super) flaps: Flaps,
    pub(super) held_until: Option<Instant>,
    /// When its live counters are looked at again.
    pub(super) watch_at: Option<Instant>,
    /// What operators have ordered.
    pub(super) bidden: Option<Box<Bidden>>,
}

impl Trouble {
    fn glance(&self) -> u64 {
        let is = |at: Option<Instant>| u64::from(at.is_some());
        let last = self.evidence.back().map(|piece| piece.at);
        is(last) + is(self.struck) + is(self.held_until) + u64::from(self.cause.is_some())
    }
}

/// In this order in memory: what every probe needs comes first, close together, because with very
/// many endpoints it is waiting for memory that takes the time; see [`Endpoint::glance`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct Endpoint {
    pub(super) checks: SmallVec<[Check; 1]>,
    /// The entry in the director's timer queue.
    pub(super) armed: Option<Instant>,
    /// By probes and failures of connections.
    pub(super) health: Health,
    pub(super) withheld: Option<Withheld>,
    /// A probe fails for good while traffic succeeds.
    pub(super) is_contradicted: bool,
    pub(super) is_degraded: bool,
    /// What is known of it was found out by another process.
    pub(super) is_heir: bool,
    /// It is back, and the first request is on its way to nobody yet.
    pub(super) is_awaited: bool,
    /// It joined a pool that others served already.
    pub(super) is_late_comer: bool,
    /// It has fallen with its zone, and nobody has been told; see [`super::zones::Fall`].
    pub(super) is_untold: bool,
    /// By what requests got.
    pub(super) trust: Trust,
    pub(super) bond: Bond,
    trouble: Option<Box<Trouble>>,
    pub(super) pool: Arc<PoolSpec>,
    pub(super) live: Arc<Live>,
    pub(super) seat: Seat,
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) up_since: Option<Instant>,
    pub(super) last_proof: Option<Instant>,
    /// The counters as they stood at the last proof of life: what came after belongs to what is
    /// happening now.
    baseline: Tally,
    baseline_failure_us: u64,
    pub(super) past: Past,
    pub(super) since: Instant,
    pub(super) ramp: Ramp,
    pub(super) ratio: Ratio,
    /// What has been weighed of its live counters.
    pub(super) seen: Tries,
}

impl Endpoint {
    pub(super) fn new(
        (id, address): (EndpointId, SocketAddr),
        seat: Seat,
        pool: &Arc<PoolSpec>,
        now: Instant,
    ) -> Self {
        let check = |_| Check { timer: Timer::new(now), has_passed: false };
        Self {
            id,
            address,
            seat,
            pool: Arc::clone(pool),
            health: Health::NEW,
            trust: Trust::Sound,
            bond: Bond::Free,
            withheld: None,
            is_contradicted: false,
            is_degraded: false,
            is_heir: false,
            is_awaited: false,
            is_late_comer: false,
            is_untold: false,
            ratio: Ratio::new(now),
            seen: Tries::default(),
            checks: pool.probes.iter().map(check).collect(),
            armed: None,
            live: Arc::default(),
            up_since: None,
            since: now,
            ramp: Ramp::Full,
            past: Past::default(),
            trouble: None,
            last_proof: None,
            baseline: Tally::default(),
            baseline_failure_us: 0,
        }
    }

    /// Takes over what a new configuration says; health, counters and history stay.
    pub(super) fn reseat(&mut self, seat: Seat, pool: &Arc<PoolSpec>, now: Instant) {
        let (probes_changed, detect_changed) =
            (self.pool.probes != pool.probes, self.pool.detect != pool.detect);
        self.seat = seat;
        self.pool = Arc::clone(pool);
        if probes_changed {
            let fresh = Check { timer: Timer::new(now), has_passed: false };
            self.checks.resize(pool.probes.len(), fresh);
            self.checks.iter_mut().for_each(|check| check.timer.hasten(now));
        } else if detect_changed {
            self.repace(now, false);
        }
    }

    /// What operators are told of it. Made when it is asked for, because that is seldom.
    pub(super) fn subject(&self) -> Arc<Subject> {
        Arc::new(Subject {
            endpoint: self.id,
            pool: Arc::clone(&self.pool.name),
            place: self.pool.zones[self.seat.zone].place.clone(),
            address: self.address,
        })
    }

    /// Reads something of every line of memory that the start and the end of a probe need.
    pub(super) fn glance(&self) -> u64 {
        let is = u64::from;
        let timer = self.checks.first().map_or(0, |check| check.timer.glance());
        let judged = is(self.armed.is_some()) + is(self.bond == Bond::Free);
        let known = self.seat.zone as u64 + u64::from(self.address.port());
        let proven = is(self.last_proof.is_some()) + self.baseline_failure_us;
        timer + judged + known + proven + self.past.glance()
    }

    /// The same of what it points to.
    pub(super) fn glance_beyond(&self) -> u64 {
        self.live.glance() + self.trouble.as_ref().map_or(0, |trouble| trouble.glance())
    }

    /// What is believed of it, by all evidence together.
    pub(super) fn verdict(&self) -> Health {
        match (self.health, self.trust) {
            (Health::Up | Health::Suspect { .. }, Trust::Condemned(case)) => {
                Health::Down { failure: case.failure }
            }
            (Health::Up, Trust::Doubted { failure }) => Health::Suspect { strikes: 1, failure },
            (health, _) => health,
        }
    }

    /// Up, with nothing at all against it that a pass could end.
    pub(super) fn is_beyond_doubt(&self) -> bool {
        self.health == Health::Up
            && self.trust == Trust::Sound
            && self.bond == Bond::Free
            && self.withheld.is_none()
            && self.struck().is_none()
            && !self.is_contradicted
            && !self.is_heir
    }

    pub(super) fn serves(&self) -> bool {
        self.verdict().serves(self.pool.optimistic)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.health, Health::Unknown { .. })
    }

    /// Who is down, and for what.
    pub(super) fn down_for(&self) -> Option<(EndpointId, Failure)> {
        match self.verdict() {
            Health::Down { failure } | Health::Returning { failure, .. } => {
                Some((self.id, failure))
            }
            Health::Unknown { .. } | Health::Up | Health::Suspect { .. } => None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down_for().is_some()
    }

    pub(super) fn was_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// Whether it could return at once, if its zone did.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.health {
            Health::Up | Health::Suspect { .. } => match self.trust {
                Trust::Condemned(case) => case.is_proven(now),
                Trust::Sound | Trust::Doubted { .. } => self.bond == Bond::Free,
            },
            Health::Returning { passes, .. } => {
                passes >= self.pool.detect.up_after && !self.is_held(now)
            }
            Health::Unknown { .. } | Health::Down { .. } => false,
        }
    }

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until().is_some_and(|until| now < until)
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = usize> + '_ {
        let probes = self.pool.probes.iter().enumerate();
        probes.filter(|(_, probe)| probe.role == Role::Gate).map(|(index, _)| index)
    }

    /// The period of the steady row in the present state.
    pub(super) fn period(&self, in_panic: bool) -> Duration {
        let detect = &self.pool.detect;
        match self.health {
            Health::Up if self.trust == Trust::Sound => detect.interval,
            // In panic every endpoint has requests to lose.
            Health::Down { .. } if in_panic => detect.fast_interval,
            Health::Down { .. } => detect.down_interval,
            Health::Up => detect.fast_interval,
            health => schedule::period(health, detect),
        }
    }

    pub(super) fn repace(&mut self, now: Instant, in_panic: bool) {
        let period = self.period(in_panic);
        self.checks.iter_mut().for_each(|check| check.timer.repace(now, period));
    }

    /// When it is to be looked at next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.checks.iter().filter_map(|check| check.timer.due()).min()
    }

    /// What is remembered against it; there is room for it from now on.
    pub(super) fn trouble_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    pub(super) fn last_strike(&self) -> Option<Instant> {
        self.trouble.as_ref()?.last_strike
    }

    pub(super) fn struck(&self) -> Option<Instant> {
        self.trouble.as_ref()?.struck
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.trouble.as_ref()?.held_until
    }

    pub(super) fn flaps(&self) -> Flaps {
        self.trouble.as_ref().map(|trouble| trouble.flaps).unwrap_or_default()
    }

    /// What operators have ordered.
    pub(super) fn bidden(&self) -> Option<&Bidden> {
        self.trouble.as_ref()?.bidden.as_deref()
    }

    /// What made the verdict, while it stands.
    pub(super) fn cause(&self) -> Option<Piece> {
        self.trouble.as_ref()?.cause
    }

    /// The last pieces of evidence against it, oldest first.
    pub(super) fn evidence(&self) -> impl Iterator<Item = &Piece> {
        self.trouble.iter().flat_map(|trouble| &trouble.evidence)
    }

    /// Remembers a piece of evidence. What comes after a verdict must not push out what led to it.
    pub(super) fn note(&mut self, now: Instant, source: Source, failure: Failure) {
        let trouble = self.trouble_mut();
        if trouble.cause.is_some() {
            return;
        }
        if trouble.evidence.len() >= REMEMBERED_EVIDENCE {
            trouble.evidence.pop_front();
        }
        trouble.evidence.push_back(Piece { at: now, source, failure });
    }

    /// The same for what makes the verdict.
    pub(super) fn blame(&mut self, now: Instant, source: Source, failure: Failure) {
        self.note(now, source, failure);
        self.trouble_mut().cause = Some(Piece { at: now, source, failure });
    }

    /// A probe that began at `began` passed.
    pub(super) fn proven(&mut self, began: Instant) {
        self.last_proof = Some(began);
        self.is_contradicted = false;
        if matches!(self.bond, Bond::Unproven(since) if began >= since) {
            self.bond = Bond::Free;
        }
    }

    /// While it is up, what requests met before a pass has nothing to do with what comes after.
    pub(super) fn close_books(&mut self) {
        if self.verdict() == Health::Up {
            self.baseline = self.live.tally();
            self.baseline_failure_us = self.live.last_failure_us();
            self.live.settle_casualties();
        }
    }

    pub(super) fn changed(&mut self, change: Change, now: Instant) {
        if change != Change::None {
            self.since = now;
        }
        if change == Change::Restored
            && let Some(trouble) = &mut self.trouble
        {
            trouble.cause = None;
        }
    }

    /// When live traffic was last answered well.
    pub(super) fn last_answer(&self, epoch: Instant) -> Option<Instant> {
        at(epoch, self.live.last_good_us())
    }

    /// The last proof of life, by probe or by traffic.
    pub(super) fn last_good(&self, epoch: Instant) -> Option<Instant> {
        self.last_proof.max(self.last_answer(epoch))
    }

    /// What requests saw since the last proof of life while up.
    pub(super) fn touched(&self, epoch: Instant) -> Touched {
        let all = self.live.tally();
        let counts = Tally {
            failed: all.failed - self.baseline.failed,
            rescued: all.rescued - self.baseline.rescued,
            late: all.late - self.baseline.late,
        };
        let last_us = self.live.last_failure_us();
        let last_failure =
            if last_us > self.baseline_failure_us { at(epoch, last_us) } else { None };
        Touched { counts, casualties: self.live.casualties(), last_failure }
    }

    /// What its fastest probe of late took: about a round trip.
    pub(super) fn round_trip(&self, epoch: Instant) -> Option<Duration> {
        self.past.iter(epoch).filter_map(|(_, _, outcome)| outcome.latency()).min()
    }
}

fn at(epoch: Instant, us: u64) -> Option<Instant> {
    (us > 0).then(|| epoch + Duration::from_micros(us))
}
