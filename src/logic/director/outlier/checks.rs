//! The times at which the live counters of doubted and ejected endpoints are evaluated again.
//!
//! The more endpoints are watched, the longer the interval: evaluations never take more than a
//! fraction of a core.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::logic::model::id::EndpointId;

/// The interval while few endpoints are watched.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Time between two checks for each endpoint that is watched.
const CHECK_SPACING: Duration = Duration::from_micros(5);

#[derive(Debug, Default)]
pub(crate) struct OutlierChecks {
    timers: BTreeSet<(Instant, EndpointId)>,
}

impl OutlierChecks {
    /// When an endpoint that is checked now is to be checked again.
    pub(crate) fn next_check(&self, now: Instant) -> Instant {
        now + MIN_CHECK_INTERVAL.max(CHECK_SPACING * self.timers.len() as u32)
    }

    /// Plans a check of `id` in place of the one that was due at `replaced`.
    pub(crate) fn schedule(&mut self, id: EndpointId, at: Instant, replaced: Option<Instant>) {
        if let Some(old) = replaced {
            self.timers.remove(&(old, id));
        }
        self.timers.insert((at, id));
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// Removes the next endpoint that is due by `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<EndpointId> {
        self.timers.first().filter(|(due, _)| *due <= now)?;
        self.timers.pop_first().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescheduled_check_replaces_the_earlier_one() {
        let (mut checks, now) = (OutlierChecks::default(), Instant::now());
        let (id, later) = (EndpointId::new(1, 0), now + Duration::from_secs(1));
        checks.schedule(id, now, None);
        checks.schedule(id, later, Some(now));
        assert_eq!((checks.pop_due(now), checks.next_timeout()), (None, Some(later)));
        assert_eq!((checks.pop_due(later), checks.next_timeout()), (Some(id), None));
    }

    #[test]
    fn interval_grows_with_watched_endpoints() {
        let (mut checks, now) = (OutlierChecks::default(), Instant::now());
        assert_eq!(checks.next_check(now), now + MIN_CHECK_INTERVAL);
        (0..8_000).for_each(|slot| checks.schedule(EndpointId::new(slot, 0), now, None));
        assert_eq!(checks.next_check(now), now + CHECK_SPACING * 8_000);
    }
}
