//! Response bodies as clients receive them.

mod deadline;
mod recorded;

pub(super) use deadline::DeadlineBody;
pub(super) use recorded::record_response;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::net::upstream::{ResponseBody, ResponseBodyError};

use self::recorded::RecordedBody;
use super::attempt_guard::AttemptGuard;

/// The body of a response to a client.
pub enum ProxyBody {
    /// A complete body, taken when it is sent.
    Whole(Bytes),
    /// A body that arrives from an endpoint.
    Stream {
        source: Box<ResponseBody>,
        /// Accounting of the attempt, which lasts as long as the body.
        guard: AttemptGuard,
    },
    /// A body whose bytes and end go to the access log.
    Recorded(Box<RecordedBody>),
    /// A body that a deadline may end.
    WithDeadline(Box<DeadlineBody>),
}

impl ProxyBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Default for ProxyBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match self.get_mut() {
            Self::Recorded(recorded) => recorded.poll_frame(cx),
            Self::WithDeadline(body) => body.poll_frame(cx),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { source, guard } => Poll::Ready(match ready!(source.poll_chunk(cx)) {
                Some(Ok(piece)) => {
                    // A reader that knows the length does not poll again after the last byte.
                    if source.is_over() {
                        guard.on_complete();
                    }
                    Some(Ok(Frame::data(piece)))
                }
                Some(Err(error)) => {
                    guard.on_body_error(error);
                    Some(Err(error))
                }
                None => {
                    guard.on_complete();
                    source.take_trailers().map(|trailers| Ok(Frame::trailers(*trailers)))
                }
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::WithDeadline(body) => body.body().is_end_stream(),
            Self::Stream { source, .. } => source.is_over(),
            Self::Recorded(recorded) => recorded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::WithDeadline(body) => body.body().size_hint(),
            Self::Stream { source, .. } => {
                source.remaining().map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Self::Recorded(recorded) => recorded.size_hint(),
        }
    }
}

impl std::fmt::Display for ResponseBodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint(_) => f.write_str("the endpoint's response was cut"),
            Self::Client => f.write_str("the client's request was cut"),
            Self::Drained => f.write_str("the endpoint is drained"),
        }
    }
}

impl std::error::Error for ResponseBodyError {}
