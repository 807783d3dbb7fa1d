//! What the director keeps of one endpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::{Change, Health};
use crate::logic::id::EndpointId;
use crate::logic::incident::Subject;
use crate::logic::outcome::{Failure, Outcome};
use crate::logic::schedule::Timer;
use crate::logic::snapshot::{Live, Tally};
use crate::logic::topology::PoolSpec;

use super::Ticket;

/// Probe results that are kept for `explain` and the API.
pub(super) const REMEMBERED_PROBES: usize = 8;

/// Where an endpoint sits in the topology.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) pool: usize,
    pub(super) zone: usize,
    pub(super) weight: u32,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) subject: Arc<Subject>,
    pub(super) seat: Seat,
    pub(super) pool: Arc<PoolSpec>,
    pub(super) health: Health,
    pub(super) timer: Timer,
    /// The entry in the director's timer queue.
    pub(super) armed: Option<Instant>,
    pub(super) live: Arc<Live>,
    pub(super) up_since: Option<Instant>,
    pub(super) last_strike: Option<Instant>,
    pub(super) since: Instant,
    pub(super) probes: VecDeque<(Instant, Outcome)>,
    last_proof: Option<Instant>,
    /// The counters as they stood at the last proof of life: what came after belongs to what is
    /// happening now.
    baseline: Tally,
    baseline_failure_us: u64,
}

impl Endpoint {
    pub(super) fn new(subject: Subject, seat: Seat, pool: &Arc<PoolSpec>, now: Instant) -> Self {
        Self {
            subject: Arc::new(subject),
            seat,
            pool: Arc::clone(pool),
            health: Health::NEW,
            timer: Timer::new(now),
            armed: None,
            live: Arc::default(),
            up_since: None,
            last_strike: None,
            since: now,
            probes: VecDeque::new(),
            last_proof: None,
            baseline: Tally::default(),
            baseline_failure_us: 0,
        }
    }

    /// Takes over what a new configuration says; health, counters and history stay.
    pub(super) fn reseat(
        &mut self,
        subject: Subject,
        seat: Seat,
        pool: &Arc<PoolSpec>,
        now: Instant,
    ) {
        if *self.subject != subject {
            self.subject = Arc::new(subject);
        }
        if self.pool.probes != pool.probes {
            self.timer.hasten(now);
        } else if self.pool.detect != pool.detect {
            self.timer.repace(now, self.health, &pool.detect);
        }
        self.seat = seat;
        self.pool = Arc::clone(pool);
    }

    pub(super) fn serves(&self) -> bool {
        self.health.serves(self.pool.optimistic)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.health, Health::Unknown { .. })
    }

    /// Who is down, and for what.
    pub(super) fn verdict(&self) -> Option<(EndpointId, Failure)> {
        match self.health {
            Health::Down { failure } | Health::Returning { failure, .. } => {
                Some((self.subject.endpoint, failure))
            }
            Health::Unknown { .. } | Health::Up | Health::Suspect { .. } => None,
        }
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect { .. })
    }

    pub(super) fn was_up(&self) -> bool {
        self.up_since.is_some()
    }

    pub(super) fn remember(&mut self, ticket: Ticket, outcome: Outcome) {
        if self.probes.len() >= REMEMBERED_PROBES {
            self.probes.pop_front();
        }
        self.probes.push_back((ticket.started, outcome));
    }

    /// A probe that began at `began` passed.
    pub(super) fn proven(&mut self, began: Instant) {
        self.last_proof = Some(began);
    }

    /// While it is up, what requests met before a pass has nothing to do with what comes after.
    pub(super) fn close_books(&mut self) {
        if self.health == Health::Up {
            self.baseline = self.live.tally();
            self.baseline_failure_us = self.live.last_failure_us();
        }
    }

    pub(super) fn changed(&mut self, change: Change, now: Instant) {
        if change != Change::None {
            self.since = now;
        }
    }

    /// The last proof of life, by probe or by traffic.
    pub(super) fn last_good(&self, epoch: Instant) -> Option<Instant> {
        let by_traffic = at(epoch, self.live.last_good_us());
        self.last_proof.max(by_traffic)
    }

    /// What requests saw since the last proof of life while up.
    pub(super) fn touched(&self, epoch: Instant) -> (Tally, Option<Instant>) {
        let all = self.live.tally();
        let counts = Tally {
            failed: all.failed - self.baseline.failed,
            rescued: all.rescued - self.baseline.rescued,
            late: all.late - self.baseline.late,
        };
        let last_us = self.live.last_failure_us();
        let last_failure =
            if last_us > self.baseline_failure_us { at(epoch, last_us) } else { None };
        (counts, last_failure)
    }
}

fn at(epoch: Instant, us: u64) -> Option<Instant> {
    (us > 0).then(|| epoch + Duration::from_micros(us))
}
