//! Connections to endpoints: opened, kept, shared, watched, given up.
//!
//! Everything here belongs to one worker thread; nothing is shared and nothing is locked.

mod connection;
mod connection_queue;
mod connector;
mod exchange;
mod fault_injection;
mod h1_exchange;
mod h2_connection;
mod h2_connections;
mod h2_exchange;
mod pool;
pub(in crate::net) mod proxy_header;
mod request_body;
mod response_body;
mod stream;
mod streaming_responses;
mod tunnel;

pub use connection::{H1Connection, UpstreamError, io_failure_reason};
pub use connection_queue::ConnectionPermit;
pub use connector::{ConnectProgress, DownstreamAddresses};
pub use exchange::{BodyFraming, Exchange, InterimResponse, ReadyConnection};
pub use fault_injection::{FaultInjection, InjectedReply};
pub use h2_connection::StreamPermit;
pub use h2_connections::PendingConnect;
pub use pool::{AbortEpoch, Checkout, ConnectionPool, PoolEvent};
pub use request_body::{ClientBodyError, RequestBody, discard_request_body};
pub use response_body::{ReceivedBody, ResponseBody, ResponseBodyError};
pub use tunnel::UpstreamTunnel;
