//! The pure core: decisions without effects.
//!
//! Nothing here reads a clock, opens a socket, spawns a task, locks or logs. The same code runs in
//! production, in the simulator behind `predict`, and in the tests.

pub mod id;
pub mod topology;

pub mod route;
