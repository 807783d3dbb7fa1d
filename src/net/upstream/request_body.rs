//! A request body on its way out, held for as long as it may be needed again.

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

/// Bytes of an unwanted body that are read before its connection is closed.
const MAX_DISCARD_BYTES: usize = 256 * 1024;

const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads what a client still sends of a body that nobody wants, within bounds, on a task of the
/// current `LocalSet`.
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
    /// The client went away or broke the framing.
    Aborted,
    /// The body is larger than the route allows.
    TooLarge,
    /// No byte came for the idle timeout.
    IdleTimeout,
}

/// Holding a piece costs more than its bytes: a body in many tiny ones is not held.
const MIN_BYTES_PER_CHUNK: usize = 256;

/// Pieces that are held however small the bound.
const MIN_BUFFERED_CHUNKS: usize = 16;

/// A request body: what was read is kept up to a bound, so that another try can begin anew.
#[derive(Debug)]
pub struct RequestBody {
    source: Option<Incoming>,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    max_buffered_bytes: usize,
    /// Everything read so far is in `held`.
    is_replayable: bool,
    /// The next piece of `held` for this try.
    next_chunk: usize,
    read_bytes: u64,
    max_read_bytes: u64,
    /// Who else wants to know how much was read.
    read_counter: Option<Rc<Cell<u64>>>,
    trailers: Trailers,
}

impl RequestBody {
    /// A body to be read from `source`: at most `read_at_most` bytes of it, of which at most
    /// `hold_at_most` are held.
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

    /// Has `counter` show how much was read, now and later.
    pub fn set_read_counter(&mut self, counter: Rc<Cell<u64>>) {
        self.read_counter = Some(counter);
    }

    /// Whether there is nothing to send at all.
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

    /// Whether another try could send the same body.
    pub fn is_replayable(&self) -> bool {
        self.is_replayable
    }

    /// Begins anew for another try. Only after [`Outgoing::is_held`].
    pub fn rewind(&mut self) {
        self.next_chunk = 0;
    }

    /// The same body again, if all of it is held.
    pub fn try_clone(&self) -> Option<Self> {
        let is_complete = self.is_replayable && self.source.is_none();
        let (buffered, buffered_bytes) = (self.buffered.clone(), self.buffered_bytes);
        is_complete.then(|| Self { buffered, buffered_bytes, ..Self::empty() })
    }

    /// Bytes that are held.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Bytes read from the client so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Takes the rest of the body out; what stays behind is not held any more.
    pub fn take_rest(&mut self) -> Self {
        let source = self.source.take();
        let buffered = std::mem::take(&mut self.buffered);
        let trailers = self.trailers.take();
        let next_chunk = self.next_chunk;
        self.is_replayable = false;
        let read_counter = self.read_counter.take();
        Self { source, buffered, next_chunk, trailers, read_counter, ..*self }
    }

    /// The answer does not wait for the rest of the body: reads some of it all the same, so that
    /// the answer reaches its client before the connection is closed. With unread bytes left the
    /// kernel would reset it.
    pub fn discard_rest(&mut self) {
        if let Some(source) = self.source.take() {
            discard_request_body(source);
        }
    }

    /// The response is on its way to the client: no other try can come, nothing need be held.
    pub fn stop_buffering(&mut self) {
        self.max_buffered_bytes = 0;
    }

    /// Whether nothing follows what this try has taken, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        let has_ended = self.source.as_ref().is_none_or(Incoming::is_end_stream);
        has_ended && self.next_chunk >= self.buffered.len() && self.trailers.is_none()
    }

    /// What the client sent after the body, once all of that has been taken; fields that have no
    /// place there are left out.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// The next piece of this try, or `None` at the end.
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
