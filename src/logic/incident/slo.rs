//! Service level objectives: error budgets and burn rates.
//!
//! Requests are counted in three rings of buckets: minutes for an hour, five minutes for a day, and
//! hours for thirty days. Time is an argument in seconds since 1970, so that a history can outlive
//! its process.

use std::time::Duration;

/// The objectives of a route or a pool; at least one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SloObjectives {
    /// Target ratio of requests without failure, in 0..1.
    pub availability: Option<f64>,
    pub latency: Option<LatencyObjective>,
}

/// The latency objective of requests without failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyObjective {
    /// Target ratio of requests within the threshold, in 0..1.
    pub target_ratio: f64,
    /// From the arrival of a request to its response head.
    pub threshold: Duration,
}

/// Events, and those that violate the objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SloCounts {
    pub total: u64,
    pub bad: u64,
}

impl SloCounts {
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            bad: self.bad.saturating_add(other.bad),
        }
    }

    /// The difference to an earlier count; zero where the count has decreased.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let all = self.total.saturating_sub(before.total);
        Self { total: all, bad: self.bad.saturating_sub(before.bad).min(all) }
    }

    /// Ratio of good events; 1 without events.
    pub fn good_ratio(self) -> f64 {
        if self.total == 0 { 1.0 } else { 1.0 - self.bad as f64 / self.total as f64 }
    }

    /// Ratio of good events in nines (99.95 % is 3.3); `None` without bad events.
    pub fn nines(self) -> Option<f64> {
        (self.bad > 0 && self.total > 0).then(|| -(self.bad as f64 / self.total as f64).log10())
    }

    /// Consumption of the error budget relative to a steady consumption over the whole period.
    pub fn burn_rate(self, objective: f64) -> f64 {
        let allowed = 1.0 - objective;
        if self.bad == 0 || allowed <= 0.0 {
            return 0.0;
        }
        (1.0 - self.good_ratio()) / allowed
    }

    /// Remaining fraction of the error budget: 1 is untouched, below 0 is overspent.
    pub fn budget_left(self, objective: f64) -> f64 {
        1.0 - self.burn_rate(objective)
    }
}

/// A period over which events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SloWindow {
    Minutes5,
    Minutes30,
    Hour,
    Hours6,
    Day,
    Days30,
}

impl SloWindow {
    /// Windows of reported budgets.
    pub const BUDGET_WINDOWS: [Self; 3] = [Self::Hour, Self::Day, Self::Days30];

    /// Windows of reported burn rates.
    pub const BURN_RATE_WINDOWS: [Self; 4] =
        [Self::Minutes5, Self::Minutes30, Self::Hour, Self::Hours6];

    /// The word used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minutes5 => "5m",
            Self::Minutes30 => "30m",
            Self::Hour => "1h",
            Self::Hours6 => "6h",
            Self::Day => "24h",
            Self::Days30 => "30d",
        }
    }

    /// The index of the ring, and the number of its buckets in the window.
    fn ring_and_length(self) -> (usize, u32) {
        match self {
            Self::Minutes5 => (0, 5),
            Self::Minutes30 => (0, 30),
            Self::Hour => (0, 60),
            Self::Hours6 => (1, 72),
            Self::Day => (1, 288),
            Self::Days30 => (2, 720),
        }
    }
}

/// Multiwindow burn-rate alerts (Site Reliability Workbook, chapter 5): 2 % of the 30-day budget in
/// one hour, or 5 % in six hours. Both windows must exceed the rate.
pub const BURN_RATE_ALERTS: [BurnRateAlert; 2] = [
    BurnRateAlert {
        name: "fast",
        long_window: SloWindow::Hour,
        short_window: SloWindow::Minutes5,
        burn_rate: 14.4,
    },
    BurnRateAlert {
        name: "slow",
        long_window: SloWindow::Hours6,
        short_window: SloWindow::Minutes30,
        burn_rate: 6.0,
    },
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnRateAlert {
    pub name: &'static str,
    /// Shows that the consumption is significant.
    pub long_window: SloWindow,
    /// Shows that the consumption continues.
    pub short_window: SloWindow,
    /// Minimum burn rate in both windows.
    pub burn_rate: f64,
}

/// Width in seconds and number of buckets of each ring: one more than the longest window, because
/// the newest bucket is incomplete.
const RINGS: [(u64, usize); 3] = [(60, 61), (300, 289), (3_600, 721)];

/// One bucket with its number (time since 1970 divided by the width).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SloBucket {
    number: u32,
    counts: SloCounts,
}

/// The counts of the last thirty days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SloHistory {
    rings: [Vec<SloBucket>; 3],
}

impl Default for SloHistory {
    fn default() -> Self {
        Self { rings: RINGS.map(|(_, length)| vec![SloBucket::default(); length]) }
    }
}

impl SloHistory {
    /// Adds counts at `at_s`.
    pub fn add(&mut self, counts: SloCounts, at_s: u64) {
        if counts == SloCounts::default() {
            return;
        }
        for (ring, (width_s, _)) in RINGS.into_iter().enumerate() {
            self.add_to_bucket(ring, (at_s / width_s) as u32, counts);
        }
    }

    /// Adds to one bucket; ignored if the slot already holds a newer bucket.
    fn add_to_bucket(&mut self, ring: usize, number: u32, counts: SloCounts) {
        let Some(buckets) = self.rings.get_mut(ring) else { return };
        let index = number as usize % buckets.len();
        let bucket = &mut buckets[index];
        if bucket.number < number {
            *bucket = SloBucket { number, counts };
        } else if bucket.number == number {
            bucket.counts = bucket.counts.saturating_add(counts);
        }
    }

    /// The counts of the window that ends at `now_s`, the current bucket included.
    pub fn totals_in(&self, window: SloWindow, now_s: u64) -> SloCounts {
        let (ring, length) = window.ring_and_length();
        let newest = (now_s / RINGS[ring].0) as u32;
        let is_in = |bucket: &&SloBucket| {
            bucket.number <= newest && newest - bucket.number <= length && bucket.number > 0
        };
        let inside = self.rings[ring].iter().filter(is_in);
        inside.fold(SloCounts::default(), |sum, bucket| sum.saturating_add(bucket.counts))
    }

    /// Adds the counts of another history.
    pub fn merge(&mut self, other: &Self) {
        for (ring, buckets) in other.rings.iter().enumerate() {
            for bucket in buckets.iter().filter(|bucket| bucket.number > 0) {
                self.add_to_bucket(ring, bucket.number, bucket.counts);
            }
        }
    }

    /// Serialises all buckets: the format version, then ring, number, total and bad of each bucket.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT_VERSION];
        for (ring, buckets) in self.rings.iter().enumerate() {
            for SloBucket { number, counts } in buckets.iter().filter(|bucket| bucket.number > 0) {
                bytes.push(ring as u8);
                bytes.extend(number.to_le_bytes());
                bytes.extend(counts.total.to_le_bytes());
                bytes.extend(counts.bad.to_le_bytes());
            }
        }
        bytes
    }

    /// Deserialises [`Self::to_bytes`]; `None` for another format.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT_VERSION, buckets) = bytes.split_first()? else { return None };
        let mut series = Self::default();
        let (chunks, []) = buckets.as_chunks::<BUCKET_BYTES>() else { return None };
        for chunk in chunks {
            let (ring, rest) = chunk.split_first()?;
            let (number, rest) = rest.split_first_chunk::<4>()?;
            let (all, bad) = rest.split_first_chunk::<8>()?;
            let counts = SloCounts {
                total: u64::from_le_bytes(*all),
                bad: u64::from_le_bytes(bad.try_into().ok()?),
            };
            series.add_to_bucket(usize::from(*ring), u32::from_le_bytes(*number), counts);
        }
        Some(series)
    }
}

/// First byte of the serialised form.
const FORMAT_VERSION: u8 = 1;

/// Ring (1 byte), number (4), total (8) and bad (8), in that order.
const BUCKET_BYTES: usize = 1 + 4 + 8 + 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_700_000_000;

    fn counts(all: u64, bad: u64) -> SloCounts {
        SloCounts { total: all, bad }
    }

    #[test]
    fn events_outside_window_are_not_counted() {
        let mut series = SloHistory::default();
        series.add(counts(10, 1), NOW_S - 40 * 24 * 3_600);
        series.add(counts(20, 2), NOW_S - 2 * 24 * 3_600);
        series.add(counts(40, 3), NOW_S - 5 * 3_600);
        series.add(counts(80, 4), NOW_S - 600);
        series.add(counts(160, 5), NOW_S);
        let all = [
            SloWindow::Minutes5,
            SloWindow::Minutes30,
            SloWindow::Hour,
            SloWindow::Hours6,
            SloWindow::Day,
            SloWindow::Days30,
        ]
        .map(|span| series.totals_in(span, NOW_S).total);
        assert_eq!(all, [160, 240, 240, 280, 280, 300]);
        assert_eq!(series.totals_in(SloWindow::Days30, NOW_S).bad, 14);
        assert_eq!(
            series.totals_in(SloWindow::Days30, NOW_S + 31 * 24 * 3_600),
            SloCounts::default()
        );
    }

    #[test]
    fn burn_rate_of_one_uses_budget_exactly() {
        let objective = 0.999;
        assert!((counts(1_000, 1).burn_rate(objective) - 1.0).abs() < 1e-9);
        assert!((counts(1_000, 15).burn_rate(objective) - 15.0).abs() < 1e-9);
        assert!((counts(10_000, 4).budget_left(objective) - 0.6).abs() < 1e-9);
        assert!(counts(1_000, 2).budget_left(objective) < 0.0);
        assert_eq!(
            (SloCounts::default().burn_rate(objective), SloCounts::default().good_ratio()),
            (0.0, 1.0)
        );
        let nines = counts(10_000, 5).nines().expect("some failed");
        assert!((nines - 3.301).abs() < 1e-3);
        assert_eq!(counts(10, 0).nines(), None);
    }

    #[test]
    fn reset_counters_subtract_nothing() {
        assert_eq!(counts(5, 2).since(counts(9, 9)), SloCounts::default());
        assert_eq!(counts(15, 9).since(counts(9, 1)), counts(6, 6), "no more bad ones than all");
    }

    proptest! {
        #[test]
        fn history_survives_serialization_and_merge(
            events in prop::collection::vec((0_u64..3_000_000, 1_u64..1_000, 0_u64..10), 0..80),
        ) {
            let (mut whole, mut odd, mut even) =
                (SloHistory::default(), SloHistory::default(), SloHistory::default());
            let mut events = events;
            events.sort_unstable();
            for (index, (ago_s, all, bad)) in events.iter().rev().enumerate() {
                let (at_s, counts) = (NOW_S - ago_s, counts(all + bad, *bad));
                whole.add(counts, at_s);
                if index % 2 == 0 { odd.add(counts, at_s) } else { even.add(counts, at_s) }
            }
            prop_assert_eq!(SloHistory::from_bytes(&whole.to_bytes()), Some(whole.clone()));
            odd.merge(&even);
            for span in SloWindow::BURN_RATE_WINDOWS.into_iter().chain(SloWindow::BUDGET_WINDOWS) {
                prop_assert_eq!(odd.totals_in(span, NOW_S), whole.totals_in(span, NOW_S));
            }
        }

        #[test]
        fn history_from_arbitrary_bytes_does_not_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = SloHistory::from_bytes(&bytes);
        }
    }
}
