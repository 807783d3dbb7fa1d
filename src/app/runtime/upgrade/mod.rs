//! One process takes over from another without a gap: the old one starts its executable anew, hands
//! over its sockets and what it knows, and leaves when the new one accepts connections.
//!
//! ```text
//!  old                                     new
//!  starts it ────────────────────────────► reads the configuration
//!                              ◄────────── hello
//!  sockets, health ──────────────────────► opens its doors, probes
//!                              ◄────────── settled
//!  go ───────────────────────────────────► its workers accept
//!                              ◄────────── accepting
//!  leaves
//! ```
//!
//! Until `go` the new process has accepted nothing, so that nobody notices when it fails: the old one
//! goes on as if nothing had been. The sockets are the same in both, not others on the same address:
//! what waits in the queue of one is accepted by whoever comes first.

mod executable;
mod handover_message;
mod predecessor;
mod successor;

pub use executable::Executable;
pub use predecessor::Predecessor;
pub use successor::{HandoverState, Successor, UpgradeEvent};

use serde::{Deserialize, Serialize};

/// What both must speak.
const PROTOCOL_VERSION: u32 = 1;

/// Set for a process that finds its predecessor at its standard input.
const TAKEOVER_ENV: &str = "GAPLESS_TAKE_OVER";

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SuccessorMessage {
    /// Its configuration is valid.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
        version: String,
    },
    Settled,
    Accepting,
}

/// What the old process says, after its letter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PredecessorMessage {
    Go,
}
