//! Failures of endpoints, at random times and for random durations.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::fault_class::{EndpointFault, FaultMechanism};
use crate::fleet::BenchFleet;
use crate::layout::POOL_ENDPOINTS;
use crate::run_deadline::RunDeadline;

/// Time between two checks for due failures.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Time from one failure to the next, in milliseconds.
const FAULT_SPACING_MS: Range<u64> = 40..300;

/// How long a failure lasts, in milliseconds.
const FAULT_DURATION_MS: Range<u64> = 50..900;

/// The most endpoints, of six, that fail at the same time.
const MAX_CONCURRENT_FAULTS: usize = 4;

/// A kind of failure.
#[derive(Debug)]
struct WeightedFault {
    name: &'static str,
    mechanism: FaultMechanism,
    /// The relative weight of the kind.
    weight: u32,
}

const fn weighted_fault(
    name: &'static str,
    mechanism: FaultMechanism,
    weight: u32,
) -> WeightedFault {
    WeightedFault { name, mechanism, weight }
}

/// All kinds of failure. Those without a signal execute a POST and answer it with an error.
const FAULTS: [WeightedFault; 5] = [
    weighted_fault("killed", FaultMechanism::Kill, 8),
    weighted_fault("stopped", FaultMechanism::Stop, 5),
    weighted_fault("reset", FaultMechanism::Misbehave(EndpointFault::Reset), 2),
    weighted_fault("errors_30", FaultMechanism::Misbehave(EndpointFault::Errors30), 2),
    weighted_fault("cut", FaultMechanism::Misbehave(EndpointFault::Cut), 2),
];

/// Fails endpoints until `is_done`, then heals all; returns the number of failures by kind.
pub(crate) fn inject_random_faults(
    fleet: &mut BenchFleet,
    seed: u64,
    run_deadline: &RunDeadline,
    mut is_done: impl FnMut() -> bool,
) -> io::Result<BTreeMap<&'static str, usize>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts: BTreeMap<&'static str, usize> =
        FAULTS.iter().map(|fault| (fault.name, 0)).collect();
    let mut failing: [Option<(FaultMechanism, Instant)>; POOL_ENDPOINTS] = [None; POOL_ENDPOINTS];
    // Each kind happens at least once, even in a short run.
    let mut unused_faults = FAULTS.iter();
    let mut next_fault_at = Instant::now();
    while !is_done() && !run_deadline.is_over() {
        let now = Instant::now();
        for (endpoint, state) in failing.iter_mut().enumerate() {
            if let Some((mechanism, until)) = *state
                && until <= now
            {
                fleet.heal(endpoint, mechanism)?;
                *state = None;
            }
        }
        if next_fault_at <= now {
            next_fault_at = now + Duration::from_millis(random.u64(FAULT_SPACING_MS));
            let healthy: Vec<usize> =
                (0..POOL_ENDPOINTS).filter(|&endpoint| failing[endpoint].is_none()).collect();
            if POOL_ENDPOINTS - healthy.len() < MAX_CONCURRENT_FAULTS {
                let endpoint = healthy[random.usize(..healthy.len())];
                let fault = unused_faults.next().unwrap_or_else(|| pick_fault(&mut random));
                let duration = Duration::from_millis(random.u64(FAULT_DURATION_MS));
                fleet.fail(endpoint, fault.mechanism)?;
                failing[endpoint] = Some((fault.mechanism, now + duration));
                *counts.entry(fault.name).or_insert(0) += 1;
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    for (endpoint, state) in failing.into_iter().enumerate() {
        if let Some((mechanism, _)) = state {
            fleet.heal(endpoint, mechanism)?;
        }
    }
    Ok(counts)
}

fn pick_fault(random: &mut fastrand::Rng) -> &'static WeightedFault {
    let total_weight: u32 = FAULTS.iter().map(|fault| fault.weight).sum();
    let mut remaining_weight = random.u32(..total_weight);
    for fault in &FAULTS {
        if remaining_weight < fault.weight {
            return fault;
        }
        remaining_weight -= fault.weight;
    }
    &FAULTS[0]
}
