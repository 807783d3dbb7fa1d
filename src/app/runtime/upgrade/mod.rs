//! Upgrade without a gap: the old process starts its executable, hands over its sockets and state,
//! and leaves when the new process accepts connections.
//!
//! ```text
//!  old                                     new
//!  starts it ────────────────────────────► reads the configuration
//!                              ◄────────── hello
//!  sockets, health ──────────────────────► opens its listeners, probes
//!                              ◄────────── settled
//!  go ───────────────────────────────────► its workers accept
//!                              ◄────────── accepting
//!  leaves
//! ```
//!
//! Before `go` the new process accepts nothing: if it fails, the old one continues unchanged. Both
//! processes hold the same sockets, so connections in an accept queue survive the change (unlike
//! with `SO_REUSEPORT` alone).

mod executable;
mod handover_health;
mod handover_message;
mod predecessor;
mod successor;

pub use executable::Executable;
pub use handover_message::HandoverState;
pub use predecessor::Predecessor;
pub use successor::{Successor, UpgradeEvent};
