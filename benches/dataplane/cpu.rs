//! CPU time of process trees and cores, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;

use crate::parse::{CoreTicks, core_ticks, parent_pid, schedstat_ns};

/// `root` and all its descendants.
pub(crate) fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended since the listing has no file any more.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent_pid(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// User and system time of every live thread of the tree under `root`, in nanoseconds. The time
/// of threads that have ended is lost, so sample while the pool of threads is stable.
pub(crate) fn tree_ns(root: u32) -> io::Result<u64> {
    let mut total_ns = 0;
    for pid in tree(root)? {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            total_ns += schedstat_ns(&text)
                .ok_or_else(|| io::Error::other("schedstat has changed its form"))?;
        }
    }
    Ok(total_ns)
}

/// What `core` has done since boot.
pub(crate) fn core(core: u32) -> io::Result<CoreTicks> {
    core_ticks(&fs::read_to_string("/proc/stat")?, core)
        .ok_or_else(|| io::Error::other(format!("no core {core}: the bench needs two cores")))
}
