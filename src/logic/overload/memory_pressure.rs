//! Levels of memory pressure, after Envoy's overload manager: shrink, shed, stop.
//!
//! Freed memory does not always return to the system, so resident memory that has stopped growing
//! may be unused. The level therefore eases by one step after a period without growth, and returns
//! with the next growth. Near the limit it eases only after many of the connections of the last
//! growth have closed.

use std::time::{Duration, Instant};

/// The response to memory pressure; each level includes the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressureLevel {
    #[default]
    Calm,
    /// Idle connections are closed.
    Shrink,
    /// New requests are rejected.
    Shed,
    /// No connections are accepted.
    Stop,
}

impl MemoryPressureLevel {
    /// All levels in ascending order.
    pub const ALL: [Self; 4] = [Self::Calm, Self::Shrink, Self::Shed, Self::Stop];

    /// The word used in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shrink => "shrink",
            Self::Shed => "shed",
            Self::Stop => "stop",
        }
    }

    /// Lower threshold, in thousandths of the memory limit.
    const fn threshold_permille(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Shrink => 920,
            Self::Shed => 950,
            Self::Stop => 980,
        }
    }

    fn next_lower(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }
}

/// A level ends this far below its threshold, in thousandths of the limit.
const HYSTERESIS_PERMILLE: u64 = 10;

/// Smallest increase that counts as growth, in thousandths of the limit.
const MIN_GROWTH_PERMILLE: u64 = 5;

/// From here on, in thousandths of the limit, the level eases only after connections have closed.
const NEAR_LIMIT_PERMILLE: u64 = 990;

/// Time without growth after which the level eases by one step.
const EASE_AFTER: Duration = Duration::from_secs(3);

/// One measurement of the process's memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUsage {
    /// Resident set size in bytes.
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

/// Derives the level from successive measurements.
#[derive(Debug)]
pub struct MemoryPressureTracker {
    level: MemoryPressureLevel,
    eased_steps: u32,
    /// Resident bytes at the last growth.
    growth_base_bytes: u64,
    /// Open connections at the last growth.
    connections_at_growth: usize,
    stable_since: Instant,
}

impl MemoryPressureTracker {
    pub fn new(now: Instant) -> Self {
        Self {
            level: MemoryPressureLevel::Calm,
            eased_steps: 0,
            growth_base_bytes: 0,
            connections_at_growth: 0,
            stable_since: now,
        }
    }

    /// Adds a measurement with the number of open connections; returns the new level.
    pub fn update(&mut self, usage: MemoryUsage, open: usize, now: Instant) -> MemoryPressureLevel {
        let MemoryUsage { used_bytes: used, limit_bytes } = usage;
        let permille_of_limit = |bytes: u64| bytes.saturating_mul(1_000) / limit_bytes.max(1);
        let share = permille_of_limit(used);
        let is_reached = |level: &MemoryPressureLevel| {
            let hysteresis = if *level <= self.level { HYSTERESIS_PERMILLE } else { 0 };
            share + hysteresis >= level.threshold_permille()
        };
        self.level =
            MemoryPressureLevel::ALL.into_iter().rev().find(is_reached).unwrap_or_default();
        if self.level == MemoryPressureLevel::Calm
            || used > self.growth_base_bytes
                && permille_of_limit(used - self.growth_base_bytes) >= MIN_GROWTH_PERMILLE
        {
            (self.eased_steps, self.stable_since) = (0, now);
            (self.growth_base_bytes, self.connections_at_growth) = (used, open);
        }
        self.growth_base_bytes = self.growth_base_bytes.min(used);
        if self.level > MemoryPressureLevel::Shrink
            && (share < NEAR_LIMIT_PERMILLE || open <= self.connections_at_growth / 2)
            && now.saturating_duration_since(self.stable_since) >= EASE_AFTER
        {
            self.eased_steps += 1;
            self.stable_since = now;
        }
        let eased = (0..self.eased_steps).fold(self.level, |level, _| level.next_lower());
        eased.max(self.level.min(MemoryPressureLevel::Shrink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t0: Instant, ms: u64) -> Instant {
        t0 + Duration::from_millis(ms)
    }

    #[test]
    fn levels_start_and_end_at_their_thresholds() {
        let t0 = Instant::now();
        let mut tracker = MemoryPressureTracker::new(t0);
        let shares = [0, 919, 920, 949, 950, 979, 980, 971, 970, 969, 941, 939, 911, 909, 0];
        let levels = shares.map(|used| {
            tracker.update(MemoryUsage { used_bytes: used, limit_bytes: 1_000 }, 9, t0)
        });
        use MemoryPressureLevel::{Calm, Shed, Shrink, Stop};
        assert_eq!(
            levels,
            [
                Calm, Calm, Shrink, Shrink, Shed, Shed, Stop, Stop, Stop, Shed, Shed, Shrink,
                Shrink, Calm, Calm
            ]
        );
    }

    #[test]
    fn stable_memory_eases_level_and_growth_restores_it() {
        let t0 = Instant::now();
        let mut tracker = MemoryPressureTracker::new(t0);
        let mut look = |used, open, ms| {
            tracker.update(MemoryUsage { used_bytes: used, limit_bytes: 1_000 }, open, at(t0, ms))
        };
        assert_eq!(look(981, 9, 0), MemoryPressureLevel::Stop);
        assert_eq!(look(981, 9, 2_999), MemoryPressureLevel::Stop);
        assert_eq!(look(981, 9, 3_000), MemoryPressureLevel::Shed);
        assert_eq!(look(984, 9, 5_999), MemoryPressureLevel::Shed, "too little growth to count");
        assert_eq!(look(984, 9, 6_000), MemoryPressureLevel::Shrink);
        assert_eq!(look(984, 9, 60_000), MemoryPressureLevel::Shrink, "it eases no further");
        assert_eq!(look(986, 9, 60_001), MemoryPressureLevel::Stop);
        assert_eq!(
            look(990, 5, 70_000),
            MemoryPressureLevel::Stop,
            "too many connections are left"
        );
        assert_eq!(
            look(990, 4, 70_001),
            MemoryPressureLevel::Shed,
            "half of the connections have closed"
        );
        assert_eq!(look(1_020, 4, 80_000), MemoryPressureLevel::Stop);
        assert_eq!(look(1_020, 4, 90_000), MemoryPressureLevel::Stop);
        assert_eq!(
            (look(1_020, 0, 90_000), look(1_020, 0, 93_000)),
            (MemoryPressureLevel::Shed, MemoryPressureLevel::Shrink)
        );
    }
}
