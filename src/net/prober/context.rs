//! What all attempts of one probe share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::logic::probing::probe::ProbeSpec;

use super::lingering_close::LingeringStreams;
use super::retry_schedule::ExtraConnections;

/// The User-Agent of a probe that sets none.
pub(super) const USER_AGENT: &str = "gapless-probe";

/// The probe that its attempts run.
pub(super) struct ProbeContext<'a> {
    pub(super) extra_connections: &'a ExtraConnections,
    pub(super) lingering: &'a LingeringStreams,
    pub(super) spec: &'a ProbeSpec,
    /// The endpoint's address, which is also its host name if the probe sets none.
    pub(super) address: SocketAddr,
    /// The address to connect to.
    pub(super) target: SocketAddr,
    /// The TLS configuration of the probe.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// When the opening of a connection is repeated, after its start.
    pub(super) connect_delays: &'a [Duration],
}
