//! Protocol adapters without policy: sockets, HTTP to endpoints, probes, stored files.

pub mod client_stream;
pub mod dns_client;
pub mod geo_database;
pub mod h1;
pub mod handover_socket;
pub mod inbound;
pub mod ledger_store;
pub mod listener;
#[cfg(feature = "otlp")]
pub mod post_client;
pub mod prober;
pub mod state_files;
pub mod tls_client;
pub mod trailers;
pub mod upstream;
pub mod websocket;
pub mod write_coalescer;
