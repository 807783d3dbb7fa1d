//! The access log: one line when a request is over, however it ended.
//!
//! A [`Note`] gathers what is known of a request; whatever holds it (the request path, the body on
//! its way to the client, a try at an endpoint) lets go of it in the end, and then its line is made
//! on the worker and goes through a bounded queue to a thread of its own. Nothing here waits: a line
//! for which there is no room is counted and gone.

mod body;
mod line;
mod note;
mod queue;
mod redact;
mod stamp;
#[cfg(feature = "otlp")]
mod story;
mod writer;

pub use body::NotedBody;
pub use note::{Ending, Held, Note, TraceIds, TryNote};
pub use queue::{AccessLog, Lines};
pub use writer::{Writer, start};
