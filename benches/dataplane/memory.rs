//! The memory of idle connections.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::parse::parse_pss_bytes;

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The number of equal samples in a row that make memory stable.
const STABLE_POLLS: u32 = 5;
/// Samples within this many bytes count as equal.
const TOLERANCE_BYTES: u64 = 16 * 1024;
/// Time limit for memory to become stable.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory of the process tree under `root` once it is stable: the sum of proportional shares
/// (PSS), so that shared pages count once.
pub(crate) fn settled_tree_bytes(root: u32) -> io::Result<u64> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let (mut last, mut stable_polls) = (tree_pss_bytes(root)?, 0);
    while stable_polls < STABLE_POLLS {
        if Instant::now() > deadline {
            return Err(io::Error::other("memory does not come to rest"));
        }
        thread::sleep(POLL_INTERVAL);
        let now = tree_pss_bytes(root)?;
        if now.abs_diff(last) <= TOLERANCE_BYTES {
            stable_polls += 1;
        } else {
            (last, stable_polls) = (now, 0);
        }
    }
    tree_pss_bytes(root)
}

fn tree_pss_bytes(root: u32) -> io::Result<u64> {
    let mut total_bytes = 0;
    for pid in cpu::process_tree(root)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        total_bytes += parse_pss_bytes(&text)
            .ok_or_else(|| io::Error::other("smaps_rollup has changed its form"))?;
    }
    Ok(total_bytes)
}
