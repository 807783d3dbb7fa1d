//! The last probes of an endpoint, in little room: there may be a hundred thousand of them.

use std::time::{Duration, Instant};

use crate::logic::outcome::{Failure, Outcome};

/// Probe results that are kept for `explain` and the API.
pub(super) const REMEMBERED_PROBES: usize = 6;

/// A ring of probe results.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Past {
    next: u8,
    probes: [Option<Probe>; REMEMBERED_PROBES],
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// Its start in microseconds since the director's epoch, times [`PROBES`], and its number.
    started: u64,
    ended: Ended,
}

/// More probes than a pool may have.
const PROBES: u64 = 16;

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
        let started = since_epoch.as_micros() as u64 * PROBES + u64::from(probe) % PROBES;
        self.probes[usize::from(self.next)] = Some(Probe { started, ended });
        self.next = (self.next + 1) % REMEMBERED_PROBES as u8;
    }

    /// What the fastest of the probes that passed took.
    pub(super) fn least_latency(&self) -> Option<Duration> {
        let latency = |probe: &Probe| match probe.ended {
            Ended::Pass { latency_us } | Ended::Degraded { latency_us } => Some(latency_us),
            Ended::Fail(_) | Ended::Void => None,
        };
        let least = self.probes.iter().flatten().filter_map(latency).min();
        least.map(|us| Duration::from_micros(us.into()))
    }

    /// See [`super::endpoint::Endpoint::glance`].
    pub(super) fn glance(&self) -> u64 {
        self.probes[usize::from(self.next)].map_or(0, |probe| probe.started)
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
            let started = epoch + Duration::from_micros(probe.started / PROBES);
            (started, (probe.started % PROBES) as u8, outcome)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_endpoints_fit() {
        assert!(size_of::<Past>() <= 136, "{}", size_of::<Past>());
        let endpoint = size_of::<super::super::endpoint::Endpoint>();
        assert!(endpoint <= 576, "{endpoint}");
    }

    #[test]
    fn the_last_six_are_kept_in_their_order() {
        let epoch = Instant::now();
        let mut past = Past::default();
        for n in 0..11 {
            past.remember(Duration::from_micros(n), n as u8, Outcome::Void);
        }
        let kept: Vec<u8> = past.iter(epoch).map(|(_, probe, _)| probe).collect();
        assert_eq!(kept, [5, 6, 7, 8, 9, 10]);
    }
}
