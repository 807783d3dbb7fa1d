//! The pure core: decisions without effects.
//!
//! Nothing here reads a clock, opens a socket, spawns a task, locks or logs. The same code runs in
//! production, in the simulator behind `predict`, and in the tests.

pub mod discovery;
pub mod front;
pub mod id;
pub mod network;
pub mod outcome;
pub mod probe;
pub mod speech;
pub mod statuses;
pub mod topology;

pub mod evidence;
pub mod health;
pub mod ratio;
pub mod recovery;
pub mod schedule;

pub mod affinity;
pub mod balance;
pub mod breaker;
pub mod casualty;
pub mod descriptors;
pub mod live;
pub mod pressure;
pub mod rate;
pub mod retry;
pub mod route;
pub mod snapshot;
pub mod steer;
pub mod tier;
pub mod witness;

pub mod drill;
pub mod incident;
pub mod operator;
pub mod slo;
pub mod window;

pub mod director;
