//! The interface between a pool and its callers: what a pool hands out, and what an exchange runs
//! on.

use std::rc::Rc;

use super::connection::H1Connection;
use super::connection_queue::ConnectionPermit;
use super::h2_connection::StreamPermit;
use super::h2_connections::PendingConnect;

/// What a pool offers to a request.
#[derive(Debug)]
pub enum Checkout {
    /// An idle HTTP/1.1 connection.
    Idle(H1Connection),
    /// Room for one more request on an HTTP/2 connection.
    H2Stream(StreamPermit),
    /// A connection that is being opened, for several requests.
    Pending(Rc<PendingConnect>),
    /// Permission to open a connection.
    New(ConnectionPermit),
}

/// An open connection, ready for one request.
#[derive(Debug)]
pub enum ReadyConnection {
    /// HTTP/1.1: a connection carries one request at a time.
    H1(H1Connection),
    /// HTTP/2: room for one request among others.
    H2(StreamPermit),
}
