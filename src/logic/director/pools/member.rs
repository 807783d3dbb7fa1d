//! The state of one endpoint in its zone, and the counts of endpoints by state.

use std::time::Instant;

use crate::logic::director::eligibility::Eligibility;
use crate::logic::director::endpoint::EndpointMachine;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::steering::target::WEIGHT_ONE;

/// The state of an endpoint that its zone stores: everything on which publications and counts
/// depend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberState {
    eligibility: Eligibility,
    /// In parts of [`WEIGHT_ONE`]: as declared, less what a ramp, an order or a degraded state
    /// takes.
    weight: u32,
    /// Its capacity, whether it serves or not.
    capacity: u32,
    is_down: bool,
    /// Could serve if its zone may.
    is_ready: bool,
    is_ejected: bool,
    is_awaiting_first_request: bool,
}

impl MemberState {
    /// The state of an endpoint that has just been placed.
    pub(crate) const UNKNOWN: Self = Self {
        eligibility: Eligibility::Unknown,
        weight: 0,
        capacity: 0,
        is_down: false,
        is_ready: false,
        is_ejected: false,
        is_awaiting_first_request: false,
    };

    pub(crate) fn of(endpoint: &EndpointMachine, now: Instant) -> Self {
        let (ordered, pool, ramp) = (endpoint.ordered_share(now), endpoint.pool(), endpoint.ramp());
        let eligibility = match ordered.share_permille() {
            0 => Eligibility::Drained,
            _ => endpoint.state().eligibility(pool),
        };
        let degraded_percent = match &pool.primary_probe().degraded {
            Some(degraded) if endpoint.is_degraded() => degraded.weight_percent,
            _ => 100,
        };
        let declared = endpoint.location().weight() * WEIGHT_ONE;
        let ramped = permille(declared, ramp.ramp().share_permille(pool.recovery.ramp, now));
        let weight = (u64::from(ramped) * u64::from(degraded_percent) / 100) as u32;
        // An addition is no lost capacity, neither before its first pass nor while it grows.
        let capacity = if endpoint.is_late_addition() { ramped } else { declared };
        Self {
            eligibility,
            weight: permille(weight, ordered.share_permille()).max(1),
            capacity: permille(capacity, ordered.capacity_permille()),
            // A drained endpoint takes nothing from the eviction budget.
            is_down: endpoint.is_down() && eligibility != Eligibility::Drained,
            is_ready: endpoint.is_ready(now),
            is_ejected: endpoint.state().outlier().is_ejected(),
            is_awaiting_first_request: ramp.is_awaiting_first_request()
                && eligibility == Eligibility::Clear,
        }
    }

    pub(crate) fn eligibility(self) -> Eligibility {
        self.eligibility
    }

    pub(crate) fn weight(self) -> u32 {
        self.weight
    }

    pub(crate) fn capacity(self) -> u32 {
        self.capacity
    }

    pub(crate) fn is_down(self) -> bool {
        self.is_down
    }

    pub(crate) fn is_awaiting_first_request(self) -> bool {
        self.is_awaiting_first_request
    }

    /// Whether a snapshot with `self` differs from one with `old`.
    pub(crate) fn is_published_differently(self, old: Self) -> bool {
        // A drained endpoint may have clients of its own yet.
        let is_drained_health_changed =
            self.eligibility == Eligibility::Drained && old.is_down != self.is_down;
        old.eligibility != self.eligibility
            || old.weight != self.weight
            || old.is_awaiting_first_request != self.is_awaiting_first_request
            || is_drained_health_changed
    }

    /// Whether it stays outside of the traffic of a zone that is down.
    pub(crate) fn stays_last(self, old: Self) -> bool {
        let is_last =
            |state: Self| matches!(state.eligibility, Eligibility::LastResort | Eligibility::Out);
        is_last(old) && is_last(self)
    }

    /// The state once all ramps have ended, or out of service.
    pub(crate) fn in_steady_state(self, declared_weight: u32, is_out: bool) -> Self {
        let weight = declared_weight * WEIGHT_ONE;
        let is_drained = self.eligibility == Eligibility::Drained;
        Self {
            eligibility: if is_out && !is_drained { Eligibility::Out } else { self.eligibility },
            weight,
            capacity: if is_drained { self.capacity } else { weight },
            ..self
        }
    }

    /// Whether it takes traffic: clear, doubted or suspect.
    pub(crate) fn is_serving(self) -> bool {
        matches!(self.eligibility, Eligibility::Clear | Eligibility::Doubted | Eligibility::Suspect)
    }
}

fn permille(amount: u32, share: u32) -> u32 {
    (u64::from(amount) * u64::from(share) / u64::from(FULL_SHARE_PERMILLE)) as u32
}

/// The number of endpoints of a zone or a pool in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointCounts {
    all: u32,
    known: u32,
    clear: u32,
    serving: u32,
    down: u32,
    ready: u32,
    ejected: u32,
    drained: u32,
}

impl EndpointCounts {
    /// `all` endpoints, all of them unknown.
    pub(crate) fn unknown(all: u32) -> Self {
        Self { all, ..Self::default() }
    }

    pub(crate) fn replace(&mut self, old: MemberState, new: MemberState) {
        let adjust = |count: &mut u32, holds: fn(MemberState) -> bool| {
            *count = *count + u32::from(holds(new)) - u32::from(holds(old));
        };
        adjust(&mut self.known, |state| state.eligibility != Eligibility::Unknown);
        adjust(&mut self.clear, |state| state.eligibility == Eligibility::Clear);
        adjust(&mut self.drained, |state| state.eligibility == Eligibility::Drained);
        adjust(&mut self.serving, MemberState::is_serving);
        adjust(&mut self.down, |state| state.is_down);
        adjust(&mut self.ready, |state| state.is_ready);
        adjust(&mut self.ejected, |state| state.is_ejected);
    }

    pub(crate) fn all(self) -> u32 {
        self.all
    }

    /// Endpoints that are not unknown.
    pub(crate) fn known(self) -> u32 {
        self.known
    }

    pub(crate) fn clear(self) -> u32 {
        self.clear
    }

    /// Endpoints that are clear, doubted or suspects.
    pub(crate) fn serving(self) -> u32 {
        self.serving
    }

    pub(crate) fn down(self) -> u32 {
        self.down
    }

    /// Endpoints that could serve if their zone may.
    pub(crate) fn ready(self) -> u32 {
        self.ready
    }

    pub(crate) fn ejected(self) -> u32 {
        self.ejected
    }

    pub(crate) fn drained(self) -> u32 {
        self.drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(eligibility: Eligibility) -> MemberState {
        MemberState { eligibility, ..MemberState::default() }
    }

    #[test]
    fn counts_follow_each_replacement() {
        let mut counts = EndpointCounts::unknown(2);
        counts.replace(MemberState::UNKNOWN, with(Eligibility::Clear));
        counts.replace(MemberState::UNKNOWN, with(Eligibility::Drained));
        assert_eq!(
            (counts.known(), counts.clear(), counts.serving(), counts.drained()),
            (2, 1, 1, 1)
        );
        let down = MemberState { is_down: true, ..with(Eligibility::Out) };
        counts.replace(with(Eligibility::Clear), down);
        assert_eq!((counts.clear(), counts.serving(), counts.down()), (0, 0, 1));
    }

    #[test]
    fn only_published_differences_make_a_publication() {
        let clear = with(Eligibility::Clear);
        assert!(!MemberState { is_ready: true, ..clear }.is_published_differently(clear));
        assert!(MemberState { weight: 7, ..clear }.is_published_differently(clear));
        let drained = with(Eligibility::Drained);
        assert!(MemberState { is_down: true, ..drained }.is_published_differently(drained));
        assert!(!MemberState { is_down: true, ..clear }.is_published_differently(clear));
        assert!(with(Eligibility::Out).stays_last(with(Eligibility::LastResort)));
    }
}
