//! What connections cost that do nothing.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::parse::pss_bytes;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Memory is at rest when so many looks in a row saw the same.
const SAME_LOOKS: u32 = 5;
/// Differences up to this are no difference.
const TOLERANCE_BYTES: u64 = 16 * 1024;
/// It does not come to rest later than this.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// The memory of the tree under `root` once it is at rest: each process's proportional share, so
/// that what several share counts once.
pub(crate) fn at_rest(root: u32) -> io::Result<u64> {
    let deadline = Instant::now() + REST_WITHIN;
    let (mut last, mut same) = (tree_bytes(root)?, 0);
    while same < SAME_LOOKS {
        if Instant::now() > deadline {
            return Err(io::Error::other("memory does not come to rest"));
        }
        thread::sleep(LOOK_EVERY);
        let now = tree_bytes(root)?;
        if now.abs_diff(last) <= TOLERANCE_BYTES {
            same += 1;
        } else {
            (last, same) = (now, 0);
        }
    }
    tree_bytes(root)
}

fn tree_bytes(root: u32) -> io::Result<u64> {
    let mut total = 0;
    for pid in cpu::tree(root)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        total += pss_bytes(&text)
            .ok_or_else(|| io::Error::other("smaps_rollup has changed its form"))?;
    }
    Ok(total)
}
