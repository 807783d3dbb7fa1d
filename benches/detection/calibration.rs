//! Calibration of predictions over very different windows.
//!
//! Each failure has its own configuration and predicted distribution F, and a single window cannot
//! test its quantiles. Ranks F(window) can be pooled: if every prediction is right, they are
//! uniform between 0 and 1 (probability integral transform). So 99 of 100 ranks are at most 0.99,
//! and the median of window / predicted median is 1.

use crate::evaluation::quantile;

/// One window with its prediction.
#[derive(Clone, Debug)]
pub(crate) struct CalibrationPoint {
    /// Quantiles of the predicted distribution in equal steps, from minimum to maximum.
    pub(crate) quantiles_ms: Vec<f64>,
    /// The predicted 99th percentile.
    pub(crate) p99_ms: f64,
    /// The measured window; `None` without a verdict.
    pub(crate) took_ms: Option<f64>,
}

impl CalibrationPoint {
    pub(crate) fn median_ms(&self) -> f64 {
        self.quantiles_ms[self.quantiles_ms.len() / 2]
    }

    /// Whether the window is within the predicted 99th percentile.
    pub(crate) fn is_within_p99(&self) -> bool {
        self.took_ms.is_some_and(|took_ms| took_ms <= self.p99_ms)
    }

    /// The rank of the window in its prediction, 0 to 1.
    pub(crate) fn rank(&self) -> f64 {
        let Some(took_ms) = self.took_ms else { return 1.0 };
        let quantiles = &self.quantiles_ms;
        let above = quantiles.partition_point(|step| *step <= took_ms);
        if above == 0 || above == quantiles.len() {
            return if above == 0 { 0.0 } else { 1.0 };
        }
        let (low, high) = (quantiles[above - 1], quantiles[above]);
        let fraction = (took_ms - low) / (high - low);
        ((above - 1) as f64 + fraction) / (quantiles.len() - 1) as f64
    }
}

/// The summary of many windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Calibration {
    /// The number of windows.
    pub(crate) point_count: usize,
    /// The number of windows within their 99th percentile.
    pub(crate) within_p99: usize,
    /// The median of window / predicted median.
    pub(crate) median_ratio: f64,
    /// The mean rank: a half if predictions are right, more if windows are longer.
    pub(crate) mean_rank: f64,
    /// The Kolmogorov-Smirnov distance of the ranks from uniform; if predictions are right, it
    /// exceeds 1.36 / √points once in twenty times.
    pub(crate) kolmogorov_distance: f64,
}

impl Calibration {
    /// `None` without windows.
    pub(crate) fn from_points(points: &[CalibrationPoint]) -> Option<Self> {
        let ratio = |point: &CalibrationPoint| {
            point.took_ms.map_or(f64::INFINITY, |took| took / point.median_ms())
        };
        let sorted = |value: &dyn Fn(&CalibrationPoint) -> f64| {
            let mut all: Vec<f64> = points.iter().map(value).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (ratios, ranks) = (sorted(&ratio), sorted(&CalibrationPoint::rank));
        let count = points.len() as f64;
        let gap = |(index, rank): (usize, &f64)| {
            let (before, after) = (index as f64 / count, (index + 1) as f64 / count);
            (rank - before).abs().max((after - rank).abs())
        };
        Some(Self {
            point_count: points.len(),
            within_p99: points.iter().filter(|point| point.is_within_p99()).count(),
            median_ratio: quantile(&ratios, 0.5)?,
            mean_rank: ranks.iter().sum::<f64>() / count,
            kolmogorov_distance: ranks.iter().enumerate().map(gap).fold(0.0, f64::max),
        })
    }
}
