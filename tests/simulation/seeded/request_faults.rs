//! Requests that fail at every endpoint change no verdict, and hide no failure of a zone.

use std::time::Duration;

use gapless::logic::model::topology::{DetectionSpec, PoolSpec, Topology};
use gapless::sim::predict::FaultKind;
use gapless::sim::world::{FaultyRequests, RequestFault, SimulationSettings};

use super::for_all_seeds;
use super::invariants::InvariantChecker;
use super::scenario::SimulationScenario;
use super::topology_generator::{ms, pool_spec, zone};

/// Shares of the requests that fail everywhere.
const SHARES: [f64; 4] = [0.005, 0.05, 0.5, 0.9];

/// Faulty requests that reset connections leave fewer idle ones, whose close is the first evidence
/// of a killed zone: the next is a probe's, a round trip later.
const ROUND_TRIP: Duration = ms(1);

/// Requests a second.
const RATE_RPS: f64 = 100.0;

const FAULTS: [RequestFault; 3] =
    [RequestFault::Status(500), RequestFault::Reset, RequestFault::Cut];

/// A world with two or three zones and 100 requests a second, of which some fail everywhere.
struct FaultyLoadScenario {
    scenario: SimulationScenario,
    checker: InvariantChecker,
    context: String,
}

impl FaultyLoadScenario {
    /// The seed selects one of 48 kinds of run.
    fn new(seed: u64, rate_rps: f64, faulty: Option<FaultyRequests>) -> Self {
        let zone_count = 2 + (seed / 24) % 2;
        let is_warm = (seed / 12).is_multiple_of(2);
        let zones = [zone("r/a", &[1, 2, 3]), zone("r/b", &[4, 5, 6]), zone("s/c", &[7, 8])];
        let pool = PoolSpec {
            zones: zones.into_iter().take(zone_count as usize).collect(),
            ..pool_spec("web", DetectionSpec::default())
        };
        let topology = Topology { pools: vec![pool.into()], ..Topology::default() };
        let settings = SimulationSettings { seed, ..SimulationSettings::default() };
        let mut scenario = SimulationScenario::with_topology(settings, topology);
        let mut checker = InvariantChecker::new(&mut scenario.simulation);
        scenario.run_for(ms(100), &mut checker);
        if is_warm {
            scenario.add_traffic(100.0, 0.2);
            scenario.run_for(ms(15_000), &mut checker);
            scenario.simulation.stop_load();
        }
        scenario.add_faulty_traffic(rate_rps, 0.2, faulty);
        let context = format!("seed {seed}, {zone_count} zones, warm {is_warm}, {faulty:?}");
        Self { scenario, checker, context }
    }

    fn run_for(&mut self, time: Duration) {
        self.scenario.run_for(time, &mut self.checker);
    }

    fn assert_no_verdicts(&self) {
        assert!(self.checker.verdicts.is_empty(), "{}: {:?}", self.context, self.checker.verdicts);
    }
}

fn faulty_requests(seed: u64) -> FaultyRequests {
    FaultyRequests { share: SHARES[(seed % 4) as usize], fault: FAULTS[(seed / 4 % 3) as usize] }
}

#[test]
fn request_that_fails_everywhere_changes_no_verdict() {
    for_all_seeds(|seed| {
        let mut run = FaultyLoadScenario::new(seed, RATE_RPS, Some(faulty_requests(seed)));
        run.run_for(ms(15_000));
        run.assert_no_verdicts();
    });
}

#[test]
fn zone_failure_is_found_beside_failing_requests() {
    let window = |seed, rate_rps, faulty, fault: FaultKind| {
        let mut run = FaultyLoadScenario::new(seed, rate_rps, faulty);
        run.run_for(ms(3_000));
        run.assert_no_verdicts();
        run.scenario.zone_detection_time(0, fault, &mut run.checker)
    };
    for fault in [FaultKind::StatusTraffic, FaultKind::Hang, FaultKind::Refused] {
        let (mut usual, mut beside) = (Vec::new(), Vec::new());
        for seed in 0..96 {
            // The same rate of requests that can be evidence.
            let faulty = faulty_requests(seed);
            usual.push(window(seed, RATE_RPS * (1.0 - faulty.share), None, fault));
            beside.push(window(seed, RATE_RPS, Some(faulty), fault));
        }
        usual.sort_unstable();
        beside.sort_unstable();
        let median = |windows: &[Duration]| windows[windows.len() / 2];
        assert!(
            median(&beside) <= median(&usual).mul_f64(1.3) + ROUND_TRIP,
            "{fault}: {:?} and not {:?}",
            median(&beside),
            median(&usual)
        );
    }
}
