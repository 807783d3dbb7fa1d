//! The request as sent to endpoints: the same at every attempt.

use std::time::Instant;

use http::{Request, Version};

use crate::logic::health::latency_baseline::LatencyBounds;
use crate::logic::request::response_timeout::AttemptTimeouts;
use crate::logic::routing::{HeaderMutations, RouteTimeouts};
use crate::net::trailers;

use super::attempt_guard::AttemptGuard;
use super::downstream::Downstream;
use super::interim_responses::InterimResponses;
use super::validation::ValidatedRequest;

pub(super) struct UpstreamRequest<'a> {
    pub(super) request: &'a Request<()>,
    pub(super) validated: &'a ValidatedRequest<'a>,
    pub(super) downstream: &'a Downstream<'a>,
    pub(super) via: &'a str,
    pub(super) timeouts: RouteTimeouts,
    /// Minimum rate of the request body in bytes per second; zero disables it.
    pub(super) body_rate: u64,
    pub(super) max_head_bytes: usize,
    /// The request may be executed twice.
    pub(super) is_idempotent: bool,
    /// The request asks the endpoint to switch to another protocol.
    pub(super) is_upgrade: bool,
    /// The queue of interim responses of a client that accepts them.
    pub(super) interim_responses: Option<&'a InterimResponses>,
    /// The route's changes to response headers.
    pub(super) response_headers: &'a HeaderMutations,
}

impl UpstreamRequest<'_> {
    pub(super) fn is_h2(&self) -> bool {
        self.request.version() == Version::HTTP_2
    }

    /// Whether the client can receive trailers.
    pub(super) fn can_receive_trailers(&self) -> bool {
        self.is_h2() || trailers::has_te_trailers(self.request.headers())
    }

    /// The timeouts of the attempt of `guard`, which begins at `now`.
    pub(super) fn attempt_timeouts(&self, guard: &AttemptGuard, now: Instant) -> AttemptTimeouts {
        let LatencyBounds { stall, slow, .. } = guard.latency_bounds(now);
        let RouteTimeouts { response, idle, .. } = self.timeouts;
        AttemptTimeouts { stall, slow, response, idle, body_rate: self.body_rate }
    }
}
