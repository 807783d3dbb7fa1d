//! gapless: a layer-7 global load balancer that predicts, measures and closes its own failover gap.
//!
//! Read the modules in this order; each may use only those above it (a test checks that):
//!
//! 1. [`logic`]: the pure core. Health, steering, retries, incidents, and the director that owns
//!    them. No clock, no socket, no task: time and seed are arguments.
//! 2. [`config`] and [`net`]: the file, and the wire. Neither knows the other.
//! 3. [`sim`]: a simulated world that runs the production director, for predictions and tests.
//! 4. [`app`]: the wiring. One control thread writes snapshots; worker threads read them.
//! 5. [`cli`]: one file a subcommand.
//!
//! Invariants: one writer (the control thread), one immutable snapshot, one atomic swap; the
//! request path takes no lock and never waits for control; a bad configuration never replaces a
//! good one; nothing that may have executed a non-idempotent request is sent it again.

pub mod logic;

pub mod config;
pub mod net;

pub mod sim;

pub mod app;

pub mod cli;
