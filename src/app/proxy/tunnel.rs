//! WebSocket, and nothing else: a connection to an endpoint that both sides have agreed to use for
//! another protocol (RFC 9110 7.8).
//!
//! It opens only after the endpoint's 101 with the same protocol. Each direction ends by itself; the
//! whole ends when both have, when nothing moves for too long, or when the endpoint falls silent.
//!
//! A client of HTTP/2 asks by an extended CONNECT (RFC 8441), of which an upgrade is made here: from then
//! on all is as over HTTP/1.1, until [`super::super::worker`] makes a 200 of the 101.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::app::access::{Ending, Note};
use crate::net::h1::ConnectionOptions;
use crate::net::upstream::{Cuts, Tunnel};
use crate::net::websocket::Key;

use super::visit::Visit;

/// The only protocol that is passed on. Others, `h2c` above all, would smuggle requests past us.
pub(super) const PROTOCOL: &str = "websocket";

/// Read at once; on the stack, so that a tunnel at rest holds no buffer.
const PIECE_BYTES: usize = 16 * 1024;

/// After a client has said that it sends no more: how often to look whether it is there at all.
const LOOK: Duration = Duration::from_secs(1);

/// A client's wish to go on in another protocol.
pub(super) struct Wish {
    upgrade: OnUpgrade,
    /// What the endpoint is asked with, where the client cannot: then nothing else will do either.
    key: Option<Key>,
}

impl Wish {
    /// Whether any other good answer would be taken for a tunnel.
    pub(super) fn is_all(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a 101 with these headers grants it. Where the key is the client's, so is the check.
    pub(super) fn is_granted(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_accepted(headers))
    }
}

/// A client's wish to go on in another protocol, if it is one that may be granted. Over HTTP/2 the
/// request becomes the upgrade that it stands for, with a key made of `nonce`.
pub(super) fn asked(request: &mut Request<()>, nonce: impl FnOnce() -> u128) -> Option<Wish> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        return extended(request, &protocol, upgrade, nonce);
    }
    let mut protocols = request.headers().get_all(UPGRADE).iter();
    let only = protocols.next().filter(|_| protocols.next().is_none())?;
    let is_known = only.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes());
    let is_asked = ConnectionOptions::of(request.headers()).has("upgrade");
    let may_be = *request.method() == Method::GET && request.version() == Version::HTTP_11;
    (is_known && is_asked && may_be).then_some(Wish { upgrade, key: None })
}

/// RFC 8441 5: the same as a GET, but for what the CONNECT says by itself. Of an unknown protocol it stays
/// a CONNECT, which is refused.
fn extended(
    request: &mut Request<()>,
    protocol: &Protocol,
    upgrade: OnUpgrade,
    nonce: impl FnOnce() -> u128,
) -> Option<Wish> {
    if protocol.as_ref() != PROTOCOL.as_bytes() || *request.method() != Method::CONNECT {
        return None;
    }
    let key = Key::new(nonce());
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(CONTENT_LENGTH);
    headers.insert(SEC_WEBSOCKET_KEY, key.value());
    Some(Wish { upgrade, key: Some(key) })
}

/// The 101 as a client of HTTP/2 is told it: a CONNECT that went well.
pub fn connected<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(UPGRADE);
    headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// The fields of the 101 that are not the endpoint's.
pub(super) fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// A tunnel, to be run to its end.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// What a client's connection goes on with when HTTP on it is over, or beside it, where it carries many
/// streams: whoever serves the connection takes it when an answer is a 101. It counts as the same connection.
#[derive(Default)]
pub struct Sequel(RefCell<Option<Running>>);

impl Sequel {
    pub(super) fn set(&self, running: impl Future<Output = ()> + 'static) {
        *self.0.borrow_mut() = Some(Box::pin(running));
    }

    /// Takes it out, if there is one.
    pub fn take(&self) -> Option<Running> {
        self.0.borrow_mut().take()
    }
}

impl Clone for Sequel {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Sequel {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Sequel {}

impl fmt::Debug for Sequel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sequel").field(&self.0.borrow().is_some()).finish()
    }
}

/// A tunnel in the making.
pub(super) struct Opening {
    pub(super) wish: Wish,
    pub(super) endpoint: Tunnel,
    pub(super) visit: Visit,
    pub(super) cuts: Cuts,
    pub(super) idle: Duration,
    pub(super) note: Option<Rc<Note>>,
}

impl Opening {
    /// Carries bytes both ways until there are no more.
    pub(super) async fn run(self) {
        let Self { wish, mut endpoint, visit, cuts, idle, note } = self;
        let mut over = Over { note: note.as_deref(), ending: Some(Ending::ClientAbort) };
        let Ok(upgraded) = wish.upgrade.await else { return };
        let mut client = TokioIo::new(upgraded);
        let moved = Moved { at: Cell::new(Instant::now()), note: note.as_deref() };
        over.ending = tokio::select! {
            ended = both(&mut client, &mut endpoint, &moved) => ended,
            is_drained = visit.home().until_tunnel_ends(cuts) => {
                Some(if is_drained { Ending::Drained } else { Ending::Cut })
            }
            () = moved.rest(idle) => Some(Ending::Idle),
        };
        if over.ending.is_none() {
            endpoint.finish();
        }
    }
}

/// Says in the end how it ended, also when all of it is dropped.
struct Over<'a> {
    note: Option<&'a Note>,
    ending: Option<Ending>,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let Some(note) = self.note else { return };
        if let Some(ending) = self.ending {
            note.ended(ending);
        }
        note.over();
    }
}

/// When bytes moved last, and how many.
struct Moved<'a> {
    at: Cell<Instant>,
    note: Option<&'a Note>,
}

impl Moved<'_> {
    fn up(&self, bytes: usize) {
        self.at.set(Instant::now());
        if let Some(note) = self.note {
            note.carried(bytes, 0);
        }
    }

    fn down(&self, bytes: usize) {
        self.at.set(Instant::now());
        if let Some(note) = self.note {
            note.carried(0, bytes);
        }
    }

    /// Ends when nothing has moved for `idle`.
    async fn rest(&self, idle: Duration) {
        loop {
            let until = self.at.get() + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Both directions; `None` when both have ended in good order.
async fn both<C, E>(client: &mut C, endpoint: &mut E, moved: &Moved<'_>) -> Option<Ending>
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    let mut look = None;
    poll_fn(|cx| {
        let up = match up.poll(client, endpoint, cx, |bytes| moved.up(bytes)) {
            Poll::Ready(Err(Side::Source)) => return Poll::Ready(Some(Ending::ClientAbort)),
            Poll::Ready(Err(Side::Sink)) => return Poll::Ready(Some(Ending::Cut)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if up && is_gone(client, &mut look, cx) {
            return Poll::Ready(Some(Ending::ClientAbort));
        }
        match down.poll(endpoint, client, cx, |bytes| moved.down(bytes)) {
            Poll::Ready(Err(Side::Source)) => Poll::Ready(Some(Ending::Cut)),
            Poll::Ready(Err(Side::Sink)) => Poll::Ready(Some(Ending::ClientAbort)),
            Poll::Ready(Ok(())) if up => Poll::Ready(None),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Whether a client that sends no more does not take anything either. Over HTTP/2 a stream that its
/// client resets ends like one that is over; only the way to it knows, and does not wake.
fn is_gone<C: AsyncWrite + Unpin>(
    client: &mut C,
    look: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    let look = look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
    while look.as_mut().poll(cx).is_ready() {
        look.as_mut().reset(Instant::now() + LOOK);
    }
    matches!(Pin::new(client).poll_flush(cx), Poll::Ready(Err(_)))
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Sink,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// Read and not written yet.
    held: BytesMut,
    state: Flow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    /// Written, and perhaps still in a buffer below.
    Unflushed,
    /// The source has ended; so shall the sink.
    Ending,
    Ended,
}

impl Pipe {
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        source: &mut R,
        sink: &mut W,
        cx: &mut Context<'_>,
        mut moved: impl FnMut(usize),
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *sink).poll_write(cx, &self.held));
                match written {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Side::Sink)),
                    Ok(written) => {
                        self.held.advance(written);
                        self.state = Flow::Unflushed;
                        moved(written);
                    }
                }
            }
            match self.state {
                Flow::Ended => return Poll::Ready(Ok(())),
                Flow::Ending => {
                    if ready!(Pin::new(&mut *sink).poll_shutdown(cx)).is_err() {
                        return Poll::Ready(Err(Side::Sink));
                    }
                    self.state = Flow::Ended;
                }
                Flow::Open | Flow::Unflushed => match self.read(source, cx) {
                    Poll::Ready(Ok(0)) => self.state = Flow::Ending,
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(())) => return Poll::Ready(Err(Side::Source)),
                    Poll::Pending => {
                        self.held = BytesMut::new();
                        if self.state == Flow::Unflushed {
                            if ready!(Pin::new(&mut *sink).poll_flush(cx)).is_err() {
                                return Poll::Ready(Err(Side::Sink));
                            }
                            self.state = Flow::Open;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Bytes that were read; 0 at the end.
    fn read<R: AsyncRead + Unpin>(
        &mut self,
        source: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, ()>> {
        let mut piece = [std::mem::MaybeUninit::uninit(); PIECE_BYTES];
        let mut piece = ReadBuf::uninit(&mut piece);
        match ready!(Pin::new(source).poll_read(cx, &mut piece)) {
            Ok(()) => {
                self.held.extend_from_slice(piece.filled());
                Poll::Ready(Ok(piece.filled().len()))
            }
            Err(_) => Poll::Ready(Err(())),
        }
    }
}
