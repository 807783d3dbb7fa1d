//! How clients saw a failure, counted: by what they were told, and by whether their request could
//! still have been sent again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a client saw of an endpoint's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
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

impl Sight {
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
    #[must_use]
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
pub struct Casualty {
    /// What the client saw.
    pub sight: Sight,
    /// It could still have been sent again: nothing but room, budget or an endpoint was wanting.
    pub is_repeatable: bool,
}

/// Requests that failed, by [`Sight`]; in each pair those that could not be sent again come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Casualties([[u32; 2]; Sight::ALL.len()]);

impl Casualties {
    /// How many saw this.
    #[must_use]
    pub fn of(&self, sight: Sight) -> u64 {
        self.0[sight as usize].iter().map(|&count| u64::from(count)).sum()
    }

    /// How many could still have been sent again.
    #[must_use]
    pub fn repeatable(&self) -> u64 {
        self.0.iter().map(|[_, repeatable]| u64::from(*repeatable)).sum()
    }
}

/// The same while it is counted, and as it stood at the last proof of life.
#[derive(Debug, Default)]
pub(super) struct Count {
    now: [[AtomicU32; 2]; Sight::ALL.len()],
    settled: [[AtomicU32; 2]; Sight::ALL.len()],
}

impl Count {
    /// One more.
    pub(super) fn add(&self, casualty: Casualty) {
        let pair = &self.now[casualty.sight as usize];
        pair[usize::from(casualty.is_repeatable)].fetch_add(1, Relaxed);
    }

    /// What was counted so far belongs to the past.
    pub(super) fn settle(&self) {
        for (now, settled) in self.now.as_flattened().iter().zip(self.settled.as_flattened()) {
            settled.store(now.load(Relaxed), Relaxed);
        }
    }

    /// What was counted since.
    pub(super) fn since(&self) -> Casualties {
        let mut counts = Casualties::default();
        let pairs = self.now.as_flattened().iter().zip(self.settled.as_flattened());
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
    fn what_was_before_is_not_counted_again() {
        let count = Count::default();
        let cut = Casualty { sight: Sight::Cut, is_repeatable: false };
        let reset = Casualty { sight: Sight::Reset, is_repeatable: true };
        count.add(cut);
        count.settle();
        assert_eq!(count.since(), Casualties::default());
        count.add(cut);
        count.add(reset);
        count.add(reset);
        let since = count.since();
        assert_eq!((since.of(Sight::Cut), since.of(Sight::Reset)), (1, 2));
        assert_eq!(since.repeatable(), 2);
    }

    #[test]
    fn the_list_is_in_the_order_of_the_words() {
        for (index, sight) in Sight::ALL.into_iter().enumerate() {
            assert_eq!(sight as usize, index, "{}", sight.as_str());
        }
    }
}
