//! Lost packets, slow responses and stalls of control cause no verdict.

use gapless::logic::model::topology::DetectionSpec;
use gapless::sim::latency::LatencyModel;
use gapless::sim::world::SimulationSettings;

use super::invariants::InvariantChecker;
use super::scenario::{SimulationScenario, healthy};
use super::topology_generator::ms;

/// Simulated worlds of each kind.
const SEEDS: u64 = 4;

/// A healthy world under settled traffic, and its invariants.
fn scenario_with_traffic(settings: SimulationSettings) -> (SimulationScenario, InvariantChecker) {
    let mut scenario =
        SimulationScenario::two_zones_without_traffic(settings, DetectionSpec::default());
    let mut checker = InvariantChecker::new(&mut scenario.simulation);
    scenario.run_for(ms(100), &mut checker);
    scenario.add_traffic(200.0, 0.2);
    scenario.run_for(ms(5_000), &mut checker);
    (scenario, checker)
}

fn assert_no_verdicts(
    scenario: &mut SimulationScenario,
    checker: &mut InvariantChecker,
    context: &str,
) {
    checker.check_incidents(&mut scenario.simulation);
    assert!(
        checker.verdicts.is_empty(),
        "{context}: {:?}",
        scenario.simulation.director().incidents()
    );
}

#[test]
fn probe_loss_of_20_percent_causes_no_verdict() {
    for seed in 0..SEEDS {
        let (mut scenario, mut checker) =
            scenario_with_traffic(SimulationSettings { seed, ..SimulationSettings::default() });
        scenario.simulation.set_loss(0.2, 0.0);
        scenario.run_for(ms(600_000), &mut checker);
        assert_no_verdicts(&mut scenario, &mut checker, &format!("seed {seed}"));
    }
}

#[test]
fn tenfold_latency_everywhere_causes_no_verdict() {
    for seed in 0..SEEDS {
        for before_ms in [3, 20] {
            let latency = LatencyModel::Fixed(ms(before_ms));
            let (mut scenario, mut checker) = scenario_with_traffic(SimulationSettings {
                seed,
                latency,
                ..SimulationSettings::default()
            });
            let now = scenario.simulation.now();
            for address in scenario.addresses() {
                scenario.simulation.schedule(now, address, healthy(10 * before_ms));
            }
            scenario.run_for(ms(60_000), &mut checker);
            let context = format!("seed {seed}, {before_ms} ms");
            assert_no_verdicts(&mut scenario, &mut checker, &context);
        }
    }
}

#[test]
fn control_stall_of_two_seconds_causes_no_verdict() {
    for seed in 0..SEEDS {
        for rate_rps in [0.0, 200.0] {
            let settings = SimulationSettings { seed, ..SimulationSettings::default() };
            let mut scenario =
                SimulationScenario::two_zones_without_traffic(settings, DetectionSpec::default());
            let mut checker = InvariantChecker::new(&mut scenario.simulation);
            scenario.run_for(ms(100), &mut checker);
            if rate_rps > 0.0 {
                scenario.add_traffic(rate_rps, 0.2);
            }
            scenario.run_for(ms(5_000 + 37 * seed), &mut checker);
            scenario.simulation.stall_control(ms(2_000));
            scenario.run_for(ms(10_000), &mut checker);
            let context = format!("seed {seed}, {rate_rps} req/s");
            assert_no_verdicts(&mut scenario, &mut checker, &context);
        }
    }
}
