//! Attribution of slow responses: whether the request is usually slow, or its endpoint is.
//!
//! A response that takes longer than the stall bound of the pool's
//! [`LatencyBaseline`](crate::logic::health::latency_baseline::LatencyBaseline) has three
//! explanations, and the same request at another endpoint distinguishes them:
//!
//! - The hedge is answered fast: the endpoint is slow. Its response is not added to the baseline.
//! - The hedge is slow as well: the request is slow wherever it is sent. Requests with its
//!   [`RequestKey`] have bounds of their own, so that they are neither hedged nor evidence.
//! - Many different requests are slow everywhere: the pool has become slower, and the responses are
//!   added to the baseline.
//!
//! A request that is not hedged is compared with the next request of its key, which avoids the zone
//! of the first.

use std::time::{Duration, Instant};

use super::attribution::{AttemptPlace, ComparisonScope, RequestKey};

/// The bound of a key, as a multiple of its last slow latency.
const BOUND_MULTIPLIER: u32 = 3;

/// The time for which the bound of a key is valid after its last slow response.
const BOUND_LIFETIME: Duration = Duration::from_secs(60);

/// The time for which a slow response can be compared with another one.
const COMPARISON_LIFETIME: Duration = Duration::from_secs(10);

/// The number of new slow keys within [`SLOWDOWN_WINDOW`] from which on the whole pool counts as
/// slow.
const SLOWDOWN_KEYS: usize = 8;

const SLOWDOWN_WINDOW: Duration = Duration::from_secs(10);

/// The time after a fast hedge in which no slow response without comparison is added to the
/// baseline.
const REFUTATION_LIFETIME: Duration = Duration::from_secs(60);

/// One of this many slow responses without comparison is added to the baseline.
const UNVERIFIED_PER_SAMPLE: u32 = 8;

/// Keys in the table; a new one replaces the one that changed longest ago.
const MAX_KEYS: usize = 128;

/// The requests to one pool that are slow, at one worker.
///
/// Empty while all responses are fast.
#[derive(Clone, Debug, Default)]
pub struct SlowRequests {
    keys: Vec<SlowKey>,
    slowdown_until: Option<Instant>,
    refuted_at: Option<Instant>,
    unverified: u32,
}

#[derive(Clone, Copy, Debug)]
struct SlowKey {
    key: RequestKey,
    state: SlowKeyState,
    changed_at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum SlowKeyState {
    /// A response was slow at `place`, and there is no comparison yet.
    Unverified { place: AttemptPlace },
    /// Responses are slow wherever the request is sent.
    Verified { bound: Duration, since: Instant },
}

impl SlowKey {
    fn is_current(&self, now: Instant) -> bool {
        let lifetime = match self.state {
            SlowKeyState::Unverified { .. } => COMPARISON_LIFETIME,
            SlowKeyState::Verified { .. } => BOUND_LIFETIME,
        };
        now.saturating_duration_since(self.changed_at) < lifetime
    }
}

impl SlowRequests {
    /// Whether no response was slow recently.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The latency bound of requests with `key`, if they are slow everywhere.
    pub fn bound(&self, key: RequestKey, now: Instant) -> Option<Duration> {
        match self.state(key, now)? {
            SlowKeyState::Verified { bound, .. } => Some(bound),
            SlowKeyState::Unverified { .. } => None,
        }
    }

    /// The place that a new request with `key` avoids, because its latency elsewhere shows whether
    /// the endpoint there is slow.
    pub fn place_to_avoid(&self, key: RequestKey, now: Instant) -> Option<AttemptPlace> {
        match self.state(key, now)? {
            SlowKeyState::Unverified { place } => Some(place),
            SlowKeyState::Verified { .. } => None,
        }
    }

    /// A request with `key` was answered within the baseline's bound.
    pub fn on_fast_response(&mut self, key: RequestKey) {
        self.keys.retain(|known| {
            known.key != key || matches!(known.state, SlowKeyState::Verified { .. })
        });
    }

    /// A request with `key` that had no hedge was answered late. Returns whether to add the
    /// response to the baseline.
    pub fn on_slow_response(
        &mut self,
        key: RequestKey,
        place: AttemptPlace,
        scope: ComparisonScope,
        latency: Duration,
        now: Instant,
    ) -> bool {
        match self.state(key, now) {
            _ if scope == ComparisonScope::None => true,
            Some(SlowKeyState::Verified { .. }) => self.on_verified(key, latency, now),
            Some(SlowKeyState::Unverified { place: first })
                if first.zone != place.zone
                    || first.endpoint != place.endpoint && scope == ComparisonScope::SameZone =>
            {
                self.on_verified(key, latency, now)
            }
            Some(SlowKeyState::Unverified { .. }) => self.count_unverified(now),
            None => {
                self.set_state(key, SlowKeyState::Unverified { place }, now);
                self.count_unverified(now)
            }
        }
    }

    /// The hedge of a request with `key` was answered fast: the endpoint is slow.
    pub fn on_refuted(&mut self, key: RequestKey, now: Instant) {
        self.refuted_at = Some(now);
        self.keys.retain(|known| known.key != key);
    }

    /// Two endpoints were slow for a request with `key`, which was answered after `latency`.
    /// Returns whether to add the response to the baseline.
    pub fn on_verified(&mut self, key: RequestKey, latency: Duration, now: Instant) -> bool {
        let since = match self.state(key, now) {
            Some(SlowKeyState::Verified { since, .. }) => since,
            _ => now,
        };
        let bound = BOUND_MULTIPLIER * latency;
        self.set_state(key, SlowKeyState::Verified { bound, since }, now);
        let is_new = |known: &&SlowKey| {
            matches!(known.state, SlowKeyState::Verified { since, .. }
                if now.saturating_duration_since(since) < SLOWDOWN_WINDOW)
        };
        if self.keys.iter().filter(is_new).count() >= SLOWDOWN_KEYS {
            self.slowdown_until = Some(now + SLOWDOWN_WINDOW);
        }
        self.slowdown_until.is_some_and(|until| now < until)
    }

    /// Removes entries that have expired.
    pub fn remove_expired(&mut self, now: Instant) {
        self.keys.retain(|known| known.is_current(now));
    }

    fn count_unverified(&mut self, now: Instant) -> bool {
        let is_refuted = self
            .refuted_at
            .is_some_and(|at| now.saturating_duration_since(at) < REFUTATION_LIFETIME);
        if is_refuted {
            return false;
        }
        self.unverified += 1;
        let is_sample = self.unverified >= UNVERIFIED_PER_SAMPLE;
        if is_sample {
            self.unverified = 0;
        }
        is_sample
    }

    fn state(&self, key: RequestKey, now: Instant) -> Option<SlowKeyState> {
        let known = self.keys.iter().find(|known| known.key == key)?;
        known.is_current(now).then_some(known.state)
    }

    fn set_state(&mut self, key: RequestKey, state: SlowKeyState, now: Instant) {
        let changed = SlowKey { key, state, changed_at: now };
        if let Some(known) = self.keys.iter_mut().find(|known| known.key == key) {
            *known = changed;
            return;
        }
        self.remove_expired(now);
        if self.keys.len() >= MAX_KEYS {
            let oldest = (0..self.keys.len()).min_by_key(|&index| self.keys[index].changed_at);
            oldest.map(|index| self.keys.swap_remove(index));
        }
        self.keys.push(changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::id::EndpointId;

    const TWO_SECONDS: Duration = Duration::from_secs(2);
    const OTHER_ZONE: ComparisonScope = ComparisonScope::OtherZone;

    fn key(value: u64) -> RequestKey {
        RequestKey::from_value(value)
    }

    fn place(endpoint: u32, zone: usize) -> AttemptPlace {
        AttemptPlace { endpoint: EndpointId::new(endpoint, 0), zone }
    }

    #[test]
    fn request_that_is_slow_everywhere_gets_its_own_bound() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        assert!(!slow.on_verified(key(1), TWO_SECONDS, t0), "one request is not the pool");
        assert_eq!(slow.bound(key(1), t0), Some(3 * TWO_SECONDS));
        assert_eq!(slow.bound(key(2), t0), None);
        assert_eq!(slow.bound(key(1), t0 + BOUND_LIFETIME), None);
        slow.remove_expired(t0 + BOUND_LIFETIME);
        assert!(slow.is_empty());
    }

    #[test]
    fn fast_hedge_takes_the_bound_back() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let _ = slow.on_verified(key(1), TWO_SECONDS, t0);
        slow.on_fast_response(key(1));
        assert!(slow.bound(key(1), t0).is_some(), "some of its responses are fast");
        slow.on_refuted(key(1), t0);
        assert_eq!(slow.bound(key(1), t0), None);
    }

    #[test]
    fn next_request_is_compared_in_another_zone() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let slow_at = |slow: &mut SlowRequests, at| {
            slow.on_slow_response(key(1), at, OTHER_ZONE, TWO_SECONDS, t0)
        };
        assert!(!slow_at(&mut slow, place(1, 0)));
        assert_eq!(slow.place_to_avoid(key(1), t0), Some(place(1, 0)));
        assert!(!slow_at(&mut slow, place(2, 0)));
        assert_eq!(slow.bound(key(1), t0), None, "the whole zone may be slow");
        assert!(!slow_at(&mut slow, place(3, 1)));
        assert_eq!(slow.bound(key(1), t0), Some(3 * TWO_SECONDS));
        assert_eq!(slow.place_to_avoid(key(1), t0), None);
    }

    #[test]
    fn fast_response_ends_the_comparison() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let _ = slow.on_slow_response(key(1), place(1, 0), OTHER_ZONE, TWO_SECONDS, t0);
        slow.on_fast_response(key(1));
        assert_eq!(slow.place_to_avoid(key(1), t0), None);
        assert!(slow.is_empty());
    }

    #[test]
    fn many_slow_keys_are_a_slowdown_of_the_pool() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let verified: Vec<bool> =
            (0..9).map(|n| slow.on_verified(key(n), TWO_SECONDS, t0)).collect();
        assert_eq!(verified, [false, false, false, false, false, false, false, true, true]);
        let later = t0 + SLOWDOWN_WINDOW;
        assert!(!slow.on_verified(key(1), TWO_SECONDS, later), "no new key");
    }

    #[test]
    fn unverified_responses_raise_the_baseline_slowly() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let count = |slow: &mut SlowRequests, keys: std::ops::Range<u64>| {
            let is_sample =
                |n: &u64| slow.on_slow_response(key(*n), place(1, 0), OTHER_ZONE, TWO_SECONDS, t0);
            keys.filter(is_sample).count()
        };
        assert_eq!(count(&mut slow, 0..80), 10);
        slow.on_refuted(key(500), t0);
        assert_eq!(count(&mut slow, 100..180), 0, "a fast hedge has shown a slow endpoint");
    }

    #[test]
    fn only_endpoint_of_a_pool_has_no_comparison() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        let scope = ComparisonScope::None;
        assert!(slow.on_slow_response(key(1), place(1, 0), scope, TWO_SECONDS, t0));
        assert!(slow.is_empty());
    }

    #[test]
    fn remembered_keys_are_bounded() {
        let (mut slow, t0) = (SlowRequests::default(), Instant::now());
        for n in 0..1_000 {
            let _ = slow.on_slow_response(key(n), place(1, 0), OTHER_ZONE, TWO_SECONDS, t0);
        }
        assert_eq!(slow.keys.len(), MAX_KEYS);
    }
}
