//! Who asks.

use std::net::SocketAddr;

use super::interim_responses::InterimResponses;
use super::pending_tunnel::PendingTunnel;
use crate::net::inbound::tls::TlsSession;
use crate::net::upstream::DownstreamAddresses;

/// The client of a connection: the same for every request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its IP address as text, an IPv4 one as such.
    pub ip_text: String,
    /// Where its connection was accepted.
    pub local_address: SocketAddr,
    /// How its connection is encrypted, if it is.
    pub tls: Option<Box<TlsSession>>,
    /// What its connection goes on with when HTTP on it is over.
    pub pending_tunnel: PendingTunnel,
    /// What endpoints say to it before they answer.
    pub interim_responses: InterimResponses,
}

impl Client {
    /// A client in cleartext.
    pub fn new(address: SocketAddr, local_address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        Self {
            address,
            ip_text: ip,
            local_address,
            tls: None,
            pending_tunnel: PendingTunnel::default(),
            interim_responses: InterimResponses::default(),
        }
    }

    /// On whose behalf a connection to an endpoint is opened.
    pub fn caller(&self) -> DownstreamAddresses {
        DownstreamAddresses { remote: self.address, local: self.local_address }
    }

    /// Whether its connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What its certificate says of it, as an element of `x-forwarded-client-cert`, where one was
    /// asked for and verified.
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref()?.client_identity.as_deref()
    }

    /// How it speaks, as a URI says it.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}
