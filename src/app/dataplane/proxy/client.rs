//! The client of a connection.

use std::net::SocketAddr;

use super::interim_responses::InterimResponses;
use super::pending_tunnel::PendingTunnel;
use crate::net::inbound::tls::TlsSession;
use crate::net::upstream::DownstreamAddresses;

/// The client of a connection: the same for all its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: SocketAddr,
    /// The IP address as text; IPv4-mapped addresses as IPv4.
    pub ip_text: String,
    /// The address at which the connection was accepted.
    pub local_address: SocketAddr,
    /// The TLS session, if the connection is encrypted.
    pub tls: Option<Box<TlsSession>>,
    /// The tunnel that replaces HTTP on the connection, if there is one.
    pub pending_tunnel: PendingTunnel,
    /// Interim responses that wait to be written to the connection.
    pub interim_responses: InterimResponses,
}

impl Client {
    /// A client without TLS.
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

    /// The addresses for the PROXY protocol header of an upstream connection.
    pub fn caller(&self) -> DownstreamAddresses {
        DownstreamAddresses { remote: self.address, local: self.local_address }
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The verified client certificate as an element of `x-forwarded-client-cert`.
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref()?.client_identity.as_deref()
    }

    /// The scheme of URIs on this connection.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}
