//! Connections to endpoints: opened, kept, shared, watched, given up.
//!
//! Everything here belongs to one worker thread; nothing is shared and nothing is locked.

mod connection;
mod dial;
mod exchange;
mod lasting;
mod lines;
mod multiplex;
mod outgoing;
mod over_h1;
mod over_h2;
mod pool;
pub(in crate::net) mod proxy_header;
mod queue;
mod response;
mod staged;
mod stream;
mod tunnel;

pub use connection::{Connection, TryError, reason_of};
pub use dial::{Caller, Stage};
pub use exchange::{BodyFraming, Exchange, Interim, Line};
pub use lines::Opening;
pub use multiplex::Seat;
pub use outgoing::{ClientFault, Outgoing, drain};
pub use pool::{Cuts, Free, Pool, PoolEvent};
pub use queue::Slot;
pub use response::{Received, ResponseBody, ResponseError};
pub use staged::{Act, Staging};
pub use tunnel::Tunnel;
