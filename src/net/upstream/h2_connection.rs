//! The handle of one HTTP/2 connection to an endpoint: permits for streams, and its failures.
//!
//! `h2_driver` moves the connection's bytes on a task of its own; requests share this handle.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason};
use crate::logic::request::retry::RequestExposure;

use super::connection_queue::ConnectionQueue;
use super::counting_stream::H2IoState;
use super::error::{UpstreamError, io_failure_reason};

/// Streams on one connection, whatever the endpoint allows: a failed connection fails all of its
/// streams.
pub(super) const MAX_STREAMS: usize = 100;

/// The handle of an HTTP/2 connection, shared by its pool, its driver and its requests.
#[derive(Debug)]
pub(super) struct H2Connection {
    /// `None` when the connection takes no new requests.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    active_streams: Cell<usize>,
    pub(super) io_state: Rc<H2IoState>,
    /// The client whose requests alone may use the connection (PROXY protocol).
    pub(super) client: Option<SocketAddr>,
    has_received_response: Cell<bool>,
    idle_since: Cell<Instant>,
    queue: Rc<ConnectionQueue>,
    driver_waker: RefCell<Option<Waker>>,
}

/// Room for one request on a connection; given back when dropped.
#[derive(Debug)]
pub struct StreamPermit(Rc<H2Connection>);

/// The result of a request for a [`StreamPermit`].
#[derive(Debug)]
pub(super) enum StreamAcquisition {
    Permit(StreamPermit),
    AtCapacity,
    /// The connection takes no new requests.
    Closed,
}

/// The endpoint refused the TLS handshake after this side had completed it.
pub(super) fn handshake_refused() -> UpstreamError {
    UpstreamError::unreached(Failure { layer: FailureLayer::Tls, reason: FailureReason::Handshake })
}

/// The failure reason for an error of a stream or of its connection.
pub(super) fn h2_failure_reason(error: &h2::Error) -> FailureReason {
    if let Some(io) = error.get_io() {
        return io_failure_reason(io).unwrap_or(FailureReason::Reset);
    }
    match (error.is_remote(), error.is_go_away()) {
        (true, true) => FailureReason::Closed,
        (true, false) => FailureReason::Reset,
        // The library detected a protocol violation of the endpoint.
        (false, _) => FailureReason::Malformed,
    }
}

impl H2Connection {
    pub(super) fn new(
        sender: SendRequest<Bytes>,
        io_state: Rc<H2IoState>,
        client: Option<SocketAddr>,
        queue: Rc<ConnectionQueue>,
    ) -> Rc<Self> {
        Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            active_streams: Cell::new(0),
            io_state,
            client,
            has_received_response: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            queue,
            driver_waker: RefCell::default(),
        })
    }

    pub(super) fn acquire_stream(self: &Rc<Self>) -> StreamAcquisition {
        let mut send = self.sender.borrow_mut();
        let Some(sender) = send.as_mut() else { return StreamAcquisition::Closed };
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            // The library still queues the request that was sent last.
            Poll::Pending => StreamAcquisition::AtCapacity,
            Poll::Ready(Err(_)) => {
                drop(send);
                self.retire();
                StreamAcquisition::Closed
            }
            Poll::Ready(Ok(())) => {
                if self.active_streams.get() >= sender.current_max_send_streams().min(MAX_STREAMS) {
                    return StreamAcquisition::AtCapacity;
                }
                self.active_streams.update(|count| count + 1);
                StreamAcquisition::Permit(StreamPermit(Rc::clone(self)))
            }
        }
    }

    /// How many requests the connection carries at once, at most; 0 when it is retired.
    pub(super) fn max_streams(&self) -> usize {
        let send = self.sender.borrow();
        send.as_ref().map_or(0, |send| send.current_max_send_streams().min(MAX_STREAMS))
    }

    pub(super) fn active_streams(&self) -> usize {
        self.active_streams.get()
    }

    /// The connection takes no new requests, and ends with its last stream.
    pub(super) fn retire(&self) {
        drop(self.sender.take());
        self.wake_driver();
    }

    /// Makes the connection end with a TCP reset, so that the endpoint does not execute aborted
    /// requests.
    pub(super) fn reset_on_close(&self) {
        self.io_state.set_reset_on_close();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.sender.borrow().is_none()
    }

    /// The start of the current idle period; `None` while a request uses the connection.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active_streams.get() == 0).then(|| self.idle_since.get())
    }

    /// Bytes handed to the network so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.io_state.written_bytes()
    }

    pub(super) fn set_response_received(&self) {
        self.has_received_response.set(true);
    }

    /// Hands `request` over; `is_end_stream` if no body follows.
    ///
    /// # Errors
    /// [`UpstreamError`] with nothing reached.
    pub(super) fn send_request(
        &self,
        request: Request<()>,
        is_end_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), UpstreamError> {
        let mut send = self.sender.borrow_mut();
        let Some(sender) = send.as_mut() else {
            return Err(UpstreamError::unreached(Failure::http(FailureReason::Closed)));
        };
        sender.send_request(request, is_end_stream).map_err(|error| {
            if error.is_io() || error.is_go_away() {
                UpstreamError::unreached(Failure::http(h2_failure_reason(&error)))
            } else {
                UpstreamError::Local(io::Error::other(error))
            }
        })
    }

    /// The failure for `error` of a request of which the endpoint may have seen `reached`.
    pub(super) fn h2_failure(&self, error: &h2::Error, reached: RequestExposure) -> UpstreamError {
        if self.io_state.is_handshake_refused() && !self.has_received_response.get() {
            return handshake_refused();
        }
        // The endpoint has not processed a stream beyond the last one that its GOAWAY names, nor a
        // refused one (RFC 9113 6.8, 8.7).
        let is_unprocessed = error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        let reached = if is_unprocessed { RequestExposure::NotSent } else { reached };
        UpstreamError::Endpoint { failure: Failure::http(h2_failure_reason(error)), reached }
    }

    /// Registers the driver's task, which [`Self::retire`] wakes.
    pub(super) fn register_driver(&self, cx: &Context<'_>) {
        let is_same_waker =
            self.driver_waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !is_same_waker {
            self.driver_waker.replace(Some(cx.waker().clone()));
        }
    }

    fn wake_driver(&self) {
        if let Some(driver) = &*self.driver_waker.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl StreamPermit {
    pub(super) fn connection(&self) -> &H2Connection {
        &self.0
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.active_streams.update(|count| count - 1);
        if connection.active_streams.get() == 0 {
            connection.idle_since.set(Instant::now());
            if connection.is_retired() {
                connection.wake_driver();
            }
        }
        connection.queue.wake_first();
    }
}
