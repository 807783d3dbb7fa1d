//! The latest probe results of an endpoint, packed: there may be a hundred thousand endpoints.

use std::time::{Duration, Instant};

use crate::logic::model::outcome::{Failure, ProbeOutcome};

/// Probe results that are kept for `explain` and the API.
pub(crate) const PROBE_HISTORY_LEN: usize = 6;

/// A ring of probe results.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeHistory {
    next_index: u8,
    probes: [Option<ProbeRecord>; PROBE_HISTORY_LEN],
}

#[derive(Clone, Copy, Debug)]
struct ProbeRecord {
    /// Its start in microseconds since the director's epoch, times [`MAX_PROBES_PER_POOL`], plus
    /// its index.
    started: u64,
    outcome: CompactOutcome,
}

/// No pool may have more probes than this.
const MAX_PROBES_PER_POOL: u64 = 16;

/// [`ProbeOutcome`] with latencies in microseconds, up to an hour.
#[derive(Clone, Copy, Debug)]
enum CompactOutcome {
    Pass { latency_us: u32 },
    Degraded { latency_us: u32 },
    Fail(Failure),
    Void,
}

impl ProbeHistory {
    pub(crate) fn push(&mut self, since_epoch: Duration, probe: u8, outcome: ProbeOutcome) {
        let us = |latency: Duration| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let outcome = match outcome {
            ProbeOutcome::Pass { latency } => CompactOutcome::Pass { latency_us: us(latency) },
            ProbeOutcome::Degraded { latency } => {
                CompactOutcome::Degraded { latency_us: us(latency) }
            }
            ProbeOutcome::Fail(failure) => CompactOutcome::Fail(failure),
            ProbeOutcome::Inconclusive => CompactOutcome::Void,
        };
        let started = since_epoch.as_micros() as u64 * MAX_PROBES_PER_POOL
            + u64::from(probe) % MAX_PROBES_PER_POOL;
        self.probes[usize::from(self.next_index)] = Some(ProbeRecord { started, outcome });
        self.next_index = (self.next_index + 1) % PROBE_HISTORY_LEN as u8;
    }

    /// The duration of the fastest probe that passed.
    pub(crate) fn min_latency(&self) -> Option<Duration> {
        let latency = |probe: &ProbeRecord| match probe.outcome {
            CompactOutcome::Pass { latency_us } | CompactOutcome::Degraded { latency_us } => {
                Some(latency_us)
            }
            CompactOutcome::Fail(_) | CompactOutcome::Void => None,
        };
        let min_latency_us = self.probes.iter().flatten().filter_map(latency).min();
        min_latency_us.map(|us| Duration::from_micros(us.into()))
    }

    /// Start, index and outcome of each probe, oldest first.
    pub(crate) fn iter(
        &self,
        epoch: Instant,
    ) -> impl Iterator<Item = (Instant, u8, ProbeOutcome)> + '_ {
        let (newer, older) = self.probes.split_at(usize::from(self.next_index));
        older.iter().chain(newer).flatten().map(move |probe| {
            let latency = |us: u32| Duration::from_micros(us.into());
            let outcome = match probe.outcome {
                CompactOutcome::Pass { latency_us } => {
                    ProbeOutcome::Pass { latency: latency(latency_us) }
                }
                CompactOutcome::Degraded { latency_us } => {
                    ProbeOutcome::Degraded { latency: latency(latency_us) }
                }
                CompactOutcome::Fail(failure) => ProbeOutcome::Fail(failure),
                CompactOutcome::Void => ProbeOutcome::Inconclusive,
            };
            let started = epoch + Duration::from_micros(probe.started / MAX_PROBES_PER_POOL);
            (started, (probe.started % MAX_PROBES_PER_POOL) as u8, outcome)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_state_stays_within_its_size_limit() {
        assert!(size_of::<ProbeHistory>() <= 136, "{}", size_of::<ProbeHistory>());
        let endpoint = size_of::<crate::logic::director::endpoint::EndpointMachine>();
        assert!(endpoint <= 592, "{endpoint}");
    }

    #[test]
    fn history_keeps_last_six_probes_in_order() {
        let epoch = Instant::now();
        let mut history = ProbeHistory::default();
        for n in 0..11 {
            history.push(Duration::from_micros(n), n as u8, ProbeOutcome::Inconclusive);
        }
        let kept: Vec<u8> = history.iter(epoch).map(|(_, probe, _)| probe).collect();
        assert_eq!(kept, [5, 6, 7, 8, 9, 10]);
    }
}
