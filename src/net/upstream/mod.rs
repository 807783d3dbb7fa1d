//! Connections to endpoints: opened, kept, watched, given up.
//!
//! Everything here belongs to one worker thread; nothing is shared and nothing is locked.

mod connection;
mod exchange;
mod outgoing;
mod pool;
mod queue;
mod response;
mod tunnel;

pub use connection::{Connection, TryError, connect, reason_of};
pub use exchange::{BodyFraming, Exchange};
pub use outgoing::{ClientFault, Outgoing, drain};
pub use pool::{Cuts, Free, Pool, PoolEvent};
pub use queue::Slot;
pub use response::{Received, ResponseBody, ResponseError};
pub use tunnel::Tunnel;
