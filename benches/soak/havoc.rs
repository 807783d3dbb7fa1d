//! What happens to the endpoints: one after the other fails at a random moment, for a random time.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::class::{Fault, Means};
use crate::fleet::Fleet;
use crate::layout::POOL_ENDPOINTS;
use crate::watch::Watch;

/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// From one failure to the next, in milliseconds.
const EVERY_MS: Range<u64> = 40..300;

/// How long a failure lasts, in milliseconds.
const LASTS_MS: Range<u64> = 50..900;

/// Of six endpoints, so many fail at the same time, at most.
const AT_ONCE: usize = 4;

/// A way to fail.
#[derive(Debug)]
struct Way {
    name: &'static str,
    means: Means,
    /// Its share among all.
    weight: u32,
}

const fn way(name: &'static str, means: Means, weight: u32) -> Way {
    Way { name, means, weight }
}

/// All ways. Those that are no signals execute a POST and answer it badly.
const WAYS: [Way; 5] = [
    way("killed", Means::Kill, 8),
    way("stopped", Means::Stop, 5),
    way("reset", Means::Order(Fault::Reset), 2),
    way("errors_30", Means::Order(Fault::Errors30), 2),
    way("cut", Means::Order(Fault::Cut), 2),
];

/// Fails endpoints until `is_done`, and heals them then: how often each way was gone.
pub(crate) fn wreak(
    fleet: &mut Fleet,
    seed: u64,
    watch: &Watch,
    mut is_done: impl FnMut() -> bool,
) -> io::Result<BTreeMap<&'static str, usize>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts: BTreeMap<&'static str, usize> = WAYS.iter().map(|way| (way.name, 0)).collect();
    let mut failing: [Option<(Means, Instant)>; POOL_ENDPOINTS] = [None; POOL_ENDPOINTS];
    // Each way once, however soon it is over.
    let mut first = WAYS.iter();
    let mut next = Instant::now();
    while !is_done() && !watch.is_over() {
        let now = Instant::now();
        for (endpoint, state) in failing.iter_mut().enumerate() {
            if let Some((means, until)) = *state
                && until <= now
            {
                fleet.heal(endpoint, means)?;
                *state = None;
            }
        }
        if next <= now {
            next = now + Duration::from_millis(random.u64(EVERY_MS));
            let well: Vec<usize> =
                (0..POOL_ENDPOINTS).filter(|&endpoint| failing[endpoint].is_none()).collect();
            if POOL_ENDPOINTS - well.len() < AT_ONCE {
                let endpoint = well[random.usize(..well.len())];
                let way = first.next().unwrap_or_else(|| draw(&mut random));
                let lasts = Duration::from_millis(random.u64(LASTS_MS));
                fleet.fail(endpoint, way.means)?;
                failing[endpoint] = Some((way.means, now + lasts));
                *counts.entry(way.name).or_insert(0) += 1;
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for (endpoint, state) in failing.into_iter().enumerate() {
        if let Some((means, _)) = state {
            fleet.heal(endpoint, means)?;
        }
    }
    Ok(counts)
}

fn draw(random: &mut fastrand::Rng) -> &'static Way {
    let all: u32 = WAYS.iter().map(|way| way.weight).sum();
    let mut at = random.u32(..all);
    for way in &WAYS {
        if at < way.weight {
            return way;
        }
        at -= way.weight;
    }
    &WAYS[0]
}
