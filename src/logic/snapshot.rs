//! All that the request path ever sees: immutable, published whole.

use std::sync::Arc;

use fastrand::Rng;
use smallvec::SmallVec;

use super::affinity::Pins;
use super::balance::keyed::{self, Bound};
use super::balance::{Balance, Keyed, Turns};
use super::breaker::Limit;
use super::drill::Lane;
use super::id::EndpointId;
use super::route::RouteTable;
use super::steer::WHOLE;
use super::topology::PoolSpec;

pub use super::breaker::PoolLive;
pub use super::live::{Live, Tally};
pub use super::tier::{Cell, Target, Tier};

/// What the data plane steers by until the next one is published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts publications.
    pub version: u64,
    /// Host and path to pool.
    pub routes: Arc<RouteTable>,
    /// In the order of the topology; routes name them by index.
    pub pools: Vec<Arc<PoolView>>,
    /// A drill that is on: a share of the requests steers by another snapshot.
    pub drill: Option<Arc<Lane>>,
}

/// One pool, as requests see it.
#[derive(Debug)]
pub struct PoolView {
    /// As declared.
    pub spec: Arc<PoolSpec>,
    /// Where the policy leads.
    pub led: Led,
    /// Where the other ways lead that some requests go; see [`super::steer::Steer::ways`].
    pub others: Vec<Led>,
    /// Endpoints that traffic has put down and that must prove themselves: a request that can be
    /// sent again may be tried there, when its turn has come.
    pub trials: Vec<Target>,
    /// Nothing is healthy: the tiers hold every endpoint.
    pub panic: bool,
    /// There is nobody because operators have drained everybody.
    pub is_drained: bool,
    /// Every endpoint of the pool, whether it takes traffic or not; in order.
    pub members: Arc<[EndpointId]>,
    /// What workers share for the pool; the same for as long as its name is configured.
    pub live: Arc<PoolLive>,
    /// Where cookies lead, where there are any.
    pub pins: Option<Pins>,
}

/// Where requests are led.
#[derive(Debug, Default)]
pub struct Led {
    /// Tiers that take traffic, the first to serve first.
    pub tiers: Vec<Tier>,
    /// The tiers for requests that must not run twice, where some endpoints of `tiers` are doubted:
    /// those are left out here.
    pub proven: Option<Vec<Tier>>,
}

/// What may be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It may be sent again: a doubted endpoint can do it no harm.
    Repeatable,
    /// It must not run twice: only endpoints that nothing is said against, and if there is a
    /// choice none that has kept others waiting since before then, in microseconds, and none that
    /// may have what a neighbour has ([`Target::may_ail`]).
    Once {
        /// Longer ago than any answer takes.
        before_us: u64,
    },
}

/// What a request brings to the choice of its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What may be done with it.
    pub sending: Sending,
    /// Which way it is led; see [`super::steer::Steer::ways`].
    pub way: usize,
    /// The hash of its key, where the pool wants one and it has one.
    pub key: Option<u64>,
    /// When it is chosen for.
    pub now_us: u64,
    /// Whose turn it is, where endpoints are taken in turn; without it, chance decides.
    pub turns: Option<&'a Turns>,
}

impl From<Sending> for Wish<'_> {
    fn from(sending: Sending) -> Self {
        Self { sending, way: 0, key: None, now_us: 0, turns: None }
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

impl Avoid {
    /// A try at `endpoint` in the zone failed: the next one leaves the zone too if it can, since
    /// whatever the endpoint suffers from is seldom its own.
    pub fn leave(&mut self, endpoint: EndpointId, zone: usize) {
        self.endpoints.push(endpoint);
        if !self.zones.contains(&zone) {
            self.zones.push(zone);
        }
    }
}

/// Endpoints on trial that a request asks at most whether their turn has come.
const TRIALS_ASKED: usize = 16;

impl PoolView {
    /// One that was configured away since is as good as the policy's.
    fn tiers_for(&self, way: usize, sending: Sending) -> &[Tier] {
        let other = way.checked_sub(1).and_then(|at| self.others.get(at));
        let led = other.unwrap_or(&self.led);
        match (sending, &led.proven) {
            (Sending::Once { .. }, Some(proven)) => proven,
            _ => &led.tiers,
        }
    }

    /// Chooses an endpoint for a request that has not been anywhere yet.
    #[must_use]
    pub fn pick<'w>(&self, rng: &mut Rng, wish: impl Into<Wish<'w>>) -> Option<&Target> {
        let wish = wish.into();
        let picked = self.draw(rng, &wish)?;
        match wish.sending {
            Sending::Once { before_us } => {
                // What was sent there may never be answered, and this could not be sent again.
                let lives = |target: &Target| !target.live.waits_since_before(before_us);
                let is_proven = |target: &Target| lives(target) && !target.may_ail(wish.now_us);
                if is_proven(picked) {
                    return Some(picked);
                }
                let tiers = self.tiers_for(wish.way, wish.sending);
                let mut among = |fits: &dyn Fn(&Target) -> bool| {
                    tiers.iter().find_map(|tier| self.fitting(tier, rng, &wish, fits))
                };
                if let Some(proven) = among(&is_proven) {
                    return Some(proven);
                }
                let living = if lives(picked) { None } else { among(&lives) };
                Some(living.unwrap_or(picked))
            }
            Sending::Repeatable => Some(picked),
        }
    }

    fn draw(&self, rng: &mut Rng, wish: &Wish<'_>) -> Option<&Target> {
        let tiers = self.tiers_for(wish.way, wish.sending);
        let index = match (tiers, wish.key) {
            ([], _) => return None,
            ([_], _) => 0,
            (tiers, None) => tier_at(tiers, rng.u64(..WHOLE)),
            (tiers, Some(key)) => tier_at(tiers, keyed::point(key)),
        };
        let tier = &tiers[index];
        if let Some(key) = wish.key.filter(|_| tier.is_seated()) {
            return tier.seek(key, self.bound(tier), |_| true);
        }
        Some(match (&self.spec.balance, wish.turns) {
            (Balance::LeastRequests | Balance::Keyed(_), _) => tier.pick(rng),
            (Balance::PeakEwma, _) => tier.pick_by(rng, |target| target.live.cost(wish.now_us)),
            (Balance::RoundRobin, Some(turns)) => tier.turn(turns, index, rng),
            (Balance::RoundRobin, None) | (Balance::Random, _) => tier.draw(rng),
        })
    }

    /// What endpoints of the tier may have in flight so that keys go there.
    fn bound(&self, tier: &Tier) -> Option<Bound> {
        let Balance::Keyed(Keyed { max_load_percent: Some(percent), .. }) = self.spec.balance
        else {
            return None;
        };
        let in_flight = self.live.gauges().get(Limit::Requests);
        Bound::new(percent, in_flight, tier.share as f64 / WHOLE as f64, tier)
    }

    /// One of the tier that fits: the next one of a key, or the less loaded of two.
    fn fitting<'t>(
        &self,
        tier: &'t Tier,
        rng: &mut Rng,
        wish: &Wish<'_>,
        fits: &dyn Fn(&Target) -> bool,
    ) -> Option<&'t Target> {
        match wish.key.filter(|_| tier.is_seated()) {
            Some(key) => tier.seek(key, self.bound(tier), fits),
            None => tier.pick_fitting(rng, fits),
        }
    }

    /// The endpoint that a repeatable request is to try first, because it must prove itself and
    /// its turn has come.
    #[must_use]
    pub fn trial(&self, now_us: u64) -> Option<&Target> {
        let count = self.trials.len();
        let start = (now_us / 1_000) as usize;
        let mut some = (0..count.min(TRIALS_ASKED)).map(|n| &self.trials[(start + n) % count]);
        some.find(|target| target.live.take_trial(now_us))
    }

    /// Chooses another endpoint for a request that failed: one outside the zones to avoid if there
    /// is any, the nearest tier first, and never one that it was at before.
    #[must_use]
    pub fn pick_other<'w>(
        &self,
        rng: &mut Rng,
        avoid: &Avoid,
        wish: impl Into<Wish<'w>>,
    ) -> Option<&Target> {
        let wish = wish.into();
        let tiers = self.tiers_for(wish.way, wish.sending);
        let fresh = |target: &Target| !avoid.endpoints.contains(&target.id);
        let away = |target: &Target| fresh(target) && !avoid.zones.contains(&target.zone);
        let mut among = |fits: &dyn Fn(&Target) -> bool| {
            tiers.iter().find_map(|tier| self.fitting(tier, rng, &wish, fits))
        };
        among(&away).or_else(|| among(&fresh))
    }

    /// Whether a request that is at `here` could go to another endpoint, which is the same every way.
    #[must_use]
    pub fn has_other(&self, here: EndpointId, avoid: &Avoid, sending: Sending) -> bool {
        let mut targets = self.tiers_for(0, sending).iter().flat_map(Tier::targets);
        targets.any(|target| target.id != here && !avoid.endpoints.contains(&target.id))
    }

    /// Every endpoint that takes traffic.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.led.tiers.iter().flat_map(Tier::targets)
    }
}

/// The index of the tier in whose share the point is.
fn tier_at(tiers: &[Tier], mut point: u64) -> usize {
    for (index, tier) in tiers.iter().enumerate() {
        match point.checked_sub(tier.share) {
            Some(rest) => point = rest,
            None => return index,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::SocketAddr;

    use super::super::live::Kin;

    fn target(id: u32, zone: usize, weight: u32) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 9000 + id as u16));
        Target {
            id: EndpointId::new(id, 0),
            address,
            zone,
            weight,
            live: Arc::default(),
            kin: Arc::default(),
        }
    }

    fn view(tiers: Vec<Tier>) -> PoolView {
        PoolView {
            spec: Arc::new(PoolSpec::new("web", Vec::new())),
            led: Led { tiers, proven: None },
            others: Vec::new(),
            trials: Vec::new(),
            panic: false,
            is_drained: false,
            members: Arc::default(),
            live: Arc::default(),
            pins: None,
        }
    }

    #[test]
    fn picks_follow_shares_and_weights() {
        let near = Tier::of(WHOLE / 4 * 3, vec![target(0, 0, 1), target(1, 0, 2)]);
        let far = Tier::of(WHOLE / 4, vec![target(2, 1, 1)]);
        let pool = view(vec![near, far]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0f64; 3];
        for _ in 0..100_000 {
            let id = pool.pick(&mut rng, Sending::Repeatable).expect("some").id;
            counts[id.slot as usize] += 1.0;
        }
        for (count, expected) in counts.iter().zip([25_000.0, 50_000.0, 25_000.0]) {
            assert!((count / expected - 1.0).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen() {
        let targets = vec![target(0, 0, 1), target(1, 0, 1)];
        (0..5).for_each(|_| targets[0].live.enter(1));
        let pool = view(vec![Tier::of(WHOLE, targets)]);
        let mut rng = Rng::with_seed(7);
        let loaded = (0..10_000)
            .filter(|_| pool.pick(&mut rng, Sending::Repeatable).expect("some").id.slot == 0)
            .count();
        assert!((2_300..2_700).contains(&loaded), "only when drawn twice: {loaded}");
    }

    #[test]
    fn what_must_not_run_twice_passes_by_who_keeps_others_waiting_if_it_can() {
        let near = vec![target(0, 0, 1), target(1, 0, 1)];
        let far = vec![target(2, 1, 1)];
        let (first, second, third) =
            (near[0].live.clone(), near[1].live.clone(), far[0].live.clone());
        let pool = view(vec![Tier::of(WHOLE, near), Tier::of(0, far)]);
        let mut rng = Rng::with_seed(7);
        let mut picked = |sending| -> Vec<u32> {
            let picks = (0..100).filter_map(|_| pool.pick(&mut rng, sending));
            let mut slots: Vec<u32> = picks.map(|target| target.id.slot).collect();
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let once = Sending::Once { before_us: 1_000 };
        first.enter(500);
        assert_eq!(picked(once), [1]);
        assert_eq!(picked(Sending::Repeatable), [0, 1]);
        assert_eq!(picked(Sending::Once { before_us: 500 }), [0, 1], "not for long enough");
        second.enter(500);
        assert_eq!(picked(once), [2], "the next tier has nobody waiting");
        third.enter(500);
        assert_eq!(picked(once), [0, 1], "none is better");
        second.good(600);
        assert_eq!(picked(once), [1]);
    }

    #[test]
    fn another_try_leaves_the_zone_if_it_can_and_the_endpoint_always() {
        let near = Tier::of(WHOLE, vec![target(0, 0, 1), target(1, 0, 1)]);
        let pool = view(vec![near, Tier::of(0, vec![target(2, 1, 1)])]);
        let mut rng = Rng::with_seed(7);
        let mut avoid = Avoid::default();
        let mut next = |avoid: &Avoid| {
            pool.pick_other(&mut rng, avoid, Sending::Repeatable).map(|t| t.id.slot)
        };
        avoid.endpoints.push(EndpointId::new(0, 0));
        assert_eq!(next(&avoid), Some(1), "it did not fail there");
        let mut avoid = Avoid::default();
        avoid.leave(EndpointId::new(0, 0), 0);
        assert_eq!(next(&avoid), Some(2));
        avoid.leave(EndpointId::new(2, 0), 1);
        assert_eq!(next(&avoid), Some(1), "no other zone is left");
        avoid.leave(EndpointId::new(1, 0), 0);
        assert_eq!(next(&avoid), None);
    }

    #[test]
    fn what_must_not_run_twice_waits_for_the_neighbours_of_a_failure_to_prove_themselves() {
        let kin = Arc::<Kin>::default();
        let near = |id| Target { kin: Arc::clone(&kin), ..target(id, 0, 1) };
        let neighbours = [near(0), near(1), near(2)];
        let pool =
            view(vec![Tier::of(WHOLE, neighbours.to_vec()), Tier::of(0, vec![target(3, 1, 1)])]);
        let mut rng = Rng::with_seed(7);
        let mut picks = |sending, now_us| -> Vec<u32> {
            let mut one = || pool.pick(&mut rng, Wish { now_us, ..Wish::from(sending) });
            let mut slots: Vec<u32> = (0..200).filter_map(|_| Some(one()?.id.slot)).collect();
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let (once, again) = (Sending::Once { before_us: 0 }, Sending::Repeatable);
        neighbours[1].live.good(900);
        assert_eq!(picks(once, 1_000), [0, 1, 2]);
        kin.erred(1_000);
        assert_eq!(picks(once, 1_010), [3], "what ails one may ail all");
        assert_eq!(picks(again, 1_010), [0, 1, 2]);
        neighbours[1].live.good(1_020);
        assert_eq!(picks(once, 1_030), [1]);
        neighbours[0].live.good(1_040);
        kin.erred(1_050);
        neighbours[0].live.good(1_060);
        assert_eq!(picks(once, 1_070), [0]);
        assert_eq!(picks(once, 1_050 + 1_000_000), [0, 1, 2], "that was long ago");
    }

    #[test]
    fn where_all_may_ail_the_living_are_asked() {
        let kin = Arc::<Kin>::default();
        let near = |id| Target { kin: Arc::clone(&kin), ..target(id, 0, 1) };
        let neighbours = [near(0), near(1)];
        let pool = view(vec![Tier::of(WHOLE, neighbours.to_vec())]);
        let mut rng = Rng::with_seed(7);
        kin.erred(1_000);
        neighbours[0].live.enter(500);
        let wish = Wish { now_us: 1_100, ..Wish::from(Sending::Once { before_us: 900 }) };
        for _ in 0..50 {
            assert_eq!(pool.pick(&mut rng, wish).expect("one").id.slot, 1, "the other one waits");
        }
    }
}
