//! Writes the line and queues the trace when the last reference to an [`AccessRecord`] is dropped.

use super::access_record::{AccessRecord, RequestEnding};
use super::format;

/// The logged status of a request whose client went away before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let record = &*self;
        if record.status.get() == 0 {
            record.set_ending(RequestEnding::ClientAbort);
            record.status.set(CLIENT_CLOSED_REQUEST);
        }
        #[cfg(feature = "otlp")]
        if let Some(trace) = record.request_trace() {
            record.sink.enqueue_trace(trace);
        }
        if record.http_policy.access_log.is_on() {
            record.sink.write_line(|out, scratch| format::write_line(out, scratch, record));
        }
    }
}
