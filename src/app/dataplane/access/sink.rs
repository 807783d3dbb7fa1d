//! The destination of one worker's access records: the log queue and the trace queue.

use std::cell::{Cell, RefCell};
#[cfg(feature = "otlp")]
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

#[cfg(feature = "otlp")]
use crate::app::dataplane::proxy::{IdGenerator, SpanId};
#[cfg(feature = "otlp")]
use crate::app::ops::otlp::{RequestTrace, TraceQueue};

use super::queue::AccessLogQueue;

/// Lines are split off blocks of memory of this size.
const LINE_BUFFER_BYTES: usize = 64 * 1024;

/// Where one worker formats its lines, and where they and its traces go.
#[derive(Debug)]
pub struct AccessRecordSink {
    log: Arc<AccessLogQueue>,
    buffers: RefCell<(BytesMut, Vec<u8>)>,
    is_shut_down: Cell<bool>,
    #[cfg(feature = "otlp")]
    traces: Arc<TraceQueue>,
    #[cfg(feature = "otlp")]
    id_generator: Rc<IdGenerator>,
}

impl AccessRecordSink {
    pub fn new(
        log: &Arc<AccessLogQueue>,
        #[cfg(feature = "otlp")] traces: &Arc<TraceQueue>,
        #[cfg(feature = "otlp")] id_generator: &Rc<IdGenerator>,
    ) -> Self {
        Self {
            log: Arc::clone(log),
            buffers: RefCell::default(),
            is_shut_down: Cell::new(false),
            #[cfg(feature = "otlp")]
            traces: Arc::clone(traces),
            #[cfg(feature = "otlp")]
            id_generator: Rc::clone(id_generator),
        }
    }

    /// Formats a line with `write`, which also gets a scratch buffer, and queues it.
    pub(super) fn write_line(&self, write: impl FnOnce(&mut BytesMut, &mut Vec<u8>)) {
        let mut buffers = self.buffers.borrow_mut();
        let (line, scratch) = &mut *buffers;
        if line.capacity() < LINE_BUFFER_BYTES / 8 {
            line.reserve(LINE_BUFFER_BYTES);
        }
        write(line, scratch);
        self.log.push(line.split().freeze());
    }

    #[cfg(feature = "otlp")]
    pub(super) fn enqueue_trace(&self, trace: RequestTrace) {
        self.traces.enqueue(trace);
    }

    #[cfg(feature = "otlp")]
    pub(super) fn new_span_id(&self) -> SpanId {
        self.id_generator.span_id()
    }

    /// The worker ends: it cuts off the requests that are still running.
    pub fn shut_down(&self) {
        self.is_shut_down.set(true);
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.is_shut_down.get()
    }
}
