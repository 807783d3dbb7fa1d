//! A request body that is forwarded and, within a bound, kept for a retry.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;

use crate::net::trailers::{self, Trailers};

/// Bytes of an unwanted request body that are read before its connection is closed.
const MAX_DISCARD_BYTES: usize = 256 * 1024;

const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the rest of an unwanted request body, within bounds, on a task of the current `LocalSet`.
/// A socket that is closed with unread bytes would be reset before the client reads the response.
pub fn discard_request_body(mut source: Incoming) {
    if source.is_end_stream() {
        return;
    }
    tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIMEOUT, async move {
        let mut read = 0;
        while read < MAX_DISCARD_BYTES {
            match poll_fn(|cx| Pin::new(&mut source).poll_frame(cx)).await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => return,
            }
        }
    }));
}

/// Why a request body could not be read from its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBodyError {
    /// The client closed the connection or broke the framing.
    Aborted,
    /// The body is larger than the route allows.
    TooLarge,
    /// No byte came for the idle timeout.
    IdleTimeout,
}

/// The average chunk size below which a body is not kept: a chunk costs more than its bytes.
const MIN_BYTES_PER_CHUNK: usize = 256;

/// Chunks that are kept regardless of their size.
const MIN_BUFFERED_CHUNKS: usize = 16;

/// A request body; the chunks that were read are kept up to a bound, so that it can be sent again.
#[derive(Debug)]
pub struct RequestBody {
    source: Option<Incoming>,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    max_buffered_bytes: usize,
    /// Whether `buffered` holds all chunks that were read so far.
    is_replayable: bool,
    /// The index in `buffered` of the next chunk for this attempt.
    next_chunk: usize,
    read_bytes: u64,
    max_read_bytes: u64,
    /// Receives the number of bytes read.
    read_counter: Option<Rc<Cell<u64>>>,
    trailers: Trailers,
}

impl RequestBody {
    /// A body that is read from `source`: `max_read_bytes` at most, of which `max_buffered_bytes`
    /// at most are kept.
    pub fn new(source: Incoming, max_buffered_bytes: usize, max_read_bytes: u64) -> Self {
        let source = (!source.is_end_stream()).then_some(source);
        Self {
            source,
            buffered: Vec::new(),
            buffered_bytes: 0,
            max_buffered_bytes,
            is_replayable: true,
            next_chunk: 0,
            read_bytes: 0,
            max_read_bytes,
            read_counter: None,
            trailers: None,
        }
    }

    /// Makes `counter` show the number of bytes read, from now on.
    pub fn set_read_counter(&mut self, counter: Rc<Cell<u64>>) {
        self.read_counter = Some(counter);
    }

    /// Whether the request has no body.
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.buffered.is_empty() && self.is_replayable
    }

    pub fn empty() -> Self {
        Self {
            source: None,
            buffered: Vec::new(),
            buffered_bytes: 0,
            max_buffered_bytes: 0,
            is_replayable: true,
            next_chunk: 0,
            read_bytes: 0,
            max_read_bytes: 0,
            read_counter: None,
            trailers: None,
        }
    }

    /// Whether another attempt can send the same body.
    pub fn is_replayable(&self) -> bool {
        self.is_replayable
    }

    /// Starts again for another attempt. Requires [`Self::is_replayable`].
    pub fn rewind(&mut self) {
        self.next_chunk = 0;
    }

    /// A copy of the body, if all of it is kept.
    pub fn try_clone(&self) -> Option<Self> {
        let is_complete = self.is_replayable && self.source.is_none();
        let (buffered, buffered_bytes) = (self.buffered.clone(), self.buffered_bytes);
        is_complete.then(|| Self { buffered, buffered_bytes, ..Self::empty() })
    }

    /// Bytes that are kept for another attempt.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Bytes that were read from the client so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Takes the rest of the body out; what stays here cannot be replayed.
    pub fn take_rest(&mut self) -> Self {
        let source = self.source.take();
        let buffered = std::mem::take(&mut self.buffered);
        let trailers = self.trailers.take();
        let next_chunk = self.next_chunk;
        self.is_replayable = false;
        let read_counter = self.read_counter.take();
        Self { source, buffered, next_chunk, trailers, read_counter, ..*self }
    }

    /// Discards the rest of the body after a response that did not wait for it (see
    /// [`discard_request_body`]).
    pub fn discard_rest(&mut self) {
        if let Some(source) = self.source.take() {
            discard_request_body(source);
        }
    }

    /// The response has started, so that no other attempt follows: stops keeping chunks.
    pub fn stop_buffering(&mut self) {
        self.max_buffered_bytes = 0;
    }

    /// Whether this attempt has taken all of the body, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        let has_ended = self.source.as_ref().is_none_or(Incoming::is_end_stream);
        has_ended && self.next_chunk >= self.buffered.len() && self.trailers.is_none()
    }

    /// The trailers without forbidden fields, once all of the body has been taken.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// The next chunk for this attempt, or `None` at the end.
    pub fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ClientBodyError>>> {
        if let Some(chunk) = self.buffered.get(self.next_chunk) {
            self.next_chunk += 1;
            return Poll::Ready(Some(Ok(chunk.clone())));
        }
        loop {
            let Some(source) = self.source.as_mut() else { return Poll::Ready(None) };
            let Some(frame) = ready!(Pin::new(source).poll_frame(cx)) else {
                self.source = None;
                return Poll::Ready(None);
            };
            let Ok(frame) = frame else {
                self.source = None;
                return Poll::Ready(Some(Err(ClientBodyError::Aborted)));
            };
            let chunk = match frame.into_data() {
                Ok(chunk) => chunk,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok().and_then(trailers::strip_forbidden);
                    continue;
                }
            };
            self.read_bytes += chunk.len() as u64;
            if let Some(counter) = &self.read_counter {
                counter.set(self.read_bytes);
            }
            if self.read_bytes > self.max_read_bytes {
                return Poll::Ready(Some(Err(ClientBodyError::TooLarge)));
            }
            self.buffer(&chunk);
            return Poll::Ready(Some(Ok(chunk)));
        }
    }

    fn buffer(&mut self, chunk: &Bytes) {
        let has_room = self.buffered_bytes + chunk.len() <= self.max_buffered_bytes
            && self.buffered.len()
                < self.max_buffered_bytes / MIN_BYTES_PER_CHUNK + MIN_BUFFERED_CHUNKS;
        if self.is_replayable && has_room {
            self.buffered_bytes += chunk.len();
            self.buffered.push(chunk.clone());
            self.next_chunk = self.buffered.len();
        } else {
            self.is_replayable = false;
            self.buffered.clear();
            self.next_chunk = 0;
        }
    }
}
