//! Who asks.

use std::net::SocketAddr;

use super::early::Early;
use super::tunnel::Sequel;
use crate::net::inbound::tls::Session;
use crate::net::upstream::Caller;

/// The client of a connection: the same for every request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its IP address as text, an IPv4 one as such.
    pub ip: String,
    /// Where its connection was accepted.
    pub local: SocketAddr,
    /// How its connection is encrypted, if it is.
    pub tls: Option<Box<Session>>,
    /// What its connection goes on with when HTTP on it is over.
    pub sequel: Sequel,
    /// What endpoints say to it before they answer.
    pub early: Early,
}

impl Client {
    /// A client in cleartext.
    #[must_use]
    pub fn new(address: SocketAddr, local: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        Self { address, ip, local, tls: None, sequel: Sequel::default(), early: Early::default() }
    }

    /// On whose behalf a connection to an endpoint is opened.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { address: self.address, local: self.local }
    }

    /// Whether its connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What its certificate says of it, as an element of `x-forwarded-client-cert`, where one was
    /// asked for and verified.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref()?.identity.as_deref()
    }

    /// How it speaks, as a URI says it.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}
