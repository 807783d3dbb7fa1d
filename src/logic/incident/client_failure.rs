//! Counts of client-visible failures, by kind and by whether the request could have been sent
//! again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The failure as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFailureKind {
    /// No connection to an endpoint could be opened.
    Connect,
    /// The connection was lost before a response.
    Reset,
    /// No response in time.
    Timeout,
    /// The down verdict ended the wait for a response.
    Verdict,
    /// The response was malformed.
    Malformed,
    /// No other endpoint was left.
    NoEndpoint,
    /// An error status of the endpoint.
    Status,
    /// The response ended early.
    Cut,
    /// The total timeout over all attempts expired.
    Deadline,
}

impl ClientFailureKind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::Verdict,
        Self::Malformed,
        Self::NoEndpoint,
        Self::Status,
        Self::Cut,
        Self::Deadline,
    ];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Verdict => "verdict",
            Self::Malformed => "malformed",
            Self::NoEndpoint => "no_endpoint",
            Self::Status => "status",
            Self::Cut => "cut",
            Self::Deadline => "deadline",
        }
    }
}

/// One request whose client saw a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFailure {
    pub kind: ClientFailureKind,
    /// The request was repeatable: only capacity, budget or an endpoint was missing.
    pub is_repeatable: bool,
}

/// Failed requests by [`ClientFailureKind`]; each pair counts non-repeatable and repeatable
/// requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFailures([[u32; 2]; ClientFailureKind::ALL.len()]);

impl ClientFailures {
    /// The number of failures of this kind.
    pub fn count_of(&self, kind: ClientFailureKind) -> u64 {
        self.0[kind as usize].iter().map(|&count| u64::from(count)).sum()
    }

    /// The number of failed requests that were repeatable.
    pub fn repeatable_count(&self) -> u64 {
        self.0.iter().map(|[_, repeatable]| u64::from(*repeatable)).sum()
    }
}

/// Atomic counters, and their values at the last proof of life.
#[derive(Debug, Default)]
pub(crate) struct ClientFailureCounter {
    total: [[AtomicU32; 2]; ClientFailureKind::ALL.len()],
    baseline: [[AtomicU32; 2]; ClientFailureKind::ALL.len()],
}

impl ClientFailureCounter {
    pub(crate) fn record(&self, failure: ClientFailure) {
        let pair = &self.total[failure.kind as usize];
        pair[usize::from(failure.is_repeatable)].fetch_add(1, Relaxed);
    }

    /// Excludes everything counted so far.
    pub(crate) fn reset_baseline(&self) {
        for (total, baseline) in self.total.as_flattened().iter().zip(self.baseline.as_flattened())
        {
            baseline.store(total.load(Relaxed), Relaxed);
        }
    }

    /// The counts since the last reset.
    pub(crate) fn since_baseline(&self) -> ClientFailures {
        let mut counts = ClientFailures::default();
        let pairs = self.total.as_flattened().iter().zip(self.baseline.as_flattened());
        for (count, (total, baseline)) in counts.0.as_flattened_mut().iter_mut().zip(pairs) {
            *count = total.load(Relaxed).wrapping_sub(baseline.load(Relaxed));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_before_baseline_are_not_counted() {
        let count = ClientFailureCounter::default();
        let cut = ClientFailure { kind: ClientFailureKind::Cut, is_repeatable: false };
        let reset = ClientFailure { kind: ClientFailureKind::Reset, is_repeatable: true };
        count.record(cut);
        count.reset_baseline();
        assert_eq!(count.since_baseline(), ClientFailures::default());
        count.record(cut);
        count.record(reset);
        count.record(reset);
        let since = count.since_baseline();
        assert_eq!(
            (since.count_of(ClientFailureKind::Cut), since.count_of(ClientFailureKind::Reset)),
            (1, 2)
        );
        assert_eq!(since.repeatable_count(), 2);
    }

    #[test]
    fn failure_kinds_are_listed_in_discriminant_order() {
        for (index, kind) in ClientFailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.as_str());
        }
    }
}
