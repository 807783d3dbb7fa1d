//! Time limits: every wait ends by its own limit, by that of the whole run, or by a signal of the
//! user.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The longest time between two checks of the limits.
const MAX_SLEEP: Duration = Duration::from_millis(200);

/// The time limit of the whole run.
#[derive(Clone, Debug)]
pub(crate) struct RunDeadline {
    ends_at: Instant,
    is_interrupted: Arc<AtomicBool>,
}

impl RunDeadline {
    /// Starts a run with this time limit. From now on SIGINT and SIGTERM end it orderly.
    pub(crate) fn start(max_duration: Duration) -> io::Result<Self> {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut int, mut term) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
            });
            flag.store(true, SeqCst);
        });
        Ok(Self { ends_at: Instant::now() + max_duration, is_interrupted })
    }

    /// Whether the run is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_interrupted.load(SeqCst) || Instant::now() >= self.ends_at
    }

    fn check(&self) -> io::Result<()> {
        if self.is_interrupted.load(SeqCst) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        if Instant::now() >= self.ends_at {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the whole run took too long"));
        }
        Ok(())
    }

    /// Sleeps until `due`.
    pub(crate) fn sleep_until(&self, due: Instant) -> io::Result<()> {
        loop {
            self.check()?;
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Ok(());
            }
            thread::sleep(remaining.min(MAX_SLEEP));
        }
    }

    /// Polls `find` until it returns a value; `None` after `at_most`.
    pub(crate) fn poll_until<T>(
        &self,
        max_wait: Duration,
        mut poll: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let ends_at = Instant::now() + max_wait;
        loop {
            if let Some(found) = poll()? {
                return Ok(Some(found));
            }
            if Instant::now() >= ends_at {
                return Ok(None);
            }
            self.sleep_until(Instant::now() + POLL_INTERVAL)?;
        }
    }
}
