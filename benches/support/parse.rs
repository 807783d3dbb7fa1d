//! Parsers of the output of load generators and servers, and of `/proc`.

use std::collections::HashMap;

use serde::Serialize;

/// The measurements of one run of a load generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadReport {
    /// Responses that were read to their end, whatever their status.
    pub(crate) requests: u64,
    /// From the first connect to the end of the run.
    pub(crate) duration_us: u64,
    /// Response bytes; heads included, except over HTTP/2.
    pub(crate) response_bytes: u64,
    /// Failed connects, reads and writes, statuses above 399, and timeouts.
    pub(crate) errors: u64,
    /// The latency of responses, if the load generator reports it.
    pub(crate) latency: Option<Percentiles>,
}

impl LoadReport {
    /// Responses per second.
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 * 1e6 / self.duration_us.max(1) as f64
    }
}

/// The latency of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    /// Half of the responses took at most this.
    pub(crate) p50_us: u64,
    /// 99 % of the responses took at most this.
    pub(crate) p99_us: u64,
    /// 99.9 % of the responses took at most this.
    pub(crate) p999_us: u64,
}

impl Percentiles {
    /// By nearest rank; `None` when there was no response.
    pub(crate) fn from_latencies(mut latencies_us: Vec<u64>) -> Option<Self> {
        latencies_us.sort_unstable();
        let count = latencies_us.len();
        let at = |per_mille: usize| {
            latencies_us.get((count * per_mille).div_ceil(1000).saturating_sub(1)).copied()
        };
        Some(Self { p50_us: at(500)?, p99_us: at(990)?, p999_us: at(999)? })
    }
}

/// Finds the `measured` line that `wrk.lua` prints in wrk's output; `None` when it or one of its
/// fields is missing.
pub(crate) fn wrk_report(output: &str) -> Option<LoadReport> {
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
    Some(LoadReport {
        requests: field("requests")?,
        duration_us: field("duration_us")?,
        response_bytes: field("bytes")?,
        errors,
        latency: Some(Percentiles {
            p50_us: field("p50_us")?,
            p99_us: field("p99_us")?,
            p999_us: field("p999_us")?,
        }),
    })
}

/// Parses the output of h2load; `None` if a figure is missing, or if the connection was not HTTP/2
/// over TLS 1.3. h2load reports only the mean latency.
pub(crate) fn h2load_report(output: &str) -> Option<LoadReport> {
    let value_after = |label: &str| output.lines().find_map(|line| line.strip_prefix(label));
    if value_after("TLS Protocol: ")? != "TLSv1.3" || value_after("Application protocol: ")? != "h2"
    {
        return None;
    }
    let per_second: f64 =
        value_after("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    let counts = parse_counts(value_after("requests: ")?)?;
    let count = |what| counts.get(what).copied();
    let (total, done) = (count("total")?, count("done")?);
    let (_, in_brackets) = value_after("traffic: ")?.rsplit_once('(')?;
    Some(LoadReport {
        requests: done,
        duration_us: (done as f64 * 1e6 / per_second) as u64,
        response_bytes: in_brackets.strip_suffix(") data")?.parse().ok()?,
        errors: total.saturating_sub(count("succeeded")?),
        latency: None,
    })
}

/// `2 total, 1 done` as a map from the words to the numbers.
fn parse_counts(text: &str) -> Option<HashMap<&str, u64>> {
    text.split(", ")
        .map(|part| {
            let (number, what) = part.split_once(' ')?;
            Some((what, number.parse().ok()?))
        })
        .collect()
}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParsedResponseHead {
    pub(crate) status: u16,
    /// Length of the whole response, head and body.
    pub(crate) response_bytes: usize,
}

/// Parses the head of an HTTP/1.1 response; `None` while it is incomplete, an error if it is
/// malformed or has no content length.
pub(crate) fn parse_response_head(bytes: &[u8]) -> Option<Result<ParsedResponseHead, String>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    let length =
        response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let body_bytes =
        length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    Some(match (response.code, body_bytes) {
        (Some(status), Some(body_bytes)) => {
            let body_bytes: usize = body_bytes;
            Ok(ParsedResponseHead { status, response_bytes: head_bytes + body_bytes })
        }
        _ => Err("an answer that does not say how long it is".to_owned()),
    })
}

/// The proportional share of memory in `/proc/PID/smaps_rollup`, in bytes.
pub(crate) fn parse_pss_bytes(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Time on a CPU in nanoseconds: the first field of `/proc/PID/task/TID/schedstat`.
pub(crate) fn parse_schedstat_ns(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The parent in `/proc/PID/stat`. The command's name may hold spaces and brackets, so what
/// follows its last bracket is read: state, then parent.
pub(crate) fn parse_parent_pid(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// The ticks of one core since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreTicks {
    /// Everything but idling and waiting for I/O.
    pub(crate) busy: u64,
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
pub(crate) fn parse_core_ticks(proc_stat: &str, core: u32) -> Option<CoreTicks> {
    let label = format!("cpu{core}");
    let line = proc_stat.lines().find(|line| line.split_whitespace().next() == Some(&label))?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).map(|t| t.parse().ok()).collect::<Option<_>>()?;
    let total = ticks.iter().sum::<u64>();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(CoreTicks { busy: total - idle, total })
}
