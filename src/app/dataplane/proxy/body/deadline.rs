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

/// A body that ends at a deadline.
pub struct DeadlineBody {
    body: ProxyBody,
    timer: Pin<Box<Sleep>>,
}

impl DeadlineBody {
    pub(in crate::app::dataplane::proxy) fn new(body: ProxyBody, deadline: Instant) -> Self {
        Self { body, timer: Box::pin(sleep_until(deadline)) }
    }

    /// The next frame; at the deadline the one that says so, after which there are none.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.timer.as_mut().poll(cx));
        // The endpoint hears that nobody waits any more.
        self.body = ProxyBody::whole(Bytes::new());
        Poll::Ready(Some(Ok(Frame::trailers(error_trailers(LocalReplyReason::DeadlineExceeded)))))
    }

    pub(super) fn body(&self) -> &ProxyBody {
        &self.body
    }
}
