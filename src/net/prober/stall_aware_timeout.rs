//! A timeout that counts only the time in which this process was running ("attended" time).
//!
//! A deadline on the clock blames the endpoint for time in which this process was delayed by
//! another task, stopped, or without a processor. The wait is therefore cut into slices. A timely
//! slice counts with its real duration. A slice with a late timer counts with its planned
//! duration. Another slice follows it before the timeout expires, so that bytes that have arrived
//! meanwhile are read.

use std::time::{Duration, Instant};

/// A slice whose timer fires later than this was not attended to its end.
const LATE_TOLERANCE: Duration = Duration::from_millis(10);

/// Slices in a timeout, and the bounds of their durations.
const SLICES: u32 = 16;
const MIN_SLICE: Duration = Duration::from_millis(5);
const MAX_SLICE: Duration = Duration::from_millis(25);

/// The resolution of tokio's timers.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// A wait that takes this many times its timeout on the clock is void.
const UNATTENDED_FACTOR: u32 = 4;

/// Measures one wait in attended time.
#[derive(Clone, Copy, Debug)]
pub(super) struct StallAwareTimeout {
    timeout: Duration,
    began: Instant,
    /// The attended time before the running slice.
    attended: Duration,
    slice_began: Instant,
    planned_slice: Duration,
}

/// The result of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    /// The slice was not attended to its end: wait for another one.
    Late,
    Running,
    /// The timeout has passed in attended time.
    Expired,
    /// Too much of the time was unattended: the wait is void.
    Unattended,
}

impl StallAwareTimeout {
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            began: now,
            attended: Duration::ZERO,
            slice_began: now,
            planned_slice: TIMER_GRANULARITY,
        }
    }

    /// When the slice ends: at the first of `deadlines` (in attended time) if that is earlier than
    /// its regular end.
    pub(super) fn next_wakeup(&mut self, deadlines: impl IntoIterator<Item = Duration>) -> Instant {
        let slice = (self.timeout / SLICES).clamp(MIN_SLICE, MAX_SLICE);
        let next_deadline =
            deadlines.into_iter().filter(|deadline| *deadline > self.attended).min();
        let until = next_deadline.unwrap_or(self.timeout).min(self.timeout);
        // After its timeout a wait continues only with the slice that follows a late one.
        let left = until.checked_sub(self.attended).filter(|left| !left.is_zero());
        self.planned_slice = left.unwrap_or(slice).min(slice).max(TIMER_GRANULARITY);
        self.slice_began + self.planned_slice
    }

    /// Ends the slice at `now`.
    pub(super) fn on_timer(&mut self, now: Instant) -> SliceEnd {
        let took = now.saturating_duration_since(self.slice_began);
        let is_late = took > self.planned_slice + LATE_TOLERANCE;
        self.attended += if is_late { self.planned_slice } else { took };
        self.slice_began = now;
        if now.saturating_duration_since(self.began) > self.timeout * UNATTENDED_FACTOR {
            SliceEnd::Unattended
        } else if is_late {
            SliceEnd::Late
        } else if self.attended < self.timeout {
            SliceEnd::Running
        } else {
            SliceEnd::Expired
        }
    }

    /// The attended time up to `now`.
    pub(super) fn attended_by(&self, now: Instant) -> Duration {
        let running = now.saturating_duration_since(self.slice_began);
        self.attended
            + if running > self.planned_slice + LATE_TOLERANCE {
                self.planned_slice
            } else {
                running
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ends every slice `late` after its plan; returns the duration, the result and the slices.
    fn run_late(
        timeout: Duration,
        late: impl Fn(usize) -> Duration,
    ) -> (Duration, SliceEnd, usize) {
        let t0 = Instant::now();
        let mut clock = StallAwareTimeout::new(timeout, t0);
        for slice in 0..1_000 {
            let now = clock.next_wakeup([]) + late(slice);
            let end = clock.on_timer(now);
            if matches!(end, SliceEnd::Expired | SliceEnd::Unattended) {
                return (now - t0, end, slice + 1);
            }
        }
        unreachable!("every wait ends");
    }

    #[test]
    fn attended_wait_ends_at_its_timeout() {
        assert_eq!(run_late(ms(500), |_| Duration::ZERO), (ms(500), SliceEnd::Expired, 20));
        assert_eq!(run_late(ms(160), |_| Duration::ZERO), (ms(160), SliceEnd::Expired, 16));
        assert_eq!(run_late(ms(20), |_| Duration::ZERO), (ms(20), SliceEnd::Expired, 4));
        assert_eq!(run_late(ms(1), |_| Duration::ZERO), (ms(1), SliceEnd::Expired, 1));
        let (took, end, _) = run_late(ms(500), |_| ms(9));
        assert!(took < ms(525) && end == SliceEnd::Expired, "a small delay counts");
    }

    #[test]
    fn unattended_time_does_not_count() {
        let run_delayed =
            |at| run_late(ms(500), move |slice| if slice == at { ms(700) } else { ms(0) });
        for at in 0..19 {
            assert_eq!(run_delayed(at), (ms(1_200), SliceEnd::Expired, 20), "{at}");
        }
        // A delay of the last slice adds one more slice.
        assert_eq!(run_delayed(19), (ms(1_225), SliceEnd::Expired, 21));
    }

    #[test]
    fn unattended_wait_is_reported_as_such() {
        assert_eq!(run_late(ms(100), |_| ms(60)).1, SliceEnd::Unattended);
        let (took, end, slices) = run_late(ms(500), |_| ms(2_001));
        assert_eq!((took, end, slices), (ms(2_026), SliceEnd::Unattended, 1));
    }

    #[test]
    fn deadlines_end_a_slice_early() {
        let t0 = Instant::now();
        let mut clock = StallAwareTimeout::new(ms(500), t0);
        assert_eq!(clock.next_wakeup([ms(10)]), t0 + ms(10));
        assert_eq!(clock.on_timer(t0 + ms(10)), SliceEnd::Running);
        assert_eq!(clock.next_wakeup([ms(10)]), t0 + ms(35), "past deadlines are ignored");
        assert_eq!(clock.attended_by(t0 + ms(20)), ms(20));
        assert_eq!(clock.attended_by(t0 + ms(900)), ms(35));
        assert_eq!(clock.next_wakeup([ms(900)]), t0 + ms(35), "and so are those after the timeout");
    }
}
