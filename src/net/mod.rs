//! Protocol adapters: sockets, HTTP/1.1 towards endpoints, probes, what is kept on disk. No policy.

pub mod client;
pub mod dns;
pub mod h1;
pub mod handover;
pub mod inbound;
pub mod listener;
pub mod prober;
pub mod store;
mod tls_client;
pub mod trailers;
pub mod upstream;
pub mod websocket;
