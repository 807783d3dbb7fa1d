//! Attributes failures to endpoints or requests, and counts them, as the request path does.

use crate::logic::director::Input;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::attribution::{AttemptPlace, Attribution, ComparisonScope, RequestKey};
use crate::logic::request::retry::RequestExposure;

use super::Simulation;
use super::requests::{AttemptKey, AttemptRole, FailedAttempt, SimulatedAttempt, SimulatedRequest};

impl Simulation {
    /// Records a failure that ends the attempt. Returns it if it does not count yet.
    pub(super) fn record_failure(
        &mut self,
        request: &SimulatedRequest,
        attempt: &mut SimulatedAttempt,
        failure: Failure,
        reached: RequestExposure,
    ) -> Option<FailedAttempt> {
        let effect = attempt.recorder.on_failure(failure, reached, &attempt.target.stats);
        let failed = attempt.failed_attempt(failure);
        let is_sent = reached == RequestExposure::MaybeSent;
        if effect.is_reported && !(is_sent && self.fails_everywhere(request)) {
            self.report(&failed);
        }
        let deferred = attempt.deferred.take().or_else(|| effect.is_deferred.then_some(failed))?;
        if attempt.role == AttemptRole::Observed {
            self.count(&deferred);
            return None;
        }
        Some(deferred)
    }

    /// Records a failure of an attempt that continues.
    pub(super) fn record_attempt_failure(&mut self, key: AttemptKey, failure: Failure) {
        let Some(request) = self.clients.requests.get(&key.request) else { return };
        let Some(attempt) = self.attempt(key) else { return };
        let has_other = request.attempt_count() > 1;
        let (owner, request_key) = ((request.stream, request.worker), request.content.key);
        let reached = RequestExposure::MaybeSent;
        let effect = attempt.recorder.on_failure(failure, reached, &attempt.target.stats);
        let failed = attempt.failed_attempt(failure);
        if effect.is_reported && !self.fails_everywhere(request) {
            self.report(&failed);
        }
        if !effect.is_deferred {
            return;
        }
        if !has_other {
            self.settle_failures(owner, request_key, &[failed]);
        } else if let Some(attempt) = self.attempt_mut(key) {
            attempt.deferred = Some(failed);
        }
    }

    /// The attempt ended the request well.
    pub(super) fn settle_success(
        &mut self,
        request: &mut SimulatedRequest,
        place: AttemptPlace,
        is_good: bool,
    ) {
        let (key, now) = (request.content.key, self.now);
        let failed = std::mem::take(&mut request.failed);
        let failing = &mut self.worker_mut(request).failing;
        if !failed.is_empty() {
            let _ = failing.on_rescue(key, failed.len(), place, now);
        } else if is_good && !failing.is_empty() {
            failing.on_success(key, place, now);
        }
        failed.iter().for_each(|failed| self.count(failed));
    }

    /// No endpoint has answered the request well.
    pub(super) fn settle_failed(&mut self, request: &SimulatedRequest, failed: &[FailedAttempt]) {
        if !failed.is_empty() {
            let owner = (request.stream, request.worker);
            self.settle_failures(owner, request.content.key, failed);
        }
    }

    fn settle_failures(
        &mut self,
        (stream, worker): (usize, usize),
        key: RequestKey,
        failed: &[FailedAttempt],
    ) {
        let now = self.now;
        let scope = self.comparison_scope(stream);
        let places: Vec<AttemptPlace> = failed.iter().map(FailedAttempt::place).collect();
        let failing = &mut self.clients.streams[stream].workers[worker].failing;
        match failing.on_failure(key, &places, scope, now) {
            Attribution::Endpoint => failed.iter().for_each(|failed| self.count(failed)),
            Attribution::Request | Attribution::Unknown => {}
        }
    }

    /// The places to which the requests of a load could be sent.
    pub(super) fn comparison_scope(&self, stream: usize) -> ComparisonScope {
        let pool = &self.clients.streams[stream].load.pool;
        let view = self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        view.map_or(ComparisonScope::None, |view| view.comparison_scope())
    }

    /// Counts a failure against its endpoint.
    pub(super) fn count(&mut self, failed: &FailedAttempt) {
        if failed.target.stats.record_error() {
            self.report(failed);
        }
    }

    /// Reports a failure to the director, counted in the endpoint's zone.
    fn report(&mut self, failed: &FailedAttempt) {
        let &FailedAttempt { ref target, failure, started_at, is_trial } = failed;
        if !is_trial && failure.reason != FailureReason::Stall {
            target.zone_stats.record_error(self.elapsed_us(self.now));
        }
        let endpoint = target.id;
        self.deliver_input(Input::TrafficFailed { endpoint, failure, attempt_started: started_at });
    }

    pub(super) fn fails_everywhere(&self, request: &SimulatedRequest) -> bool {
        let failing = &self.worker(request).failing;
        failing.fails_everywhere(request.content.key, self.now)
    }
}
