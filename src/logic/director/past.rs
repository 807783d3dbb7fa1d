//! The last probes of an endpoint, in little room: there may be a hundred thousand of them.

use std::time::{Duration, Instant};

use crate::logic::outcome::{Failure, Outcome};

/// Probe results that are kept for `explain` and the API.
pub(super) const REMEMBERED_PROBES: usize = 8;

/// A ring of probe results.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    probes: [Option<Probe>; REMEMBERED_PROBES],
    next: u8,
}

/// One of them; its start counts from the director's epoch.
#[derive(Clone, Copy, Debug)]
struct Probe {
    started_us: u64,
    probe: u8,
    ended: Ended,
}

/// [`Outcome`] with latencies in microseconds, up to an hour.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Pass { latency_us: u32 },
    Degraded { latency_us: u32 },
    Fail(Failure),
    Void,
}

impl Past {
    pub(super) fn remember(&mut self, since_epoch: Duration, probe: u8, outcome: Outcome) {
        let us = |latency: Duration| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let ended = match outcome {
            Outcome::Pass { latency } => Ended::Pass { latency_us: us(latency) },
            Outcome::Degraded { latency } => Ended::Degraded { latency_us: us(latency) },
            Outcome::Fail(failure) => Ended::Fail(failure),
            Outcome::Void => Ended::Void,
        };
        let started_us = since_epoch.as_micros() as u64;
        self.probes[usize::from(self.next)] = Some(Probe { started_us, probe, ended });
        self.next = (self.next + 1) % REMEMBERED_PROBES as u8;
    }

    /// Start, number and outcome of each, oldest first.
    pub(super) fn iter(&self, epoch: Instant) -> impl Iterator<Item = (Instant, u8, Outcome)> + '_ {
        let (newer, older) = self.probes.split_at(usize::from(self.next));
        older.iter().chain(newer).flatten().map(move |probe| {
            let latency = |us: u32| Duration::from_micros(us.into());
            let outcome = match probe.ended {
                Ended::Pass { latency_us } => Outcome::Pass { latency: latency(latency_us) },
                Ended::Degraded { latency_us } => {
                    Outcome::Degraded { latency: latency(latency_us) }
                }
                Ended::Fail(failure) => Outcome::Fail(failure),
                Ended::Void => Outcome::Void,
            };
            (epoch + Duration::from_micros(probe.started_us), probe.probe, outcome)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eight_are_kept_in_their_order() {
        let epoch = Instant::now();
        let mut past = Past::default();
        for n in 0..11 {
            past.remember(Duration::from_micros(n), n as u8, Outcome::Void);
        }
        let kept: Vec<u8> = past.iter(epoch).map(|(_, probe, _)| probe).collect();
        assert_eq!(kept, [3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
