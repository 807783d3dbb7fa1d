//! Reads what wrk and `/proc` print. Text in, numbers out.

use std::collections::HashMap;

/// What one run of wrk measured: the line that `wrk.lua` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrkReport {
    /// Responses that were read to their end, whatever their status.
    pub(crate) requests: u64,
    /// From the first connect to the end of the run.
    pub(crate) duration_us: u64,
    /// Response bytes, heads included.
    pub(crate) response_bytes: u64,
    /// Failed connects, reads and writes, statuses above 399, and timeouts.
    pub(crate) errors: u64,
    /// Half of the responses took at most this.
    pub(crate) p50_us: u64,
    /// 99 % of the responses took at most this.
    pub(crate) p99_us: u64,
    /// 99.9 % of the responses took at most this.
    pub(crate) p999_us: u64,
}

/// Finds the `measured` line in wrk's output; `None` when it or one of its fields is missing.
pub(crate) fn wrk_report(output: &str) -> Option<WrkReport> {
    let line = output.lines().find_map(|line| line.strip_prefix("measured "))?;
    let fields: HashMap<&str, u64> = line
        .split_whitespace()
        .map(|field| {
            let (key, value) = field.split_once('=')?;
            Some((key, value.parse().ok()?))
        })
        .collect::<Option<_>>()?;
    let field = |key| fields.get(key).copied();
    let mut errors = 0;
    for kind in ["connect", "read", "write", "status", "timeout"] {
        errors += field(kind)?;
    }
    Some(WrkReport {
        requests: field("requests")?,
        duration_us: field("duration_us")?,
        response_bytes: field("bytes")?,
        errors,
        p50_us: field("p50_us")?,
        p99_us: field("p99_us")?,
        p999_us: field("p999_us")?,
    })
}

/// Time on a CPU in nanoseconds: the first field of `/proc/PID/task/TID/schedstat`.
pub(crate) fn schedstat_ns(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The parent in `/proc/PID/stat`. The command's name may hold spaces and brackets, so what
/// follows its last bracket is read: state, then parent.
pub(crate) fn parent_pid(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// What one core has done since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreTicks {
    /// Everything but idling and waiting for I/O.
    pub(crate) busy: u64,
    /// All of it.
    pub(crate) total: u64,
}

impl CoreTicks {
    /// How busy the core was since `earlier`; 0 when no tick has passed.
    pub(crate) fn busy_percent_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        if total == 0 {
            return 0.0;
        }
        100.0 * self.busy.saturating_sub(earlier.busy) as f64 / total as f64
    }
}

/// The line of one core in `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
/// The guest columns after these are part of user and nice already.
pub(crate) fn core_ticks(proc_stat: &str, core: u32) -> Option<CoreTicks> {
    let label = format!("cpu{core}");
    let line = proc_stat.lines().find(|line| line.split_whitespace().next() == Some(&label))?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map(|t| t.parse().ok()).collect::<Option<_>>()?;
    let total = ticks.iter().sum::<u64>();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(CoreTicks { busy: total - idle, total })
}
