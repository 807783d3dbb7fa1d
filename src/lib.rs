//! gapless: a layer-7 global load balancer that predicts, measures and closes its own failover gap.
//!
//! # Map
//!
//! The layers, in reading order. A layer uses only layers above it; a test checks that.
//!
//! 1. [`logic`]: the pure core, without clock, socket, task or log. Time and seed are arguments.
//!    Its modules: `model` (names, topology, snapshot), `health` (one endpoint's state machine,
//!    correlation, recovery), `probing` (schedule and detection window), `routing` (route table,
//!    paths), `steering` (tiers, shares, balancers, affinity), `request` (retries, hedges, budgets,
//!    breakers), `overload` (memory and descriptors), `incident` (timelines, objectives), `orders`
//!    (operator orders), `drill` (fault injection), `discovery` (names to endpoints) and
//!    `director`, which owns the state machines and composes them.
//! 2. [`config`]: file to checked configuration. [`net`]: protocol adapters without policy (TLS,
//!    HTTP/1.1, HTTP/2, probes, DNS, upstream connections). Neither uses the other.
//! 3. [`sim`]: a discrete-event simulation of the production director, for predictions and tests.
//! 4. [`app`]: the wiring. `runtime` (start, stop, upgrade), `dataplane` (workers, proxy, access
//!    log), `control` (the control thread, reload, drills), `ops` (admin API, metrics, ledger).
//! 5. [`cli`]: one module per subcommand.
//!
//! # Invariants
//!
//! - The control thread is the only writer. It publishes an immutable snapshot by one atomic swap.
//! - The request path takes no lock and never waits for the control thread.
//! - A configuration with an error never replaces a valid one.
//! - A non-idempotent request that may have been executed is never sent again.

pub mod logic;

pub mod config;
pub mod net;

pub mod sim;

pub mod app;

pub mod cli;
