//! Failovers that are timed under load. They run one at a time and beside no other test:
//! `cargo test` runs its programs one after another.

#[path = "../support/mod.rs"]
mod support;

mod demo;
mod request_faults;
mod zone_failures;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Each test holds this lock while it runs.
fn serialize_tests() -> MutexGuard<'static, ()> {
    static TEST_LOCK: Mutex<()> = Mutex::new(());
    TEST_LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}
