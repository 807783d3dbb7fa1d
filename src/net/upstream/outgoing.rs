//! A request body on its way out, held for as long as it may be needed again.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;

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
        }
    }

    /// Whether there is nothing to send at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.held.is_empty() && self.whole
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
        let next = self.next;
        self.whole = false;
        Self { source, held, next, ..*self }
    }

    /// The response is on its way to the client: no other try can come, nothing need be held.
    pub fn commit(&mut self) {
        self.hold_at_most = 0;
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
            let Ok(piece) = frame.into_data() else { continue };
            self.read_bytes += piece.len() as u64;
            if self.read_bytes > self.read_at_most {
                return Poll::Ready(Some(Err(ClientFault::TooLarge)));
            }
            self.hold(&piece);
            return Poll::Ready(Some(Ok(piece)));
        }
    }

    fn hold(&mut self, piece: &Bytes) {
        if self.whole && self.held_bytes + piece.len() <= self.hold_at_most {
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
