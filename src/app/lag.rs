//! How late the control thread wakes: a verdict cannot come earlier than control does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::observe;

/// Control that wakes later than this is not fit to judge.
const LATE: Duration = Duration::from_secs(1);

/// For so long the instance is not ready after that.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The last time that control was late.
#[derive(Debug, Default)]
pub struct Lag {
    last: Cell<Option<(Instant, Duration)>>,
}

impl Lag {
    /// Control wanted to wake at `due` at the latest, and woke `now`.
    pub fn woke(&self, due: Instant, now: Instant) {
        let lag = now.saturating_duration_since(due);
        if !lag.is_zero() {
            observe::lag(lag);
        }
        if lag > LATE {
            tracing::error!(lag_ms = observe::millis(lag), "control is late");
            self.last.set(Some((now, lag)));
        }
    }

    /// By how much control was too late, if that was just now.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<Duration> {
        let (at, lag) = self.last.get()?;
        (now.saturating_duration_since(at) < REMEMBERED).then_some(lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_waking_is_remembered_for_a_while() {
        let (lag, due) = (Lag::default(), Instant::now());
        lag.woke(due, due);
        lag.woke(due, due + LATE);
        assert_eq!(lag.late(due + LATE), None, "on time, more or less");
        let woke = due + 2 * LATE;
        lag.woke(due, woke);
        lag.woke(woke, woke);
        assert_eq!(lag.late(woke + REMEMBERED / 2), Some(2 * LATE));
        assert_eq!(lag.late(woke + REMEMBERED), None);
    }
}
