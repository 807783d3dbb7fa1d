//! The load of the machine, and pauses of its scheduler.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use crate::parse::{CoreTicks, parse_core_ticks};

/// CPU ticks of all cores since boot.
#[derive(Debug)]
pub(crate) struct CpuSnapshot(Vec<CoreTicks>);

impl CpuSnapshot {
    /// Reads `/proc/stat`.
    pub(crate) fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let cores = u32::try_from(available_parallelism()?.get()).unwrap_or(u32::MAX);
        Ok(Self((0..cores).filter_map(|core| parse_core_ticks(&stat, core)).collect()))
    }

    /// The share of time, in percent, that all cores were busy since then.
    pub(crate) fn busy_percent(&self) -> io::Result<f64> {
        let now = Self::read()?.0;
        let busy = now.iter().zip(&self.0).map(|(now, then)| now.busy_percent_since(*then));
        Ok(busy.sum::<f64>() / self.0.len().max(1) as f64)
    }
}

/// The period of the wake-ups.
const PAUSE_SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// Wakes up periodically and records the longest delay, which bounds the error of a measurement.
pub(crate) struct PauseMonitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl PauseMonitor {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let watch_pauses = move || {
            let mut longest = Duration::ZERO;
            while !should_stop.load(Relaxed) {
                let started = Instant::now();
                thread::sleep(PAUSE_SAMPLE_INTERVAL);
                longest = longest.max(started.elapsed().saturating_sub(PAUSE_SAMPLE_INTERVAL));
            }
            longest
        };
        Self { stop, thread: Some(thread::spawn(watch_pauses)) }
    }

    /// The longest delay since the start.
    pub(crate) fn stop(mut self) -> Duration {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for PauseMonitor {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}
