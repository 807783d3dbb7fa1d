//! Accounting of one attempt: the endpoint's load, evidence, latency and access record.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::dataplane::access::AttemptRecordHandle;
use crate::app::dataplane::proxy::SpanId;
use crate::app::dataplane::request_metrics::RoutePoolMetrics;
use crate::app::dataplane::worker::{PoolLocal, TimerQueue, Worker};
use crate::logic::health::attempt_recorder::AttemptRecorder;
use crate::logic::health::latency_baseline::LatencyBounds;
use crate::logic::incident::client_failure::{ClientFailure, ClientFailureKind};
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::attribution::{AttemptPlace, ComparisonScope, RequestKey};
use crate::logic::request::breaker::{LimitPermit, PoolRequestPermit};
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};
use crate::logic::request::pool_latency::LatencySample;
use crate::logic::request::retry::RequestExposure;
use crate::logic::request::server_errors;
use crate::net::upstream::{ConnectionPool, ResponseBodyError};

use super::failed_attempt::{self, FailedAttempt};

/// Counts as one request in flight at the endpoint until dropped.
pub struct AttemptGuard {
    worker: Rc<Worker>,
    connections: Rc<ConnectionPool>,
    began: Instant,
    is_trial: bool,
    /// The time to the response head, not yet recorded.
    is_latency_pending: Cell<bool>,
    recorder: AttemptRecorder,
    origin: AttemptOrigin,
    /// A failure that counts once it is attributed to the endpoint.
    deferred: Cell<Option<Failure>>,
    /// Another attempt of the request is under way, or was until this one was answered.
    is_racing: Cell<bool>,
    /// A response head has arrived that is no failure of the endpoint.
    has_good_head: Cell<bool>,
    /// What the request's other attempts have shown about this one.
    comparison: Cell<Comparison>,
    /// The failure of the endpoint is counted as visible to the client.
    has_client_failure: Cell<bool>,
    record: Option<AttemptRecordHandle>,
    /// Counts a truncated response, if an objective applies.
    route_meter: Option<Arc<RoutePoolMetrics>>,
    /// Permits of limits, released on drop.
    _permits: Option<Box<AttemptPermits>>,
}

/// Boxed, since most attempts have none and all of them are moved.
#[derive(Default)]
struct AttemptPermits {
    _retry: Option<LimitPermit>,
    _pool_request: Option<PoolRequestPermit>,
}

/// The request and the place of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptOrigin {
    pub local: Rc<PoolLocal>,
    pub key: RequestKey,
    /// Index of the endpoint's zone in the pool.
    pub zone: usize,
    /// Where else the request could be sent.
    pub scope: ComparisonScope,
}

/// The other attempts of a request, as far as they concern the attribution of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// No other attempt can decide.
    None,
    /// A hedge is under way.
    Pending,
    /// Another endpoint has answered well.
    AnsweredElsewhere,
}

/// The conditions under which an attempt begins.
#[derive(Debug)]
pub struct AttemptTerms {
    pub began: Instant,
    pub origin: AttemptOrigin,
    /// The attempt decides whether the endpoint, which is on trial, recovers.
    pub is_trial: bool,
    /// Limit of requests in flight at the endpoint.
    pub max_requests: Option<u32>,
    /// Counts the attempt against the limit on retries.
    pub retry_permit: Option<LimitPermit>,
    /// Endpoints or regions are selected by latency.
    pub is_latency_tracked: bool,
}

impl AttemptGuard {
    /// Begins an attempt at the endpoint of `connections`.
    ///
    /// # Errors
    /// The endpoint's limit of requests, if it is reached.
    pub fn begin(
        worker: &Rc<Worker>,
        connections: Rc<ConnectionPool>,
        terms: AttemptTerms,
    ) -> Result<Self, LimitExceeded> {
        let now_us = worker.shared.micros(terms.began);
        if !connections.target.stats.try_start_request(terms.max_requests, now_us) {
            return Err(LimitExceeded { scope: LimitScope::Endpoint, limit: LimitKind::Requests });
        }
        let permits = terms
            .retry_permit
            .map(|permit| Box::new(AttemptPermits { _retry: Some(permit), _pool_request: None }));
        Ok(Self {
            worker: Rc::clone(worker),
            connections,
            began: terms.began,
            is_trial: terms.is_trial,
            is_latency_pending: Cell::new(terms.is_latency_tracked),
            recorder: AttemptRecorder::default(),
            origin: terms.origin,
            deferred: Cell::default(),
            is_racing: Cell::new(false),
            has_good_head: Cell::new(false),
            comparison: Cell::new(Comparison::None),
            has_client_failure: Cell::new(false),
            record: None,
            route_meter: None,
            _permits: permits,
        })
    }

    /// Keeps the request counted at its pool for as long as this attempt lasts.
    pub fn hold_pool_permit(&mut self, request: Option<PoolRequestPermit>) {
        if request.is_some() {
            self._permits.get_or_insert_default()._pool_request = request;
        }
    }

    pub fn set_route_meter(&mut self, meter: Option<Arc<RoutePoolMetrics>>) {
        self.route_meter = meter;
    }

    pub fn set_record(&mut self, record: Option<AttemptRecordHandle>) {
        #[cfg(feature = "otlp")]
        if let Some(record) = &record {
            record.set_scheme(self.connections.scheme());
        }
        self.record = record;
    }

    /// The span of this attempt, if it is exported.
    pub fn span(&self) -> Option<SpanId> {
        self.record.as_ref().and_then(AttemptRecordHandle::span)
    }

    pub fn connections(&self) -> &Rc<ConnectionPool> {
        &self.connections
    }

    pub fn timers(&self) -> &TimerQueue {
        &self.worker.timers
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// Whether the endpoint is on trial.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// Records a failure of the endpoint as evidence. Only the first of an attempt counts. The
    /// failure of a sent request counts once it is attributed to the endpoint. Slowness while this
    /// process is late does not count.
    pub fn record_failure(&self, failure: Failure, exposure: RequestExposure) {
        if failure.reason == FailureReason::Slow && self.worker.is_late() {
            return;
        }
        if let Some(record) = &self.record {
            record.set_failed(failure, self.began.elapsed());
        }
        self.is_latency_pending.set(false);
        let stats = &self.connections.target.stats;
        let effect = self.recorder.on_failure(failure, exposure, stats);
        if effect.is_deferred {
            self.defer(failure);
        }
        let is_sent = exposure == RequestExposure::MaybeSent;
        if effect.is_reported && !(is_sent && self.has_key_that_fails_everywhere()) {
            self.failed_attempt(failure).report(&self.worker);
        }
    }

    /// Records the response head. For a status that is evidence against the endpoint, the rest does
    /// not count.
    pub fn on_head(&self, status: u16, now: Instant) {
        let now_us = self.worker.shared.micros(now);
        if let Some(record) = &self.record {
            record.set_status(status, now.saturating_duration_since(self.began));
        }
        self.has_good_head.set(!server_errors::is_endpoint_failure(status));
        if self.is_latency_pending.replace(false) && status < 500 {
            self.record_latency(now.saturating_duration_since(self.began), now_us);
        }
        if self.recorder.on_response_head(status, &self.connections.target.stats, now_us) {
            self.defer(Failure::http(FailureReason::Status(status)));
        }
    }

    fn defer(&self, failure: Failure) {
        if self.comparison.get() == Comparison::AnsweredElsewhere {
            self.failed_attempt(failure).count(&self.worker);
        } else {
            self.deferred.set(Some(failure));
        }
    }

    /// A hedge starts beside this attempt. Its result shows whether the endpoint is slow.
    pub fn on_hedge_started(&self) {
        self.is_racing.set(true);
        self.comparison.set(Comparison::Pending);
    }

    /// Marks this attempt as a hedge.
    pub fn set_hedge(&self) {
        self.is_racing.set(true);
    }

    /// The bounds on the wait for the response, as of `now`.
    pub fn latency_bounds(&self, now: Instant) -> LatencyBounds {
        let AttemptOrigin { local, key, .. } = &self.origin;
        let baseline = self.connections.target.zone_stats.latency();
        local.latency.borrow().bounds(baseline, *key, now)
    }

    /// Records the wait for the response head.
    pub fn record_wait(&self, waited: Duration, now: Instant) {
        let sample = self.latency_sample(waited, now);
        self.origin.local.latency.borrow_mut().on_response(&sample, self.is_racing.get());
    }

    /// This attempt was answered before its hedge, which had waited for `hedge_waited`.
    pub fn on_original_won(&self, waited: Duration, hedge_waited: Duration) {
        let sample = self.latency_sample(waited, Instant::now());
        self.origin.local.latency.borrow_mut().on_original_won(&sample, hedge_waited);
        // The hedge was silent as well, so the late response is no evidence.
        self.deferred.set(None);
    }

    /// This attempt, a hedge, was answered after `waited`, before the original. Returns whether
    /// that proves the other endpoint slow.
    pub fn on_won_as_hedge(&self, waited: Duration) -> bool {
        let sample = self.latency_sample(waited, Instant::now());
        self.origin.local.latency.borrow_mut().on_hedge_won(&sample)
    }

    fn latency_sample(&self, waited: Duration, now: Instant) -> LatencySample<'_> {
        let AttemptOrigin { key, scope, .. } = self.origin;
        LatencySample {
            baseline: self.connections.target.zone_stats.latency(),
            key,
            place: self.place(),
            scope,
            waited,
            now,
            now_us: self.worker.shared.micros(now),
        }
    }

    /// The hedge has answered the request well, at `place`.
    pub fn on_hedge_won(&self, place: AttemptPlace) {
        self.comparison.set(Comparison::AnsweredElsewhere);
        if let Some(failed) = self.take_failed_attempt() {
            let AttemptOrigin { local, key, .. } = &self.origin;
            let _ = local.failing.borrow_mut().on_rescue(*key, 1, place, Instant::now());
            failed.count(&self.worker);
        }
    }

    /// The hedge has failed: it is no comparison for this attempt.
    pub fn on_hedge_failed(&self) {
        self.comparison.set(Comparison::None);
    }

    /// Whether a response head has arrived that is no failure of the endpoint.
    pub fn has_good_head(&self) -> bool {
        self.has_good_head.get()
    }

    /// The attempt continues beyond the slow bound. Settles its failure unless a hedge will decide.
    pub fn settle_slow(&self) {
        if self.comparison.get() != Comparison::Pending {
            self.settle_alone();
        }
    }

    /// Takes the failure that does not count yet.
    pub fn take_failed_attempt(&self) -> Option<FailedAttempt> {
        self.deferred.take().map(|failure| self.failed_attempt(failure))
    }

    /// The endpoint and zone of the attempt.
    pub fn place(&self) -> AttemptPlace {
        AttemptPlace { endpoint: self.connections.target.id, zone: self.origin.zone }
    }

    fn failed_attempt(&self, failure: Failure) -> FailedAttempt {
        FailedAttempt {
            connections: Rc::clone(&self.connections),
            origin: self.origin.clone(),
            failure,
            began: self.began,
            is_trial: self.is_trial,
        }
    }

    /// Counts the failure as that of a request that no other endpoint receives.
    fn settle_alone(&self) {
        if let Some(failed) = self.take_failed_attempt() {
            failed_attempt::settle_failed(&self.worker, &[failed]);
        }
    }

    fn has_key_that_fails_everywhere(&self) -> bool {
        let AttemptOrigin { local, key, .. } = &self.origin;
        let failing = local.failing.borrow();
        !failing.is_empty() && failing.fails_everywhere(*key, Instant::now())
    }

    fn record_latency(&self, latency: Duration, now_us: u64) {
        self.connections.target.stats.record_latency(latency.as_micros() as u64, now_us);
    }

    /// The whole response has been received.
    pub fn on_complete(&self) {
        let AttemptOrigin { local, key, .. } = &self.origin;
        let is_good = self.recorder.on_response_complete(&self.connections.target.stats);
        if is_good && !local.failing.borrow().is_empty() {
            local.failing.borrow_mut().on_success(*key, self.place(), Instant::now());
        }
    }

    /// Counts a failure of the endpoint that the client sees; once for an attempt.
    pub fn on_client_failure(&self, client_failure: ClientFailure) {
        if !self.has_client_failure.replace(true) {
            self.connections
                .record_client_failure(self.worker.shared.micros(Instant::now()), client_failure);
        }
    }

    /// The response body ended early, after the client had received the head.
    pub fn on_body_error(&self, error: ResponseBodyError) {
        match error {
            ResponseBodyError::Endpoint(reason) => {
                self.record_failure(Failure::http(reason), RequestExposure::MaybeSent);
                self.settle_alone();
                if let Some(route_meter) =
                    self.route_meter.as_ref().filter(|_| !self.has_client_failure.get())
                {
                    route_meter.record_truncated();
                }
                self.on_client_failure(ClientFailure {
                    kind: ClientFailureKind::Cut,
                    is_repeatable: false,
                });
            }
            ResponseBodyError::Drained => self.recorder.discard(),
            ResponseBodyError::Client => {
                self.recorder.discard();
                if let Some(record) = &self.record {
                    record.set_client_failed(self.began.elapsed());
                }
            }
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        self.settle_alone();
        self.connections.target.stats.request_ended();
        if self.is_latency_pending.get() {
            // A hedge won: this response would have taken longer still.
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.began);
            self.record_latency(latency, self.worker.shared.micros(now));
        }
        if let Some(record) = &self.record {
            record.finish(self.began.elapsed());
        }
    }
}
