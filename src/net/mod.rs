//! Protocol adapters: sockets, HTTP/1.1 towards endpoints, probes, what is kept on disk. No policy.

pub mod client;
pub mod dns;
pub mod gathered;
pub mod geo;
pub mod h1;
pub mod handover;
pub mod inbound;
pub mod listener;
#[cfg(feature = "otlp")]
pub mod post;
pub mod prober;
pub mod state;
pub mod store;
mod tls_client;
pub mod trailers;
pub mod upstream;
pub mod websocket;
