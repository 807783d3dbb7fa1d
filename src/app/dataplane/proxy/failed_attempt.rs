//! Failed attempts whose evidence is deferred until their request has a result.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::app::dataplane::shared::{WorkerEvidence, WorkerReport};
use crate::app::dataplane::worker::Worker;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::attribution::{AttemptPlace, Attribution};
use crate::net::upstream::ConnectionPool;

use super::attempt_guard::AttemptOrigin;

/// An attempt that failed after its request was sent.
#[derive(Debug)]
pub struct FailedAttempt {
    pub(super) connections: Rc<ConnectionPool>,
    pub(super) origin: AttemptOrigin,
    pub(super) failure: Failure,
    pub(super) began: Instant,
    /// The endpoint is on trial.
    pub(super) is_trial: bool,
}

impl FailedAttempt {
    /// Whether the endpoint was only slow.
    pub(super) fn is_slow(&self) -> bool {
        self.failure.reason == FailureReason::Slow
    }

    fn place(&self) -> AttemptPlace {
        AttemptPlace { endpoint: self.connections.target.id, zone: self.origin.zone }
    }

    /// Counts the failure against its endpoint.
    pub(super) fn count(&self, worker: &Worker) {
        if self.connections.target.stats.record_error() {
            self.report(worker);
        }
    }

    /// Reports the failure to control.
    pub(super) fn report(&self, worker: &Worker) {
        // A failed trial is no evidence against the zone.
        if !self.is_trial && self.failure.reason != FailureReason::Stall {
            let now_us = worker.shared.micros(Instant::now());
            self.connections.target.zone_stats.record_error(now_us);
        }
        let evidence = WorkerEvidence::TrafficFailed {
            endpoint: self.connections.target.id,
            failure: self.failure,
            began: self.began,
        };
        if !worker.shared.send_report(WorkerReport::new(&self.connections, evidence)) {
            self.connections.target.stats.clear_error_report();
        }
    }
}

/// The failed attempts of one request. On drop, the remaining ones are settled as those of a failed
/// request.
pub(super) struct FailedAttempts<'a> {
    worker: &'a Worker,
    attempts: Vec<FailedAttempt>,
}

impl<'a> FailedAttempts<'a> {
    pub(super) fn new(worker: &'a Worker) -> Self {
        Self { worker, attempts: Vec::new() }
    }

    pub(super) fn push(&mut self, attempt: Option<FailedAttempt>) {
        self.attempts.extend(attempt);
    }

    /// Another endpoint has answered the request well: attributes the failures to their endpoints.
    pub(super) fn settle_rescued(&mut self, rescuer: AttemptPlace) {
        let attempts = std::mem::take(&mut self.attempts);
        let Some(last) = attempts.last() else { return };
        let AttemptOrigin { local, key, .. } = &last.origin;
        let now = Instant::now();
        let _ = local.failing.borrow_mut().on_rescue(*key, attempts.len(), rescuer, now);
        attempts.iter().for_each(|failed| failed.count(self.worker));
    }

    /// The request is over without a good response.
    pub(super) fn settle_failed(&mut self) {
        settle_failed(self.worker, &std::mem::take(&mut self.attempts));
    }
}

impl Drop for FailedAttempts<'_> {
    fn drop(&mut self) {
        self.settle_failed();
    }
}

/// Settles the failed attempts of a request that no endpoint has answered well.
pub(super) fn settle_failed(worker: &Worker, attempts: &[FailedAttempt]) {
    let Some(last) = attempts.last() else { return };
    let AttemptOrigin { local, key, scope, .. } = &last.origin;
    let places: SmallVec<[AttemptPlace; 4]> = attempts.iter().map(FailedAttempt::place).collect();
    let attribution = local.failing.borrow_mut().on_failure(*key, &places, *scope, Instant::now());
    match attribution {
        Attribution::Endpoint => attempts.iter().for_each(|failed| failed.count(worker)),
        Attribution::Request | Attribution::Unknown => {
            local.meter.record_unattributed(attempts.len());
        }
    }
}
