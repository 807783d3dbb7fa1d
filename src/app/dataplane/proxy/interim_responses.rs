//! Interim answers (1xx) on their way to a client of HTTP/1.1. hyper knows of none but its own `100
//! Continue`: they are written below it, where nothing of another message is under way.

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

/// What may wait to be written of them; beyond that they are left out, as whoever sends one must expect.
const MAX_QUEUED_BYTES: usize = 16 * 1024;

/// The interim answers that wait on one connection.
#[derive(Default)]
pub struct InterimResponses(Arc<InterimQueue>);

/// One thread puts and takes them. It is locked only because a connection that becomes a tunnel might
/// be moved to another one, as far as its type says.
#[derive(Default)]
struct InterimQueue {
    has_any: AtomicBool,
    buffer: Mutex<BytesMut>,
}

impl InterimResponses {
    /// The same, for who writes them.
    pub fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Whether there are any; costs as good as nothing.
    pub fn has_any(&self) -> bool {
        self.0.has_any.load(Relaxed)
    }

    /// Takes them out, as they are to be written.
    pub fn take(&self) -> BytesMut {
        self.0.has_any.store(false, Relaxed);
        mem::take(&mut *self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has this be one of them.
    #[cfg(test)]
    pub(in crate::app) fn push_raw(&self, text: &[u8]) {
        self.0.buffer.lock().expect("one thread").extend_from_slice(text);
        self.0.has_any.store(true, Relaxed);
    }

    /// Passes on what an endpoint says before its answer: to who can take it (RFC 9110 15.2), with the
    /// same changes.
    pub(super) fn forward(
        &self,
        interim: Vec<InterimResponse>,
        mutations: &HeaderMutations,
        via: &str,
    ) {
        let mut buffer = self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        for InterimResponse { status, mut headers } in interim {
            // An endpoint is never asked to say so; the client is told by hyper.
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
    /// Another connection has its own.
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
