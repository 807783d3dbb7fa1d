//! Spans of requests for an OpenTelemetry collector.
//!
//! When a request that is sampled is over, its worker hands a [`Story`] of it to a bounded queue; a thread
//! of its own makes spans of it and posts them in batches. Nobody waits: what there is no room for, and
//! what the collector does not take for too long, is counted and gone.

mod exporter;
mod span;
mod story;

pub use span::of as spans_of;
pub use story::{Leg, Story};

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::model::Otlp;

use super::shared::Shared;

/// Time that a stop grants to spans that are not exported yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Beyond that the exporter itself has ended.
const END_AT_MOST: Duration = Duration::from_millis(1_500);

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The queue was full.
    Full,
    /// The collector could not be reached, or was busy, for too long.
    Unreached,
    /// It did not want them.
    Rejected,
}

impl Why {
    const ALL: [Self; 3] = [Self::Full, Self::Unreached, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::Unreached => "unreached",
            Self::Rejected => "rejected",
        }
    }
}

/// The way of stories from the workers to the exporter. Shared by all threads.
#[derive(Debug)]
pub struct Exports {
    stories: mpsc::UnboundedSender<Story>,
    /// Stories in the queue, and how many there may be.
    queued: AtomicUsize,
    at_most: AtomicUsize,
    exported: AtomicU64,
    dropped: [AtomicU64; Why::ALL.len()],
    target: Mutex<Option<Arc<Otlp>>>,
    /// When a stop waits no longer.
    end: watch::Sender<Option<Instant>>,
    work: Mutex<Option<mpsc::UnboundedReceiver<Story>>>,
    ended: Mutex<Option<blocking::Receiver<()>>>,
}

impl Default for Exports {
    fn default() -> Self {
        let (stories, work) = mpsc::unbounded_channel();
        Self {
            stories,
            queued: AtomicUsize::new(0),
            at_most: AtomicUsize::new(0),
            exported: AtomicU64::new(0),
            dropped: Default::default(),
            target: Mutex::default(),
            end: watch::Sender::new(None),
            work: Mutex::new(Some(work)),
            ended: Mutex::default(),
        }
    }
}

/// Stories go to this collector from now on. Without one, those that are still under way go to the last.
pub fn aim(shared: &Arc<Shared>, target: Option<&Otlp>) {
    let Some(target) = target else { return };
    let exports = &shared.otlp;
    exports.at_most.store(target.queue, Relaxed);
    *lock(&exports.target) = Some(Arc::new(target.clone()));
    let Some(work) = lock(&exports.work).take() else { return };
    let (end, ended) = blocking::channel();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("otlp".to_owned());
    let started = thread.spawn(move || {
        exporter::run(&shared.otlp, work);
        let _ = end.send(());
    });
    match started {
        Ok(_) => *lock(&exports.ended) = Some(ended),
        Err(error) => tracing::error!(%error, "spans cannot be exported: no thread"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exports {
    /// Hands a story over, or counts its spans as dropped. Never waits.
    pub fn tell(&self, story: Story) {
        let spans = story.spans();
        let has_room = self.queued.fetch_add(1, Relaxed) < self.at_most.load(Relaxed);
        if !has_room || self.stories.send(story).is_err() {
            self.queued.fetch_sub(1, Relaxed);
            self.drop_for(Why::Full, spans);
        }
    }

    /// Has what is left exported, if somebody takes it soon.
    pub fn finish(&self) {
        let Some(ended) = lock(&self.ended).take() else { return };
        self.end.send_replace(Some(Instant::now() + LAST_WORDS));
        if ended.recv_timeout(END_AT_MOST).is_err() {
            tracing::warn!("the last spans are lost: their exporter did not end");
        }
    }

    /// A page in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut page = String::new();
        let name = "gapless_otlp_spans_exported_total";
        let exported = self.exported.load(Relaxed);
        let help = "Spans that the collector has taken.";
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {exported}");
        let name = "gapless_otlp_spans_dropped_total";
        let help = "Spans that were lost.";
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter");
        for why in Why::ALL {
            let dropped = self.dropped[why as usize].load(Relaxed);
            let _ = writeln!(page, "{name}{{why=\"{}\"}} {dropped}", why.as_str());
        }
        page
    }

    fn drop_for(&self, why: Why, spans: u64) {
        self.dropped[why as usize].fetch_add(spans, Relaxed);
    }

    fn target(&self) -> Option<Arc<Otlp>> {
        lock(&self.target).clone()
    }
}
