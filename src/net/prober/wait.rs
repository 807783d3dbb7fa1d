//! How long a probe waits, and when it begins again.

use std::time::{Duration, Instant};

use super::attended::{Attended, Ring};
use super::{Answer, Ended};

/// The wait for one probe's attempts.
pub(super) struct Wait<'a> {
    clock: Attended,
    first_byte: Option<Duration>,
    /// When further attempts begin, unless something was heard.
    marks: &'a [Duration],
    /// When each attempt began, in attended time.
    begun: Vec<Duration>,
}

/// What happens next to a probe.
pub(super) enum Next {
    /// An attempt ended.
    Ended((usize, Result<Answer, Ended>)),
    /// Nothing yet.
    On,
    /// The attempt of this number begins.
    Attempt(usize),
    /// Its time is up.
    Silent,
    /// Nobody looked for too long.
    Lost,
}

impl<'a> Wait<'a> {
    pub(super) fn new(
        timeout: Duration,
        first_byte: Option<Duration>,
        marks: &'a [Duration],
    ) -> Self {
        let clock = Attended::new(timeout, Instant::now());
        Self { clock, first_byte, marks, begun: vec![Duration::ZERO] }
    }

    /// When to ring next.
    pub(super) fn plan(&mut self, is_heard: bool) -> Instant {
        let marks = [self.first_byte, self.mark()].into_iter().flatten();
        self.clock.plan(marks.filter(|_| !is_heard))
    }

    /// What the ring means.
    pub(super) fn rang(&mut self, is_heard: bool) -> Next {
        let now = Instant::now();
        match self.clock.rang(now) {
            Ring::Lost => return Next::Lost,
            Ring::Over => return Next::Silent,
            Ring::Late => return Next::On,
            Ring::On if is_heard => return Next::On,
            Ring::On => {}
        }
        let attended = self.clock.by(now);
        if self.first_byte.is_some_and(|deadline| deadline <= attended) {
            return Next::Silent;
        }
        if self.mark().is_some_and(|mark| mark <= attended) {
            self.begun.push(attended);
            return Next::Attempt(self.begun.len() - 1);
        }
        Next::On
    }

    /// How long an attempt has taken, in attended time.
    pub(super) fn since_begin_of(&self, attempt: usize) -> Duration {
        self.clock.by(Instant::now()).saturating_sub(self.begun[attempt])
    }

    fn mark(&self) -> Option<Duration> {
        self.marks.get(self.begun.len() - 1).copied()
    }
}
