//! One request and its response over HTTP/1.1.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::io::AsyncWrite;

use crate::logic::outcome::Reason;
use crate::logic::retry::Reached;
use crate::net::h1::{self, BodyDecoder, Decoded, Framing, ResponseHead};
use crate::net::trailers::Trailers;

use super::connection::{Connection, TryError};
use super::exchange::{BodyFraming, Interim, Interims};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::response::{CUT, ResponseError};
use super::tunnel::Tunnel;

/// Reads of a large body.
const BODY_READ_BYTES: usize = 64 * 1024;

/// First read of a response: a head and a small body fit.
const READ_BYTES: usize = 8 * 1024;

/// Small pieces of a request body are gathered up to this before they are written.
const GATHER_BYTES: usize = 64 * 1024;

/// A piece of a request body from this size on is written from where it lies.
const DIRECT_BYTES: usize = 4 * 1024;

/// What TLS sends in one piece, at most (RFC 8446 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// The sending side of an exchange; goes on while the response is read already.
#[derive(Debug)]
pub(super) struct Sender {
    /// What is to be written next.
    pending: BytesMut,
    /// A large piece of the body, which follows.
    piece: Bytes,
    framing: BodyFraming,
    state: Sending,
    written_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// The head waits for what follows it: both go in one write if the body has come with it.
    Head,
    Body,
    Flushing,
    Done,
    /// The endpoint takes no more; it may have answered all the same.
    Broken,
}

/// A request on its way and the response head that is awaited.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
    input: BytesMut,
    sender: Sender,
    method: Method,
    head_bytes_at_most: usize,
    pub(super) interims: Interims,
    reached: Reached,
    /// The protocol that the endpoint was asked to switch to.
    pub(super) switch_to: Option<&'static str>,
}

impl Exchange {
    /// Begins: without a body, writes as much of `head` as the socket takes at once; with one, which
    /// `framing` says, the head goes with the first of it.
    ///
    /// # Errors
    /// [`TryError`]; nothing has been reached if the socket refused the first byte.
    pub(super) fn begin(
        mut connection: Connection,
        head: &[u8],
        method: Method,
        framing: Option<BodyFraming>,
        head_bytes_at_most: usize,
    ) -> Result<Self, TryError> {
        connection.busy = true;
        let written = if framing.is_some() { 0 } else { write_now(&mut connection, head)? };
        let pending = BytesMut::from(&head[written..]);
        let state = match framing {
            Some(_) => Sending::Head,
            None if pending.is_empty() && connection.stream.try_flush() => Sending::Done,
            None => Sending::Flushing,
        };
        let reached = if written > 0 { Reached::Something } else { Reached::Nothing };
        let framing = framing.unwrap_or(BodyFraming::Length);
        let (piece, written_bytes) = (Bytes::new(), written as u64);
        let sender = Sender { pending, piece, framing, state, written_bytes };
        let input = std::mem::take(&mut connection.input);
        Ok(Self {
            connection,
            input,
            sender,
            method,
            head_bytes_at_most,
            interims: Interims::default(),
            reached,
            switch_to: None,
        })
    }

    /// Whether a byte of the request may have been seen.
    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Bytes of the request that were handed to the kernel.
    pub(super) fn written_bytes(&self) -> u64 {
        self.sender.written_bytes
    }

    /// Whether all of the request has been handed to the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    /// Whether the client is to send more before the endpoint can be expected to answer.
    pub(super) fn waits_for_client(&self) -> bool {
        self.sender.waits_for_client()
    }

    /// Sends on and waits for the final response head.
    pub(super) fn poll_head(
        &mut self,
        body: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, TryError>> {
        self.sender.poll(&mut self.connection, body, cx, &mut self.reached)?;
        loop {
            if let Some(head) = self.take_head()? {
                return Poll::Ready(Ok(head));
            }
            match poll_read(&mut self.connection, &mut self.input, READ_BYTES, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    let cut =
                        if self.input.is_empty() { Reason::Closed } else { Reason::Malformed };
                    return Poll::Ready(Err(self.connection.failed(cut, self.reached)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.connection.broken(&error, self.reached)));
                }
            }
        }
    }

    /// Whether the endpoint does what it was asked for, and nothing of the request is still to be sent.
    fn is_switch(&self, head: &ResponseHead) -> bool {
        let asked = self.switch_to.filter(|_| self.sender.is_done());
        let granted = head.upgrade.as_ref();
        asked.zip(granted).is_some_and(|(asked, granted)| {
            granted.as_bytes().eq_ignore_ascii_case(asked.as_bytes())
        })
    }

    /// After a 101: the connection, for anything.
    pub(super) fn into_tunnel(self) -> Tunnel {
        Tunnel::new(self.connection, self.input)
    }

    /// Whether all of the body that follows `head` has come with it.
    pub(super) fn has_whole(&self, head: &ResponseHead) -> bool {
        let length = whole_length(head);
        self.is_sent() && length.is_some_and(|length| length <= self.input.len())
    }

    /// That body; the connection goes back to `home`. Only if [`Exchange::has_whole`].
    pub(super) fn into_whole(mut self: Box<Self>, head: &ResponseHead, home: &Rc<Pool>) -> Bytes {
        let length = whole_length(head).unwrap_or(0).min(self.input.len());
        let whole = self.input.split_to(length).freeze();
        let is_kept = head.keep_alive && self.input.is_empty();
        self.connection.input = self.input;
        give_back(self.connection, is_kept, home);
        whole
    }

    /// The final head, if all of it is there; interim ones before it are taken in.
    fn take_head(&mut self) -> Result<Option<ResponseHead>, TryError> {
        let malformed = |this: &Self| this.connection.failed(Reason::Malformed, this.reached);
        loop {
            let before = self.input.len();
            let head = h1::parse_response(&mut self.input, &self.method);
            let head = head.map_err(|_| malformed(self))?;
            // All of a head, or what there is of one.
            let bytes = if head.is_some() { before - self.input.len() } else { before };
            if bytes > self.head_bytes_at_most {
                return Err(malformed(self));
            }
            match head {
                None => return Ok(None),
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    let is_switch = self.is_switch(&head);
                    return if is_switch { Ok(Some(head)) } else { Err(malformed(self)) };
                }
                Some(head) if head.status.is_informational() => {
                    let interim = Interim { status: head.status, headers: head.headers };
                    if !self.interims.take_in(interim, bytes) {
                        return Err(malformed(self));
                    }
                }
                Some(head) => return Ok(Some(head)),
            }
        }
    }
}

/// The length of the body that follows `head`, where that says it.
fn whole_length(head: &ResponseHead) -> Option<usize> {
    match head.framing {
        Framing::None => Some(0),
        Framing::Length(length) => usize::try_from(length).ok(),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// An exchange has gone well on `connection`. Bytes after a complete response belong to nobody: with
/// such it is not kept.
fn give_back(mut connection: Connection, is_kept: bool, home: &Rc<Pool>) {
    connection.busy = false;
    connection.is_proven = true;
    if is_kept {
        home.check_in(connection);
    }
}

/// Writes as much of `head` as the socket takes at once.
fn write_now(connection: &mut Connection, head: &[u8]) -> Result<usize, TryError> {
    match connection.stream.try_write(head) {
        Ok(written) => Ok(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => {
            // Of what is larger than a TLS record a part may have gone.
            let is_whole = head.len() <= RECORD_BYTES;
            let reached = if is_whole { Reached::Nothing } else { Reached::Something };
            Err(connection.broken(&error, reached))
        }
    }
}

impl Sender {
    /// All of the request has been handed to the kernel.
    pub(super) fn is_done(&self) -> bool {
        self.state == Sending::Done
    }

    /// Everything that the client has sent was handed on, and more is to come.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state == Sending::Body && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.pending.is_empty() && self.piece.is_empty()
    }

    /// Sends until the socket is full or the body has nothing ready.
    pub(super) fn poll(
        &mut self,
        connection: &mut Connection,
        body: &mut Outgoing,
        cx: &mut Context<'_>,
        reached: &mut Reached,
    ) -> Result<(), TryError> {
        if self.state == Sending::Head {
            self.state = Sending::Body;
            self.gather(body, cx)?;
            if self.state == Sending::Body && self.piece.is_empty() {
                // What came with the head is read when it is first asked for: in the next turn it
                // is there, or the head goes alone.
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        while !matches!(self.state, Sending::Done | Sending::Broken) {
            self.gather(body, cx)?;
            if self.is_written() {
                match Pin::new(&mut connection.stream).poll_flush(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) if self.state == Sending::Flushing => {
                        self.state = Sending::Done;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.state = Sending::Broken,
                }
                return Ok(());
            }
            match self.poll_write(connection, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(written)) => {
                    *reached = Reached::Something;
                    self.written_bytes += written as u64;
                    let of_pending = written.min(self.pending.len());
                    self.pending.advance(of_pending);
                    self.piece.advance(written - of_pending);
                }
                Poll::Ready(Err(_)) => {
                    // Of what is larger than a TLS record a part may have gone.
                    let is_long = self.pending.len() + self.piece.len() > RECORD_BYTES;
                    if is_long && connection.stream.alpn().is_some() {
                        *reached = Reached::Something;
                    }
                    self.state = Sending::Broken;
                }
            }
        }
        Ok(())
    }

    fn poll_write(
        &self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut connection.stream);
        match (&*self.pending, &*self.piece) {
            (pending, []) => stream.poll_write(cx, pending),
            ([], piece) => stream.poll_write(cx, piece),
            (pending, piece) => {
                let both = [IoSlice::new(pending), IoSlice::new(piece)];
                stream.poll_write_vectored(cx, &both)
            }
        }
    }

    fn gather(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Result<(), TryError> {
        let is_open = |this: &Self| this.piece.is_empty() && this.pending.len() < GATHER_BYTES;
        while self.state == Sending::Body && is_open(self) {
            match body.poll_piece(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(piece))) => match self.framing {
                    BodyFraming::Length if piece.len() >= DIRECT_BYTES => self.piece = piece,
                    BodyFraming::Length => self.pending.extend_from_slice(&piece),
                    BodyFraming::Chunked => h1::write_chunk(&mut self.pending, &piece),
                },
                Poll::Ready(Some(Err(fault))) => return Err(TryError::Client(fault)),
                Poll::Ready(None) => {
                    if self.framing == BodyFraming::Chunked {
                        h1::write_end(&mut self.pending, body.trailers());
                    }
                    self.state = Sending::Flushing;
                }
            }
        }
        Ok(())
    }
}

/// Reads once into `input`, which is grown by `reserve` bytes when it is full.
fn poll_read(
    connection: &mut Connection,
    input: &mut BytesMut,
    reserve: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let filled = input.len();
    if input.capacity() - filled < reserve / 4 {
        input.reserve(reserve);
    }
    tokio_util::io::poll_read_buf(Pin::new(&mut connection.stream), cx, input)
}

/// A response body on its way.
#[derive(Debug)]
pub(super) struct Flow {
    /// `None` when it is over.
    connection: Option<Connection>,
    input: BytesMut,
    decoder: BodyDecoder,
    pub(super) sender: Sender,
    pub(super) outgoing: Option<Outgoing>,
    keep_alive: bool,
    trailers: Trailers,
}

impl Flow {
    pub(super) fn new(exchange: Exchange, head: &ResponseHead, outgoing: Option<Outgoing>) -> Self {
        Self {
            connection: Some(exchange.connection),
            input: exchange.input,
            decoder: BodyDecoder::new(head.framing),
            sender: exchange.sender,
            outgoing,
            keep_alive: head.keep_alive,
            trailers: None,
        }
    }

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.is_none()
    }

    pub(super) fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseError>> {
        let Some(connection) = self.connection.as_mut() else { return Poll::Ready(Ok(None)) };
        if let Some(outgoing) = &mut self.outgoing {
            let mut reached = Reached::Something;
            if self.sender.poll(connection, outgoing, cx, &mut reached).is_err() {
                return Poll::Ready(Err(ResponseError::Client));
            }
        }
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Decoded::End) => {
                    self.trailers = self.decoder.take_trailers();
                    return Poll::Ready(Ok(None));
                }
                Ok(Decoded::More) => {}
                Err(_) => return Poll::Ready(Err(CUT)),
            }
            match ready!(poll_read(connection, &mut self.input, BODY_READ_BYTES, cx)) {
                Ok(0) if self.decoder.ends_at_close() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(CUT)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(CUT)),
            }
        }
    }

    /// All of a body of known length, gathered where it is read; `None` if more of it has come, and
    /// more is to come.
    pub(super) fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ResponseError>> {
        if let Some(whole) = self.try_whole()? {
            return Poll::Ready(Ok(Some(whole)));
        }
        let (Some(connection), Some(length)) = (&mut self.connection, self.decoder.remaining())
        else {
            return Poll::Ready(Err(CUT));
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Room for a byte more: a read that fills its buffer says nothing of what is left, and the
        // connection's next look would be one more system call.
        self.input.reserve(length.saturating_sub(self.input.len()).saturating_add(1));
        let stream = Pin::new(&mut connection.stream);
        match ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.input)) {
            Ok(0) | Err(_) => Poll::Ready(Err(CUT)),
            Ok(_) => Poll::Ready(self.try_whole()),
        }
    }

    /// All of a body of known length, if it has arrived already.
    pub(super) fn try_whole(&mut self) -> Result<Option<Bytes>, ResponseError> {
        let malformed = |_| CUT;
        let Some(remaining) = self.decoder.remaining() else { return Ok(None) };
        if remaining > self.input.len() as u64 {
            return Ok(None);
        }
        let whole = match self.decoder.decode(&mut self.input).map_err(malformed)? {
            Decoded::Data(data) => data,
            Decoded::End | Decoded::More => Bytes::new(),
        };
        // Moves the decoder past its end.
        self.decoder.decode(&mut self.input).map_err(malformed)?;
        Ok(Some(whole))
    }

    /// All of it has been taken: the connection goes back to its pool.
    pub(super) fn finish(&mut self, home: &Rc<Pool>) {
        let Some(connection) = self.connection.take() else { return };
        if !self.sender.is_done() {
            if let Some(outgoing) = &mut self.outgoing {
                outgoing.abandon();
            }
            return;
        }
        give_back(connection, self.keep_alive && self.input.is_empty(), home);
    }

    /// It ends here, whatever is still to come.
    pub(super) fn break_off(&mut self) {
        self.connection = None;
    }
}
