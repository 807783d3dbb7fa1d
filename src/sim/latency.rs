//! The latency of endpoints: fixed, or drawn from a distribution.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

/// The time from a request's arrival at an endpoint to its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum LatencyModel {
    Fixed(Duration),
    /// Each response is drawn for itself.
    Distributed(Arc<LatencyDistribution>),
}

impl LatencyModel {
    /// Draws the latency of one response.
    pub fn sample(&self, rng: &mut Rng) -> Duration {
        match self {
            Self::Fixed(latency) => *latency,
            Self::Distributed(distribution) => distribution.upper_quantile(1.0 - rng.f64()),
        }
    }

    /// The latency that this share of responses, in 0..=1, exceeds: the longest for 0, the shortest
    /// for 1.
    pub fn upper_quantile(&self, share: f64) -> Duration {
        match self {
            Self::Fixed(latency) => *latency,
            Self::Distributed(distribution) => distribution.upper_quantile(share),
        }
    }

    /// The share of responses, in 0..=1, that take longer than `bound`.
    pub fn share_above(&self, bound: Duration) -> f64 {
        match self {
            Self::Fixed(latency) => f64::from(u8::from(*latency > bound)),
            Self::Distributed(distribution) => distribution.share_above(bound),
        }
    }
}

/// The maximum of any distribution.
const MAX_LATENCY: Duration = Duration::from_secs(3_600);

/// A distribution of latencies.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyDistribution(DistributionShape);

#[derive(Clone, Debug, PartialEq)]
enum DistributionShape {
    /// Log-normal between given quantiles: (standard score, logarithm of the seconds), rising.
    Parametric { points: Vec<(f64, f64)>, max: Duration },
    /// Counted: (share of the responses that take longer, latency), the shares falling to zero.
    Empirical(Vec<(f64, Duration)>),
}

impl LatencyDistribution {
    /// A distribution with these quantiles, (share in 0..1, latency): log-normal between two of
    /// them and beyond the last, up to `max` (one hour by default). `None` unless there are at
    /// least two, and both shares and latencies rise.
    pub fn from_quantiles(quantiles: &[(f64, Duration)], max: Option<Duration>) -> Option<Self> {
        let rise = |pair: &[(f64, Duration)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
        let inside =
            quantiles.iter().all(|(share, at)| 0.0 < *share && *share < 1.0 && !at.is_zero());
        if quantiles.len() < 2 || !inside || !quantiles.windows(2).all(rise) {
            return None;
        }
        let point =
            |(share, at): &(f64, Duration)| (normal_quantile(*share), at.as_secs_f64().ln());
        let points = quantiles.iter().map(point).collect();
        Some(Self(DistributionShape::Parametric { points, max: max.unwrap_or(MAX_LATENCY) }))
    }

    /// The distribution of counted responses, (latency, count), in any order. `None` if there are
    /// none.
    pub fn from_counts(counts: &[(Duration, u64)]) -> Option<Self> {
        let mut sorted: Vec<(Duration, u64)> =
            counts.iter().copied().filter(|(_, count)| *count > 0).collect();
        sorted.sort_unstable();
        let total: u64 = sorted.iter().map(|(_, count)| count).sum();
        let mut left = total;
        let step = |(at, count): &(Duration, u64)| {
            left -= count;
            (left as f64 / total as f64, *at)
        };
        (total > 0).then(|| Self(DistributionShape::Empirical(sorted.iter().map(step).collect())))
    }

    /// The distribution with these steps, (share of the responses that take at most as long,
    /// latency), both rising; the last share counts as one. `None` if there are none.
    pub fn from_steps(quantiles: &[(f64, Duration)]) -> Option<Self> {
        let mut steps: Vec<_> = quantiles.iter().map(|(share, at)| (1.0 - share, *at)).collect();
        steps.last_mut()?.0 = 0.0;
        Some(Self(DistributionShape::Empirical(steps)))
    }

    /// The latency that this share of responses, in 0..=1, exceeds.
    pub fn upper_quantile(&self, share: f64) -> Duration {
        match &self.0 {
            DistributionShape::Empirical(steps) => {
                let index = steps.partition_point(|(beyond, _)| *beyond >= share && *beyond > 0.0);
                steps.get(index).or_else(|| steps.last()).map_or(Duration::ZERO, |(_, at)| *at)
            }
            DistributionShape::Parametric { points, max } => {
                let score = -normal_quantile(share);
                let index = points.partition_point(|(x, _)| *x < score);
                let from = index.clamp(1, points.len() - 1) - 1;
                let ((x0, y0), (x1, y1)) = (points[from], points[from + 1]);
                let seconds = (y0 + (score - x0) / (x1 - x0) * (y1 - y0)).exp();
                Duration::try_from_secs_f64(seconds).unwrap_or(*max).min(*max)
            }
        }
    }

    /// The share of responses, in 0..=1, that take longer than `bound`.
    pub fn share_above(&self, bound: Duration) -> f64 {
        match &self.0 {
            DistributionShape::Empirical(steps) => {
                let below = steps.partition_point(|(_, at)| *at <= bound);
                below.checked_sub(1).map_or(1.0, |last| steps[last].0)
            }
            DistributionShape::Parametric { points, max } => {
                if bound >= *max || bound.is_zero() {
                    return f64::from(u8::from(bound < *max));
                }
                let at = bound.as_secs_f64().ln();
                let index = points.partition_point(|(_, y)| *y < at);
                let from = index.clamp(1, points.len() - 1) - 1;
                let ((x0, y0), (x1, y1)) = (points[from], points[from + 1]);
                normal_tail(x0 + (at - y0) / (y1 - y0) * (x1 - x0))
            }
        }
    }
}

/// The standard normal quantile of `share`, after P. J. Acklam's rational approximation (relative
/// error below 1.2e-9).
fn normal_quantile(share: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    const TAIL: f64 = 0.024_25;
    let of = |factors: &[f64], x: f64| factors.iter().fold(0.0, |sum, factor| sum * x + factor);
    let tail = |share: f64| {
        let q = (-2.0 * share.max(f64::MIN_POSITIVE).ln()).sqrt();
        of(&C, q) / of(&D, q)
    };
    if share < TAIL {
        tail(share)
    } else if share > 1.0 - TAIL {
        -tail(1.0 - share)
    } else {
        let q = share - 0.5;
        q * of(&A, q * q) / of(&B, q * q)
    }
}

/// The share of a standard normal distribution above `score`, by bisecting its quantile.
fn normal_tail(score: f64) -> f64 {
    let (mut low, mut high) = (f64::MIN_POSITIVE.ln(), 0.0);
    for _ in 0..100 {
        let middle: f64 = (low + high) / 2.0;
        if -normal_quantile(middle.exp()) > score {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sampled_share_above(latency: &LatencyModel, bound: Duration) -> f64 {
        let mut rng = Rng::with_seed(5);
        (0..200_000).filter(|_| latency.sample(&mut rng) > bound).count() as f64 / 200_000.0
    }

    #[test]
    fn normal_quantile_matches_reference_values() {
        for (share, score) in
            [(0.5, 0.0), (0.975, 1.959_964), (0.999, 3.090_232), (1e-9, -5.997_807)]
        {
            assert!((normal_quantile(share) - score).abs() < 1e-5, "{share}");
            let tail = normal_tail(-score);
            assert!((tail / share - 1.0).abs() < 1e-4, "{share} {tail}");
        }
    }

    #[test]
    fn samples_follow_the_given_quantiles() {
        let quantiles = [(0.5, ms(2)), (0.99, ms(20)), (0.999, ms(100))];
        let latency = LatencyDistribution::from_quantiles(&quantiles, Some(ms(150)));
        let latency = LatencyModel::Distributed(Arc::new(latency.expect("rising")));
        for (share, at) in quantiles {
            let beyond = sampled_share_above(&latency, at);
            assert!((beyond / (1.0 - share) - 1.0).abs() < 0.2, "{share} {beyond}");
            assert!((latency.share_above(at) / (1.0 - share) - 1.0).abs() < 1e-6, "{share}");
        }
        assert_eq!(
            (sampled_share_above(&latency, ms(150)), latency.share_above(ms(150))),
            (0.0, 0.0)
        );
        assert!(latency.share_above(ms(149)) > 0.0 && latency.share_above(Duration::ZERO) > 0.999);
    }

    #[test]
    fn samples_follow_the_given_counts() {
        let counts = [(ms(9), 25), (ms(1), 50), (ms(3), 25), (ms(5), 0)];
        let latency = LatencyModel::Distributed(Arc::new(
            LatencyDistribution::from_counts(&counts).expect("some"),
        ));
        for (bound, beyond) in [(ms(0), 1.0), (ms(1), 0.5), (ms(3), 0.25), (ms(8), 0.25)] {
            assert_eq!(latency.share_above(bound), beyond, "{bound:?}");
            assert!((sampled_share_above(&latency, bound) - beyond).abs() < 0.01, "{bound:?}");
        }
        assert_eq!((latency.share_above(ms(9)), sampled_share_above(&latency, ms(9))), (0.0, 0.0));
    }

    #[test]
    fn samples_follow_the_given_steps() {
        let steps = [(0.0, ms(1)), (0.9, ms(2)), (0.99, ms(7))];
        let latency = LatencyModel::Distributed(Arc::new(
            LatencyDistribution::from_steps(&steps).expect("some"),
        ));
        assert!((latency.share_above(ms(2)) - 0.1).abs() < 1e-9);
        assert!((sampled_share_above(&latency, ms(2)) - 0.1).abs() < 0.01);
        assert_eq!(latency.share_above(ms(7)), 0.0);
    }

    #[test]
    fn non_increasing_quantiles_are_rejected() {
        for bad in
            [&[(0.5, ms(2))][..], &[(0.9, ms(2)), (0.5, ms(3))], &[(0.5, ms(2)), (0.9, ms(2))]]
        {
            assert_eq!(LatencyDistribution::from_quantiles(bad, None), None);
        }
        assert_eq!(LatencyDistribution::from_counts(&[(ms(1), 0)]), None);
        assert_eq!(LatencyDistribution::from_steps(&[]), None);
    }
}
