//! A response body that is counted on its way to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::app::proxy::ProxyBody;
use crate::net::upstream::ResponseError;

use super::note::{Ending, Note};

/// A body, and the note that is over with it.
pub struct NotedBody {
    body: ProxyBody,
    is_over: bool,
    note: Rc<Note>,
}

impl NotedBody {
    /// `is_sent` says whether any of `body` goes to the client at all; after HEAD it does not.
    #[must_use]
    pub fn new(body: ProxyBody, note: Rc<Note>, is_sent: bool) -> Self {
        Self { body, is_over: !is_sent, note }
    }

    /// As [`Body::poll_frame`].
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.note.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => {
                self.is_over = true;
                self.note.ended(match error {
                    ResponseError::Endpoint(_) => Ending::Cut,
                    ResponseError::Client => Ending::ClientAbort,
                    ResponseError::Drained => Ending::Drained,
                });
            }
            None => self.is_over = true,
        }
        Poll::Ready(frame)
    }

    /// As [`Body::is_end_stream`].
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// As [`Body::size_hint`].
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for NotedBody {
    fn drop(&mut self) {
        // Whoever knows the length does not ask again after the last byte.
        if !self.is_over && !self.body.is_end_stream() {
            self.note.ended(Ending::ClientAbort);
        }
        // What it comes from is over before it is.
        self.body = ProxyBody::whole(Bytes::new());
        self.note.over();
    }
}
