//! Pins the threads of the load to its core.

use std::io;
use std::thread;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::LOAD_CORE;

/// Runs `work` on a new thread that is pinned to the core of the load.
pub(crate) fn run_on_load_core<T: Send>(
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let in_thread = || {
        pin_to_load_core()?;
        work()
    };
    thread::scope(|scope| scope.spawn(in_thread).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread of a load panicked")))
}

/// Pins the calling thread to the core of the load.
pub(crate) fn pin_to_load_core() -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE as usize);
    Ok(sched_setaffinity(None, &cores)?)
}
