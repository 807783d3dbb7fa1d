//! A response body that writes its bytes and its end to the access record.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::app::dataplane::access::{AccessRecord, RequestEnding};
use crate::app::dataplane::proxy::local_reply_reason::LocalReplyReason;
use crate::net::upstream::ResponseBodyError;

use super::ProxyBody;

/// Wraps the body of the response to a `method` request, so that `record` sees its bytes and end.
pub(in crate::app::dataplane::proxy) fn record_response(
    record: &Rc<AccessRecord>,
    method: &Method,
    response: Response<ProxyBody>,
) -> Response<ProxyBody> {
    let status = response.status();
    record.on_response(status);
    if let Some(reason) = response.extensions().get::<LocalReplyReason>() {
        record.set_ending(RequestEnding::LocalReply(*reason));
    }
    let is_sent = *method != Method::HEAD
        && !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let record = Rc::clone(record);
    response.map(|body| ProxyBody::Recorded(Box::new(RecordedBody::new(body, record, is_sent))))
}

/// A body and the access record that finishes with it.
pub struct RecordedBody {
    body: ProxyBody,
    is_complete: bool,
    record: Rc<AccessRecord>,
}

impl RecordedBody {
    /// `is_sent`: the client receives the body; false after HEAD, for example.
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
        // A reader that knows the length does not poll again after the last byte.
        if !self.is_complete && !self.body.is_end_stream() {
            self.record.set_ending(RequestEnding::ClientAbort);
        }
        // Drops the attempt's accounting first, so that the record includes its end.
        self.body = ProxyBody::whole(Bytes::new());
        self.record.finish();
    }
}
