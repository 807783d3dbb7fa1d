//! Measures how late the control thread wakes: its lag delays every verdict.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::app::ops::event_log;

/// A wake-up later than this makes the instance not ready.
const LAG_THRESHOLD: Duration = Duration::from_secs(1);

/// Time for which the instance is not ready after such a lag.
const NOT_READY_AFTER_LAG: Duration = Duration::from_secs(5);

/// The last lag above the threshold, with its time.
#[derive(Debug, Default)]
pub struct ControlLag {
    last_lag: Cell<Option<(Instant, Duration)>>,
}

impl ControlLag {
    /// Records a wake-up at `now` that was due at `due` or earlier.
    pub fn record_wakeup(&self, due: Instant, now: Instant) {
        let lag = now.saturating_duration_since(due);
        if !lag.is_zero() {
            event_log::record_lag(lag);
        }
        if lag > LAG_THRESHOLD {
            tracing::error!(lag_ms = event_log::millis(lag), "control is late");
            self.last_lag.set(Some((now, lag)));
        }
    }

    /// The last lag above the threshold, for as long as it makes the instance not ready.
    pub fn recent_lag(&self, now: Instant) -> Option<Duration> {
        let (at, lag) = self.last_lag.get()?;
        (now.saturating_duration_since(at) < NOT_READY_AFTER_LAG).then_some(lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_wakeup_is_reported_for_a_limited_time() {
        let (lag, due) = (ControlLag::default(), Instant::now());
        lag.record_wakeup(due, due);
        lag.record_wakeup(due, due + LAG_THRESHOLD);
        assert_eq!(lag.recent_lag(due + LAG_THRESHOLD), None, "below the threshold");
        let woke = due + 2 * LAG_THRESHOLD;
        lag.record_wakeup(due, woke);
        lag.record_wakeup(woke, woke);
        assert_eq!(lag.recent_lag(woke + NOT_READY_AFTER_LAG / 2), Some(2 * LAG_THRESHOLD));
        assert_eq!(lag.recent_lag(woke + NOT_READY_AFTER_LAG), None);
    }
}
