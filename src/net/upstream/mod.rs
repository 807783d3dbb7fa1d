//! Connections to endpoints and the exchanges on them.
//!
//! A [`ConnectionPool`] belongs to one worker and one endpoint. It hands out a [`Checkout`], which
//! becomes a [`ReadyConnection`]. An [`Exchange`] sends a request on it and ends with a
//! [`ResponseBody`], which returns the connection to the pool. Each worker thread has its own
//! pools, so that nothing is shared or locked.
//!
//! Imports form no cycle: `error`, `interim`, `checkout` and the connections are leaves, the pool
//! imports connections, and exchanges import the pool.

mod checkout;
mod connection;
mod connection_queue;
mod connector;
mod counting_stream;
mod error;
mod exchange;
mod fault_injection;
mod h1_exchange;
mod h1_request_sender;
mod h1_response_body;
mod h2_connection;
mod h2_connections;
mod h2_driver;
mod h2_exchange;
mod h2_handshake;
mod h2_request_sender;
mod h2_response_body;
mod interim;
mod pool;
pub(in crate::net) mod proxy_header;
mod request_body;
mod response_body;
mod stream;
mod streaming_responses;
mod tunnel;

pub use checkout::{Checkout, ReadyConnection};
pub use connection::H1Connection;
pub use connection_queue::ConnectionPermit;
pub use connector::ConnectProgress;
pub use error::{ResponseBodyError, UpstreamError, io_failure_reason};
pub use exchange::Exchange;
pub use fault_injection::{FaultEffect, FaultInjection, InjectedReply};
pub use h1_request_sender::BodyFraming;
pub use h2_connection::StreamPermit;
pub use h2_connections::PendingConnect;
pub use interim::InterimResponse;
pub use pool::{AbortEpoch, ConnectionPool, PoolEvent, PoolOptions};
pub use proxy_header::DownstreamAddresses;
pub use request_body::{ClientBodyError, RequestBody, discard_request_body};
pub use response_body::{ReceivedBody, ResponseBody};
pub use tunnel::UpstreamTunnel;
