//! Failovers that are timed under load. They run one at a time and beside no other tests, because
//! libtest runs the tests of one program at once, and `cargo test` its programs one after another.

#[path = "../support/mod.rs"]
mod support;

mod demo;
mod zones;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by each test here while it runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
