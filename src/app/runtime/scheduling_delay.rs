//! Scheduling delay: the time for which threads of this process wait for a processor.
//!
//! Linux counts it for each thread (`/proc/PID/task/TID/schedstat`: nanoseconds on a processor,
//! nanoseconds runnable without one, time slices). Latency that this delay causes is no evidence
//! against an endpoint.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The thread counts as late in a period from this share of delay on.
const LATE_SHARE: f64 = 0.05;

/// The shortest period for which lateness is computed.
const MIN_PERIOD: Duration = Duration::from_millis(100);

/// The time for which all threads of this process together have waited for a processor. `None`
/// where the kernel does not count it.
pub fn process_delay() -> Option<Duration> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let delay = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        parse_delay(&text)
    };
    let delays: Vec<Duration> = threads.flatten().filter_map(delay).collect();
    (!delays.is_empty()).then(|| delays.into_iter().sum())
}

/// Samples the delay of the process in a thread of its own, for later queries by period.
#[derive(Debug)]
pub struct DelayRecorder {
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Duration)>>,
}

impl DelayRecorder {
    /// Starts to sample every `interval`.
    pub fn start(interval: Duration) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&is_stopped);
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !should_stop.load(Relaxed) {
                samples.extend(process_delay().map(|delay| (Instant::now(), delay)));
                std::thread::sleep(interval);
            }
            samples
        });
        Self { is_stopped, thread }
    }

    /// Stops, and returns the samples: times, and the delay of the process until then.
    pub fn stop(self) -> Vec<(Instant, Duration)> {
        self.is_stopped.store(true, Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The scheduling delay of the process in a period, from the samples that enclose it.
pub fn delay_between(samples: &[(Instant, Duration)], from: Instant, to: Instant) -> Duration {
    let before = samples.iter().rfind(|(at, _)| *at <= from).or_else(|| samples.first());
    let after = samples.iter().find(|(at, _)| *at >= to).or_else(|| samples.last());
    before.zip(after).map_or(Duration::ZERO, |(before, after)| after.1.saturating_sub(before.1))
}

fn thread_delay() -> Option<Duration> {
    parse_delay(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn parse_delay(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// The scheduling delay of the calling thread, from periodic samples.
#[derive(Debug, Default)]
pub struct ThreadDelay {
    /// The last two samples: time, and delay until then.
    samples: Cell<[Option<(Instant, Duration)>; 2]>,
}

impl ThreadDelay {
    /// Takes a sample. To be called about every half second.
    pub fn sample(&self, now: Instant) {
        let [_, latest] = self.samples.get();
        self.samples.set([latest, thread_delay().map(|delay| (now, delay))]);
    }

    /// Whether the recent scheduling delay of this thread distorts the latencies that it measures.
    pub fn is_late(&self, now: Instant) -> bool {
        let Some((at, before)) = self.reference(now) else { return false };
        let is_late = |delay| is_late_share(delay, now.saturating_duration_since(at));
        thread_delay().is_some_and(|delay| is_late(delay.saturating_sub(before)))
    }

    /// The latest sample that is old enough.
    fn reference(&self, now: Instant) -> Option<(Instant, Duration)> {
        let [previous, latest] = self.samples.get();
        let is_old =
            |&(at, _): &(Instant, Duration)| now.saturating_duration_since(at) >= MIN_PERIOD;
        latest.filter(is_old).or_else(|| previous.filter(is_old))
    }
}

fn is_late_share(delay: Duration, period: Duration) -> bool {
    delay.as_secs_f64() >= LATE_SHARE * period.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_number_of_schedstat_is_the_delay() {
        assert_eq!(parse_delay("170754 1716053 2\n"), Some(Duration::from_nanos(1_716_053)));
        assert_eq!(parse_delay("170754"), None);
        assert_eq!(parse_delay("a b c"), None);
    }

    #[test]
    fn delay_of_a_period_is_that_of_the_enclosing_samples() {
        let (t0, ms) = (Instant::now(), Duration::from_millis);
        let samples: Vec<_> = (0..5).map(|n| (t0 + ms(20 * n), ms(n * n))).collect();
        assert_eq!(delay_between(&samples, t0 + ms(25), t0 + ms(41)), ms(8));
        assert_eq!(delay_between(&samples, t0 + ms(70), t0 + ms(500)), ms(7));
        assert_eq!(delay_between(&[], t0, t0), Duration::ZERO);
    }

    #[test]
    fn twentieth_of_the_period_is_late() {
        let period = Duration::from_millis(500);
        assert!(is_late_share(Duration::from_millis(25), period));
        assert!(!is_late_share(Duration::from_millis(24), period));
    }

    #[test]
    fn too_young_sample_is_no_reference() {
        let (delay, t0) = (ThreadDelay::default(), Instant::now());
        assert_eq!(delay.reference(t0), None);
        delay.samples.set([None, Some((t0, Duration::ZERO))]);
        assert_eq!(delay.reference(t0 + MIN_PERIOD / 2), None);
        assert!(delay.reference(t0 + MIN_PERIOD).is_some());
        let later = t0 + MIN_PERIOD;
        delay.samples.set([Some((t0, Duration::ZERO)), Some((later, Duration::ZERO))]);
        assert_eq!(delay.reference(later), Some((t0, Duration::ZERO)));
    }
}
