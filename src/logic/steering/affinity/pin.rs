//! The content of an affinity cookie, and when it changes.

use super::{AffinityCookie, AffinityIndex, AffinityRequest, FailbackPolicy, PinnedEndpoint};
use crate::logic::model::pick_request::RetrySafety;

/// The content of a client's cookie. Endpoints are identified by [`endpoint_hash`].
///
/// [`endpoint_hash`]: crate::logic::steering::balance::hash::endpoint_hash
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityPin {
    /// The client's first endpoint.
    pub preferred: u64,
    /// The endpoint that serves the client while `preferred` does not.
    pub current: u64,
    /// Time of the last write, in seconds since 1970.
    pub written_s: u32,
}

/// A request of a pinned client that has been answered.
#[derive(Clone, Copy, Debug)]
pub struct ServedRequest {
    /// The hash of the endpoint that answered.
    pub endpoint: u64,
    /// The pinned endpoint failed this request.
    pub has_pinned_failed: bool,
    /// Microseconds since the process epoch.
    pub now_us: u64,
    /// Seconds since 1970, the clock of the cookie.
    pub now_s: u32,
}

impl AffinityPin {
    pub fn new(endpoint: u64, now_s: u32) -> Self {
        Self { preferred: endpoint, current: endpoint, written_s: now_s }
    }

    /// Whether the pin is older than the cookie's TTL.
    pub fn is_expired(&self, cookie: &AffinityCookie, now_s: u32) -> bool {
        cookie
            .ttl
            .is_some_and(|ttl| u64::from(now_s.saturating_sub(self.written_s)) >= ttl.as_secs())
    }

    /// The endpoint of the client: `preferred` if it is available, else `current`.
    pub fn resolve<'a>(
        &self,
        index: &'a AffinityIndex,
        request: AffinityRequest,
    ) -> PinnedEndpoint<'a> {
        let preferred = index.lookup(self.preferred, request);
        if self.current == self.preferred || matches!(preferred, PinnedEndpoint::Available(_)) {
            return preferred;
        }
        index.lookup(self.current, request)
    }

    /// The pin to write after a request has been served; `None` if the client's pin stays valid.
    ///
    /// A client that was diverted because its endpoint is suspect, stalled or full keeps its pin,
    /// unless the endpoint failed this request.
    pub fn updated_after(
        &self,
        served: &ServedRequest,
        index: &AffinityIndex,
        cookie: &AffinityCookie,
    ) -> Option<Self> {
        let &ServedRequest { endpoint: served_by, has_pinned_failed, now_us, now_s } = served;
        let request = AffinityRequest { retry_safety: RetrySafety::Repeatable, now_us };
        if served_by == self.current {
            let age = u64::from(now_s.saturating_sub(self.written_s));
            let is_old = cookie.ttl.is_some_and(|ttl| age >= ttl.as_secs().div_ceil(2));
            return is_old.then_some(Self { written_s: now_s, ..*self });
        }
        let preferred = index.lookup(self.preferred, request);
        if served_by == self.preferred {
            return Some(Self::new(served_by, now_s));
        }
        let current = index.lookup(self.current, request);
        if !has_pinned_failed && !matches!(current, PinnedEndpoint::Down | PinnedEndpoint::Unknown)
        {
            return None;
        }
        Some(match (cookie.failback, preferred) {
            (FailbackPolicy::StayOnCurrent, _)
            | (FailbackPolicy::ReturnToPreferred, PinnedEndpoint::Unknown) => {
                Self::new(served_by, now_s)
            }
            (FailbackPolicy::ReturnToPreferred, _) => {
                Self { preferred: self.preferred, current: served_by, written_s: now_s }
            }
        })
    }
}

#[cfg(test)]
mod tests;
