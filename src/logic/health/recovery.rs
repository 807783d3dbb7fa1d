//! Recovery: the hold-down of a verdict, and the ramp of a returning share.

use std::time::{Duration, Instant};

use crate::logic::model::topology::RecoverySpec;

/// The share at the start of a ramp, in thousandths: enough for a verdict by traffic.
const RAMP_START_PERMILLE: u32 = 100;

/// The full share, in thousandths.
pub const FULL_SHARE_PERMILLE: u32 = 1_000;

/// The recent verdicts on an endpoint or a zone, and the hold-down that follows.
///
/// Every verdict counts one; the count halves in every [`RecoverySpec::hold_down_max`]. The first
/// verdict has no hold-down; each further one doubles it, as BGP damps routes that flap (RFC 2439).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlapHistory {
    /// The decayed number of verdicts, as of [`FlapHistory::last_down`].
    pub count: f32,
    pub last_down: Option<Instant>,
}

impl FlapHistory {
    /// Counts a verdict; returns its hold-down.
    pub fn record_down(&mut self, recover: &RecoverySpec, now: Instant) -> Duration {
        self.count = self.decayed_count(recover, now) + 1.0;
        self.last_down = Some(now);
        let doublings = self.count - 1.0;
        if doublings < 0.5 {
            return Duration::ZERO;
        }
        let factor = f64::from((doublings - 1.0).max(0.0)).exp2();
        Duration::try_from_secs_f64(recover.hold_down.as_secs_f64() * factor)
            .unwrap_or(recover.hold_down_max)
            .min(recover.hold_down_max)
    }

    pub fn decayed_count(&self, recover: &RecoverySpec, now: Instant) -> f32 {
        let half_lives = self.last_down.map_or(0.0, |at| {
            now.saturating_duration_since(at).as_secs_f32()
                / recover.hold_down_max.as_secs_f32().max(0.001)
        });
        self.count * (-half_lives).exp2()
    }
}

/// A share that grows back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ramp {
    #[default]
    Full,
    Since(Instant),
}

impl Ramp {
    /// A ramp of this length, of which `part`, in 0..1, has passed.
    pub fn at_fraction(part: f64, length: Duration, now: Instant) -> Self {
        Self::Since(now.checked_sub(length.mul_f64(part.clamp(0.0, 1.0))).unwrap_or(now))
    }

    /// Its share now, in thousandths.
    pub fn share_permille(self, length: Duration, now: Instant) -> u32 {
        let Self::Since(since) = self else { return FULL_SHARE_PERMILLE };
        let passed = now.saturating_duration_since(since);
        if passed >= length {
            return FULL_SHARE_PERMILLE;
        }
        let part = passed.as_secs_f64() / length.as_secs_f64();
        RAMP_START_PERMILLE + (part * f64::from(FULL_SHARE_PERMILLE - RAMP_START_PERMILLE)) as u32
    }

    /// A ramp that has reached this share, in thousandths.
    pub fn from_share_permille(share_permille: u32, length: Duration, now: Instant) -> Self {
        if share_permille >= FULL_SHARE_PERMILLE {
            return Self::Full;
        }
        let grown = share_permille.saturating_sub(RAMP_START_PERMILLE);
        now.checked_sub(length * grown / (FULL_SHARE_PERMILLE - RAMP_START_PERMILLE))
            .map_or(Self::Since(now), Self::Since)
    }

    /// Ends a ramp that has reached the full share.
    pub fn finish_if_full(&mut self, length: Duration, now: Instant) {
        if self.share_permille(length, now) == FULL_SHARE_PERMILLE {
            *self = Self::Full;
        }
    }

    /// Whether it still grows.
    pub fn is_growing(self) -> bool {
        self != Self::Full
    }
}

/// The interval at which growing shares are computed: a hundred steps in a ramp, and at most fifty
/// a second.
pub fn ramp_update_interval(length: Duration) -> Duration {
    (length / 100).max(Duration::from_millis(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn hold_down_doubles_with_flaps_and_decays() {
        let recover =
            RecoverySpec { hold_down: secs(1), hold_down_max: secs(60), ..RecoverySpec::default() };
        let (mut flaps, t0) = (FlapHistory::default(), Instant::now());
        let held: Vec<Duration> = (0..9).map(|_| flaps.record_down(&recover, t0)).collect();
        assert_eq!(held[..5], [secs(0), secs(1), secs(2), secs(4), secs(8)]);
        assert_eq!(held[8], secs(60), "bounded");
        assert!(flaps.record_down(&recover, t0 + secs(3_600)).is_zero(), "forgotten");
    }

    #[test]
    fn ramp_grows_smoothly_to_full_share() {
        let t0 = Instant::now();
        let ramp = Ramp::Since(t0);
        let shares: Vec<u32> = (0..=100)
            .map(|part| ramp.share_permille(secs(10), t0 + secs(10) * part / 100))
            .collect();
        assert_eq!((shares[0], shares[100]), (RAMP_START_PERMILLE, FULL_SHARE_PERMILLE));
        assert!(shares.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] <= 10));
        assert_eq!(Ramp::Full.share_permille(secs(10), t0), FULL_SHARE_PERMILLE);
        assert_eq!(
            ramp.share_permille(Duration::ZERO, t0),
            FULL_SHARE_PERMILLE,
            "a ramp of no length"
        );
        for share in [RAMP_START_PERMILLE, 250, 999, FULL_SHARE_PERMILLE] {
            let begun = Ramp::from_share_permille(share, secs(10), t0).share_permille(secs(10), t0);
            assert!(share - begun <= 1, "{begun} and not {share}");
        }
        assert_eq!(Ramp::from_share_permille(0, secs(10), t0), Ramp::Since(t0));
    }
}
