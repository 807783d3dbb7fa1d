//! Quantiles, and the acceptance of a cell.

/// The value that a share (0..=1) of `sorted` does not exceed, by nearest rank.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The number of runs that may exceed the predicted 99th percentile: 5 of 100, and at least one.
pub(crate) fn max_outside(runs: usize) -> usize {
    (runs / 20).max(1)
}

/// The number of runs within the bound: detected by `bound_ms`, or without a bound not detected.
pub(crate) fn count_inside(took_ms: &[Option<f64>], bound_ms: Option<f64>) -> usize {
    let is_inside = |took: &&Option<f64>| match (took, bound_ms) {
        (Some(took), Some(bound)) => *took <= bound,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    took_ms.iter().filter(is_inside).count()
}

/// Whether the prediction held.
pub(crate) fn is_prediction_met(took_ms: &[Option<f64>], bound_ms: Option<f64>) -> bool {
    let outside = took_ms.len() - count_inside(took_ms, bound_ms);
    !took_ms.is_empty() && outside <= max_outside(took_ms.len())
}
