//! Where a request goes: an endpoint is picked, has room for it, and there is a way to get there.
//!
//! An endpoint at one of its limits is passed by: that is no failure of it, and nobody pays for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::app::access::{Note, TryNote};
use crate::app::worker::{PoolLocal, Worker};
use crate::logic::breaker::{Full, Limit, Permit, Scope};
use crate::logic::drill::Lane;
use crate::logic::snapshot::{Avoid, PoolView, Sending, Target, Wish};
use crate::net::upstream::{Free, Pool};

use super::fault::Reason;
use super::visit::{Terms, Visit};

/// Endpoints at their limits that are met before a request is told that all are.
const LOOKS: usize = 16;

/// A try that comes next.
pub(super) struct Next {
    pub(super) visit: Visit,
    /// The endpoint's zone, by its index in the pool.
    pub(super) zone: usize,
    pub(super) way: Way,
}

/// How a request comes by a connection.
pub(super) enum Way {
    Free(Free),
    /// It must wait until there is room, and counts as pending until then.
    Line {
        pending: Permit,
        full: Full,
    },
}

/// Why there is nowhere to go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nowhere {
    /// No endpoint is left.
    NoEndpoint,
    /// Nobody, because operators have said so.
    Drained,
    /// Those that are left have no room.
    Full(Full),
}

impl From<Nowhere> for Reason {
    fn from(nowhere: Nowhere) -> Self {
        match nowhere {
            Nowhere::NoEndpoint => Self::NoEndpoint,
            Nowhere::Drained => Self::Drained,
            Nowhere::Full(full) => Self::of_limit(full),
        }
    }
}

/// One choice among the endpoints of a pool.
pub(super) struct Choice<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) pool: &'a PoolView,
    pub(super) local: &'a PoolLocal,
    pub(super) sending: Sending,
    /// Which way it is led.
    pub(super) way: usize,
    /// The hash of the request's key, if it has one.
    pub(super) key: Option<u64>,
    /// The endpoint that it stays with, if that takes it.
    pub(super) pinned: Option<&'a Target>,
    pub(super) began: Instant,
    /// The request has reached an endpoint before.
    pub(super) is_resend: bool,
    /// It may wait for a connection.
    pub(super) may_wait: bool,
    /// Where the request is written down.
    pub(super) note: Option<&'a Rc<Note>>,
    /// The drill that took it.
    pub(super) lane: Option<&'a Arc<Lane>>,
}

impl Choice<'_> {
    /// A trial, if one is due and there is room for it.
    pub(super) fn trial(&self) -> Option<Next> {
        let target = self.pool.trial(self.worker.shared.micros(self.began))?;
        let next = self.enter(target, true).ok()?;
        target.live.tried();
        Some(next)
    }

    /// The first endpoint of a request.
    pub(super) fn first(&self) -> Result<Next, Nowhere> {
        let pick = || self.worker.chance(|rng| self.pool.pick(rng, self.wish()));
        self.go(self.pinned.or_else(pick), &Avoid::default())
    }

    /// Another one.
    pub(super) fn other(&self, avoid: &Avoid) -> Result<Next, Nowhere> {
        self.go(self.pick_other(avoid), avoid)
    }

    fn pick_other(&self, avoid: &Avoid) -> Option<&Target> {
        self.worker.chance(|rng| self.pool.pick_other(rng, avoid, self.wish()))
    }

    fn wish(&self) -> Wish<'_> {
        let now_us = self.worker.shared.micros(self.began);
        let turns = Some(&self.local.turns);
        Wish { sending: self.sending, way: self.way, key: self.key, now_us, turns }
    }

    fn go(&self, picked: Option<&Target>, avoid: &Avoid) -> Result<Next, Nowhere> {
        let nowhere = if self.pool.is_drained { Nowhere::Drained } else { Nowhere::NoEndpoint };
        let target = picked.ok_or(nowhere)?;
        self.enter(target, false).or_else(|full| self.around(target, full, avoid))
    }

    /// The picked one has no room: another one has, or one lets it wait.
    #[cold]
    fn around(&self, picked: &Target, full: Full, avoid: &Avoid) -> Result<Next, Nowhere> {
        let mut avoid = avoid.clone();
        let mut lines: SmallVec<[(&Target, Full); 4]> = SmallVec::new();
        let (mut target, mut last) = (picked, full);
        for _ in 0..LOOKS {
            self.local.meter.limited(last);
            if last.limit == Limit::Connections {
                lines.push((target, last));
            } else if last.scope == Scope::Pool {
                return Err(Nowhere::Full(last));
            }
            avoid.endpoints.push(target.id);
            let Some(other) = self.pick_other(&avoid) else { break };
            match self.enter(other, false) {
                Ok(next) => return Ok(next),
                Err(full) => (target, last) = (other, full),
            }
        }
        let lines = if self.may_wait { lines.as_slice() } else { &[] };
        for &(target, full) in lines {
            match self.join_line(target, full) {
                Ok(next) => return Ok(next),
                Err(full) => {
                    self.local.meter.limited(full);
                    last = full;
                }
            }
        }
        Err(Nowhere::Full(last))
    }

    fn enter(&self, target: &Target, is_trial: bool) -> Result<Next, Full> {
        let home = self.home(target);
        let mut visit = self.visit(Rc::clone(&home), is_trial)?;
        let way = Way::Free(home.free()?);
        visit.written_down(self.try_note(target));
        Ok(Next { visit, zone: target.zone, way })
    }

    fn join_line(&self, target: &Target, full: Full) -> Result<Next, Full> {
        let home = self.home(target);
        let mut visit = self.visit(Rc::clone(&home), false)?;
        let way = Way::Line { pending: home.line()?, full };
        visit.written_down(self.try_note(target));
        Ok(Next { visit, zone: target.zone, way })
    }

    fn home(&self, target: &Target) -> Rc<Pool> {
        match self.lane {
            None => self.worker.pool(target, self.pool),
            Some(lane) => self.worker.lane_pool(target, self.pool, lane),
        }
    }

    fn try_note(&self, target: &Target) -> Option<TryNote> {
        let note = self.note?;
        let zone = self.pool.spec.zones.get(target.zone)?;
        Some(TryNote::begin(note, target.address, &zone.place))
    }

    fn visit(&self, home: Rc<Pool>, is_trial: bool) -> Result<Visit, Full> {
        let breakers = &self.pool.spec.limits.breakers;
        let is_counted = self.is_resend && breakers.has(Limit::Retries);
        let resend = is_counted
            .then(|| Permit::take(Limit::Retries, breakers, &home.target.live, home.live()));
        let terms = Terms {
            began: self.began,
            is_trial,
            requests_at_most: breakers.endpoint.requests,
            resend: resend.transpose()?,
            is_timed: self.pool.spec.is_timed(),
        };
        Visit::enter(self.worker, home, terms)
    }
}
