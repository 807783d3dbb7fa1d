//! The evidence of one attempt for or against its endpoint: one record at most.

use std::cell::Cell;

use crate::logic::model::endpoint_stats::EndpointStats;
use crate::logic::model::outcome::{Failure, FailureReason};
use crate::logic::request::server_errors;

/// Records the first result of an attempt, and discards the others.
#[derive(Debug, Default)]
pub struct AttemptRecorder {
    is_recorded: Cell<bool>,
}

impl AttemptRecorder {
    /// A response head with `status` came. `true` if it must be reported to control.
    pub fn on_response_head(&self, status: u16, live: &EndpointStats, now_us: u64) -> bool {
        if server_errors::is_endpoint_failure(status) {
            return self.on_failure(Failure::http(FailureReason::Status(status)), live);
        }
        if server_errors::SERVER_ERRORS.contains(&status) {
            self.discard();
        } else if !self.is_recorded.get() {
            live.record_good_response(now_us);
        }
        false
    }

    /// The whole response has been forwarded.
    pub fn on_response_complete(&self, live: &EndpointStats) {
        if !self.is_recorded.replace(true) {
            live.record_success();
        }
    }

    /// The attempt met `failure`. `true` if it must be reported to control. Failures of responses
    /// are reported once until control evaluates the counters, all others always. A stall starts
    /// probes and does not count.
    pub fn on_failure(&self, failure: Failure, live: &EndpointStats) -> bool {
        if failure.reason == FailureReason::Stall {
            return true;
        }
        let is_unreported = !self.is_recorded.replace(true) && live.record_error();
        is_unreported || !failure.is_response_failure()
    }

    /// The attempt is no evidence from now on: its client or the request is at fault.
    pub fn discard(&self) {
        self.is_recorded.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::endpoint_stats::AttemptCounts;

    fn attempts(good: u64, bad: u64) -> AttemptCounts {
        AttemptCounts { good, bad }
    }

    #[test]
    fn complete_response_counts_as_one_success() {
        let (live, recorder) = (EndpointStats::default(), AttemptRecorder::default());
        assert!(!recorder.on_response_head(200, &live, 7));
        assert_eq!((live.last_good_us(), live.collect_attempts()), (7, attempts(0, 0)));
        recorder.on_response_complete(&live);
        recorder.on_response_complete(&live);
        assert_eq!(live.collect_attempts(), attempts(1, 0));
    }

    #[test]
    fn response_failures_count_and_report_once() {
        let live = EndpointStats::default();
        let failing = [
            FailureReason::Status(503),
            FailureReason::Cut,
            FailureReason::Malformed,
            FailureReason::Slow,
        ];
        for (index, reason) in failing.into_iter().enumerate() {
            let recorder = AttemptRecorder::default();
            assert_eq!(recorder.on_failure(Failure::http(reason), &live), index == 0, "{reason:?}");
            assert!(!recorder.on_failure(Failure::http(FailureReason::Cut), &live));
            recorder.on_response_complete(&live);
        }
        assert_eq!(live.collect_attempts(), attempts(0, 4));
        assert!(AttemptRecorder::default().on_response_head(500, &live, 1), "control has looked");
    }

    #[test]
    fn lost_connection_is_always_reported_stall_never_counts() {
        let live = EndpointStats::default();
        for reason in [
            FailureReason::Refused,
            FailureReason::Timeout,
            FailureReason::Reset,
            FailureReason::Closed,
        ] {
            assert!(
                AttemptRecorder::default().on_failure(Failure::http(reason), &live),
                "{reason:?}"
            );
        }
        let recorder = AttemptRecorder::default();
        assert!(recorder.on_failure(Failure::http(FailureReason::Stall), &live));
        assert_eq!(live.collect_attempts(), attempts(0, 4));
        recorder.on_response_complete(&live);
        assert_eq!(live.collect_attempts(), attempts(1, 4), "it was answered after all");
    }

    #[test]
    fn late_response_and_501_count_as_no_success() {
        let (live, slow) = (EndpointStats::default(), AttemptRecorder::default());
        assert!(slow.on_failure(Failure::http(FailureReason::Slow), &live));
        assert!(!slow.on_response_head(200, &live, 7));
        slow.on_response_complete(&live);
        let not_implemented = AttemptRecorder::default();
        assert!(!not_implemented.on_response_head(501, &live, 7));
        not_implemented.on_response_complete(&live);
        assert_eq!((live.last_good_us(), live.collect_attempts()), (0, attempts(0, 1)));
    }
}
