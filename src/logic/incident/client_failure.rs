//! How clients saw a failure, counted: by what they were told, and by whether their request could
//! still have been sent again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a client saw of an endpoint's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFailureKind {
    /// No connection could be opened.
    Connect,
    /// The connection was lost before an answer.
    Reset,
    /// No answer came in time.
    Timeout,
    /// The verdict ended the wait for an answer.
    Verdict,
    /// What came was no answer.
    Malformed,
    /// No other endpoint was left.
    NoEndpoint,
    /// The endpoint's own error.
    Status,
    /// The answer ended in the middle.
    Cut,
    /// The time for all tries together was over.
    Deadline,
}

impl ClientFailureKind {
    /// All of them, in the order of reports.
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
    /// What the client saw.
    pub kind: ClientFailureKind,
    /// It could still have been sent again: nothing but room, budget or an endpoint was wanting.
    pub is_repeatable: bool,
}

/// Requests that failed, by [`Sight`]; in each pair those that could not be sent again come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFailures([[u32; 2]; ClientFailureKind::ALL.len()]);

impl ClientFailures {
    /// How many saw this.
    pub fn count_of(&self, kind: ClientFailureKind) -> u64 {
        self.0[kind as usize].iter().map(|&count| u64::from(count)).sum()
    }

    /// How many could still have been sent again.
    pub fn repeatable_count(&self) -> u64 {
        self.0.iter().map(|[_, repeatable]| u64::from(*repeatable)).sum()
    }
}

/// The same while it is counted, and as it stood at the last proof of life.
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

    /// What was counted so far belongs to the past.
    pub(crate) fn reset_baseline(&self) {
        for (now, settled) in self.total.as_flattened().iter().zip(self.baseline.as_flattened()) {
            settled.store(now.load(Relaxed), Relaxed);
        }
    }

    /// What was counted since.
    pub(crate) fn since_baseline(&self) -> ClientFailures {
        let mut counts = ClientFailures::default();
        let pairs = self.total.as_flattened().iter().zip(self.baseline.as_flattened());
        for (count, (now, settled)) in counts.0.as_flattened_mut().iter_mut().zip(pairs) {
            *count = now.load(Relaxed).wrapping_sub(settled.load(Relaxed));
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
        for (index, sight) in ClientFailureKind::ALL.into_iter().enumerate() {
            assert_eq!(sight as usize, index, "{}", sight.as_str());
        }
    }
}
