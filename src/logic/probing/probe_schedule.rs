//! The schedule of probes: one timer per probe of an endpoint.
//!
//! Periods are measured start to start. The first probe is due at once, the second at a phase that
//! follows from the endpoint's identity, so that endpoints which were added together are not probed
//! together forever. Jitter only shortens a period: the closed form of the detection window stays
//! an upper bound.

use std::time::{Duration, Instant};

use crate::logic::health::endpoint_health::Health;
use crate::logic::health::evidence::Evidence;
use crate::logic::model::outcome::{FailureReason, ProbeOutcome};
use crate::logic::model::topology::DetectionSpec;

/// Probes in a burst.
pub const BURST_PROBES: u32 = 3;

/// Time between the starts of two probes of a burst.
pub const BURST_GAP: Duration = Duration::from_millis(20);

/// A burst's probes wait at least this long for an answer.
pub const BURST_TIMEOUT_FLOOR: Duration = Duration::from_millis(25);

/// A burst's probes wait this many round trips at least: a tenfold slowdown is no failure.
pub const BURST_TIMEOUT_RTTS: u32 = 12;

/// The largest share by which jitter shortens a period.
pub const MAX_JITTER: f64 = 0.1;

/// What a probe was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeTrigger {
    Regular,
    /// The burst with this number, which evidence or traffic began.
    Burst(u32),
}

/// The probe timer of one endpoint.
#[derive(Clone, Debug)]
pub struct ProbeTimer {
    regular: RegularProbe,
    burst: ProbeBurst,
    rtt: RttEstimator,
}

#[derive(Clone, Debug)]
struct RegularProbe {
    /// `None` while the next start waits for the running probe to end.
    due: Option<Instant>,
    last_start: Instant,
    is_running: bool,
}

#[derive(Clone, Debug, Default)]
struct ProbeBurst {
    id: u32,
    due: Option<Instant>,
    remaining: u32,
    /// Probes that have not ended.
    in_flight: u32,
    timed_out: u32,
    started: Option<Instant>,
}

impl ProbeTimer {
    /// A timer whose first probe is due `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            regular: RegularProbe { due: Some(now), last_start: now, is_running: false },
            burst: ProbeBurst::default(),
            rtt: RttEstimator::default(),
        }
    }

    /// When the next probe starts; `None` while that depends on the end of a running one.
    pub fn due(&self) -> Option<Instant> {
        match (self.regular.due, self.burst.due) {
            (Some(regular), Some(burst)) => Some(regular.min(burst)),
            (regular, burst) => regular.or(burst),
        }
    }

    /// When the last regular probe started.
    pub fn last_start(&self) -> Instant {
        self.regular.last_start
    }

    /// The smoothed round trip of probes that passed; `None` before the first.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed
    }

    /// Whether what is due by `now` belongs to a burst.
    pub fn is_burst_due(&self, now: Instant) -> bool {
        self.burst.due.is_some_and(|due| due <= now)
    }

    /// Starts the probe that is due; returns its trigger and timeout, or `None` if none is due.
    /// `period` is that of regular probes in the present state, `jitter_fraction` a random share in
    /// 0..1.
    pub fn start(
        &mut self,
        now: Instant,
        period: Duration,
        timeout: Duration,
        jitter_fraction: f64,
    ) -> Option<(ProbeTrigger, Duration)> {
        if self.is_burst_due(now) {
            self.burst.remaining -= 1;
            self.burst.in_flight += 1;
            self.burst.due = (self.burst.remaining > 0).then(|| now + BURST_GAP);
            let burst_timeout =
                self.rtt.burst_timeout().unwrap_or(timeout).max(BURST_TIMEOUT_FLOOR);
            return Some((ProbeTrigger::Burst(self.burst.id), burst_timeout.min(timeout)));
        }
        if self.regular.due.is_none_or(|due| due > now) {
            return None;
        }
        if self.regular.is_running {
            self.regular.due = None;
            return None;
        }
        let gap = period.mul_f64(1.0 - MAX_JITTER * jitter_fraction);
        self.regular = RegularProbe { due: Some(now + gap), last_start: now, is_running: true };
        Some((ProbeTrigger::Regular, timeout))
    }

    /// Handles the result of a probe; returns its evidence.
    ///
    /// Silence in a burst counts only when the whole burst met it: its timeouts are short, and one
    /// pause of the endpoint must not count three times.
    ///
    /// While the endpoint is down no round trip is learnt, as RFC 6298 learns none from a segment
    /// that was sent twice (Karn's algorithm): a probe that waited in a stopped process until it
    /// ran again measures the failure.
    pub fn finish(
        &mut self,
        trigger: ProbeTrigger,
        outcome: ProbeOutcome,
        health: Health,
        now: Instant,
    ) -> Option<Evidence> {
        if trigger == ProbeTrigger::Regular {
            self.regular.is_running = false;
            if self.regular.due.is_none() {
                self.regular.due = Some(now);
            }
        }
        if trigger == ProbeTrigger::Burst(self.burst.id) {
            self.burst.in_flight = self.burst.in_flight.saturating_sub(1);
        }
        match (outcome, trigger) {
            (ProbeOutcome::Inconclusive, _) => None,
            (ProbeOutcome::Pass { latency } | ProbeOutcome::Degraded { latency }, _) => {
                if health.can_serve(true) {
                    self.rtt.record(latency);
                }
                self.cancel_burst();
                Some(Evidence::Pass)
            }
            (ProbeOutcome::Fail(failure), ProbeTrigger::Burst(serial))
                if failure.reason == FailureReason::Timeout =>
            {
                if serial != self.burst.id {
                    return None;
                }
                self.burst.timed_out += 1;
                (self.burst.timed_out == BURST_PROBES).then_some(Evidence::Firm(failure))
            }
            (ProbeOutcome::Fail(failure), _) => Some(Evidence::Firm(failure)),
        }
    }

    /// Begins a burst now, unless one began less than `min_gap` ago or has not ended: its timeouts
    /// would be lost.
    pub fn begin_burst(&mut self, now: Instant, min_gap: Duration) {
        let has_rested = self.burst.started.is_none_or(|started| now >= started + min_gap);
        if self.burst.remaining == 0 && self.burst.in_flight == 0 && has_rested {
            self.burst = ProbeBurst {
                id: self.burst.id.wrapping_add(1),
                due: Some(now),
                remaining: BURST_PROBES,
                in_flight: 0,
                timed_out: 0,
                started: Some(now),
            };
        }
    }

    /// Starts no more probes of a burst, because the verdict is known.
    pub fn cancel_burst(&mut self) {
        self.burst.due = None;
        self.burst.remaining = 0;
    }

    /// Adapts regular probes to a new period: the next start is one period after the last, or now
    /// if that has passed.
    pub fn apply_period(&mut self, now: Instant, period: Duration) {
        if self.regular.due.is_some() {
            self.regular.due = Some(now.max(self.regular.last_start + period));
        }
    }

    /// Moves the next regular start to `phase` (a share in 0..1 of the interval) from now.
    pub fn set_phase(&mut self, now: Instant, phase: f64, interval: Duration) {
        self.regular.due = Some(now + interval.mul_f64(phase));
    }

    /// Makes the next regular probe due now.
    pub fn probe_now(&mut self, now: Instant) {
        self.regular.due = Some(now);
    }
}

/// The period of regular probes in a state.
pub fn probe_period(health: Health, detect: &DetectionSpec) -> Duration {
    match health {
        Health::Up => detect.interval,
        Health::Unknown { .. } | Health::Suspect { .. } | Health::Returning { .. } => {
            detect.fast_interval
        }
        Health::Down { .. } => detect.down_interval,
    }
}

/// The phase of an endpoint, in 0..1: the FNV-1a hash of its name, so that it survives restarts.
pub fn probe_phase(pool: &str, address: &str) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in pool.bytes().chain([b'/']).chain(address.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV's high bits hardly differ between neighbouring addresses: fold and mix before use.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// A smoothed round trip, as RFC 6298 keeps it.
#[derive(Clone, Debug, Default)]
struct RttEstimator {
    smoothed: Option<Duration>,
}

impl RttEstimator {
    fn record(&mut self, sample: Duration) {
        self.smoothed = Some(self.smoothed.map_or(sample, |mean| (mean * 7 + sample) / 8));
    }

    fn burst_timeout(&self) -> Option<Duration> {
        self.smoothed.map(|mean| mean * BURST_TIMEOUT_RTTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::model::outcome::Failure;

    const UP: Health = Health::Up;

    const TIMEOUT: ProbeOutcome = ProbeOutcome::Fail(Failure::http(FailureReason::Timeout));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn overlong_probe_delays_the_next_until_it_ends() {
        let detect =
            DetectionSpec { interval: ms(100), timeout: ms(500), ..DetectionSpec::default() };
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        assert!(timer.start(t0, detect.interval, detect.timeout, 0.0).is_some());
        assert_eq!(timer.due(), Some(t0 + ms(100)));
        assert!(timer.start(t0 + ms(100), detect.interval, detect.timeout, 0.0).is_none());
        assert_eq!(timer.due(), None);
        timer.finish(ProbeTrigger::Regular, TIMEOUT, UP, t0 + ms(500));
        assert_eq!(timer.due(), Some(t0 + ms(500)));
    }

    #[test]
    fn jitter_only_shortens_the_period() {
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        for random in [0.0, 0.3, 0.999] {
            let mut timer = ProbeTimer::new(t0);
            timer.start(t0, detect.interval, detect.timeout, random);
            let due = timer.due().expect("regular");
            assert!(due <= t0 + detect.interval && due >= t0 + detect.interval.mul_f64(0.9));
        }
    }

    #[test]
    fn burst_of_three_timeouts_is_one_strike() {
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        timer.start(t0, detect.interval, detect.timeout, 0.0);
        timer.finish(ProbeTrigger::Regular, ProbeOutcome::Pass { latency: ms(1) }, UP, t0 + ms(1));
        timer.begin_burst(t0 + ms(10), ms(100));
        timer.begin_burst(t0 + ms(11), ms(100));
        let mut triggers = Vec::new();
        for at in [10, 30, 50] {
            assert_eq!(timer.due(), Some(t0 + ms(at)));
            let (trigger, timeout) =
                timer.start(t0 + ms(at), detect.interval, detect.timeout, 0.0).expect("due");
            assert_eq!(timeout, BURST_TIMEOUT_FLOOR);
            triggers.push(trigger);
        }
        assert_eq!(timer.finish(triggers[0], TIMEOUT, UP, t0 + ms(60)), None);
        assert_eq!(timer.finish(triggers[1], TIMEOUT, UP, t0 + ms(70)), None);
        assert!(matches!(
            timer.finish(triggers[2], TIMEOUT, UP, t0 + ms(80)),
            Some(Evidence::Firm(_))
        ));
        assert_eq!(timer.due(), Some(t0 + ms(1000)));
    }

    #[test]
    fn next_burst_waits_for_running_burst_to_end() {
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        timer.start(t0, detect.interval, detect.timeout, 0.0);
        timer.begin_burst(t0, ms(10));
        let triggers: Vec<_> = [0, 20, 40]
            .map(|at| {
                timer.start(t0 + ms(at), detect.interval, detect.timeout, 0.0).expect("due").0
            })
            .to_vec();
        timer.begin_burst(t0 + ms(60), ms(10));
        assert_eq!(timer.finish(triggers[0], TIMEOUT, UP, t0 + ms(70)), None);
        assert_eq!(timer.finish(triggers[1], TIMEOUT, UP, t0 + ms(80)), None);
        timer.begin_burst(t0 + ms(85), ms(10));
        assert!(matches!(
            timer.finish(triggers[2], TIMEOUT, UP, t0 + ms(90)),
            Some(Evidence::Firm(_))
        ));
        timer.begin_burst(t0 + ms(95), ms(10));
        assert_eq!(timer.due(), Some(t0 + ms(95)));
    }

    #[test]
    fn pass_cancels_the_burst() {
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        timer.start(t0, detect.interval, detect.timeout, 0.0);
        timer.begin_burst(t0, ms(100));
        let (trigger, _) = timer.start(t0, detect.interval, detect.timeout, 0.0).expect("burst");
        let evidence = timer.finish(trigger, ProbeOutcome::Pass { latency: ms(1) }, UP, t0 + ms(1));
        assert_eq!(evidence, Some(Evidence::Pass));
        assert_eq!(timer.due(), Some(t0 + ms(1000)));
    }

    #[test]
    fn burst_timeout_allows_tenfold_slowdown() {
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        timer.start(t0, detect.interval, detect.timeout, 0.0);
        timer.finish(
            ProbeTrigger::Regular,
            ProbeOutcome::Pass { latency: ms(20) },
            UP,
            t0 + ms(20),
        );
        timer.begin_burst(t0 + ms(30), ms(100));
        let (_, timeout) =
            timer.start(t0 + ms(30), detect.interval, detect.timeout, 0.0).expect("due");
        assert!(timeout > ms(200));
    }

    #[test]
    fn probe_of_down_endpoint_does_not_update_rtt() {
        let down = Health::Down { failure: Failure::http(FailureReason::Timeout) };
        let detect = DetectionSpec::default();
        let t0 = Instant::now();
        let mut timer = ProbeTimer::new(t0);
        timer.start(t0, detect.interval, detect.timeout, 0.0);
        timer.finish(ProbeTrigger::Regular, ProbeOutcome::Pass { latency: ms(1) }, UP, t0 + ms(1));
        timer.start(t0 + ms(1000), detect.interval, detect.timeout, 0.0);
        let late = ProbeOutcome::Pass { latency: ms(400) };
        timer.finish(ProbeTrigger::Regular, late, down, t0 + ms(1400));
        timer.begin_burst(t0 + ms(1500), ms(100));
        let (_, timeout) =
            timer.start(t0 + ms(1500), detect.interval, detect.timeout, 0.0).expect("burst");
        assert_eq!(timeout, BURST_TIMEOUT_FLOOR);
    }

    #[test]
    fn probe_phases_spread_evenly() {
        let mut counts = [0u32; 10];
        for host in 0..10_000 {
            let address = format!("10.0.{}.{}:9000", host / 256, host % 256);
            counts[(probe_phase("web", &address) * 10.0) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
