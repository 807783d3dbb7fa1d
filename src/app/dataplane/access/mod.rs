//! The access log: one line for each finished request, however it ended.
//!
//! An [`AccessRecord`] collects the data of a request. The request path, the response body and the
//! attempts share it. When the last reference is dropped, the worker formats the line and puts it
//! into a bounded queue to the writer thread. Nothing waits: a line that does not fit is counted
//! and dropped.

mod access_record;
mod attempt_record;
mod completion;
mod format;
mod queue;
mod redact;
#[cfg(feature = "otlp")]
mod request_trace;
mod sink;
mod timestamp;
mod writer;

pub use access_record::{AccessRecord, AttemptRecordHandle, RecordedRequest, RequestEnding};
pub use queue::AccessLogQueue;
pub use sink::AccessRecordSink;
pub use writer::{AccessLogWriter, start};
