//! Orders hold whatever fails meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use gapless::logic::director::{Eligibility, OperatorAction, OperatorCommand};
use gapless::logic::model::selector::TopologySelector;
use gapless::logic::orders::OrderAction;
use gapless::sim::predict::FaultKind;
use gapless::sim::world::Simulation;

use super::for_all_seeds;
use super::scenario::{HEALTHY, SimulationScenario};
use super::topology_generator::ms;

/// No snapshot holds a drained endpoint or omits another one without reason.
fn check_drained_endpoints(simulation: &mut Simulation) {
    let (snapshot, endpoints) = (simulation.snapshot().clone(), simulation.director().endpoints());
    for pool in &snapshot.pools {
        let targets: Vec<_> = pool.targets().chain(&pool.trial_targets).map(|one| one.id).collect();
        let mut all_drained = true;
        for status in endpoints.iter().filter(|one| one.subject.pool == pool.spec.name) {
            let is_drained = status.eligibility == Eligibility::Drained;
            all_drained &= is_drained;
            let id = status.subject.endpoint;
            assert!(!is_drained || !targets.contains(&id), "{id} is drained, and gets requests");
        }
        assert_eq!(pool.is_drained, all_drained);
        assert_eq!(targets.is_empty(), all_drained, "the pool {} is empty", pool.spec.name);
    }
}

fn random_command(rng: &mut Rng, addresses: &[SocketAddr]) -> OperatorCommand {
    let selector = match rng.u32(..6) {
        0 => TopologySelector::parse("r"),
        1 => TopologySelector::parse("r/a"),
        2 => TopologySelector::parse("r/b"),
        _ => Some(TopologySelector::Endpoint(addresses[rng.usize(..addresses.len())])),
    };
    let selector = selector.expect("something");
    let random_delay = |rng: &mut Rng| ms(rng.u64(..2_000));
    let action = match rng.u32(..5) {
        0 | 1 => OperatorAction::Restore,
        2 if matches!(selector, TopologySelector::Endpoint(_)) => {
            OperatorAction::Issue(OrderAction::Weight(rng.u32(1..10)))
        }
        _ => OperatorAction::Issue(OrderAction::Drain {
            fade_duration: random_delay(rng),
            deadline: random_delay(rng),
        }),
    };
    OperatorCommand {
        selector,
        pool: None,
        action,
        until: None,
        author: None,
        note: None,
        is_forced: rng.u32(..4) == 0,
    }
}

#[test]
fn drained_endpoint_gets_no_requests_until_restored() {
    for_all_seeds(|seed| {
        let mut rng = Rng::with_seed(seed ^ 0x0d3);
        let mut scenario = SimulationScenario::two_zones_with_traffic(seed);
        let simulation = &mut scenario.simulation;
        let addresses: Vec<SocketAddr> =
            simulation.director().endpoints().iter().map(|one| one.subject.address).collect();
        for _ in 0..20 {
            if rng.bool() {
                let mut command = random_command(&mut rng, &addresses);
                command.until = rng.bool().then(|| simulation.now() + ms(rng.u64(1..3_000)));
                // The order may be refused.
                let _ = simulation.operate(command);
            } else {
                let behavior = if rng.bool() { FaultKind::Refused.behavior() } else { HEALTHY };
                let address = addresses[rng.usize(..addresses.len())];
                simulation.schedule(simulation.now(), address, behavior);
            }
            let until = simulation.now() + ms(rng.u64(1..700));
            let mut checked_version = 0;
            while simulation.step_until(until) {
                if simulation.snapshot().version > checked_version {
                    checked_version = simulation.snapshot().version;
                    check_drained_endpoints(simulation);
                }
            }
        }
        assert_eq!(
            simulation.request_counts().repeated_post,
            0,
            "a POST went on after it was received"
        );
        for address in &addresses {
            simulation.schedule(simulation.now(), *address, HEALTHY);
        }
        let order_ids: Vec<u64> =
            simulation.director().orders().iter().map(|order| order.id).collect();
        let now = simulation.now();
        for id in order_ids {
            simulation.director().lift_order(id, now).expect("an operator's");
        }
        simulation.stop_load();
        simulation.run_until(now + Duration::from_secs(60));
        let all = simulation.director().endpoints();
        assert!(all.iter().all(|one| one.eligibility == Eligibility::Clear), "{all:?}");
    });
}
