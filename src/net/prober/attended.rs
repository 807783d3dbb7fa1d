//! Time in which somebody looked.
//!
//! A deadline on the clock blames the endpoint for time in which this process was not there: held
//! up by another task, stopped, or without a processor. So the wait is cut into slices. A slice that
//! rings when it should counts with what it took; one that rings late counts with what was planned,
//! and is followed by another one before anything is judged, in which what has come meanwhile is
//! read.

use std::time::{Duration, Instant};

/// A slice that rings this much later than planned was not attended to its end.
const LATE: Duration = Duration::from_millis(10);

/// Slices in a timeout, and their bounds.
const SLICES: u32 = 16;
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(25);

/// Timers count in milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// A wait that takes this many times its bound on the clock says nothing.
const LOST_AFTER: u32 = 4;

/// Measures a wait in attended time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attended {
    bound: Duration,
    began: Instant,
    /// Attended until the begin of the running slice.
    counted: Duration,
    slice_began: Instant,
    planned: Duration,
}

/// What the end of a slice means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Wait on, and judge nothing: the slice was not attended to its end.
    Late,
    /// Wait on.
    On,
    /// The bound is reached.
    Over,
    /// Too much went by unattended.
    Lost,
}

impl Attended {
    pub(super) fn new(bound: Duration, now: Instant) -> Self {
        Self { bound, began: now, counted: Duration::ZERO, slice_began: now, planned: GRAIN }
    }

    /// When the slice ends: at the first of `marks`, in attended time, if that comes earlier than it
    /// would end by itself.
    pub(super) fn plan(&mut self, marks: impl IntoIterator<Item = Duration>) -> Instant {
        let slice = (self.bound / SLICES).clamp(SHORTEST, LONGEST);
        let ahead = marks.into_iter().filter(|mark| *mark > self.counted).min();
        let until = ahead.unwrap_or(self.bound).min(self.bound);
        // Past its bound it goes on only after a late ring, for a look around.
        let left = until.checked_sub(self.counted).filter(|left| !left.is_zero());
        self.planned = left.unwrap_or(slice).min(slice).max(GRAIN);
        self.slice_began + self.planned
    }

    /// The slice has ended.
    pub(super) fn rang(&mut self, now: Instant) -> Ring {
        let took = now.saturating_duration_since(self.slice_began);
        let is_late = took > self.planned + LATE;
        self.counted += if is_late { self.planned } else { took };
        self.slice_began = now;
        if now.saturating_duration_since(self.began) > self.bound * LOST_AFTER {
            Ring::Lost
        } else if is_late {
            Ring::Late
        } else if self.counted < self.bound {
            Ring::On
        } else {
            Ring::Over
        }
    }

    /// What has been attended by `now`.
    pub(super) fn by(&self, now: Instant) -> Duration {
        let running = now.saturating_duration_since(self.slice_began);
        self.counted + if running > self.planned + LATE { self.planned } else { running }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets every slice ring `late` after its end; when it was over, and what was said.
    fn wait(bound: Duration, late: impl Fn(usize) -> Duration) -> (Duration, Ring, usize) {
        let t0 = Instant::now();
        let mut attended = Attended::new(bound, t0);
        for slice in 0..1_000 {
            let now = attended.plan([]) + late(slice);
            let ring = attended.rang(now);
            if matches!(ring, Ring::Over | Ring::Lost) {
                return (now - t0, ring, slice + 1);
            }
        }
        unreachable!("a wait has an end");
    }

    #[test]
    fn a_wait_that_is_attended_ends_at_its_bound() {
        assert_eq!(wait(ms(500), |_| Duration::ZERO), (ms(500), Ring::Over, 20));
        assert_eq!(wait(ms(160), |_| Duration::ZERO), (ms(160), Ring::Over, 16));
        assert_eq!(wait(ms(20), |_| Duration::ZERO), (ms(20), Ring::Over, 4));
        assert_eq!(wait(ms(1), |_| Duration::ZERO), (ms(1), Ring::Over, 1));
        let (took, ring, _) = wait(ms(500), |_| ms(9));
        assert!(took < ms(525) && ring == Ring::Over, "a little late is time like any other");
    }

    #[test]
    fn what_was_not_attended_does_not_count() {
        let held_up = |at| wait(ms(500), move |slice| if slice == at { ms(700) } else { ms(0) });
        for at in 0..19 {
            assert_eq!(held_up(at), (ms(1_200), Ring::Over, 20), "{at}");
        }
        // Held up at the very end, there is one more slice in which to look.
        assert_eq!(held_up(19), (ms(1_225), Ring::Over, 21));
    }

    #[test]
    fn a_wait_that_nobody_attends_is_lost() {
        assert_eq!(wait(ms(100), |_| ms(60)).1, Ring::Lost);
        let (took, ring, slices) = wait(ms(500), |_| ms(2_001));
        assert_eq!((took, ring, slices), (ms(2_026), Ring::Lost, 1));
    }

    #[test]
    fn marks_end_a_slice_early() {
        let t0 = Instant::now();
        let mut attended = Attended::new(ms(500), t0);
        assert_eq!(attended.plan([ms(10)]), t0 + ms(10));
        assert_eq!(attended.rang(t0 + ms(10)), Ring::On);
        assert_eq!(attended.plan([ms(10)]), t0 + ms(35), "a mark that is past is none");
        assert_eq!(attended.by(t0 + ms(20)), ms(20));
        assert_eq!(attended.by(t0 + ms(900)), ms(35));
        assert_eq!(attended.plan([ms(900)]), t0 + ms(35), "nor one beyond the bound");
    }
}
