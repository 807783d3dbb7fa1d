//! The verdict on a zone as a whole.
//!
//! Inputs are failures of connections, one per endpoint ([`ZoneCorrelation::record_strike`]),
//! passes that revoke them, and the decision that the zone fails or may return. Outputs are the
//! verdict, and whether a quorum is reached. A quorum of connection failures within a window
//! decides, not their rate: endpoints of one zone share power and switches, and fail in the same
//! instant.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::logic::director::event::EvidenceSource;
use crate::logic::health::recovery::FlapHistory;
use crate::logic::model::id::EndpointId;
use crate::logic::model::outcome::Failure;
use crate::logic::model::topology::{CorrelationSpec, RecoverySpec};

/// Endpoints whose connections failed that the verdict on a zone needs at least.
pub(crate) const MIN_ZONE_STRIKES: u32 = 2;

/// Whether a zone is down as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ZoneVerdict {
    #[default]
    Up,
    Down {
        /// How its endpoints failed.
        failure: Failure,
        /// The kind of evidence that made the verdict.
        source: EvidenceSource,
        /// When it was made.
        since: Instant,
        /// The zone does not return before then.
        held_until: Instant,
    },
}

/// How many of `all` make `percent` per cent, rounded up.
pub(crate) fn quorum(all: u32, percent: u32) -> u32 {
    (u64::from(all) * u64::from(percent)).div_ceil(100) as u32
}

/// The strikes that the verdict on a zone of `all` endpoints needs.
pub(crate) fn strikes_needed(all: u32, correlation: &CorrelationSpec) -> u32 {
    quorum(all, correlation.quorum_percent).max(MIN_ZONE_STRIKES)
}

/// The ready endpoints with which a zone of `all` endpoints returns.
pub(crate) fn ready_needed(all: u32, correlation: &CorrelationSpec) -> u32 {
    quorum(all, correlation.return_percent).max(1)
}

#[derive(Debug, Default)]
pub(crate) struct ZoneCorrelation {
    verdict: ZoneVerdict,
    flaps: FlapHistory,
    /// Endpoints whose connections failed recently, with the time, oldest first.
    strikes: VecDeque<(Instant, EndpointId)>,
    /// Those of them that no pass has revoked.
    active_strikes: u32,
}

impl ZoneCorrelation {
    /// Takes over the verdict of another process.
    pub(crate) fn import(&mut self, verdict: ZoneVerdict, flaps: FlapHistory) {
        (self.verdict, self.flaps) = (verdict, flaps);
    }

    pub(crate) fn verdict(&self) -> ZoneVerdict {
        self.verdict
    }

    pub(crate) fn is_down(&self) -> bool {
        self.verdict != ZoneVerdict::Up
    }

    pub(crate) fn flaps(&self) -> FlapHistory {
        self.flaps
    }

    pub(crate) fn active_strikes(&self) -> u32 {
        self.active_strikes
    }

    /// The endpoint's connections have begun to fail.
    pub(crate) fn record_strike(&mut self, id: EndpointId, now: Instant) {
        self.strikes.push_back((now, id));
        self.active_strikes += 1;
    }

    /// Drops the strikes that are older than `window`. `is_active` returns whether a strike is
    /// still valid.
    pub(crate) fn expire_strikes(
        &mut self,
        window: Duration,
        now: Instant,
        is_active: impl Fn(EndpointId, Instant) -> bool,
    ) {
        while let Some((at, id)) =
            self.strikes.front().copied().filter(|(at, _)| *at + window < now)
        {
            self.strikes.pop_front();
            self.active_strikes -= u32::from(is_active(id, at));
        }
    }

    /// The endpoint's connections, which failed at `struck_at`, work again.
    pub(crate) fn clear_strike(&mut self, id: EndpointId, struck_at: Instant) {
        let position = self.strikes.iter().rposition(|strike| *strike == (struck_at, id));
        if position.and_then(|position| self.strikes.remove(position)).is_some() {
            self.active_strikes -= 1;
        }
    }

    /// The time from which the zone is down; `None` if it is up.
    pub(crate) fn down_since(&self) -> Option<Instant> {
        match self.verdict {
            ZoneVerdict::Up => None,
            ZoneVerdict::Down { since, .. } => Some(since),
        }
    }

    /// Keeps the strikes that are still valid after a change of the configuration.
    pub(crate) fn retain_strikes(&mut self, is_active: impl Fn(EndpointId, Instant) -> bool) {
        self.strikes.retain(|&(at, id)| is_active(id, at));
        self.active_strikes = self.strikes.len() as u32;
    }

    /// The strikes within `window` for which `is_active` holds.
    pub(crate) fn count_strikes(
        &self,
        window: Duration,
        now: Instant,
        is_active: impl Fn(EndpointId, Instant) -> bool,
    ) -> u32 {
        let strikes = self.strikes.iter();
        strikes.filter(|&&(at, id)| is_active(id, at) && at + window >= now).count() as u32
    }

    /// Whether the strikes are due to make a verdict on a zone of `all` endpoints.
    pub(crate) fn is_failing(&self, all: u32, correlation: &CorrelationSpec) -> bool {
        !self.is_down() && self.active_strikes >= strikes_needed(all, correlation)
    }

    /// The verdict is down; the hold-down grows with the zone's flaps.
    pub(crate) fn fail(
        &mut self,
        failure: Failure,
        source: EvidenceSource,
        recovery: &RecoverySpec,
        now: Instant,
    ) {
        let hold = recovery.hold_down.max(self.flaps.record_down(recovery, now));
        self.verdict = ZoneVerdict::Down { failure, source, since: now, held_until: now + hold };
    }

    /// Whether a zone that is down may return with `ready` of `all` endpoints.
    pub(crate) fn can_return(
        &self,
        ready: u32,
        all: u32,
        correlation: &CorrelationSpec,
        now: Instant,
    ) -> bool {
        match self.verdict {
            ZoneVerdict::Up => false,
            ZoneVerdict::Down { held_until, .. } => {
                now >= held_until && ready >= ready_needed(all, correlation)
            }
        }
    }

    /// The verdict is up.
    pub(crate) fn restore(&mut self) {
        self.verdict = ZoneVerdict::Up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::FailureReason;

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);

    fn spec() -> CorrelationSpec {
        CorrelationSpec { quorum_percent: 50, return_percent: 50, ..CorrelationSpec::default() }
    }

    fn id(slot: u32) -> EndpointId {
        EndpointId::new(slot, 0)
    }

    #[test]
    fn quorum_of_strikes_is_due_until_one_is_taken_back() {
        let (mut zone, now) = (ZoneCorrelation::default(), Instant::now());
        zone.record_strike(id(1), now);
        assert!(!zone.is_failing(1, &spec()), "one strike is never a quorum");
        zone.record_strike(id(2), now);
        assert!(zone.is_failing(4, &spec()) && !zone.is_failing(5, &spec()));
        zone.clear_strike(id(1), now);
        assert!(!zone.is_failing(4, &spec()));
    }

    #[test]
    fn strikes_expire_with_the_window() {
        let (mut zone, now) = (ZoneCorrelation::default(), Instant::now());
        let window = Duration::from_secs(1);
        zone.record_strike(id(1), now);
        zone.record_strike(id(2), now + window);
        zone.expire_strikes(window, now + window + Duration::from_millis(1), |_, _| true);
        assert_eq!(zone.active_strikes(), 1);
        assert_eq!(zone.count_strikes(window, now + window, |_, _| true), 1);
    }

    #[test]
    fn fallen_zone_returns_after_hold_down_with_enough_ready() {
        let (mut zone, now) = (ZoneCorrelation::default(), Instant::now());
        let recovery =
            RecoverySpec { hold_down: Duration::from_secs(1), ..RecoverySpec::default() };
        zone.fail(REFUSED, EvidenceSource::Correlation, &recovery, now);
        let later = now + Duration::from_secs(1);
        assert!(zone.is_down() && !zone.can_return(4, 4, &spec(), now));
        assert!(!zone.can_return(1, 4, &spec(), later));
        assert!(zone.can_return(2, 4, &spec(), later));
        zone.restore();
        assert!(!zone.is_down());
    }
}
