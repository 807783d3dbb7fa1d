//! The pure core: decisions without effects.
//!
//! Nothing here reads a clock, opens a socket, spawns a task, locks or logs. Time and seeds are
//! arguments. The same code runs in production, in the simulator behind `predict`, and in the
//! tests. Each module states its inputs, its outputs and the modules that it may use; the director
//! composes them.

pub mod discovery;

pub mod routing;
pub mod steering;

pub mod drill;
pub mod incident;

pub mod director;
pub mod health;
pub mod model;
pub mod orders;
pub mod overload;
pub mod probing;
pub mod request;
