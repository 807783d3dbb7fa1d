//! The start of an HTTP/2 connection to an endpoint (RFC 9113 3.4).

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};

use crate::logic::model::outcome::{Failure, FailureReason};
use crate::net::write_coalescer::WriteCoalescer;

use super::connection_queue::{ConnectionPermit, ConnectionQueue};
use super::counting_stream::{CountingStream, H2IoState};
use super::error::UpstreamError;
use super::h2_connection::{self, H2Connection, MAX_STREAMS};
use super::h2_driver::H2Driver;
use super::stream::UpstreamStream;

/// Bytes of one response that the endpoint may send before the client has read them.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same for a connection: room for the whole windows of all streams and of one more, so that
/// clients that read nothing never hold up another stream.
const CONNECTION_WINDOW_BYTES: u32 = (MAX_STREAMS as u32 + 1) * STREAM_WINDOW_BYTES;

/// Bytes of one request body that the library holds until the socket takes them.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Streams that this side has reset and whose late frames are still ignored.
const MAX_RESET_STREAMS: usize = 1_000;

/// An open connection without a driver.
pub(super) struct H2Handshake {
    sender: SendRequest<Bytes>,
    connection: Connection<CountingStream, Bytes>,
    stream: WriteCoalescer<UpstreamStream>,
    io_state: Rc<H2IoState>,
}

/// Starts HTTP/2 on `stream` and waits for the endpoint's SETTINGS. No request has been sent when
/// this fails.
///
/// # Errors
/// [`UpstreamError::Endpoint`] with nothing reached.
pub(super) async fn handshake(
    stream: UpstreamStream,
    max_head_bytes: usize,
) -> Result<H2Handshake, UpstreamError> {
    let io_state = Rc::new(H2IoState::default());
    let stream = WriteCoalescer::new(stream);
    let counted = CountingStream::new(stream.clone(), Rc::clone(&io_state));
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(u32::try_from(max_head_bytes).unwrap_or(u32::MAX))
        // The SETTINGS have arrived when this is no longer zero.
        .initial_max_send_streams(0);
    let result = builder.handshake(counted).await;
    let (sender, mut connection) = result.map_err(|error| handshake_error(&error, &io_state))?;
    std::future::poll_fn(|cx| {
        let over = Pin::new(&mut connection).poll(cx);
        stream.flush(cx);
        if connection.max_concurrent_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        over.map(|ended| Err(ended.err()))
    })
    .await
    .map_err(|error| {
        error.map_or_else(
            || UpstreamError::unreached(Failure::http(FailureReason::Closed)),
            |e| handshake_error(&e, &io_state),
        )
    })?;
    Ok(H2Handshake { sender, connection, stream, io_state })
}

fn handshake_error(error: &h2::Error, io_state: &H2IoState) -> UpstreamError {
    if io_state.is_handshake_refused() {
        h2_connection::handshake_refused()
    } else {
        UpstreamError::unreached(Failure::http(h2_connection::h2_failure_reason(error)))
    }
}

impl H2Handshake {
    /// Spawns the connection's driver onto the current `LocalSet`. The driver holds `permit` until
    /// the connection ends, and then calls `on_close` as [`H2Driver::run`] does.
    pub(super) fn spawn_driver(
        self,
        client: Option<SocketAddr>,
        queue: &Rc<ConnectionQueue>,
        permit: ConnectionPermit,
        on_close: impl FnOnce(&Rc<H2Connection>, bool) + 'static,
    ) -> Rc<H2Connection> {
        let Self { sender, connection, stream, io_state } = self;
        let handle = H2Connection::new(sender, io_state, client, Rc::clone(queue));
        let driver = H2Driver::new(connection, stream, Rc::clone(&handle));
        tokio::task::spawn_local(driver.run(permit, on_close));
        handle
    }
}
