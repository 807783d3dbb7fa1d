//! The open connection of a probe, and the result of a check on it.

use std::time::Instant;

use super::h2_session::H2ProbeSession;
use super::progress::AttemptFailure;
use super::stream::ProbeStream;

/// An open connection, and when it was opened.
#[derive(Debug)]
pub(super) struct ProbeConnection {
    pub(super) opened_at: Instant,
    pub(super) transport: ProbeTransport,
}

/// A connection by its protocol.
#[derive(Debug)]
pub(super) enum ProbeTransport {
    /// HTTP/1.1 or no HTTP.
    ByteStream(Box<ProbeStream>),
    H2(Box<H2ProbeSession>),
}

/// A check that passed.
#[derive(Debug)]
pub(super) struct PassedCheck {
    pub(super) is_degraded: bool,
    /// The connection, if it can carry another probe.
    pub(super) transport: Option<ProbeTransport>,
}

pub(super) type CheckResult = Result<PassedCheck, AttemptFailure>;
