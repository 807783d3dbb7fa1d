//! What a drill puts in the place of a connection: one that leads nowhere. Everything above it is what
//! runs in production; the endpoint sees nothing.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::ReadBuf;

use crate::logic::drill::{DrillCounters, DrillFault};

/// What a drill does to the connections to one endpoint, for the requests that it takes.
#[derive(Debug)]
pub struct FaultInjection {
    /// Which drill it is.
    pub drill: u64,
    /// The endpoint is one of those that seem to fail, sooner or later.
    pub is_target: bool,
    /// How it seems to fail, if it does now.
    pub fault: Cell<Option<DrillFault>>,
    /// What comes of the drill's requests.
    pub tallies: Arc<DrillCounters>,
    /// The drill is over: what still waits was never sent.
    pub is_finished: Cell<bool>,
}

impl FaultInjection {
    pub fn new(drill: u64, is_target: bool, tallies: Arc<DrillCounters>) -> Self {
        Self { drill, is_target, fault: Cell::new(None), tallies, is_finished: Cell::new(false) }
    }
}

/// How a connection that leads nowhere goes on once something was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectedReply {
    Reset,
    Silence,
    /// It answers with these bytes, and ends.
    Response(Vec<u8>),
}

impl InjectedReply {
    /// An answer with this status.
    pub fn with_status(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Drill\r\nconnection: close\r\n");
        Self::Response(
            format!("{head}content-length: 6\r\nx-gapless-drill: 1\r\n\r\ndrill\n").into(),
        )
    }

    /// The begin of an answer that is small enough to be passed on only when it is whole, which it
    /// never is.
    pub fn truncated() -> Self {
        Self::Response(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\ndrill\n".to_vec())
    }

    /// What a read gets.
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
