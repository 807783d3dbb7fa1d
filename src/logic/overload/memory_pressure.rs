//! What is done about memory, by how much of its bound is used. The steps are those of Envoy's
//! overload manager: shrink, shed, stop.
//!
//! What was freed does not always go back to the system. Memory that has stopped growing is therefore
//! taken for what it may be, the allocator's and nobody's: the level eases by one step after a while,
//! and is back at once with the next growth. Near the bound that is believed only when many of the
//! connections have gone that were there when it grew.

use std::time::{Duration, Instant};

/// What is done, each in addition to what comes before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPressureLevel {
    #[default]
    Calm,
    /// Idle connections are closed.
    Shrink,
    /// New requests are refused.
    Shed,
    /// No connections are accepted.
    Stop,
}

impl MemoryPressureLevel {
    /// Every level, in order.
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

    /// Where it begins, in thousandths of the bound.
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

/// A level ends so many thousandths of the bound below its beginning.
const HYSTERESIS_PERMILLE: u64 = 10;

/// Growth by fewer thousandths of the bound is none.
const MIN_GROWTH_PERMILLE: u64 = 5;

/// From here on, in thousandths of the bound, nothing is eased while most connections are there.
const NEAR_LIMIT_PERMILLE: u64 = 990;

/// Without growth for this long the level eases by a step.
const EASE_AFTER: Duration = Duration::from_secs(3);

/// Follows the memory that is used.
#[derive(Debug)]
pub struct MemoryPressureTracker {
    level: MemoryPressureLevel,
    eased_steps: u32,
    /// Growth is counted from here.
    growth_base_bytes: u64,
    /// As many connections were open then.
    connections_at_growth: usize,
    stable_since: Instant,
}

impl MemoryPressureTracker {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            level: MemoryPressureLevel::Calm,
            eased_steps: 0,
            growth_base_bytes: 0,
            connections_at_growth: 0,
            stable_since: now,
        }
    }

    /// `used` of `bound` bytes are used `now`, while `open` connections are; what is to be done.
    pub fn update(
        &mut self,
        (used, bound): (u64, u64),
        open: usize,
        now: Instant,
    ) -> MemoryPressureLevel {
        let permille_of_limit = |bytes: u64| bytes.saturating_mul(1_000) / bound.max(1);
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
        let mut watch = MemoryPressureTracker::new(t0);
        let shares = [0, 919, 920, 949, 950, 979, 980, 971, 970, 969, 941, 939, 911, 909, 0];
        let levels = shares.map(|used| watch.update((used, 1_000), 9, t0));
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
        let mut watch = MemoryPressureTracker::new(t0);
        let mut look = |used, open, ms| watch.update((used, 1_000), open, at(t0, ms));
        assert_eq!(look(981, 9, 0), MemoryPressureLevel::Stop);
        assert_eq!(look(981, 9, 2_999), MemoryPressureLevel::Stop);
        assert_eq!(look(981, 9, 3_000), MemoryPressureLevel::Shed);
        assert_eq!(look(984, 9, 5_999), MemoryPressureLevel::Shed, "no growth to speak of");
        assert_eq!(look(984, 9, 6_000), MemoryPressureLevel::Shrink);
        assert_eq!(look(984, 9, 60_000), MemoryPressureLevel::Shrink, "and no further");
        assert_eq!(look(986, 9, 60_001), MemoryPressureLevel::Stop);
        assert_eq!(look(990, 5, 70_000), MemoryPressureLevel::Stop, "there is no room for that");
        assert_eq!(look(990, 4, 70_001), MemoryPressureLevel::Shed, "unless what used it has gone");
        assert_eq!(look(1_020, 4, 80_000), MemoryPressureLevel::Stop);
        assert_eq!(look(1_020, 4, 90_000), MemoryPressureLevel::Stop);
        assert_eq!(
            (look(1_020, 0, 90_000), look(1_020, 0, 93_000)),
            (MemoryPressureLevel::Shed, MemoryPressureLevel::Shrink)
        );
    }
}
