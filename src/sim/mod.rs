//! A simulated world around the production director.
//!
//! Nothing here waits, reads a clock or opens a socket: time jumps from event to event, and every
//! chance is drawn from a seed. What `predict` says of a configuration is therefore what the
//! director itself did, thousands of times over, and equal seeds give equal runs.

mod event_queue;
pub mod latency;
mod parallel;
pub mod world;

pub mod predict;
pub mod tune;
pub mod whatif;
