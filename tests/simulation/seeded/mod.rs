//! Seeded runs of the production director in the simulated world: random topologies, faults,
//! reloads and traffic, with the rules that must hold in each of them.
//!
//! A failure names its seed; `SEED=n cargo test --test simulation seeded` runs that one alone.

mod false_positives;
mod invariants;
mod orders;
mod request_faults;
mod scenario;
mod topology_generator;

use std::time::Duration;

use gapless::sim::predict::FaultKind;
use gapless::sim::world::SimulatedRequestCounts;

use invariants::InvariantChecker;
use scenario::SimulationScenario;

const SEED_COUNT: u64 = 500;

/// Further seeds that have found defects.
const REGRESSION_SEEDS: [u64; 1] = [1162];

fn seeds() -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..SEED_COUNT).chain(REGRESSION_SEEDS).collect(),
    }
}

/// Runs `check` for every seed, and reports the one that failed.
fn for_all_seeds(check: impl Fn(u64)) {
    for seed in seeds() {
        let run = std::panic::AssertUnwindSafe(|| check(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} failed; run it alone with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn invariants_hold_under_random_faults_and_reloads() {
    for_all_seeds(|seed| {
        let mut scenario = SimulationScenario::new(seed);
        let mut checker = InvariantChecker::new(&mut scenario.simulation);
        for _ in 0..12 {
            scenario.random_step(&mut checker);
        }
        scenario.heal(&mut checker);
        checker.check_incidents(&mut scenario.simulation);
        assert_eq!(
            scenario.simulation.request_counts().repeated_post,
            0,
            "a POST went on after it was received"
        );
    });
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| -> (SimulatedRequestCounts, Vec<String>) {
        let mut scenario = SimulationScenario::new(seed);
        let mut checker = InvariantChecker::new(&mut scenario.simulation);
        (0..12).for_each(|_| scenario.random_step(&mut checker));
        let incidents = scenario.simulation.director().incidents();
        let incident_lines =
            incidents.iter().map(|i| format!("{} {} {:?}", i.subject.address, i.failure, i.counts));
        (scenario.simulation.request_counts(), incident_lines.collect())
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn failure_without_traffic_is_detected_within_closed_form() {
    for_all_seeds(|seed| {
        let mut scenario = SimulationScenario::without_traffic(seed);
        let mut checker = InvariantChecker::new(&mut scenario.simulation);
        scenario.settle(&mut checker);
        // Endpoints are probed in cleartext, and some faults do not affect probes.
        let is_probe_visible =
            |fault: &FaultKind| *fault != FaultKind::Certificate && !fault.is_invisible_to_probes();
        for fault in FaultKind::ALL.into_iter().filter(is_probe_visible) {
            let (address, detection) = scenario.fail_endpoint(fault.behavior(), &mut checker);
            let worst = scenario.max_detection_time(fault.class());
            assert!(
                detection <= worst,
                "{fault} of {address} took {detection:?}, at most {worst:?}"
            );
            scenario.heal(&mut checker);
        }
    });
}

#[test]
fn failed_gets_are_rescued_while_another_zone_is_up() {
    for_all_seeds(|seed| {
        let mut scenario = SimulationScenario::two_zones_with_traffic(seed);
        let mut checker = InvariantChecker::new(&mut scenario.simulation);
        scenario.settle(&mut checker);
        let counts_before = scenario.simulation.request_counts();
        let fault = [FaultKind::Refused, FaultKind::Hang, FaultKind::BlackHole][seed as usize % 3];
        scenario.fail_zone(0, &fault.behavior(), &mut checker);
        let counts_after = scenario.simulation.request_counts();
        assert_eq!(counts_after.failed_get, counts_before.failed_get, "GETs are sent again");
        checker.check_incidents(&mut scenario.simulation);
        let incidents = scenario.simulation.director().incidents();
        let rescued: u64 = incidents.iter().map(|incident| incident.counts.rescued).sum();
        assert_eq!(
            rescued, counts_after.rescued,
            "the ledger counts what the clients' side counts"
        );
        scenario.heal(&mut checker);
        let incidents = scenario.simulation.director().incidents();
        let rescued_after_heal: u64 =
            incidents.iter().map(|incident| incident.counts.rescued).sum();
        assert_eq!(
            rescued_after_heal,
            scenario.simulation.request_counts().rescued,
            "also when incidents end"
        );
        let longest_detection = incidents.iter().filter_map(|i| i.timeline.detection_time()).max();
        let predicted = scenario.max_detection_time(fault.class());
        assert!(
            longest_detection <= Some(predicted + Duration::from_millis(1)),
            "{fault}: {longest_detection:?}"
        );
    });
}
