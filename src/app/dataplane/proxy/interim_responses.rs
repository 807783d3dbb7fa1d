//! Interim responses (1xx) for HTTP/1.1 clients.
//!
//! hyper sends none but its own `100 Continue`. They are therefore written below it, between two
//! messages.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use crate::logic::routing::HeaderMutations;
use crate::net::h1;
use crate::net::upstream::InterimResponse;

use super::via::add_via;

/// Limit of queued bytes; interim responses beyond it are dropped, which HTTP allows.
const MAX_QUEUED_BYTES: usize = 16 * 1024;

/// The queue of interim responses of one connection.
#[derive(Default)]
pub struct InterimResponses(Arc<InterimQueue>);

/// Only one thread uses it. The lock exists because the type of an upgraded connection must be
/// `Send`.
#[derive(Default)]
struct InterimQueue {
    has_any: AtomicBool,
    buffer: Mutex<BytesMut>,
}

impl InterimResponses {
    /// Another handle to the same queue, for the writer.
    pub fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Whether any wait; one relaxed load.
    pub fn has_any(&self) -> bool {
        self.0.has_any.load(Relaxed)
    }

    /// Takes the queued bytes, ready to be written.
    pub fn take(&self) -> BytesMut {
        self.0.has_any.store(false, Relaxed);
        mem::take(&mut *self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues raw bytes.
    #[cfg(test)]
    pub(in crate::app) fn push_raw(&self, text: &[u8]) {
        self.0.buffer.lock().expect("one thread").extend_from_slice(text);
        self.0.has_any.store(true, Relaxed);
    }

    /// Queues interim responses of an endpoint, with the same header changes as for final ones.
    pub(super) fn forward(
        &self,
        interim: Vec<InterimResponse>,
        mutations: &HeaderMutations,
        via: &str,
    ) {
        let mut buffer = self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        for InterimResponse { status, mut headers } in interim {
            // hyper sends 100 to the client; the one of an endpoint is not forwarded.
            if status == StatusCode::CONTINUE {
                continue;
            }
            headers.remove(CONTENT_LENGTH);
            mutations.apply(&mut headers);
            add_via(&mut headers, via);
            let before = buffer.len();
            h1::write_status_line(&mut buffer, status);
            for (name, value) in &headers {
                h1::write_header(&mut buffer, name.as_str(), value.as_bytes());
            }
            buffer.extend_from_slice(b"\r\n");
            if buffer.len() > MAX_QUEUED_BYTES {
                buffer.truncate(before);
            }
        }
        self.0.has_any.store(!buffer.is_empty(), Relaxed);
    }
}

impl Clone for InterimResponses {
    /// A copy of the client is another connection, with a queue of its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for InterimResponses {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for InterimResponses {}

impl fmt::Debug for InterimResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Early").field(&self.has_any()).finish()
    }
}
