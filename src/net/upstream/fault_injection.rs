//! The replacement of a connection during a drill: it has no peer, so that the endpoint receives
//! nothing. All layers above it are those of production.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::ReadBuf;

use crate::logic::drill::{DrillCounters, DrillFault, DrillId};

pub use crate::logic::drill::FaultEffect;

/// The faults that a drill injects into the connections of one endpoint.
#[derive(Debug)]
pub struct FaultInjection {
    pub drill: DrillId,
    /// Whether the endpoint is a target of the drill.
    pub is_target: bool,
    /// The fault that the endpoint shows now.
    pub fault: Cell<Option<DrillFault>>,
    /// Counts the results of the drill's requests.
    pub tallies: Arc<DrillCounters>,
    /// Whether the drill is over: requests that still wait count as not sent.
    pub is_finished: Cell<bool>,
}

impl FaultInjection {
    pub fn new(drill: DrillId, is_target: bool, tallies: Arc<DrillCounters>) -> Self {
        Self { drill, is_target, fault: Cell::new(None), tallies, is_finished: Cell::new(false) }
    }
}

/// The behaviour of a connection without a peer after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectedReply {
    Reset,
    Silence,
    /// Responds with these bytes and closes.
    Response(Vec<u8>),
}

impl InjectedReply {
    /// A complete response with this status.
    pub fn with_status(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Drill\r\nconnection: close\r\n");
        Self::Response(
            format!("{head}content-length: 6\r\nx-gapless-drill: 1\r\n\r\ndrill\n").into(),
        )
    }

    /// A response that ends early. It is small enough to be withheld until it is complete, so that
    /// the request can be retried.
    pub fn truncated() -> Self {
        Self::Response(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\ndrill\n".to_vec())
    }

    /// Reads from the injected reply.
    pub(super) fn poll_read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Self::Silence => Poll::Pending,
            Self::Response(bytes) => {
                let length = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..length]);
                bytes.drain(..length);
                Poll::Ready(Ok(()))
            }
        }
    }
}
