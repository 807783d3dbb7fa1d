//! The input of an endpoint choice: the request's properties and its earlier attempts.

use smallvec::SmallVec;

use super::id::EndpointId;
use crate::logic::steering::balance::RoundRobinState;

/// What may be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrySafety {
    /// It may be sent again: a doubted endpoint can do it no harm.
    Repeatable,
    /// It must not run twice: only endpoints that nothing is said against, and if there is a
    /// choice none that has kept others waiting since before then, in microseconds, and none that
    /// may have what a neighbour has ([`Target::may_ail`]).
    NotRepeatable {
        /// Longer ago than any answer takes.
        waiting_before_us: u64,
    },
}

/// What a request brings to the choice of its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    /// What may be done with it.
    pub retry_safety: RetrySafety,
    /// Which way it is led; see [`crate::logic::steering::Steer::ways`].
    pub variant: usize,
    /// The hash of its key, where the pool wants one and it has one.
    pub hash_key: Option<u64>,
    /// When it is chosen for.
    pub now_us: u64,
    /// Whose turn it is, where endpoints are taken in turn; without it, chance decides.
    pub round_robin: Option<&'a RoundRobinState>,
}

impl From<RetrySafety> for PickRequest<'_> {
    fn from(retry_safety: RetrySafety) -> Self {
        Self { retry_safety, variant: 0, hash_key: None, now_us: 0, round_robin: None }
    }
}

/// Where a request has been already.
#[derive(Clone, Debug, Default)]
pub struct ExcludedTargets {
    /// Endpoints that it must not go to again.
    pub endpoints: SmallVec<[EndpointId; 4]>,
    /// Zones that it should leave if it can.
    pub zones: SmallVec<[usize; 2]>,
}

impl ExcludedTargets {
    /// A try at `endpoint` in the zone failed: the next one leaves the zone too if it can, since
    /// whatever the endpoint suffers from is seldom its own.
    pub fn exclude(&mut self, endpoint: EndpointId, zone: usize) {
        self.endpoints.push(endpoint);
        if !self.zones.contains(&zone) {
            self.zones.push(zone);
        }
    }
}
