//! The task that drives one HTTP/2 connection: moves its bytes, checks that the endpoint is alive,
//! and closes it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::time::{Sleep, sleep};

use crate::net::write_coalescer::WriteCoalescer;

use super::connection_queue::ConnectionPermit;
use super::counting_stream::CountingStream;
use super::h2_connection::H2Connection;
use super::stream::UpstreamStream;

/// The interval of liveness checks while requests are in flight. After a silent interval the driver
/// sends a PING; after a second one it retires the connection; after a third one it resets it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Time for the closing frames of a retired connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct H2Driver {
    connection: Connection<CountingStream, Bytes>,
    stream: WriteCoalescer<UpstreamStream>,
    pings: Option<PingPong>,
    handle: Rc<H2Connection>,
    /// Armed while requests are in flight.
    keepalive_timer: Option<Pin<Box<Sleep>>>,
    last_read_bytes: u64,
    silent_checks: u32,
    close_timer: Option<Pin<Box<Sleep>>>,
}

impl H2Driver {
    pub(super) fn new(
        mut connection: Connection<CountingStream, Bytes>,
        stream: WriteCoalescer<UpstreamStream>,
        handle: Rc<H2Connection>,
    ) -> Self {
        Self {
            pings: connection.ping_pong(),
            connection,
            stream,
            handle,
            keepalive_timer: None,
            last_read_bytes: 0,
            silent_checks: 0,
            close_timer: None,
        }
    }

    /// Drives the connection to its end and then calls `on_close`: with `true` if the endpoint
    /// closed a connection that was idle and not retired.
    pub(super) async fn run(
        mut self,
        permit: ConnectionPermit,
        on_close: impl FnOnce(&Rc<H2Connection>, bool),
    ) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        let handle = Rc::clone(&self.handle);
        let is_idle_close = !handle.is_retired() && handle.active_streams() == 0;
        handle.retire();
        // Fails the streams that are still open.
        drop(self);
        drop(permit);
        on_close(&handle, is_idle_close);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.register_driver(cx);
        let is_over = Pin::new(&mut self.connection).poll(cx).is_ready();
        self.stream.flush(cx);
        if is_over {
            return Poll::Ready(());
        }
        if self.handle.active_streams() > 0 {
            return self.poll_keepalive(cx);
        }
        self.keepalive_timer = None;
        self.silent_checks = 0;
        if !self.handle.is_retired() {
            return Poll::Pending;
        }
        if self.handle.io_state.should_reset() {
            return Poll::Ready(());
        }
        let close_timer = self.close_timer.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
        close_timer.as_mut().poll(cx)
    }

    /// Runs the liveness checks; ready when the connection is to be reset.
    fn poll_keepalive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pings) = &mut self.pings {
            let _ = pings.poll_pong(cx);
        }
        let timer = self.keepalive_timer.get_or_insert_with(|| Box::pin(sleep(KEEPALIVE_INTERVAL)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(tokio::time::Instant::now() + KEEPALIVE_INTERVAL);
            let read_bytes = self.handle.io_state.read_bytes();
            if read_bytes != self.last_read_bytes {
                (self.last_read_bytes, self.silent_checks) = (read_bytes, 0);
                continue;
            }
            self.silent_checks += 1;
            match (self.silent_checks, &mut self.pings) {
                (1, Some(pings)) => {
                    let _ = pings.send_ping(Ping::opaque());
                    cx.waker().wake_by_ref();
                }
                (2, _) => self.handle.retire(),
                (3.., _) => {
                    self.handle.reset_on_close();
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
        Poll::Pending
    }
}
