//! How busy the machine was, and whether it stood still.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use crate::parse::{CoreTicks, core_ticks};

/// What all cores have done since boot.
#[derive(Debug)]
pub(crate) struct Cores(Vec<CoreTicks>);

impl Cores {
    /// Reads `/proc/stat`.
    pub(crate) fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let cores = u32::try_from(available_parallelism()?.get()).unwrap_or(u32::MAX);
        Ok(Self((0..cores).filter_map(|core| core_ticks(&stat, core)).collect()))
    }

    /// The share of all cores' time that somebody used since then.
    pub(crate) fn busy_percent(&self) -> io::Result<f64> {
        let now = Self::read()?.0;
        let busy = now.iter().zip(&self.0).map(|(now, then)| now.busy_percent_since(*then));
        Ok(busy.sum::<f64>() / self.0.len().max(1) as f64)
    }
}

/// How often the metronome beats.
const BEAT: Duration = Duration::from_millis(5);

/// Wakes up all the time, and takes note of the longest delay: who measures is as late as that, and
/// so is who is measured.
pub(crate) struct Metronome {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl Metronome {
    /// Begins to beat.
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let beat = move || {
            let mut longest = Duration::ZERO;
            while !until.load(Relaxed) {
                let began = Instant::now();
                thread::sleep(BEAT);
                longest = longest.max(began.elapsed().saturating_sub(BEAT));
            }
            longest
        };
        Self { stop, thread: Some(thread::spawn(beat)) }
    }

    /// The longest delay since the start.
    pub(crate) fn stop(mut self) -> Duration {
        self.end()
    }

    fn end(&mut self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Metronome {
    fn drop(&mut self) {
        self.end();
    }
}
