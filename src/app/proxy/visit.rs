//! A request's stay at an endpoint: counted while it lasts, and a witness of how it went.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::access::TryNote;
use crate::app::meter::WayMeter;
use crate::app::proxy::SpanId;
use crate::app::shared::Report;
use crate::app::worker::{Clock, Worker};
use crate::logic::breaker::{Full, Limit, Permit, PoolRequest, Scope};
use crate::logic::casualty::{Casualty, Sight};
use crate::logic::outcome::{Failure, Reason};
use crate::logic::witness::Witness;
use crate::net::upstream::{Pool, ResponseError};

/// Counts as one request in flight until dropped.
pub struct Visit {
    worker: Rc<Worker>,
    home: Rc<Pool>,
    began: Instant,
    is_trial: bool,
    /// What it takes until the answer begins is yet to be told.
    is_timed: Cell<bool>,
    witness: Witness,
    /// The client has seen the endpoint's failure.
    is_failed: Cell<bool>,
    note: Option<TryNote>,
    /// Counts an answer that ends in the middle, where an objective is measured by it.
    measured: Option<Arc<WayMeter>>,
    /// What it takes of limits, where there are any: held, not read.
    _counted: Option<Box<Counted>>,
}

/// What a visit takes of limits; in a box, since most visits take nothing and all of them move.
type Counted = (Option<Permit>, Option<PoolRequest>);

/// On what terms a visit begins.
#[derive(Debug)]
pub struct Terms {
    /// When.
    pub began: Instant,
    /// The endpoint is to prove itself by it.
    pub is_trial: bool,
    /// How many requests the endpoint may have in flight.
    pub requests_at_most: Option<u32>,
    /// Counts it among those that were sent again.
    pub resend: Option<Permit>,
    /// Endpoints or regions are chosen by how long they take.
    pub is_timed: bool,
}

impl Visit {
    /// Begins a try at the endpoint that `home` leads to.
    ///
    /// # Errors
    /// The endpoint's limit of requests, if it is reached.
    pub fn enter(worker: &Rc<Worker>, home: Rc<Pool>, terms: Terms) -> Result<Self, Full> {
        let now_us = worker.shared.micros(terms.began);
        if !home.target.live.try_enter(terms.requests_at_most, now_us) {
            return Err(Full { scope: Scope::Endpoint, limit: Limit::Requests });
        }
        Ok(Self {
            worker: Rc::clone(worker),
            home,
            began: terms.began,
            is_trial: terms.is_trial,
            is_timed: Cell::new(terms.is_timed),
            witness: Witness::default(),
            is_failed: Cell::new(false),
            note: None,
            measured: None,
            _counted: terms.resend.map(|permit| Box::new((Some(permit), None))),
        })
    }

    /// The visit lasts as long as its request, which the pool counts until then.
    pub fn keep(&mut self, request: Option<PoolRequest>) {
        if request.is_some() {
            self._counted.get_or_insert_default().1 = request;
        }
    }

    /// What the answer is measured by.
    pub fn measured(&mut self, by: Option<Arc<WayMeter>>) {
        self.measured = by;
    }

    /// Where this try is written down, if it is.
    pub fn written_down(&mut self, note: Option<TryNote>) {
        #[cfg(feature = "otlp")]
        if let Some(note) = &note {
            note.goes_by(self.home.scheme());
        }
        self.note = note;
    }

    /// The span of this try, if it is exported.
    #[must_use]
    pub fn span(&self) -> Option<SpanId> {
        self.note.as_ref().and_then(TryNote::span)
    }

    /// The connections to the endpoint.
    #[must_use]
    pub fn home(&self) -> &Rc<Pool> {
        &self.home
    }

    /// Where to wait.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.worker.clock
    }

    /// When this try began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Whether the endpoint is to prove itself.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// The endpoint failed. Counts once, whatever this try meets afterwards.
    pub fn met(&self, failure: Failure) {
        if let Some(note) = &self.note {
            note.failed(failure, self.began.elapsed());
        }
        self.is_timed.set(false);
        if self.witness.met(failure, &self.home.target.live) {
            self.report(failure);
        }
    }

    /// The endpoint answered; of a bad answer this is all that counts.
    pub fn head(&self, status: u16, now: Instant) {
        let now_us = self.worker.shared.micros(now);
        if let Some(note) = &self.note {
            note.head(status, now.saturating_duration_since(self.began));
        }
        if self.is_timed.replace(false) && status < 500 {
            self.took(now.saturating_duration_since(self.began), now_us);
        }
        if self.witness.head(status, &self.home.target.live, now_us) {
            self.report(Failure::http(Reason::Status(status)));
        }
    }

    fn took(&self, time: Duration, now_us: u64) {
        self.home.target.live.took(time.as_micros() as u64, now_us);
    }

    /// All of the answer has passed.
    pub fn answered(&self) {
        self.witness.answered(&self.home.target.live);
    }

    /// The client sees the endpoint's failure.
    pub fn failed(&self, casualty: Casualty) {
        if !self.is_failed.replace(true) {
            self.home.failed(self.worker.shared.micros(Instant::now()), casualty);
        }
    }

    /// The response ended in the middle, before the client's eyes.
    pub fn was_cut(&self, error: ResponseError) {
        match error {
            ResponseError::Endpoint(reason) => {
                self.met(Failure::http(reason));
                if let Some(measured) = self.measured.as_ref().filter(|_| !self.is_failed.get()) {
                    measured.was_cut();
                }
                self.failed(Casualty { sight: Sight::Cut, is_repeatable: false });
            }
            ResponseError::Drained => self.witness.withdraw(),
            ResponseError::Client => {
                self.witness.withdraw();
                if let Some(note) = &self.note {
                    note.client_failed(self.began.elapsed());
                }
            }
        }
    }

    /// Tells control.
    fn report(&self, failure: Failure) {
        // Trials speak of nobody else.
        if !self.is_trial && failure.reason != Reason::Stall {
            self.home.target.kin.erred(self.worker.shared.micros(Instant::now()));
        }
        let endpoint = self.home.target.id;
        let began = self.began;
        let report = match &self.home.staging {
            None => Report::Traffic { endpoint, failure, began },
            Some(staging) => Report::LaneTraffic { drill: staging.drill, endpoint, failure, began },
        };
        if !self.worker.shared.report(report) {
            self.home.target.live.untold();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.home.target.live.leave();
        if self.is_timed.get() {
            // Somebody else was faster: the answer would have taken longer still.
            let now = Instant::now();
            let time = now.saturating_duration_since(self.began);
            self.took(time, self.worker.shared.micros(now));
        }
        if let Some(note) = &self.note {
            note.over(self.began.elapsed());
        }
    }
}
