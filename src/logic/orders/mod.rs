//! Operator orders: drains, weights and their exemptions, from the API or the configuration.
//!
//! Inputs: commands of operators and the drains of the file. Outputs: the orders that hold for an
//! endpoint ([`OperatorOrders`]); the director applies them. An order takes precedence over a
//! drill, and a drill over a verdict. A drained endpoint receives nothing, however healthy it is,
//! and a restored one is judged by its health again.
//!
//! A drained endpoint reduces the capacity of its zone. A drained zone keeps its declared
//! capacity, so its share goes where the share of a failed zone goes. May use: `model`.

mod operator_orders;
mod order;

pub use operator_orders::{ConfigDrain, MAX_ORDERS, OperatorOrders, OrderDraft};
pub use order::{
    DEFAULT_DRAIN_DEADLINE, MAX_AUTHOR_BYTES, MAX_DRAIN_DURATION, MAX_NOTE_BYTES, OperatorOrder,
    OrderAction, OrderSource, OrderedEndpoint, fading_share_permille,
};
