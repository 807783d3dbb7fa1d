//! Export of request spans to an OpenTelemetry collector.
//!
//! When a sampled request ends, its worker puts a [`RequestTrace`] into a bounded queue. The
//! exporter thread turns traces into spans and posts them in batches. Workers never wait: spans
//! that do not fit, or that the collector does not accept in time, are counted and dropped.

mod exporter;
mod request_trace;
mod span;

pub use request_trace::{AttemptSpan, RequestTrace};
pub use span::trace_spans as spans_of;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::model::OtlpConfig;

use crate::app::ops::metrics::{Collect, FamilyWriter, families};

/// Time that a shutdown grants to queued spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which the exporter thread is abandoned.
const EXPORTER_EXIT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanDropReason {
    /// The queue was full.
    QueueFull,
    /// The collector was unreachable or busy for too long.
    Unreachable,
    /// The collector rejected the spans.
    Rejected,
}

impl SpanDropReason {
    const ALL: [Self; 3] = [Self::QueueFull, Self::Unreachable, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreached",
            Self::Rejected => "rejected",
        }
    }
}

/// The queue of traces from the workers to the exporter; shared by all threads.
#[derive(Debug)]
pub struct TraceQueue {
    traces: mpsc::UnboundedSender<RequestTrace>,
    /// Traces in the queue, and their limit.
    queued: AtomicUsize,
    capacity: AtomicUsize,
    exported: AtomicU64,
    dropped: [AtomicU64; SpanDropReason::ALL.len()],
    target: Mutex<Option<Arc<OtlpConfig>>>,
    /// End of the exporter's work during a shutdown.
    deadline: watch::Sender<Option<Instant>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<RequestTrace>>>,
    exporter_ended: Mutex<Option<blocking::Receiver<()>>>,
}

impl Default for TraceQueue {
    fn default() -> Self {
        let (traces, receiver) = mpsc::unbounded_channel();
        Self {
            traces,
            queued: AtomicUsize::new(0),
            capacity: AtomicUsize::new(0),
            exported: AtomicU64::new(0),
            dropped: Default::default(),
            target: Mutex::default(),
            deadline: watch::Sender::new(None),
            receiver: Mutex::new(Some(receiver)),
            exporter_ended: Mutex::default(),
        }
    }
}

/// Sets the collector. Without one, queued traces still go to the last.
pub fn set_target(queue: &Arc<TraceQueue>, target: Option<&OtlpConfig>) {
    let Some(target) = target else { return };
    queue.capacity.store(target.queue_spans, Relaxed);
    *lock(&queue.target) = Some(Arc::new(target.clone()));
    let Some(receiver) = lock(&queue.receiver).take() else { return };
    let (end, ended) = blocking::channel();
    let exported_queue = Arc::clone(queue);
    let thread = std::thread::Builder::new().name("otlp".to_owned());
    let started = thread.spawn(move || {
        exporter::run_exporter(&exported_queue, receiver);
        let _ = end.send(());
    });
    match started {
        Ok(_) => *lock(&queue.exporter_ended) = Some(ended),
        Err(error) => tracing::error!(%error, "spans cannot be exported: no thread"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TraceQueue {
    /// Queues a trace, or counts its spans as dropped. Never waits.
    pub fn enqueue(&self, trace: RequestTrace) {
        let spans = trace.span_count();
        let has_room = self.queued.fetch_add(1, Relaxed) < self.capacity.load(Relaxed);
        if !has_room || self.traces.send(trace).is_err() {
            self.queued.fetch_sub(1, Relaxed);
            self.count_dropped(SpanDropReason::QueueFull, spans);
        }
    }

    /// Exports the queued spans during a shutdown, within a timeout.
    pub fn flush(&self) {
        let Some(ended) = lock(&self.exporter_ended).take() else { return };
        self.deadline.send_replace(Some(Instant::now() + FLUSH_TIMEOUT));
        if ended.recv_timeout(EXPORTER_EXIT_TIMEOUT).is_err() {
            tracing::warn!("the last spans are lost: their exporter did not end");
        }
    }

    fn count_dropped(&self, reason: SpanDropReason, spans: u64) {
        self.dropped[reason as usize].fetch_add(spans, Relaxed);
    }

    fn target(&self) -> Option<Arc<OtlpConfig>> {
        lock(&self.target).clone()
    }
}

impl Collect for TraceQueue {
    fn collect(&self, out: &mut FamilyWriter) {
        out.counter(families::OTLP_SPANS_EXPORTED, [], self.exported.load(Relaxed));
        for reason in SpanDropReason::ALL {
            let dropped = self.dropped[reason as usize].load(Relaxed);
            out.counter(families::OTLP_SPANS_DROPPED, [&reason.as_str()], dropped);
        }
    }
}
