//! The lookup of pinned endpoints by their hashes.

use std::sync::Arc;

use crate::logic::model::pick_request::RetrySafety;
use crate::logic::steering::balance::hash;
use crate::logic::steering::target::Target;
use crate::logic::steering::zone_targets::ZoneTargets;

/// The state of a pinned endpoint for one request.
#[derive(Clone, Copy, Debug)]
pub enum PinnedEndpoint<'a> {
    /// It takes the request.
    Available(&'a Target),
    /// It does not take this request, but the client keeps its pin: suspect, stalled, or only for
    /// repeatable requests.
    TemporarilyUnavailable,
    Down,
    /// It is not declared any more.
    Unknown,
}

/// The endpoints of a pool by their hashes.
#[derive(Clone, Debug)]
pub struct AffinityIndex {
    /// Hash, zone index and position in the zone of every endpoint; sorted by hash.
    positions: Arc<[(u64, u32, u32)]>,
    pub(super) zones: Vec<AffinityZone>,
}

/// The endpoints of one zone that take pinned requests.
#[derive(Clone, Debug, Default)]
pub struct AffinityZone {
    pub any_request: Option<ZoneTargets>,
    /// Endpoints for repeatable requests: those of `any_request`, and those with some evidence
    /// against them.
    pub repeatable_only: Option<ZoneTargets>,
    /// Endpoints that serve only if no zone has a better one.
    pub suspects: Option<ZoneTargets>,
    /// Draining endpoints that receive nothing but pinned requests, and until when (µs since the
    /// process epoch).
    pub draining: Vec<(Target, u64)>,
}

/// The properties of a request that a pin is resolved for.
#[derive(Clone, Copy, Debug)]
pub struct AffinityRequest {
    pub retry_safety: RetrySafety,
    /// Microseconds since the process epoch.
    pub now_us: u64,
}

impl AffinityIndex {
    /// `positions` is shared until the pool is reconfigured; `zones` is their current state.
    pub fn new(positions: &Arc<[(u64, u32, u32)]>, zones: Vec<AffinityZone>) -> Self {
        Self { positions: Arc::clone(positions), zones }
    }

    /// The state of the endpoint with this hash for a request.
    pub fn lookup(&self, identity: u64, request: AffinityRequest) -> PinnedEndpoint<'_> {
        let AffinityRequest { retry_safety, now_us } = request;
        let first = self.positions.partition_point(|&(hash, ..)| hash < identity);
        let Some(&(_, zone, position)) =
            self.positions.get(first).filter(|entry| entry.0 == identity)
        else {
            return PinnedEndpoint::Unknown;
        };
        let Some(zone) = self.zones.get(zone as usize) else { return PinnedEndpoint::Down };
        let has_position = |targets: &'_ Option<ZoneTargets>| {
            targets.as_ref().is_some_and(|targets| targets.active_target(position).is_some())
        };
        let targets = match retry_safety {
            RetrySafety::Repeatable => &zone.repeatable_only,
            RetrySafety::NotRepeatable { .. } => &zone.any_request,
        };
        let found = targets.as_ref().and_then(|targets| targets.active_target(position));
        match (found, retry_safety) {
            (Some(target), RetrySafety::NotRepeatable { waiting_before_us })
                if target.stats.has_waited_since_before(waiting_before_us) =>
            {
                PinnedEndpoint::TemporarilyUnavailable
            }
            (Some(target), _) => PinnedEndpoint::Available(target),
            (None, _) if has_position(&zone.repeatable_only) => {
                PinnedEndpoint::TemporarilyUnavailable
            }
            (None, _) if has_position(&zone.suspects) => {
                self.lookup_suspect(&zone.suspects, position)
            }
            (None, _) => {
                let is_same_endpoint =
                    |entry: &&(Target, u64)| hash::endpoint_hash(entry.0.address) == identity;
                let drained = zone
                    .draining
                    .iter()
                    .find(is_same_endpoint)
                    .filter(|(_, until)| now_us < *until);
                drained
                    .map_or(PinnedEndpoint::Down, |(target, _)| PinnedEndpoint::Available(target))
            }
        }
    }

    /// A suspect endpoint serves only if no zone has a better one.
    fn lookup_suspect<'a>(
        &self,
        suspects: &'a Option<ZoneTargets>,
        position: u32,
    ) -> PinnedEndpoint<'a> {
        let has_better = self.zones.iter().any(|zone| zone.repeatable_only.is_some());
        let found = suspects.as_ref().and_then(|targets| targets.active_target(position));
        found
            .filter(|_| !has_better)
            .map_or(PinnedEndpoint::TemporarilyUnavailable, PinnedEndpoint::Available)
    }
}
