//! A request's stay at an endpoint: counted while it lasts, reported when it goes wrong.

use std::rc::Rc;
use std::time::Instant;

use crate::app::shared::Report;
use crate::app::worker::Worker;
use crate::logic::outcome::Failure;
use crate::net::upstream::{Pool, ResponseError};

/// Counts as one request in flight until dropped.
pub struct Visit {
    worker: Rc<Worker>,
    home: Rc<Pool>,
    began: Instant,
}

impl Visit {
    /// Begins a try at the endpoint that `home` leads to.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, home: Rc<Pool>, began: Instant) -> Self {
        home.target.live.enter();
        Self { worker: Rc::clone(worker), home, began }
    }

    /// The connections to the endpoint.
    #[must_use]
    pub fn home(&self) -> &Rc<Pool> {
        &self.home
    }

    /// When this try began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Tells control of a failure.
    pub fn report(&self, failure: Failure) {
        let endpoint = self.home.target.id;
        self.worker.shared.report(Report::Traffic { endpoint, failure, began: self.began });
    }

    /// The endpoint answered.
    pub fn good(&self, now: Instant) {
        self.home.target.live.good(self.worker.shared.micros(now));
    }

    /// The response ended in the middle, before the client's eyes.
    pub fn was_cut(&self, error: ResponseError) {
        if let ResponseError::Endpoint(reason) = error {
            self.report(Failure::http(reason));
            self.home.target.live.failed(self.worker.shared.micros(Instant::now()));
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.home.target.live.leave();
    }
}
