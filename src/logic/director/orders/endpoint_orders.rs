//! The effect of operators' orders on one endpoint: the share that they leave, and the stages of
//! its drain.
//!
//! Inputs are the orders in force and the time. Outputs are shares in thousandths, and the stages
//! that [`EndpointOrders::advance`] reaches.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::logic::health::recovery::{FULL_SHARE_PERMILLE, ramp_update_interval};
use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::{
    OperatorOrder, OperatorOrders, OrderAction, OrderedEndpoint, fading_share_permille,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EndpointOrders {
    drains: SmallVec<[EndpointDrain; 1]>,
    weight: Option<u32>,
    stage: DrainStage,
}

/// An order to drain the endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
struct EndpointDrain {
    since: Instant,
    fade_duration: Duration,
    deadline: Duration,
    /// It concerns the endpoint alone, and not all of its zone.
    is_endpoint_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DrainStage {
    /// Its share shrinks, if it is drained at all.
    #[default]
    RampingDown,
    /// It receives no new requests.
    Drained,
    /// Its running requests and streams have been ended too.
    Finished,
}

/// The part of an endpoint that orders leave, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderedShare {
    share_permille: u32,
    /// An endpoint that is drained with its zone counts as lost capacity there; one that is drained
    /// alone does not.
    capacity_permille: u32,
}

impl OrderedShare {
    pub(crate) const FULL: Self =
        Self { share_permille: FULL_SHARE_PERMILLE, capacity_permille: FULL_SHARE_PERMILLE };

    pub(crate) fn share_permille(self) -> u32 {
        self.share_permille
    }

    pub(crate) fn capacity_permille(self) -> u32 {
        self.capacity_permille
    }
}

/// A stage that a drain has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainStep {
    Drained,
    DeadlinePassed,
}

impl EndpointOrders {
    /// The orders that concern an endpoint; the stage of a drain is taken from `before`.
    pub(crate) fn new(
        orders: &OperatorOrders,
        endpoint: OrderedEndpoint<'_>,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let weight = orders.weight_for(&endpoint).map(|(_, weight)| weight);
        let drains = orders.drains_for(endpoint).filter_map(EndpointDrain::of).collect();
        let stage = before.map_or(DrainStage::RampingDown, |before| before.stage);
        let mut new = Self { drains, weight, stage };
        if new.share_permille(now) > 0 {
            new.stage = DrainStage::RampingDown;
        }
        new
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.drains.is_empty() && self.weight.is_none()
    }

    /// The weight that replaces the declared one.
    pub(crate) fn weight(&self) -> Option<u32> {
        self.weight
    }

    /// Whether it receives no new requests.
    pub(crate) fn is_drained(&self) -> bool {
        self.stage != DrainStage::RampingDown
    }

    pub(crate) fn has_drains(&self) -> bool {
        !self.drains.is_empty()
    }

    /// Whether a drain has stages to come.
    pub(crate) fn is_draining(&self) -> bool {
        self.has_drains() && self.stage != DrainStage::Finished
    }

    pub(crate) fn ordered_share(&self, now: Instant) -> OrderedShare {
        let endpoint_drains = self.drains.iter().filter(|drain| drain.is_endpoint_only);
        OrderedShare {
            share_permille: self.share_permille(now),
            capacity_permille: endpoint_drains
                .map(|drain| drain.share_permille(now))
                .min()
                .unwrap_or(FULL_SHARE_PERMILLE),
        }
    }

    /// Advances the drain; returns the stages that it reaches.
    pub(crate) fn advance(&mut self, now: Instant) -> SmallVec<[DrainStep; 2]> {
        let mut steps = SmallVec::new();
        if self.stage == DrainStage::RampingDown && self.share_permille(now) == 0 {
            self.stage = DrainStage::Drained;
            steps.push(DrainStep::Drained);
        }
        if self.stage == DrainStage::Drained && self.deadline().is_some_and(|end| now >= end) {
            self.stage = DrainStage::Finished;
            steps.push(DrainStep::DeadlinePassed);
        }
        steps
    }

    /// When its share is to be computed again, or its drain reaches another stage.
    pub(crate) fn next_update_at(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            DrainStage::Finished => None,
            DrainStage::Drained => self.deadline(),
            DrainStage::RampingDown => {
                let next_step = |drain: &EndpointDrain| {
                    let end = drain.since + drain.fade_duration;
                    end.min(now + ramp_update_interval(drain.fade_duration)).max(now)
                };
                self.drains.iter().map(next_step).min()
            }
        }
    }

    fn share_permille(&self, now: Instant) -> u32 {
        let shares = self.drains.iter().map(|drain| drain.share_permille(now));
        shares.min().unwrap_or(FULL_SHARE_PERMILLE)
    }

    /// When running requests and streams are ended.
    fn deadline(&self) -> Option<Instant> {
        let drain_end = |drain: &EndpointDrain| drain.since + drain.fade_duration + drain.deadline;
        self.drains.iter().map(drain_end).min()
    }
}

impl EndpointDrain {
    /// `None` for an order that drains nothing.
    fn of(order: &OperatorOrder) -> Option<Self> {
        match order.action {
            OrderAction::Drain { fade_duration, deadline } => Some(Self {
                since: order.effective_since,
                fade_duration,
                deadline,
                is_endpoint_only: matches!(order.scope, TopologySelector::Endpoint(_)),
            }),
            OrderAction::Weight(_) | OrderAction::Serve => None,
        }
    }

    fn share_permille(&self, now: Instant) -> u32 {
        fading_share_permille(self.since, self.fade_duration, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FADE: Duration = Duration::from_secs(10);
    const DEADLINE: Duration = Duration::from_secs(30);

    fn drained_since(since: Instant, is_endpoint_only: bool) -> EndpointOrders {
        let drain =
            EndpointDrain { since, fade_duration: FADE, deadline: DEADLINE, is_endpoint_only };
        EndpointOrders { drains: smallvec::smallvec![drain], ..EndpointOrders::default() }
    }

    #[test]
    fn drain_fades_then_drains_then_ends_at_its_deadline() {
        let now = Instant::now();
        let mut orders = drained_since(now, true);
        assert!(orders.advance(now + FADE / 2).is_empty() && !orders.is_drained());
        assert!(orders.ordered_share(now + FADE / 2).share_permille() < FULL_SHARE_PERMILLE);
        assert_eq!(orders.advance(now + FADE)[..], [DrainStep::Drained]);
        assert_eq!(orders.next_update_at(now + FADE), Some(now + FADE + DEADLINE));
        assert_eq!(orders.advance(now + FADE + DEADLINE)[..], [DrainStep::DeadlinePassed]);
        assert!(!orders.is_draining() && orders.is_drained());
    }

    #[test]
    fn capacity_of_a_drained_zone_stays_missed() {
        let now = Instant::now();
        let share = |is_endpoint_only| {
            drained_since(now, is_endpoint_only).ordered_share(now + FADE).capacity_permille()
        };
        assert_eq!((share(true), share(false)), (0, FULL_SHARE_PERMILLE));
    }
}
