//! Attribution of failures: whether a failed attempt is evidence against its endpoint, or its
//! request fails everywhere.
//!
//! A bad response to one request has two explanations. A request to another endpoint distinguishes
//! them:
//!
//! - If the request is sent again and answered well, the failure is the endpoint's.
//! - If the request is sent again and fails at the other endpoint too, the failure is the
//!   request's, and is evidence against neither endpoint.
//! - If the request cannot be sent again, the next request with the same [`RequestKey`] avoids the
//!   zone of the failure, and its result decides. Until then the first failure of a key counts in
//!   proportion to the pool's failures that were attributed to endpoints. Further failures do not
//!   count.
//!
//! Envoy's outlier detection counts every 5xx against the host that sent it, so that one URL that
//! fails everywhere ejects hosts until `max_ejection_percent`.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use http::Method;

use crate::logic::model::id::EndpointId;

/// The time for which the state of a key is valid after its last change.
const KEY_LIFETIME: Duration = Duration::from_secs(10);

/// Keys in the table; a new one replaces the one that changed longest ago.
const MAX_KEYS: usize = 128;

/// The least share of unverified failures that count, so that requests which fail everywhere do not
/// hide an endpoint that fails others.
const MIN_UNVERIFIED_SHARE: f64 = 0.25;

/// The decay time of the counts of verified failures.
const VERIFIED_DECAY_TIME: Duration = Duration::from_secs(10);

/// Identifies requests that are likely to fail alike: a keyed hash of method, host and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey(u64);

impl RequestKey {
    /// The key of a request. `hasher` has a secret seed, so that no client can construct a request
    /// with the key of another one.
    pub fn new(hasher: &impl BuildHasher, method: &Method, host: &str, path: &str) -> Self {
        Self(hasher.hash_one((method, host, path)))
    }

    /// A key with this value.
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// The endpoint and the zone of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptPlace {
    pub endpoint: EndpointId,
    /// Index of the endpoint's zone in the pool.
    pub zone: usize,
}

/// The places to which a request could have been sent instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonScope {
    /// None, because the pool has one endpoint: no comparison is possible.
    None,
    /// Other endpoints of the zone.
    SameZone,
    /// Endpoints of other zones.
    OtherZone,
}

/// What the failures of a request are attributed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// To the endpoints: each failure counts.
    Endpoint,
    /// To the request: no failure counts.
    Request,
    /// Unknown until another endpoint has received a request with the same key: no failure counts.
    Unknown,
}

/// The state of one key whose requests have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyState {
    /// Requests failed at `place`, and none was sent elsewhere yet.
    Unverified { place: AttemptPlace },
    /// Requests failed in two places.
    FailsEverywhere,
    /// Requests failed at `place`, and were answered well elsewhere.
    FailsAt { place: AttemptPlace },
}

#[derive(Clone, Copy, Debug)]
struct FailingKey {
    key: RequestKey,
    state: KeyState,
    changed_at: Instant,
}

/// The keys of one pool whose requests failed recently, at one worker.
///
/// Empty while nothing fails, so that a good response costs one comparison.
#[derive(Clone, Debug)]
pub struct FailingRequests {
    keys: Vec<FailingKey>,
    /// Verified failures of endpoints and of requests, decayed.
    endpoint_faults: f64,
    request_faults: f64,
    decayed_at: Instant,
    /// The part of an unverified failure that has not been counted yet.
    uncounted: f64,
}

impl FailingRequests {
    pub fn new(now: Instant) -> Self {
        Self {
            keys: Vec::new(),
            endpoint_faults: 0.0,
            request_faults: 0.0,
            decayed_at: now,
            uncounted: 0.0,
        }
    }

    /// Whether no request has failed recently.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The place that a new request with `key` avoids, because its result elsewhere attributes the
    /// failure there.
    pub fn place_to_avoid(&self, key: RequestKey, now: Instant) -> Option<AttemptPlace> {
        match self.state(key, now)? {
            KeyState::Unverified { place } => Some(place),
            KeyState::FailsEverywhere | KeyState::FailsAt { .. } => None,
        }
    }

    /// Whether requests with `key` have failed in two places and have not succeeded since.
    pub fn fails_everywhere(&self, key: RequestKey, now: Instant) -> bool {
        self.state(key, now) == Some(KeyState::FailsEverywhere)
    }

    /// A request with `key` was answered well at `place`, at its first attempt.
    pub fn on_success(&mut self, key: RequestKey, place: AttemptPlace, now: Instant) {
        let Some(index) = self.index_of(key) else { return };
        let known = &mut self.keys[index];
        match known.state {
            KeyState::Unverified { place: failed } if failed.endpoint != place.endpoint => {
                known.state = KeyState::FailsAt { place: failed };
                known.changed_at = now;
            }
            KeyState::FailsAt { place: failed } if failed.endpoint != place.endpoint => {
                known.changed_at = now;
            }
            // The key does not fail at this endpoint, or not everywhere.
            KeyState::Unverified { .. } | KeyState::FailsEverywhere | KeyState::FailsAt { .. } => {
                self.keys.swap_remove(index);
            }
        }
    }

    /// A request with `key` failed `failed` times, and was then answered well at `place`.
    pub fn on_rescue(
        &mut self,
        key: RequestKey,
        failed: usize,
        place: AttemptPlace,
        now: Instant,
    ) -> Attribution {
        self.decay(now);
        self.endpoint_faults += failed as f64;
        self.on_success(key, place, now);
        Attribution::Endpoint
    }

    /// A request with `key` failed at all of `failed`, in this order, and is not sent again.
    pub fn on_failure(
        &mut self,
        key: RequestKey,
        failed: &[AttemptPlace],
        scope: ComparisonScope,
        now: Instant,
    ) -> Attribution {
        let Some(&last) = failed.last() else { return Attribution::Unknown };
        self.decay(now);
        let is_comparison = |place: &AttemptPlace| {
            place.zone != last.zone
                || place.endpoint != last.endpoint && scope == ComparisonScope::SameZone
        };
        if failed.iter().any(is_comparison) {
            return self.record_request_fault(key, failed.len(), now);
        }
        if scope == ComparisonScope::None {
            return Attribution::Endpoint;
        }
        match self.state(key, now) {
            None => {
                self.set_state(key, KeyState::Unverified { place: last }, now);
                self.count_unverified()
            }
            Some(KeyState::Unverified { place } | KeyState::FailsAt { place })
                if is_comparison(&place) =>
            {
                self.record_request_fault(key, 1, now)
            }
            Some(KeyState::Unverified { .. }) => Attribution::Unknown,
            Some(KeyState::FailsAt { .. }) => {
                self.endpoint_faults += 1.0;
                Attribution::Endpoint
            }
            // No comparison: the state expires, and the next failure starts a new one.
            Some(KeyState::FailsEverywhere) => {
                self.request_faults += failed.len() as f64;
                Attribution::Request
            }
        }
    }

    fn record_request_fault(&mut self, key: RequestKey, count: usize, now: Instant) -> Attribution {
        self.request_faults += count as f64;
        self.set_state(key, KeyState::FailsEverywhere, now);
        Attribution::Request
    }

    /// Counts an unverified failure with the share of attributed failures that were an endpoint's.
    /// A failure is reported each time these shares add up to one.
    fn count_unverified(&mut self) -> Attribution {
        let share =
            (self.endpoint_faults + 1.0) / (self.endpoint_faults + self.request_faults + 1.0);
        self.uncounted += share.max(MIN_UNVERIFIED_SHARE);
        if self.uncounted >= 1.0 {
            self.uncounted -= 1.0;
            Attribution::Endpoint
        } else {
            Attribution::Unknown
        }
    }

    fn state(&self, key: RequestKey, now: Instant) -> Option<KeyState> {
        let known = &self.keys[self.index_of(key)?];
        let age = now.saturating_duration_since(known.changed_at);
        (age < KEY_LIFETIME).then_some(known.state)
    }

    fn index_of(&self, key: RequestKey) -> Option<usize> {
        self.keys.iter().position(|known| known.key == key)
    }

    fn set_state(&mut self, key: RequestKey, state: KeyState, now: Instant) {
        let changed = FailingKey { key, state, changed_at: now };
        if let Some(index) = self.index_of(key) {
            self.keys[index] = changed;
            return;
        }
        self.remove_expired(now);
        if self.keys.len() >= MAX_KEYS {
            let oldest = (0..self.keys.len()).min_by_key(|&index| self.keys[index].changed_at);
            oldest.map(|index| self.keys.swap_remove(index));
        }
        self.keys.push(changed);
    }

    /// Removes expired keys, so that good responses need no search for theirs.
    pub fn remove_expired(&mut self, now: Instant) {
        self.keys.retain(|known| now.saturating_duration_since(known.changed_at) < KEY_LIFETIME);
    }

    fn decay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.decayed_at);
        self.decayed_at = now;
        let factor = (-elapsed.as_secs_f64() / VERIFIED_DECAY_TIME.as_secs_f64()).exp();
        self.endpoint_faults *= factor;
        self.request_faults *= factor;
    }
}

#[cfg(test)]
mod tests;
