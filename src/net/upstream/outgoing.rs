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
const DRAIN_BYTES: usize = 256 * 1024;

/// Time for that.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Reads what a client still sends of a body that nobody wants, within bounds, on a task of the
/// current `LocalSet`.
pub fn drain(mut source: Incoming) {
    if source.is_end_stream() {
        return;
    }
    tokio::task::spawn_local(tokio::time::timeout(DRAIN_TIME, async move {
        let mut read = 0;
        while read < DRAIN_BYTES {
            match poll_fn(|cx| Pin::new(&mut source).poll_frame(cx)).await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => return,
            }
        }
    }));
}

/// Why a request body could not be read from its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// The client went away or broke the framing.
    Aborted,
    /// The body is larger than the route allows.
    TooLarge,
    /// No byte came for the idle timeout.
    Idle,
}

/// Holding a piece costs more than its bytes: a body in many tiny ones is not held.
const BYTES_PER_PIECE: usize = 256;

/// Pieces that are held however small the bound.
const MORE_PIECES: usize = 16;

/// A request body: what was read is kept up to a bound, so that another try can begin anew.
#[derive(Debug)]
pub struct Outgoing {
    source: Option<Incoming>,
    held: Vec<Bytes>,
    held_bytes: usize,
    hold_at_most: usize,
    /// Everything read so far is in `held`.
    whole: bool,
    /// The next piece of `held` for this try.
    next: usize,
    read_bytes: u64,
    read_at_most: u64,
    /// Who else wants to know how much was read.
    counter: Option<Rc<Cell<u64>>>,
    trailers: Trailers,
}

impl Outgoing {
    /// A body to be read from `source`: at most `read_at_most` bytes of it, of which at most
    /// `hold_at_most` are held.
    #[must_use]
    pub fn new(source: Incoming, hold_at_most: usize, read_at_most: u64) -> Self {
        let source = (!source.is_end_stream()).then_some(source);
        Self {
            source,
            held: Vec::new(),
            held_bytes: 0,
            hold_at_most,
            whole: true,
            next: 0,
            read_bytes: 0,
            read_at_most,
            counter: None,
            trailers: None,
        }
    }

    /// Has `counter` show how much was read, now and later.
    pub fn count_into(&mut self, counter: Rc<Cell<u64>>) {
        self.counter = Some(counter);
    }

    /// Whether there is nothing to send at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.held.is_empty() && self.whole
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            source: None,
            held: Vec::new(),
            held_bytes: 0,
            hold_at_most: 0,
            whole: true,
            next: 0,
            read_bytes: 0,
            read_at_most: 0,
            counter: None,
            trailers: None,
        }
    }

    /// Whether another try could send the same body.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.whole
    }

    /// Begins anew for another try. Only after [`Outgoing::is_held`].
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// The same body again, if all of it is held.
    #[must_use]
    pub fn copy(&self) -> Option<Self> {
        let is_all = self.whole && self.source.is_none();
        let (held, held_bytes) = (self.held.clone(), self.held_bytes);
        is_all.then(|| Self { held, held_bytes, ..Self::empty() })
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes read from the client so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Takes the rest of the body out; what stays behind is not held any more.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let source = self.source.take();
        let held = std::mem::take(&mut self.held);
        let trailers = self.trailers.take();
        let next = self.next;
        self.whole = false;
        let counter = self.counter.take();
        Self { source, held, next, trailers, counter, ..*self }
    }

    /// The answer does not wait for the rest of the body: reads some of it all the same, so that
    /// the answer reaches its client before the connection is closed. With unread bytes left the
    /// kernel would reset it.
    pub fn abandon(&mut self) {
        if let Some(source) = self.source.take() {
            drain(source);
        }
    }

    /// The response is on its way to the client: no other try can come, nothing need be held.
    pub fn commit(&mut self) {
        self.hold_at_most = 0;
    }

    /// Whether nothing follows what this try has taken, as far as is known.
    pub(super) fn is_at_end(&self) -> bool {
        let has_ended = self.source.as_ref().is_none_or(Incoming::is_end_stream);
        has_ended && self.next >= self.held.len() && self.trailers.is_none()
    }

    /// What the client sent after the body, once all of that has been taken; fields that have no
    /// place there are left out.
    #[must_use]
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// The next piece of this try, or `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientFault>>> {
        if let Some(piece) = self.held.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        loop {
            let Some(source) = self.source.as_mut() else { return Poll::Ready(None) };
            let Some(frame) = ready!(Pin::new(source).poll_frame(cx)) else {
                self.source = None;
                return Poll::Ready(None);
            };
            let Ok(frame) = frame else {
                self.source = None;
                return Poll::Ready(Some(Err(ClientFault::Aborted)));
            };
            let piece = match frame.into_data() {
                Ok(piece) => piece,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok().and_then(trailers::passed);
                    continue;
                }
            };
            self.read_bytes += piece.len() as u64;
            if let Some(counter) = &self.counter {
                counter.set(self.read_bytes);
            }
            if self.read_bytes > self.read_at_most {
                return Poll::Ready(Some(Err(ClientFault::TooLarge)));
            }
            self.hold(&piece);
            return Poll::Ready(Some(Ok(piece)));
        }
    }

    fn hold(&mut self, piece: &Bytes) {
        let has_room = self.held_bytes + piece.len() <= self.hold_at_most
            && self.held.len() < self.hold_at_most / BYTES_PER_PIECE + MORE_PIECES;
        if self.whole && has_room {
            self.held_bytes += piece.len();
            self.held.push(piece.clone());
            self.next = self.held.len();
        } else {
            self.whole = false;
            self.held.clear();
            self.next = 0;
        }
    }
}
