//! Whether predictions of very different windows are right, taken together.
//!
//! Each failure has a configuration of its own, and so a predicted distribution F of its own; one
//! window each says nothing of its quantiles. What can be taken together is each window's rank in
//! its own prediction, F(window): if every prediction is right, ranks are uniform between 0 and 1,
//! whatever the windows (the probability integral transform). So 99 of 100 ranks are at most 0.99.
//! And half of the windows are below their own predicted median: the median of window / predicted
//! median is 1, however the medians differ.

use crate::judge::quantile;

/// One window with what was predicted of it.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Equal steps of the predicted distribution, from its least to its most.
    pub(crate) steps_ms: Vec<f64>,
    /// All but a hundredth.
    pub(crate) p99_ms: f64,
    /// What was measured; `None` if no verdict came.
    pub(crate) took_ms: Option<f64>,
}

impl Point {
    /// The predicted median.
    pub(crate) fn median_ms(&self) -> f64 {
        self.steps_ms[self.steps_ms.len() / 2]
    }

    /// Whether it lies within the predicted 99th percentile.
    pub(crate) fn is_inside(&self) -> bool {
        self.took_ms.is_some_and(|took_ms| took_ms <= self.p99_ms)
    }

    /// Where it lies in its prediction, 0 to 1.
    pub(crate) fn rank(&self) -> f64 {
        let Some(took_ms) = self.took_ms else { return 1.0 };
        let steps = &self.steps_ms;
        let above = steps.partition_point(|step| *step <= took_ms);
        if above == 0 || above == steps.len() {
            return if above == 0 { 0.0 } else { 1.0 };
        }
        let (low, high) = (steps[above - 1], steps[above]);
        let part = (took_ms - low) / (high - low);
        ((above - 1) as f64 + part) / (steps.len() - 1) as f64
    }
}

/// What many of them come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Calibration {
    /// How many there are.
    pub(crate) points: usize,
    /// Those within their 99th percentile.
    pub(crate) inside: usize,
    /// The median of window / predicted median.
    pub(crate) median_ratio: f64,
    /// The mean rank: a half, if predictions are right; more, if windows are longer.
    pub(crate) mean_rank: f64,
    /// The most by which the share of ranks up to some rank differs from it (Kolmogorov's
    /// distance); beyond 1.36 / √points once in twenty times, if predictions are right.
    pub(crate) distance: f64,
}

impl Calibration {
    /// `None` of none.
    pub(crate) fn of(points: &[Point]) -> Option<Self> {
        let ratio =
            |point: &Point| point.took_ms.map_or(f64::INFINITY, |took| took / point.median_ms());
        let sorted = |value: &dyn Fn(&Point) -> f64| {
            let mut all: Vec<f64> = points.iter().map(value).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (ratios, ranks) = (sorted(&ratio), sorted(&Point::rank));
        let count = points.len() as f64;
        let gap = |(index, rank): (usize, &f64)| {
            let (before, after) = (index as f64 / count, (index + 1) as f64 / count);
            (rank - before).abs().max((after - rank).abs())
        };
        Some(Self {
            points: points.len(),
            inside: points.iter().filter(|point| point.is_inside()).count(),
            median_ratio: quantile(&ratios, 0.5)?,
            mean_rank: ranks.iter().sum::<f64>() / count,
            distance: ranks.iter().enumerate().map(gap).fold(0.0, f64::max),
        })
    }
}
