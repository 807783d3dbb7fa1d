//! One request and its response over HTTP/2 (RFC 9113).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::response::Parts;

use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::Reached;
use crate::net::h1::{Framing, ResponseHead};
use crate::net::trailers::{self, Trailers};

use super::connection::TryError;
use super::exchange::{Interim, Interims};
use super::multiplex::Seat;
use super::outgoing::{ClientFault, Outgoing};
use super::response::{CUT, ResponseError};

/// Time for the end of a response whose last byte has come.
const END_TIME: Duration = Duration::from_millis(200);

/// A request on its way and the response head that is awaited. Dropped before its end it is
/// withdrawn (`RST_STREAM`), so that the endpoint does not go on with what nobody waits for.
#[derive(Debug)]
pub struct Exchange {
    response: ResponseFuture,
    received: Option<RecvStream>,
    sender: Sender,
    seat: Seat,
    /// What had been written to the connection before.
    written_before: u64,
    pub(super) interims: Interims,
}

/// The sending side; goes on while the response is read already.
#[derive(Debug)]
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    pending: Bytes,
    state: Sending,
    sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Body,
    /// The pending bytes are the last.
    Last,
    Done,
    /// The endpoint takes no more; it may have answered all the same.
    Broken,
}

impl Exchange {
    pub(super) fn new(
        response: ResponseFuture,
        stream: SendStream<Bytes>,
        has_body: bool,
        seat: Seat,
        written_before: u64,
    ) -> Self {
        let state = if has_body { Sending::Body } else { Sending::Done };
        let sender = Sender { stream, pending: Bytes::new(), state, sent_bytes: 0 };
        Self {
            response,
            received: None,
            sender,
            seat,
            written_before,
            interims: Interims::default(),
        }
    }

    /// Whether anything may have been seen of the request: nothing, if the connection has written
    /// nothing since.
    pub(super) fn reached(&self) -> Reached {
        if self.seat.line().written_bytes() == self.written_before {
            Reached::Nothing
        } else {
            Reached::Something
        }
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.sent_bytes
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    pub(super) fn waits_for_client(&self) -> bool {
        self.sender.waits_for_client()
    }

    /// Sends on and waits for the final response head.
    pub(super) fn poll_head(
        &mut self,
        body: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, TryError>> {
        self.sender.poll(body, cx).map_err(TryError::Client)?;
        let failure = Failure::http(Reason::Malformed);
        let malformed = TryError::Endpoint { failure, reached: Reached::Something };
        // Left to itself the library would drop them without counting.
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            let Parts { status, headers, .. } = response.into_parts().0;
            let length =
                |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
            let bytes = headers.iter().map(length).sum();
            // 101 has no place in HTTP/2 (RFC 9113 8.6).
            if status == StatusCode::SWITCHING_PROTOCOLS
                || !self.interims.take_in(Interim { status, headers }, bytes)
            {
                return Poll::Ready(Err(malformed));
            }
        }
        match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => {
                let (parts, received) = response.into_parts();
                let head = head_of(parts, &received);
                self.received = Some(received);
                self.seat.line().proven();
                Poll::Ready(head.ok_or(malformed))
            }
            Err(error) => Poll::Ready(Err(self.seat.line().broken(&error, self.reached()))),
        }
    }
}

/// The head as everybody knows it; `None` if it is none.
fn head_of(parts: Parts, received: &RecvStream) -> Option<ResponseHead> {
    let Parts { status, mut headers, .. } = parts;
    if status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let length = length_of(&headers)?;
    let framing = match length {
        _ if received.is_end_stream() => Framing::None,
        Some(length) => Framing::Length(length),
        // Towards a client of HTTP/1.1 that is what it will be.
        None => Framing::Chunked,
    };
    if framing != Framing::Chunked {
        headers.remove(TRAILER);
    }
    Some(ResponseHead { status, headers, framing, keep_alive: true, upgrade: None })
}

/// The content-length, if there is one; `None` if it is not one number.
fn length_of(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Some(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    if values.next().is_some() { None } else { digits.parse().ok().map(Some) }
}

impl Sender {
    /// All of the request has been handed over.
    pub(super) fn is_done(&self) -> bool {
        self.state == Sending::Done
    }

    /// Everything that the client has sent was handed on, and more is to come.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state == Sending::Body && self.pending.is_empty()
    }

    /// Sends until the endpoint's window is full or the body has nothing ready.
    pub(super) fn poll(
        &mut self,
        body: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Result<(), ClientFault> {
        while matches!(self.state, Sending::Body | Sending::Last) {
            if self.pending.is_empty() {
                match body.poll_piece(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(piece)) => {
                        self.pending = piece?;
                        if body.is_at_end() {
                            self.state = Sending::Last;
                        }
                    }
                    Poll::Ready(None) => self.end(body.trailers()),
                }
                continue;
            }
            match self.room(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.state = Sending::Broken,
                Poll::Ready(Some(room)) => self.send(room),
            }
        }
        Ok(())
    }

    /// How much may be sent of what is pending; `None` if the stream has ended.
    fn room(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.reserve_capacity(self.pending.len());
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                return Poll::Ready(Some(room));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }

    fn send(&mut self, room: usize) {
        let part = self.pending.split_to(room.min(self.pending.len()));
        let is_last = self.state == Sending::Last && self.pending.is_empty();
        self.sent_bytes += part.len() as u64;
        match self.stream.send_data(part, is_last) {
            Ok(()) if is_last => self.state = Sending::Done,
            Ok(()) => {}
            Err(_) => self.state = Sending::Broken,
        }
    }

    fn end(&mut self, trailers: &Trailers) {
        let sent = match trailers {
            Some(trailers) => self.stream.send_trailers(HeaderMap::clone(trailers)),
            None => self.stream.send_data(Bytes::new(), true),
        };
        self.state = if sent.is_ok() { Sending::Done } else { Sending::Broken };
    }
}

/// A response body on its way.
#[derive(Debug)]
pub(super) struct Flow {
    /// `None` when it is over.
    incoming: Option<Incoming>,
    left: Option<u64>,
    pub(super) sender: Sender,
    pub(super) outgoing: Option<Outgoing>,
    trailers: Trailers,
    /// What was gathered of a body that is to be whole.
    gathered: BytesMut,
    /// All of the body, where it was collected before it is passed on.
    kept: Option<Bytes>,
    /// Whoever takes it asks for what follows the last byte.
    until_end: bool,
}

#[derive(Debug)]
struct Incoming {
    stream: RecvStream,
    /// Bytes that were handed on and whose room has not been given back.
    handed_bytes: usize,
    _seat: Seat,
}

impl Flow {
    pub(super) fn new(
        exchange: Exchange,
        head: &ResponseHead,
        outgoing: Option<Outgoing>,
        until_end: bool,
    ) -> Self {
        let left = match head.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let Exchange { received, sender, seat, .. } = exchange;
        let incoming = received.map(|stream| Incoming { stream, handed_bytes: 0, _seat: seat });
        Self {
            incoming,
            left,
            sender,
            outgoing,
            trailers: None,
            gathered: BytesMut::new(),
            kept: None,
            until_end,
        }
    }

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.kept.as_ref().map_or(self.left, |kept| Some(kept.len() as u64))
    }

    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_none() && self.kept.is_none() && self.trailers.is_none()
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Gives `whole` back, which was taken before: it is to be passed on with what followed it.
    pub(super) fn keep(&mut self, whole: Bytes) {
        self.kept = (!whole.is_empty()).then_some(whole);
    }

    pub(super) fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    /// Whether no more need be asked for: nothing follows the last byte, or nobody wants it.
    pub(super) fn is_enough(&self) -> bool {
        let at_end = |incoming: &Incoming| incoming.stream.is_end_stream();
        self.left == Some(0) && !self.until_end || self.incoming.as_ref().is_some_and(at_end)
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseError>> {
        if let Some(outgoing) = &mut self.outgoing
            && self.sender.poll(outgoing, cx).is_err()
        {
            return Poll::Ready(Err(ResponseError::Client));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Ok(self.kept.take()));
        };
        let handed = std::mem::take(&mut incoming.handed_bytes);
        if handed > 0 {
            let _ = incoming.stream.flow_control().release_capacity(handed);
        }
        loop {
            match ready!(incoming.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    incoming.handed_bytes = data.len();
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Ok(Some(data)));
                }
                Some(Err(_)) => return Poll::Ready(Err(CUT)),
                None => break,
            }
        }
        match ready!(incoming.stream.poll_trailers(cx)) {
            Ok(fields) => self.trailers = fields.and_then(trailers::passed),
            Err(_) => return Poll::Ready(Err(CUT)),
        }
        Poll::Ready(Ok(None))
    }

    /// All of a body, and what follows it; `None` if more of it has come, and more is to come.
    pub(super) fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseError>> {
        let Some(piece) = ready!(self.poll(cx))? else {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.gathered).freeze())));
        };
        self.gathered.extend_from_slice(&piece);
        let is_whole = self.is_enough();
        Poll::Ready(Ok(is_whole.then(|| std::mem::take(&mut self.gathered).freeze())))
    }

    /// The body of a response that had none is there already.
    pub(super) fn try_whole(&mut self) -> Option<Bytes> {
        let is_none = self.left == Some(0) && self.is_enough();
        is_none.then(Bytes::new)
    }

    /// All of it has been taken. What is left of the request is not wanted any more.
    pub(super) fn finish(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if !self.sender.is_done() {
            if let Some(outgoing) = &mut self.outgoing {
                outgoing.abandon();
            }
            return;
        }
        if incoming.stream.is_end_stream() {
            return;
        }
        // The end is still to come: to be gone before would look like a withdrawal.
        tokio::task::spawn_local(tokio::time::timeout(END_TIME, async move {
            let next = std::future::poll_fn(|cx| incoming.stream.poll_data(cx)).await;
            if next.is_none() {
                let _ = incoming.stream.trailers().await;
            }
        }));
    }

    /// It ends here, whatever is still to come.
    pub(super) fn break_off(&mut self) {
        if self.incoming.take().is_some() {
            self.sender.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}
