//! A simulated world around the production director.
//!
//! The simulation neither waits nor reads a clock nor opens a socket: time jumps from event to
//! event, and all randomness comes from a seed. A prediction is therefore the behaviour of the
//! production director and of the production rules of requests. Equal seeds give equal runs.

mod event_queue;
pub mod latency;
mod parallel;
pub mod world;

pub mod predict;
pub mod tune;
pub mod whatif;
