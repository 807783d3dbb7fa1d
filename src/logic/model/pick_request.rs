//! The input of an endpoint choice: the request's properties and its earlier attempts.

use smallvec::SmallVec;

use super::id::EndpointId;
use crate::logic::steering::balance::RoundRobinState;

/// Whether a request may be executed more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrySafety {
    /// May be sent again after a failure, so a suspect endpoint can do it no harm.
    Repeatable,
    /// Must not run twice. It goes only to endpoints without evidence against them. If there is a
    /// choice, it also avoids endpoints that stall ([`EndpointStats::has_waited_since_before`]) and
    /// those of a zone with a recent failure ([`Target::has_recent_neighbour_failure`]).
    ///
    /// [`EndpointStats::has_waited_since_before`]:
    /// super::endpoint_stats::EndpointStats::has_waited_since_before
    /// [`Target::has_recent_neighbour_failure`]:
    /// crate::logic::steering::target::Target::has_recent_neighbour_failure
    NotRepeatable {
        /// An endpoint with a request waiting since before this time (µs since the process epoch)
        /// counts as stalled.
        waiting_before_us: u64,
    },
}

/// The properties of a request that its endpoint is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    pub retry_safety: RetrySafety,
    /// Index of the steering variant; see [`SteeringConfig::variants`].
    ///
    /// [`SteeringConfig::variants`]: crate::logic::steering::SteeringConfig::variants
    pub variant: usize,
    /// Hash of the request's key, where the pool hashes and the request has a key.
    pub hash_key: Option<u64>,
    /// Time of the choice, in microseconds since the process epoch.
    pub now_us: u64,
    /// The worker's round-robin state; without it, round robin falls back to a random choice.
    pub round_robin: Option<&'a RoundRobinState>,
}

impl From<RetrySafety> for PickRequest<'_> {
    fn from(retry_safety: RetrySafety) -> Self {
        Self { retry_safety, variant: 0, hash_key: None, now_us: 0, round_robin: None }
    }
}

/// The earlier attempts of a request, which a retry must avoid.
#[derive(Clone, Debug, Default)]
pub struct ExcludedTargets {
    /// Endpoints that must not be chosen again.
    pub endpoints: SmallVec<[EndpointId; 4]>,
    /// Zones to avoid if there is an alternative.
    pub zones: SmallVec<[usize; 2]>,
}

impl ExcludedTargets {
    /// Excludes the failed endpoint, and its zone if there is an alternative: a failure is often
    /// shared within a zone.
    pub fn exclude(&mut self, endpoint: EndpointId, zone: usize) {
        self.endpoints.push(endpoint);
        if !self.zones.contains(&zone) {
            self.zones.push(zone);
        }
    }
}
