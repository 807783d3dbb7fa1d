//! Rate limits for the requests of a client or of a whole route: a token bucket over all workers.
//!
//! The bucket is kept as in GCRA, as the time at which it will be full again: one atomic number.
//! Buckets are in one table of fixed size. A full bucket needs no entry, so that its slot is free
//! without a cleanup. Where eight buckets of one set are in use, the fullest one is evicted. Errors
//! therefore let requests pass, with one exception: two keys of a set with the same tag (one pair
//! in 8192) share a bucket.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::logic::model::network::mask_address;

/// The rate of requests, and the key of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitSpec {
    /// Requests in each `per`, in the long run.
    pub requests: NonZeroU32,
    /// The period of `requests`.
    pub per: Duration,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
    pub key: RateLimitKey,
}

/// The requests that share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitKey {
    /// Each client has its own: an IPv4 address, or the /64 network of an IPv6 address, which is
    /// one subscriber's.
    Client,
    /// All requests of the route.
    Route,
}

/// Time is counted in quarters of a microsecond: 50 bits are nine years.
const TICKS_PER_US: u64 = 4;

const TIME_BITS: u32 = 50;

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Slots of one set: a cache line.
const SET_ASSOCIATIVITY: usize = 8;

/// After this many lost races with other threads a request passes.
const MAX_CAS_ATTEMPTS: usize = 16;

impl RateLimitSpec {
    /// The time that one request takes up, in ticks; at least one.
    fn interval_ticks(&self) -> u64 {
        let per = u64::try_from(self.per.as_micros()).unwrap_or(TIME_MASK) * TICKS_PER_US;
        (per / u64::from(self.requests.get())).max(1)
    }

    /// The time by which a bucket may be ahead of now, in ticks.
    fn tolerance_ticks(&self) -> u64 {
        self.interval_ticks().saturating_mul(u64::from(self.burst.get()) - 1)
    }
}

/// The buckets of all keys.
#[derive(Debug)]
pub struct RateLimiter<S> {
    sets: Box<[BucketSet]>,
    hasher: S,
}

/// Each slot has a tag in its high bits, and in its low bits the time at which the bucket is full.
#[derive(Debug, Default)]
#[repr(align(64))]
struct BucketSet([AtomicU64; SET_ASSOCIATIVITY]);

impl<S: BuildHasher> RateLimiter<S> {
    /// A table of at least `buckets` slots. The `hasher` must be unpredictable, so that no client
    /// can choose addresses that evict others.
    pub fn new(buckets: usize, hasher: S) -> Self {
        let sets = (buckets / SET_ASSOCIATIVITY).max(1).next_power_of_two();
        Self { sets: (0..sets).map(|_| BucketSet::default()).collect(), hasher }
    }

    /// Takes one request of `route` by `ip` at `now_us`, in microseconds since a common zero.
    ///
    /// # Errors
    /// The time after which a request would pass. A refused request takes nothing.
    pub fn try_acquire(
        &self,
        spec: &RateLimitSpec,
        route: &str,
        ip: IpAddr,
        now_us: u64,
    ) -> Result<(), Duration> {
        let client = match (spec.key, ip) {
            (RateLimitKey::Route, _) => None,
            (RateLimitKey::Client, IpAddr::V4(_)) => Some(ip),
            (RateLimitKey::Client, IpAddr::V6(_)) => Some(mask_address(ip, 64)),
        };
        let hash = self.hasher.hash_one((route, client));
        // The low bits choose the set; the high bits are the tag, which is never zero, because an
        // empty slot has no tag.
        let set = &self.sets[hash as usize & (self.sets.len() - 1)];
        let tag = (hash | 1 << 63) >> TIME_BITS << TIME_BITS;
        set.try_acquire(tag, now_us.saturating_mul(TICKS_PER_US) & TIME_MASK, spec)
    }
}

impl BucketSet {
    fn try_acquire(&self, tag: u64, now: u64, spec: &RateLimitSpec) -> Result<(), Duration> {
        let (interval, tolerance) = (spec.interval_ticks(), spec.tolerance_ticks());
        for _ in 0..MAX_CAS_ATTEMPTS {
            let (slot, current) = self.find_slot(tag);
            let is_own = current & !TIME_MASK == tag;
            let full_at = if is_own { (current & TIME_MASK).max(now) } else { now };
            let ahead = full_at - now;
            if ahead > tolerance {
                return Err(Duration::from_micros((ahead - tolerance).div_ceil(TICKS_PER_US)));
            }
            let new = tag | full_at.saturating_add(interval).min(TIME_MASK);
            if slot.compare_exchange(current, new, Relaxed, Relaxed).is_ok() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The slot with this tag, or else the one with the fullest bucket.
    fn find_slot(&self, tag: u64) -> (&AtomicU64, u64) {
        let mut found = (&self.0[0], self.0[0].load(Relaxed));
        for slot in &self.0 {
            let value = slot.load(Relaxed);
            if value & !TIME_MASK == tag {
                return (slot, value);
            }
            if value & TIME_MASK < found.1 & TIME_MASK {
                found = (slot, value);
            }
        }
        found
    }
}

/// Whole seconds to wait, at least one, for `Retry-After`.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    type Table = RateLimiter<BuildHasherDefault<DefaultHasher>>;

    const SECOND_US: u64 = 1_000_000;

    fn table(buckets: usize) -> Table {
        RateLimiter::new(buckets, BuildHasherDefault::default())
    }

    fn spec(requests: u32, per: Duration, burst: u32, by: RateLimitKey) -> RateLimitSpec {
        let count = |n| NonZeroU32::new(n).expect("not zero");
        RateLimitSpec { requests: count(requests), per, burst: count(burst), key: by }
    }

    fn per_second(requests: u32, burst: u32) -> RateLimitSpec {
        spec(requests, Duration::from_secs(1), burst, RateLimitKey::Client)
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn burst_passes_before_rate_applies() {
        let (table, spec) = (table(64), per_second(10, 5));
        let now = 7 * SECOND_US;
        let passed = (0..20).filter(|_| table.try_acquire(&spec, "r", v4(1), now).is_ok()).count();
        assert_eq!(passed, 5);
        let wait = table.try_acquire(&spec, "r", v4(1), now).expect_err("the bucket is empty");
        assert_eq!(wait, Duration::from_millis(100));
        let almost = now + wait.as_micros() as u64 - 1;
        assert!(table.try_acquire(&spec, "r", v4(1), almost).is_err());
        assert!(table.try_acquire(&spec, "r", v4(1), almost + 1).is_ok());
        assert!(table.try_acquire(&spec, "r", v4(1), almost + 1).is_err());
        let later = now + 60 * SECOND_US;
        let passed =
            (0..20).filter(|_| table.try_acquire(&spec, "r", v4(1), later).is_ok()).count();
        assert_eq!(passed, 5, "rest saves no more than a burst");
    }

    #[test]
    fn each_client_and_route_has_its_own_bucket() {
        let (table, spec) = (table(1024), per_second(1, 1));
        assert!(table.try_acquire(&spec, "r", v4(1), 0).is_ok());
        assert!(table.try_acquire(&spec, "r", v4(1), 0).is_err());
        assert!(table.try_acquire(&spec, "r", v4(2), 0).is_ok());
        assert!(table.try_acquire(&spec, "s", v4(1), 0).is_ok());
        let v6 = |high: u64, low: u64| {
            IpAddr::from(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
        };
        assert!(table.try_acquire(&spec, "r", v6(1, 1), 0).is_ok());
        assert!(table.try_acquire(&spec, "r", v6(1, 2), 0).is_err());
        assert!(table.try_acquire(&spec, "r", v6(2, 1), 0).is_ok());
        let whole = RateLimitSpec { key: RateLimitKey::Route, ..spec };
        assert!(table.try_acquire(&whole, "t", v4(1), 0).is_ok());
        assert!(table.try_acquire(&whole, "t", v4(2), 0).is_err());
    }

    #[test]
    fn full_table_never_refuses_new_clients() {
        let (table, spec) = (table(64), per_second(1, 1));
        let passed =
            (0..10_000).filter(|&n| table.try_acquire(&spec, "r", v4(n), 0).is_ok()).count();
        assert!(passed > 9_900, "only keys that look the same may share: {passed}");
        assert_eq!(table.sets.len() * SET_ASSOCIATIVITY, 64);
    }

    #[test]
    fn half_full_table_evicts_few_buckets() {
        let (table, spec) = (table(8 * 1024), per_second(1, 1));
        let all = || 0..4 * 1024;
        assert!(all().filter(|&n| table.try_acquire(&spec, "r", v4(n), 0).is_err()).count() < 4);
        let forgotten = all().filter(|&n| table.try_acquire(&spec, "r", v4(n), 0).is_ok()).count();
        assert!(forgotten < 4 * 1024 / 20, "{forgotten}");
    }

    #[test]
    fn high_rate_limit_is_accurate() {
        let (table, spec) = (table(64), per_second(100_000, 1));
        let passed =
            (0..SECOND_US).filter(|&us| table.try_acquire(&spec, "r", v4(1), us).is_ok()).count();
        assert!((99_000..=101_000).contains(&passed), "{passed}");
    }

    #[test]
    fn concurrent_threads_share_one_burst() {
        let (table, spec) = (table(64), per_second(1, 1_000));
        let passed: usize = std::thread::scope(|scope| {
            let count =
                || (0..1_000).filter(|_| table.try_acquire(&spec, "r", v4(1), 0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 1_000);
    }

    #[test]
    fn retry_after_rounds_up_to_whole_seconds() {
        for (ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (60_000, 60)] {
            assert_eq!(retry_after_seconds(Duration::from_millis(ms)), seconds);
        }
    }

    proptest! {
        /// No interval passes more requests than the burst and the rate allow.
        #[test]
        fn limiter_matches_token_bucket_model(
            requests in 1_u32..1_000,
            per_ms in 1_u64..100_000,
            burst in 1_u32..50,
            gaps in proptest::collection::vec(0_u64..200_000, 1..300),
        ) {
            let spec = spec(requests, Duration::from_millis(per_ms), burst, RateLimitKey::Client);
            let table = table(64);
            let interval_us = spec.interval_ticks() as f64 / TICKS_PER_US as f64;
            let (mut now, mut tokens) = (0_u64, f64::from(burst));
            for gap in gaps {
                now += gap;
                tokens = (tokens + gap as f64 / interval_us).min(f64::from(burst));
                let passes = table.try_acquire(&spec, "r", v4(9), now).is_ok();
                if (tokens - 1.0).abs() > 1e-6 {
                    prop_assert_eq!(passes, tokens > 1.0, "at {} with {}", now, tokens);
                }
                tokens -= f64::from(u8::from(passes));
            }
        }
    }
}
