//! The data that the rest of the crate works on: identities, the declared topology, outcomes, and
//! the snapshot that the request path reads.
//!
//! Inputs: the validated configuration (`topology`) and the director, which publishes a `snapshot`.
//! Most files are plain data. `snapshot` also chooses endpoints, because that runs once per request
//! on published data only. May use: the configuration types of the other rooms and their pure
//! helpers; never `director`.

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
