//! Silent endpoints whose requests are aborted once another endpoint of the pool has answered.
//!
//! Where a whole pool falls silent at once, as in a brown-out, a request that must not run twice
//! would fail for nothing: no other endpoint would have answered it. When such a silence ends, one
//! endpoint answers a moment before the others. So the first answer does not decide; an answer to a
//! probe that started [`CONFIRMATION_DELAY`] after it does.

use std::time::{Duration, Instant};

use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;

/// From the first answer of another endpoint to the start of the probe that decides: less than
/// between the probes of a burst.
const CONFIRMATION_DELAY: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
struct DeferredAbort {
    endpoint: EndpointId,
    failure: Failure,
    since: Instant,
    /// When another endpoint first answered.
    first_response_at: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct DeferredAborts {
    aborts: Vec<DeferredAbort>,
}

impl DeferredAborts {
    /// Defers the abort of a silent endpoint. Returns whether others are to be probed for signs of
    /// life: once for all that fall silent at the same time.
    pub(crate) fn push(&mut self, endpoint: EndpointId, failure: Failure, since: Instant) -> bool {
        let is_first = self.aborts.last().is_none_or(|last| last.since != since);
        self.aborts.push(DeferredAbort { endpoint, failure, since, first_response_at: None });
        is_first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.aborts.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.aborts.clear();
    }

    /// Another endpoint answered a probe that began at `probe_started`: returns the endpoints that
    /// requests leave now. `is_silent_since` returns whether a deferred endpoint is still silent.
    pub(crate) fn release(
        &mut self,
        probe_started: Instant,
        now: Instant,
        is_silent_since: impl Fn(EndpointId, Instant) -> bool,
    ) -> Vec<(EndpointId, Failure)> {
        let mut released = Vec::new();
        self.aborts.retain_mut(|deferred| {
            if !is_silent_since(deferred.endpoint, deferred.since) {
                return false;
            }
            if probe_started < deferred.since {
                return true;
            }
            let first = *deferred.first_response_at.get_or_insert(now);
            let is_confirmed = probe_started >= first + CONFIRMATION_DELAY;
            if is_confirmed {
                released.push((deferred.endpoint, deferred.failure));
            }
            !is_confirmed
        });
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;

    const SILENT: Failure = Failure::connect(FailureReason::Timeout);

    #[test]
    fn second_answer_of_another_endpoint_releases_the_abort() {
        let (mut aborts, now) = (DeferredAborts::default(), Instant::now());
        let (a, b) = (EndpointId::new(1, 0), EndpointId::new(2, 0));
        assert!(aborts.push(a, SILENT, now));
        assert!(!aborts.push(b, SILENT, now), "one sample of probes is enough");
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(aborts.release(at(1), at(2), |_, _| true), []);
        assert_eq!(aborts.release(at(11), at(13), |_, _| true), [], "asked for too early");
        let still_silent = |id, _| id == a;
        assert_eq!(aborts.release(at(12), at(14), still_silent), [(a, SILENT)]);
        assert!(aborts.is_empty(), "the other one has answered");
    }
}
