//! A response body that ends at the deadline of a gRPC call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::app::dataplane::proxy::grpc_status::error_trailers;
use crate::app::dataplane::proxy::local_reply_reason::LocalReplyReason;
use crate::net::upstream::ResponseBodyError;

use super::ProxyBody;

/// A body, and the time at which trailers end it.
pub struct DeadlineBody {
    body: ProxyBody,
    timer: Pin<Box<Sleep>>,
}

impl DeadlineBody {
    pub(in crate::app::dataplane::proxy) fn new(body: ProxyBody, deadline: Instant) -> Self {
        Self { body, timer: Box::pin(sleep_until(deadline)) }
    }

    /// The next frame. At the deadline it is trailers with the error status, and no frame follows.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.timer.as_mut().poll(cx));
        // Drops the exchange, which withdraws the request at the endpoint.
        self.body = ProxyBody::whole(Bytes::new());
        Poll::Ready(Some(Ok(Frame::trailers(error_trailers(LocalReplyReason::DeadlineExceeded)))))
    }

    pub(super) fn body(&self) -> &ProxyBody {
        &self.body
    }
}
