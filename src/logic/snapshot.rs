//! All that the request path ever sees: immutable, published whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use fastrand::Rng;
use smallvec::SmallVec;

use super::id::EndpointId;
use super::route::RouteTable;
use super::steer::WHOLE;
use super::topology::PoolSpec;

/// What the data plane steers by until the next one is published.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts publications.
    pub version: u64,
    /// Host and path to pool.
    pub routes: Arc<RouteTable>,
    /// In the order of the topology; routes name them by index.
    pub pools: Vec<Arc<PoolView>>,
}

/// One pool, as requests see it.
#[derive(Debug)]
pub struct PoolView {
    /// As declared.
    pub spec: Arc<PoolSpec>,
    /// Tiers that take traffic, nearest first.
    pub tiers: Vec<Tier>,
    /// Nothing is healthy: the tiers hold every endpoint.
    pub panic: bool,
    /// Every endpoint of the pool, whether it takes traffic or not; in order.
    pub members: Vec<EndpointId>,
}

/// Endpoints that serve, and the part of the pool's traffic that they get.
#[derive(Debug)]
pub struct Tier {
    /// In parts of [`WHOLE`].
    pub share: u64,
    targets: Vec<Target>,
    /// Running sums of the weights; empty when all are equal, where a plain draw is cheaper.
    sums: Vec<u64>,
}

/// One endpoint that may be chosen.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its identity.
    pub id: EndpointId,
    /// Where to connect.
    pub address: SocketAddr,
    /// Index of its zone in the pool.
    pub zone: usize,
    /// Its share among its neighbours.
    pub weight: u32,
    /// What the workers write.
    pub live: Arc<Live>,
}

/// The only words that the request path writes: one endpoint's counters, alone on their line.
///
/// Times are microseconds since the process's own epoch; zero means never.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    in_flight: AtomicU32,
    last_good_us: AtomicU64,
    last_failure_us: AtomicU64,
    failed: AtomicU64,
    rescued: AtomicU64,
    late: AtomicU64,
}

/// The counters of [`Live`] that the ledger reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests whose client saw the failure.
    pub failed: u64,
    /// Requests that met the failure and were answered well by another endpoint.
    pub rescued: u64,
    /// Rescued requests that were answered later than the pool's `late_after`.
    pub late: u64,
}

impl Live {
    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// A request begins.
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request has ended.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The endpoint answered well.
    pub fn good(&self, now_us: u64) {
        self.last_good_us.store(now_us, Relaxed);
    }

    /// A client saw a failure of this endpoint.
    pub fn failed(&self, now_us: u64) {
        self.failed.fetch_add(1, Relaxed);
        self.last_failure_us.fetch_max(now_us, Relaxed);
    }

    /// A request that had failed here was answered well elsewhere.
    pub fn rescued(&self, late: bool) {
        self.rescued.fetch_add(1, Relaxed);
        if late {
            self.late.fetch_add(1, Relaxed);
        }
    }

    /// When the endpoint last answered a request well.
    #[must_use]
    pub fn last_good_us(&self) -> u64 {
        self.last_good_us.load(Relaxed)
    }

    /// When a client last saw a failure of this endpoint.
    #[must_use]
    pub fn last_failure_us(&self) -> u64 {
        self.last_failure_us.load(Relaxed)
    }

    /// What the ledger counts.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            failed: self.failed.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }
}

/// Where a request has been already.
#[derive(Clone, Debug, Default)]
pub struct Avoid {
    /// Endpoints that it must not go to again.
    pub endpoints: SmallVec<[EndpointId; 4]>,
    /// Zones that it should leave if it can.
    pub zones: SmallVec<[usize; 2]>,
}

impl Tier {
    /// A tier of `targets`, which must not be empty.
    #[must_use]
    pub fn new(share: u64, targets: Vec<Target>) -> Self {
        let equal = targets.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let sums = if equal {
            Vec::new()
        } else {
            let running = targets.iter().scan(0u64, |sum, target| {
                *sum += u64::from(target.weight);
                Some(*sum)
            });
            running.collect()
        };
        Self { share, targets, sums }
    }

    /// The endpoints of the tier.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn draw(&self, rng: &mut Rng) -> &Target {
        let index = match self.sums.last() {
            None => rng.usize(..self.targets.len()),
            Some(&sum) => {
                let point = rng.u64(..sum);
                self.sums.partition_point(|&upto| upto <= point)
            }
        };
        &self.targets[index]
    }

    /// The power of two choices (Mitzenmacher): two draws by weight, and the less loaded of them.
    fn pick(&self, rng: &mut Rng) -> &Target {
        let first = self.draw(rng);
        if self.targets.len() == 1 {
            return first;
        }
        less_loaded(first, self.draw(rng))
    }
}

fn less_loaded<'a>(a: &'a Target, b: &'a Target) -> &'a Target {
    let load = |x: &Target, y: &Target| u64::from(x.live.in_flight()) * u64::from(y.weight);
    if load(b, a) < load(a, b) { b } else { a }
}

impl PoolView {
    /// Chooses an endpoint for a request that has not been anywhere yet.
    #[must_use]
    pub fn pick(&self, rng: &mut Rng) -> Option<&Target> {
        match self.tiers.as_slice() {
            [] => None,
            [only] => Some(only.pick(rng)),
            tiers => {
                let mut point = rng.u64(..WHOLE);
                for tier in tiers {
                    match point.checked_sub(tier.share) {
                        Some(rest) => point = rest,
                        None => return Some(tier.pick(rng)),
                    }
                }
                tiers.first().map(|tier| tier.pick(rng))
            }
        }
    }

    /// Chooses another endpoint for a request that failed: one outside the zones to avoid if there
    /// is any, the nearest tier first, and never one that it was at before.
    #[must_use]
    pub fn pick_other(&self, rng: &mut Rng, avoid: &Avoid) -> Option<&Target> {
        let fresh = |target: &&Target| !avoid.endpoints.contains(&target.id);
        let away = |target: &&Target| fresh(target) && !avoid.zones.contains(&target.zone);
        self.pick_among(rng, away).or_else(|| self.pick_among(rng, fresh))
    }

    fn pick_among<'a>(
        &'a self,
        rng: &mut Rng,
        fits: impl Fn(&&'a Target) -> bool,
    ) -> Option<&'a Target> {
        self.tiers.iter().find_map(|tier| {
            let left: SmallVec<[&Target; 16]> = tier.targets.iter().filter(&fits).collect();
            match left.as_slice() {
                [] => None,
                left => {
                    Some(less_loaded(left[rng.usize(..left.len())], left[rng.usize(..left.len())]))
                }
            }
        })
    }

    /// Every endpoint that takes traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.tiers.iter().flat_map(|tier| &tier.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::probe::ProbeSpec;
    use crate::logic::topology::{Detect, PoolLimits};
    use std::time::Duration;

    fn target(id: u32, zone: usize, weight: u32) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 9000 + id as u16));
        Target { id: EndpointId(id), address, zone, weight, live: Arc::default() }
    }

    fn view(tiers: Vec<Tier>) -> PoolView {
        let spec = PoolSpec {
            name: "web".into(),
            zones: Vec::new(),
            probes: vec![ProbeSpec::tcp()],
            detect: Detect::default(),
            optimistic: false,
            late_after: Duration::from_millis(250),
            limits: PoolLimits::default(),
        };
        PoolView { spec: Arc::new(spec), tiers, panic: false, members: Vec::new() }
    }

    #[test]
    fn picks_follow_shares_and_weights() {
        let near = Tier::new(WHOLE / 4 * 3, vec![target(0, 0, 1), target(1, 0, 2)]);
        let far = Tier::new(WHOLE / 4, vec![target(2, 1, 1)]);
        let pool = view(vec![near, far]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0f64; 3];
        for _ in 0..100_000 {
            let id = pool.pick(&mut rng).expect("some").id;
            counts[id.0 as usize] += 1.0;
        }
        for (count, expected) in counts.iter().zip([25_000.0, 50_000.0, 25_000.0]) {
            assert!((count / expected - 1.0).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let targets = vec![target(0, 0, 1), target(1, 0, 1)];
        (0..5).for_each(|_| targets[0].live.enter());
        let pool = view(vec![Tier::new(WHOLE, targets)]);
        let mut rng = Rng::with_seed(7);
        let loaded = (0..10_000).filter(|_| pool.pick(&mut rng).expect("some").id.0 == 0).count();
        assert!((2_300..2_700).contains(&loaded), "only when drawn twice: {loaded}");
    }

    #[test]
    fn another_try_leaves_the_zone_if_it_can_and_the_endpoint_always() {
        let near = Tier::new(WHOLE, vec![target(0, 0, 1), target(1, 0, 1)]);
        let pool = view(vec![near, Tier::new(0, vec![target(2, 1, 1)])]);
        let mut rng = Rng::with_seed(7);
        let mut avoid = Avoid::default();
        avoid.endpoints.push(EndpointId(0));
        let near = pool.pick_other(&mut rng, &avoid).map(|t| t.id);
        assert_eq!(near, Some(EndpointId(1)));
        avoid.zones.push(0);
        assert_eq!(pool.pick_other(&mut rng, &avoid).map(|t| t.id), Some(EndpointId(2)));
        avoid.endpoints.push(EndpointId(2));
        assert_eq!(pool.pick_other(&mut rng, &avoid).map(|t| t.id), Some(EndpointId(1)));
        avoid.endpoints.push(EndpointId(1));
        assert!(pool.pick_other(&mut rng, &avoid).is_none());
    }
}
