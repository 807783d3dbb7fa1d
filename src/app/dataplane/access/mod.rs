//! The access log: one line when a request is over, however it ended.
//!
//! A [`Note`] gathers what is known of a request; whatever holds it (the request path, the body on
//! its way to the client, a try at an endpoint) lets go of it in the end, and then its line is made
//! on the worker and goes through a bounded queue to a thread of its own. Nothing here waits: a line
//! for which there is no room is counted and gone.

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
