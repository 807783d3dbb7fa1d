//! The endpoints of a pool in one zone, with the machines for their common verdict and weight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::roster::ZoneRoster;
use crate::logic::director::zones::correlation::ZoneCorrelation;
use crate::logic::health::latency_baseline::LatencyBaseline;
use crate::logic::health::recovery::Ramp;
use crate::logic::model::endpoint_stats::ZoneStats;
use crate::logic::model::id::Locality;
use crate::logic::model::topology::ZoneSpec;
use crate::logic::steering::ZoneLoad;

#[derive(Debug)]
pub(crate) struct ZoneState {
    place: Locality,
    roster: ZoneRoster,
    correlation: ZoneCorrelation,
    /// The share of the zone as a whole, while that grows back.
    ramp: Ramp,
    load: ZoneLoad,
    /// Timed responses and the sum of their latencies at the last sample; see
    /// [`crate::logic::model::endpoint_stats::EndpointStats::latency_totals`].
    latency_totals: (u64, u64),
    /// The counters that workers write for the zone.
    stats: Arc<ZoneStats>,
}

impl ZoneState {
    /// A zone without endpoints; the learned state of its machines is taken from `before`.
    pub(crate) fn new(
        spec: &ZoneSpec,
        before: Option<&mut Self>,
        latency: Arc<LatencyBaseline>,
    ) -> Self {
        let min_capacity = spec.settings.min_capacity;
        let Some(old) = before else {
            return Self {
                place: spec.locality.clone(),
                roster: ZoneRoster::new(&spec.locality, min_capacity, None),
                correlation: ZoneCorrelation::default(),
                ramp: Ramp::Full,
                load: ZoneLoad::default(),
                latency_totals: (0, 0),
                stats: Arc::new(ZoneStats::with_latency(latency)),
            };
        };
        Self {
            place: spec.locality.clone(),
            roster: ZoneRoster::new(&spec.locality, min_capacity, Some(&mut old.roster)),
            correlation: std::mem::take(&mut old.correlation),
            ramp: old.ramp,
            load: old.load,
            latency_totals: old.latency_totals,
            stats: Arc::clone(&old.stats),
        }
    }

    pub(crate) fn place(&self) -> &Locality {
        &self.place
    }

    pub(crate) fn roster(&self) -> &ZoneRoster {
        &self.roster
    }

    pub(crate) fn roster_mut(&mut self) -> &mut ZoneRoster {
        &mut self.roster
    }

    pub(crate) fn correlation(&self) -> &ZoneCorrelation {
        &self.correlation
    }

    pub(crate) fn correlation_mut(&mut self) -> &mut ZoneCorrelation {
        &mut self.correlation
    }

    pub(crate) fn is_down(&self) -> bool {
        self.correlation.is_down()
    }

    pub(crate) fn ramp(&self) -> Ramp {
        self.ramp
    }

    pub(crate) fn set_ramp(&mut self, ramp: Ramp) {
        self.ramp = ramp;
    }

    /// Ends a ramp that has reached the whole share; returns whether it did.
    pub(crate) fn finish_ramp(&mut self, length: Duration, now: Instant) -> bool {
        let was_growing = self.ramp.is_growing();
        self.ramp.finish_if_full(length, now);
        was_growing && !self.ramp.is_growing()
    }

    pub(crate) fn load(&self) -> &ZoneLoad {
        &self.load
    }

    pub(crate) fn load_mut(&mut self) -> &mut ZoneLoad {
        &mut self.load
    }

    /// The timed responses since the last call and the sum of their latencies, when `totals` are
    /// the counters of all its endpoints. The counts of removed endpoints are lost.
    pub(crate) fn take_new_latencies(&mut self, totals: (u64, u64)) -> (u64, u64) {
        let before = std::mem::replace(&mut self.latency_totals, totals);
        (totals.0.saturating_sub(before.0), totals.1.saturating_sub(before.1))
    }

    pub(crate) fn stats(&self) -> &Arc<ZoneStats> {
        &self.stats
    }
}
