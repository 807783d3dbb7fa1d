//! When a probe starts further attempts, and when it times out.

use std::time::{Duration, Instant};

use super::attempt::FinishedAttempt;
use super::stall_aware_timeout::{SliceEnd, StallAwareTimeout};

/// The schedule of one probe's attempts.
pub(super) struct AttemptSchedule<'a> {
    stall_aware_timeout: StallAwareTimeout,
    first_byte: Option<Duration>,
    /// When further attempts start, unless a response has begun.
    start_delays: &'a [Duration],
    /// When each attempt started, in attended time.
    started: Vec<Duration>,
}

/// The next event of a probe.
pub(super) enum ProbeStep {
    AttemptEnded(FinishedAttempt),
    KeepWaiting,
    /// The attempt with this number is due.
    StartAttempt(usize),
    /// The timeout has passed.
    TimedOut,
    /// This process was not running for too much of the time.
    Unattended,
}

impl<'a> AttemptSchedule<'a> {
    pub(super) fn new(
        timeout: Duration,
        first_byte: Option<Duration>,
        start_delays: &'a [Duration],
    ) -> Self {
        let stall_aware_timeout = StallAwareTimeout::new(timeout, Instant::now());
        Self { stall_aware_timeout, first_byte, start_delays, started: vec![Duration::ZERO] }
    }

    /// When to call [`Self::on_timer`] next.
    pub(super) fn next_wakeup(&mut self, has_response: bool) -> Instant {
        let deadlines = [self.first_byte, self.next_start_delay()].into_iter().flatten();
        self.stall_aware_timeout.next_wakeup(deadlines.filter(|_| !has_response))
    }

    /// Handles the timer that [`Self::next_wakeup`] set.
    pub(super) fn on_timer(&mut self, has_response: bool) -> ProbeStep {
        let now = Instant::now();
        match self.stall_aware_timeout.on_timer(now) {
            SliceEnd::Unattended => return ProbeStep::Unattended,
            SliceEnd::Expired => return ProbeStep::TimedOut,
            SliceEnd::Late => return ProbeStep::KeepWaiting,
            SliceEnd::Running if has_response => return ProbeStep::KeepWaiting,
            SliceEnd::Running => {}
        }
        let attended = self.stall_aware_timeout.attended_by(now);
        if self.first_byte.is_some_and(|deadline| deadline <= attended) {
            return ProbeStep::TimedOut;
        }
        if self.next_start_delay().is_some_and(|delay| delay <= attended) {
            self.started.push(attended);
            return ProbeStep::StartAttempt(self.started.len() - 1);
        }
        ProbeStep::KeepWaiting
    }

    /// The duration of an attempt so far, in attended time.
    pub(super) fn attempt_elapsed(&self, attempt: usize) -> Duration {
        self.stall_aware_timeout.attended_by(Instant::now()).saturating_sub(self.started[attempt])
    }

    fn next_start_delay(&self) -> Option<Duration> {
        self.start_delays.get(self.started.len() - 1).copied()
    }
}
