//! TODO-ROOM logic/model

pub mod endpoint_stats;
pub mod id;
pub mod network;
pub mod outcome;
pub mod pick_request;
pub mod selector;
pub mod server_tls;
pub mod snapshot;
pub mod topology;
pub mod upstream_protocol;
