//! The evidence of one attempt for or against its endpoint: one record at most.

use std::cell::Cell;

use crate::logic::model::endpoint_stats::EndpointStats;
use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::request::retry::RequestExposure;
use crate::logic::request::server_errors;

/// Records the first result of an attempt, and discards the others.
#[derive(Debug, Default)]
pub struct AttemptRecorder {
    is_recorded: Cell<bool>,
}

/// The effect of an attempt's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureEffect {
    /// Control receives a report now.
    pub is_reported: bool,
    /// The failure counts once it is attributed to the endpoint; see
    /// [`crate::logic::request::attribution`].
    pub is_deferred: bool,
}

impl AttemptRecorder {
    /// Handles a response head with `status`. Returns whether the attempt failed by it; the failure
    /// counts once it is attributed to the endpoint.
    pub fn on_response_head(&self, status: u16, live: &EndpointStats, now_us: u64) -> bool {
        if server_errors::is_endpoint_failure(status) {
            return !self.is_recorded.replace(true);
        }
        if server_errors::SERVER_ERRORS.contains(&status) {
            self.discard();
        } else if !self.is_recorded.get() {
            live.record_good_response(now_us);
        }
        false
    }

    /// The whole response has been forwarded. Returns whether the attempt was good.
    pub fn on_response_complete(&self, live: &EndpointStats) -> bool {
        let is_good = !self.is_recorded.replace(true);
        if is_good {
            live.record_success();
        }
        is_good
    }

    /// Handles a failure of the attempt.
    ///
    /// A connection failure before the request was sent counts at once. A later failure can be the
    /// request's, so it is deferred; a lost connection or a timeout starts probes without delay. A
    /// stall starts probes and never counts.
    pub fn on_failure(
        &self,
        failure: Failure,
        exposure: RequestExposure,
        live: &EndpointStats,
    ) -> FailureEffect {
        if failure.reason == FailureReason::Stall {
            return FailureEffect { is_reported: true, is_deferred: false };
        }
        let is_first = !self.is_recorded.replace(true);
        let is_connection_failure = !failure.is_response_failure();
        if may_be_request_fault(failure, exposure) {
            return FailureEffect { is_reported: is_connection_failure, is_deferred: is_first };
        }
        let is_unreported = is_first && live.record_error();
        FailureEffect { is_reported: is_unreported || is_connection_failure, is_deferred: false }
    }

    /// Whether the attempt has failed or was discarded.
    pub fn is_recorded(&self) -> bool {
        self.is_recorded.get()
    }

    /// The attempt is no evidence from now on: its client or the request is at fault.
    pub fn discard(&self) {
        self.is_recorded.set(true);
    }
}

/// Whether the content of the request can have caused the failure.
fn may_be_request_fault(failure: Failure, exposure: RequestExposure) -> bool {
    exposure == RequestExposure::MaybeSent
        && matches!(failure.layer, FailureLayer::Http | FailureLayer::Grpc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::endpoint_stats::AttemptCounts;

    const SENT: RequestExposure = RequestExposure::MaybeSent;

    fn attempts(good: u64, bad: u64) -> AttemptCounts {
        AttemptCounts { good, bad }
    }

    #[test]
    fn complete_response_counts_as_one_success() {
        let (live, recorder) = (EndpointStats::default(), AttemptRecorder::default());
        assert!(!recorder.on_response_head(200, &live, 7));
        assert_eq!((live.last_good_us(), live.collect_attempts()), (7, attempts(0, 0)));
        assert!(recorder.on_response_complete(&live));
        assert!(!recorder.on_response_complete(&live));
        assert_eq!(live.collect_attempts(), attempts(1, 0));
    }

    #[test]
    fn failure_after_the_request_was_sent_is_deferred_once() {
        let live = EndpointStats::default();
        for reason in [FailureReason::Cut, FailureReason::Malformed, FailureReason::Slow] {
            let recorder = AttemptRecorder::default();
            let first = recorder.on_failure(Failure::http(reason), SENT, &live);
            assert_eq!(
                first,
                FailureEffect { is_reported: false, is_deferred: true },
                "{reason:?}"
            );
            let second = recorder.on_failure(Failure::http(FailureReason::Cut), SENT, &live);
            assert_eq!(second, FailureEffect { is_reported: false, is_deferred: false });
            assert!(!recorder.on_response_complete(&live));
        }
        let recorder = AttemptRecorder::default();
        assert!(
            recorder.on_response_head(503, &live, 1) && !recorder.on_response_head(503, &live, 1)
        );
        assert_eq!(live.collect_attempts(), attempts(0, 0));
    }

    #[test]
    fn lost_connection_is_reported_at_once() {
        let live = EndpointStats::default();
        for reason in [FailureReason::Timeout, FailureReason::Reset, FailureReason::Closed] {
            let recorder = AttemptRecorder::default();
            let effect = recorder.on_failure(Failure::http(reason), SENT, &live);
            assert_eq!(
                effect,
                FailureEffect { is_reported: true, is_deferred: true },
                "{reason:?}"
            );
        }
        assert_eq!(live.collect_attempts(), attempts(0, 0));
    }

    #[test]
    fn failure_before_the_request_was_sent_counts_at_once() {
        let live = EndpointStats::default();
        let unsent = RequestExposure::NotSent;
        let counted = FailureEffect { is_reported: true, is_deferred: false };
        for failure in [
            Failure::connect(FailureReason::Refused),
            Failure::connect(FailureReason::Timeout),
            Failure::http(FailureReason::Closed),
        ] {
            let recorder = AttemptRecorder::default();
            assert_eq!(recorder.on_failure(failure, unsent, &live), counted, "{failure}");
        }
        assert_eq!(live.collect_attempts(), attempts(0, 3));
    }

    #[test]
    fn stall_starts_probes_and_never_counts() {
        let (live, recorder) = (EndpointStats::default(), AttemptRecorder::default());
        let effect = recorder.on_failure(Failure::http(FailureReason::Stall), SENT, &live);
        assert_eq!(effect, FailureEffect { is_reported: true, is_deferred: false });
        assert!(recorder.on_response_complete(&live), "it was answered after all");
        assert_eq!(live.collect_attempts(), attempts(1, 0));
    }

    #[test]
    fn late_response_and_501_count_as_no_success() {
        let (live, slow) = (EndpointStats::default(), AttemptRecorder::default());
        let _ = slow.on_failure(Failure::http(FailureReason::Slow), SENT, &live);
        assert!(!slow.on_response_head(200, &live, 7) && !slow.on_response_complete(&live));
        let not_implemented = AttemptRecorder::default();
        assert!(!not_implemented.on_response_head(501, &live, 7));
        assert!(!not_implemented.on_response_complete(&live));
        assert_eq!((live.last_good_us(), live.collect_attempts()), (0, attempts(0, 0)));
    }
}
