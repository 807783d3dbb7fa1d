//! Selects the endpoint of an attempt and a connection to it, within the limits of both.
//!
//! An endpoint at one of its limits is skipped. That is not a failure of the endpoint, and no retry
//! budget is spent on it.

use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::app::dataplane::access::{AccessRecord, AttemptRecordHandle};
use crate::app::dataplane::worker::{PoolLocal, Worker, WorkerView};
use crate::logic::model::pick_request::{ExcludedTargets, PickRequest, RetrySafety};
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::request::attribution::RequestKey;
use crate::logic::request::breaker::LimitPermit;
use crate::logic::request::limits::{LimitExceeded, LimitKind, LimitScope};
use crate::net::upstream::{Checkout, ConnectionPool};

use super::attempt_guard::{AttemptGuard, AttemptOrigin, AttemptTerms};
use super::local_reply_reason::LocalReplyReason;

/// Endpoints at their limits that are tried before a request is refused.
const MAX_FULL_ENDPOINTS: usize = 16;

/// The endpoint of the next attempt, with a connection to it.
pub(super) struct Selection {
    pub(super) guard: AttemptGuard,
    /// Index of the endpoint's zone in the pool.
    pub(super) zone: usize,
    pub(super) source: ConnectionSource,
}

/// Where the connection of an attempt comes from.
pub(super) enum ConnectionSource {
    Immediate(Checkout),
    /// The request waits for a connection, and counts as pending until then.
    Queued {
        pending: LimitPermit,
        full: LimitExceeded,
    },
}

/// Why no endpoint was selected.
#[derive(Clone, Copy, Debug)]
pub(super) enum SelectionError {
    NoEndpoint,
    /// Operators have drained all endpoints of the pool.
    Drained,
    /// All remaining endpoints are at their limits.
    LimitReached(LimitExceeded),
}

impl From<SelectionError> for LocalReplyReason {
    fn from(error: SelectionError) -> Self {
        match error {
            SelectionError::NoEndpoint => Self::NoEndpoint,
            SelectionError::Drained => Self::Drained,
            SelectionError::LimitReached(full) => Self::from_limit(full),
        }
    }
}

/// The inputs of one selection.
pub(super) struct EndpointSelector<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) pool: &'a PoolView,
    pub(super) local: &'a Rc<PoolLocal>,
    /// The key of the request, for attribution.
    pub(super) key: RequestKey,
    pub(super) retry_safety: RetrySafety,
    /// Index of the steering variant of the pool.
    pub(super) steering_variant: usize,
    /// Hash of the request's key, if it has one.
    pub(super) hash_key: Option<u64>,
    /// The endpoint of the affinity cookie, if it accepts the request.
    pub(super) affinity_target: Option<&'a Target>,
    pub(super) began: Instant,
    /// The attempt is a retry, which counts against the limit on retries.
    pub(super) is_resend: bool,
    /// The request may wait for a connection.
    pub(super) can_wait: bool,
    /// The access record of the request.
    pub(super) record: Option<&'a Rc<AccessRecord>>,
    pub(super) view: &'a WorkerView,
}

impl EndpointSelector<'_> {
    /// The endpoint of a trial, if one is due and below its limits.
    pub(super) fn select_trial(&self) -> Option<Selection> {
        let target = self.pool.take_due_trial(self.worker.shared.micros(self.began))?;
        let selection = self.select_endpoint(target, true).ok()?;
        target.stats.record_trial();
        Some(selection)
    }

    pub(super) fn select_first(&self) -> Result<Selection, SelectionError> {
        let pick = || self.worker.with_rng(|rng| self.pool.pick(rng, self.pick_request()));
        self.select(self.affinity_target.or_else(pick), &ExcludedTargets::default())
    }

    pub(super) fn select_other(
        &self,
        avoid: &ExcludedTargets,
    ) -> Result<Selection, SelectionError> {
        self.select(self.pick_other(avoid), avoid)
    }

    fn pick_other(&self, avoid: &ExcludedTargets) -> Option<&Target> {
        self.worker.with_rng(|rng| self.pool.pick_alternative(rng, avoid, self.pick_request()))
    }

    fn pick_request(&self) -> PickRequest<'_> {
        let now_us = self.worker.shared.micros(self.began);
        let turns = Some(&self.local.turns);
        PickRequest {
            retry_safety: self.retry_safety,
            variant: self.steering_variant,
            hash_key: self.hash_key,
            now_us,
            round_robin: turns,
        }
    }

    fn select(
        &self,
        picked: Option<&Target>,
        avoid: &ExcludedTargets,
    ) -> Result<Selection, SelectionError> {
        let error =
            if self.pool.is_drained { SelectionError::Drained } else { SelectionError::NoEndpoint };
        let target = picked.ok_or(error)?;
        self.select_endpoint(target, false)
            .or_else(|full| self.select_around_full(target, full, avoid))
    }

    /// `picked` is at a limit: selects another endpoint, or waits for a connection to one of them.
    #[cold]
    fn select_around_full(
        &self,
        picked: &Target,
        full: LimitExceeded,
        avoid: &ExcludedTargets,
    ) -> Result<Selection, SelectionError> {
        let mut avoid = avoid.clone();
        let mut queue_candidates: SmallVec<[(&Target, LimitExceeded); 4]> = SmallVec::new();
        let (mut target, mut last) = (picked, full);
        for _ in 0..MAX_FULL_ENDPOINTS {
            self.local.meter.record_limit(last);
            if last.limit == LimitKind::Connections {
                queue_candidates.push((target, last));
            } else if last.scope == LimitScope::Pool {
                return Err(SelectionError::LimitReached(last));
            }
            avoid.endpoints.push(target.id);
            let Some(other) = self.pick_other(&avoid) else { break };
            match self.select_endpoint(other, false) {
                Ok(selection) => return Ok(selection),
                Err(full) => (target, last) = (other, full),
            }
        }
        let queue_candidates = if self.can_wait { queue_candidates.as_slice() } else { &[] };
        for &(target, full) in queue_candidates {
            match self.queue_at(target, full) {
                Ok(selection) => return Ok(selection),
                Err(full) => {
                    self.local.meter.record_limit(full);
                    last = full;
                }
            }
        }
        Err(SelectionError::LimitReached(last))
    }

    fn select_endpoint(&self, target: &Target, is_trial: bool) -> Result<Selection, LimitExceeded> {
        let connections = self.connections(target);
        let mut guard = self.start_attempt(Rc::clone(&connections), target.zone, is_trial)?;
        let source = ConnectionSource::Immediate(connections.checkout()?);
        guard.set_record(self.attempt_record(target));
        Ok(Selection { guard, zone: target.zone, source })
    }

    fn queue_at(&self, target: &Target, full: LimitExceeded) -> Result<Selection, LimitExceeded> {
        let connections = self.connections(target);
        let mut guard = self.start_attempt(Rc::clone(&connections), target.zone, false)?;
        let source = ConnectionSource::Queued { pending: connections.pending_permit()?, full };
        guard.set_record(self.attempt_record(target));
        Ok(Selection { guard, zone: target.zone, source })
    }

    fn connections(&self, target: &Target) -> Rc<ConnectionPool> {
        self.worker.connections_to(target, self.pool, self.view)
    }

    fn attempt_record(&self, target: &Target) -> Option<AttemptRecordHandle> {
        let record = self.record?;
        let zone = self.pool.spec.zones.get(target.zone)?;
        Some(AttemptRecordHandle::begin(record, target.address, &zone.locality))
    }

    fn start_attempt(
        &self,
        connections: Rc<ConnectionPool>,
        zone: usize,
        is_trial: bool,
    ) -> Result<AttemptGuard, LimitExceeded> {
        let breakers = &self.pool.spec.limits.circuit_breakers;
        let is_counted = self.is_resend && breakers.has_limit(LimitKind::Retries);
        let resend = is_counted.then(|| {
            LimitPermit::try_acquire(
                LimitKind::Retries,
                breakers,
                &connections.target.stats,
                connections.pool_stats(),
            )
        });
        let terms = AttemptTerms {
            began: self.began,
            origin: AttemptOrigin {
                local: Rc::clone(self.local),
                key: self.key,
                zone,
                scope: self.pool.comparison_scope(),
            },
            is_trial,
            max_requests: breakers.endpoint.requests,
            retry_permit: resend.transpose()?,
            is_latency_tracked: self.pool.spec.has_latency_tracking(),
        };
        AttemptGuard::begin(self.worker, connections, terms)
    }
}
