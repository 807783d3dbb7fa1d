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
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// Idle connections are closed.
    Shrink,
    /// New requests are refused.
    Shed,
    /// No connections are accepted.
    Stop,
}

impl Level {
    /// Every level, in order.
    pub const ALL: [Self; 4] = [Self::Calm, Self::Shrink, Self::Shed, Self::Stop];

    /// The word used in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shrink => "shrink",
            Self::Shed => "shed",
            Self::Stop => "stop",
        }
    }

    /// Where it begins, in thousandths of the bound.
    const fn begins(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Shrink => 920,
            Self::Shed => 950,
            Self::Stop => 980,
        }
    }

    fn below(self) -> Self {
        Self::ALL[(self as usize).saturating_sub(1)]
    }
}

/// A level ends so many thousandths of the bound below its beginning.
const RELIEF: u64 = 10;

/// Growth by fewer thousandths of the bound is none.
const GROWTH: u64 = 5;

/// From here on, in thousandths of the bound, nothing is eased while most connections are there.
const NEAR: u64 = 990;

/// Without growth for this long the level eases by a step.
const STILL: Duration = Duration::from_secs(3);

/// Follows the memory that is used.
#[derive(Debug)]
pub struct Watch {
    level: Level,
    eased: u32,
    /// Growth is counted from here.
    mark: u64,
    /// As many connections were open then.
    open_then: usize,
    still_since: Instant,
}

impl Watch {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { level: Level::Calm, eased: 0, mark: 0, open_then: 0, still_since: now }
    }

    /// `used` of `bound` bytes are used `now`, while `open` connections are; what is to be done.
    pub fn look(&mut self, (used, bound): (u64, u64), open: usize, now: Instant) -> Level {
        let thousandths = |bytes: u64| bytes.saturating_mul(1_000) / bound.max(1);
        let share = thousandths(used);
        let begins = |level: &Level| {
            let relief = if *level <= self.level { RELIEF } else { 0 };
            share + relief >= level.begins()
        };
        self.level = Level::ALL.into_iter().rev().find(begins).unwrap_or_default();
        if self.level == Level::Calm || used > self.mark && thousandths(used - self.mark) >= GROWTH
        {
            (self.eased, self.still_since) = (0, now);
            (self.mark, self.open_then) = (used, open);
        }
        self.mark = self.mark.min(used);
        if self.level > Level::Shrink
            && (share < NEAR || open <= self.open_then / 2)
            && now.saturating_duration_since(self.still_since) >= STILL
        {
            self.eased += 1;
            self.still_since = now;
        }
        let eased = (0..self.eased).fold(self.level, |level, _| level.below());
        eased.max(self.level.min(Level::Shrink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t0: Instant, ms: u64) -> Instant {
        t0 + Duration::from_millis(ms)
    }

    #[test]
    fn each_level_begins_and_ends_in_its_place() {
        let t0 = Instant::now();
        let mut watch = Watch::new(t0);
        let shares = [0, 919, 920, 949, 950, 979, 980, 971, 970, 969, 941, 939, 911, 909, 0];
        let levels = shares.map(|used| watch.look((used, 1_000), 9, t0));
        use Level::{Calm, Shed, Shrink, Stop};
        assert_eq!(
            levels,
            [
                Calm, Calm, Shrink, Shrink, Shed, Shed, Stop, Stop, Stop, Shed, Shed, Shrink,
                Shrink, Calm, Calm
            ]
        );
    }

    #[test]
    fn what_grows_no_more_is_eased_and_what_grows_again_is_not() {
        let t0 = Instant::now();
        let mut watch = Watch::new(t0);
        let mut look = |used, open, ms| watch.look((used, 1_000), open, at(t0, ms));
        assert_eq!(look(981, 9, 0), Level::Stop);
        assert_eq!(look(981, 9, 2_999), Level::Stop);
        assert_eq!(look(981, 9, 3_000), Level::Shed);
        assert_eq!(look(984, 9, 5_999), Level::Shed, "no growth to speak of");
        assert_eq!(look(984, 9, 6_000), Level::Shrink);
        assert_eq!(look(984, 9, 60_000), Level::Shrink, "and no further");
        assert_eq!(look(986, 9, 60_001), Level::Stop);
        assert_eq!(look(990, 5, 70_000), Level::Stop, "there is no room for that");
        assert_eq!(look(990, 4, 70_001), Level::Shed, "unless what used it has gone");
        assert_eq!(look(1_020, 4, 80_000), Level::Stop);
        assert_eq!(look(1_020, 4, 90_000), Level::Stop);
        assert_eq!((look(1_020, 0, 90_000), look(1_020, 0, 93_000)), (Level::Shed, Level::Shrink));
    }
}
