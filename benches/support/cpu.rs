//! CPU time of process trees and cores, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;

use crate::parse::{CoreTicks, parse_core_ticks, parse_parent_pid, parse_schedstat_ns};

/// `root` and all its descendants.
pub(crate) fn process_tree(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended since the listing has no file.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parse_parent_pid(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        pids.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(pids)
}

/// User and system time of every live thread of the tree under `root`, in nanoseconds. The time
/// of threads that have ended is lost, so sample while the pool of threads is stable.
pub(crate) fn process_tree_cpu_ns(root: u32) -> io::Result<u64> {
    let mut total_ns = 0;
    for pid in process_tree(root)? {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            total_ns += parse_schedstat_ns(&text)
                .ok_or_else(|| io::Error::other("schedstat has changed its form"))?;
        }
    }
    Ok(total_ns)
}

/// The ticks of `core` since boot.
pub(crate) fn read_core_ticks(core: u32) -> io::Result<CoreTicks> {
    parse_core_ticks(&fs::read_to_string("/proc/stat")?, core)
        .ok_or_else(|| io::Error::other(format!("no core {core}: the bench needs two cores")))
}
