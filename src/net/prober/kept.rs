//! Connections that are kept from one probe to the next.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::probe::ProbeKind;
use crate::logic::speech::TlsClient;

use super::{Question, Stream, http2};

/// A connection is used for this long, at most: what only a new one shows (another certificate, an
/// endpoint that accepts no more) is not hidden for ever.
const AT_MOST: Duration = Duration::from_secs(60);

/// An open connection and its age.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) since: Instant,
    pub(super) line: Line,
}

/// A connection by what is spoken on it.
#[derive(Debug)]
pub(super) enum Line {
    /// HTTP/1.1, or no HTTP at all.
    Bytes(Box<Stream>),
    /// HTTP/2.
    H2(Box<http2::Session>),
}

/// What one probe of one endpoint keeps; belongs to its thread.
#[derive(Debug, Default)]
pub struct Kept {
    slot: RefCell<Option<Slot>>,
}

#[derive(Debug)]
struct Slot {
    opened_for: OpenedFor,
    open: Open,
}

/// A connection that was opened for something else is of no use.
#[derive(Debug, PartialEq)]
struct OpenedFor {
    target: SocketAddr,
    tls: Option<Arc<TlsClient>>,
    protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Bytes,
    H1,
    H2,
}

impl OpenedFor {
    fn of(question: &Question<'_>) -> Self {
        let protocol = match question.spec.kind {
            ProbeKind::Tcp { .. } | ProbeKind::Tls => Protocol::Bytes,
            ProbeKind::Http(_) | ProbeKind::Grpc(_) if question.spec.speaks_h2() => Protocol::H2,
            ProbeKind::Http(_) | ProbeKind::Grpc(_) => Protocol::H1,
        };
        Self { target: question.target, tls: question.spec.tls.clone(), protocol }
    }
}

impl Kept {
    /// Takes the connection out, if there is one that will do.
    pub(super) fn take(&self, question: &Question<'_>) -> Option<Open> {
        let slot = self.slot.take()?;
        let is_fresh = slot.open.since.elapsed() < AT_MOST;
        let will_do = question.spec.reuse && is_fresh && slot.opened_for == OpenedFor::of(question);
        will_do.then_some(slot.open)
    }

    /// Keeps a connection for the next probe.
    pub(super) fn put(&self, question: &Question<'_>, open: Option<Open>) {
        let Some(open) = open.filter(|_| question.spec.reuse) else { return };
        let opened_for = OpenedFor::of(question);
        self.slot.replace(Some(Slot { opened_for, open }));
    }
}
