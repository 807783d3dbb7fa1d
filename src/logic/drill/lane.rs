//! What workers see of a drill: whom it takes, and where those then go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fastrand::Rng;
use http::HeaderMap;

use crate::logic::id::Place;
use crate::logic::snapshot::Snapshot;

use super::fault::Fault;
use super::plan::{Plan, Share};

/// A drill that is on.
#[derive(Debug)]
pub struct Lane {
    /// Names it among all of this process.
    pub id: u64,
    /// What it is.
    pub plan: Arc<Plan>,
    /// The zone seems to fail now; before that the lane only warms up.
    pub is_failing: bool,
    /// Which pools it concerns, in the order of the snapshot.
    pub pools: Vec<bool>,
    /// What comes of its requests.
    pub tallies: Arc<Tallies>,
    /// What its requests steer by.
    pub snapshot: Arc<Snapshot>,
}

impl Lane {
    /// Whether a request to this pool with these headers is one of those of which it takes a share.
    #[must_use]
    pub fn concerns(&self, pool: usize, headers: &HeaderMap) -> bool {
        self.pools.get(pool).is_some_and(|is| *is)
            && self.plan.matching.as_ref().is_none_or(|matching| matching.is_met(headers))
    }

    /// How this endpoint seems to fail now.
    #[must_use]
    pub fn fault_at(&self, place: &Place, address: SocketAddr) -> Option<Fault> {
        let is_meant = self.is_failing && self.plan.hits(place, address);
        is_meant.then_some(self.plan.fault)
    }
}

impl Plan {
    /// Whether an endpoint there is one of those that seem to fail.
    #[must_use]
    pub fn hits(&self, place: &Place, address: SocketAddr) -> bool {
        *place == self.lose && self.endpoint.is_none_or(|only| only == address)
    }
}

/// Draws a share that is exact over every hundred, and that no rhythm of requests can dodge.
#[derive(Clone, Debug, Default)]
pub struct Lot {
    left: u32,
    wanted: u32,
}

impl Lot {
    /// Whether the next one is drawn.
    pub fn draw(&mut self, share: Share, rng: &mut Rng) -> bool {
        if self.left == 0 {
            (self.left, self.wanted) = (100, share.percent());
        }
        let is_drawn = rng.u32(..self.left) < self.wanted;
        self.left -= 1;
        self.wanted -= u32::from(is_drawn);
        is_drawn
    }
}

/// What comes of a lane's requests; written by workers.
#[derive(Debug, Default)]
pub struct Tallies {
    concerned: AtomicU64,
    requests: AtomicU64,
    met: AtomicU64,
    failed: AtomicU64,
    resendable: AtomicU64,
    last_failure_us: AtomicU64,
}

impl Tallies {
    /// A request came of which a share is taken; it was `drawn`, or not.
    pub fn came(&self, drawn: bool) {
        self.concerned.fetch_add(1, Relaxed);
        self.requests.fetch_add(u64::from(drawn), Relaxed);
    }

    /// A try met the fault.
    pub fn met(&self) {
        self.met.fetch_add(1, Relaxed);
    }

    /// A client saw a failure; `resendable` if the request could have been sent again.
    pub fn failed(&self, now_us: u64, resendable: bool) {
        self.failed.fetch_add(1, Relaxed);
        self.resendable.fetch_add(u64::from(resendable), Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// When a client last saw a failure, in microseconds since the epoch; zero is never.
    #[must_use]
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// What there is so far, with no rescues.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            concerned: self.concerned.load(Relaxed),
            requests: self.requests.load(Relaxed),
            met: self.met.load(Relaxed),
            failed: self.failed.load(Relaxed),
            resendable: self.resendable.load(Relaxed),
            rescued: 0,
            late: 0,
        }
    }
}

/// Requests of a drill, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those of which a share was taken.
    pub concerned: u64,
    /// Those that were taken.
    pub requests: u64,
    /// Tries that met the fault.
    pub met: u64,
    /// Those whose clients saw a failure.
    pub failed: u64,
    /// Of these, those that could have been sent again.
    pub resendable: u64,
    /// Those that met the fault and were answered well by another endpoint.
    pub rescued: u64,
    /// Of these, those that were answered late.
    pub late: u64,
}

impl Counts {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            concerned: self.concerned - before.concerned,
            requests: self.requests - before.requests,
            met: self.met - before.met,
            failed: self.failed - before.failed,
            resendable: self.resendable - before.resendable,
            rescued: self.rescued - before.rescued,
            late: self.late - before.late,
        }
    }
}
