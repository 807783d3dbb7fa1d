//! A response body that is counted on its way to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::app::dataplane::proxy::ProxyBody;
use crate::net::upstream::ResponseBodyError;

use super::access_record::{AccessRecord, RequestEnding};

/// A body, and the note that is over with it.
pub struct RecordedBody {
    body: ProxyBody,
    is_complete: bool,
    record: Rc<AccessRecord>,
}

impl RecordedBody {
    /// `is_sent` says whether any of `body` goes to the client at all; after HEAD it does not.
    pub fn new(body: ProxyBody, record: Rc<AccessRecord>, is_sent: bool) -> Self {
        Self { body, is_complete: !is_sent, record }
    }

    /// As [`Body::poll_frame`].
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.record.add_sent_bytes(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => {
                self.is_complete = true;
                self.record.set_ending(match error {
                    ResponseBodyError::Endpoint(_) => RequestEnding::Cut,
                    ResponseBodyError::Client => RequestEnding::ClientAbort,
                    ResponseBodyError::Drained => RequestEnding::Drained,
                });
            }
            None => self.is_complete = true,
        }
        Poll::Ready(frame)
    }

    /// As [`Body::is_end_stream`].
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// As [`Body::size_hint`].
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // Whoever knows the length does not ask again after the last byte.
        if !self.is_complete && !self.body.is_end_stream() {
            self.record.set_ending(RequestEnding::ClientAbort);
        }
        // What it comes from is over before it is.
        self.body = ProxyBody::whole(Bytes::new());
        self.record.finish();
    }
}
