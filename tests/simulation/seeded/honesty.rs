//! What looks like a failure and is none: nobody may go down for it.

use gapless::logic::topology::Detect;
use gapless::sim::latency::Latency;
use gapless::sim::world::Settings;

use super::rules::Rules;
use super::scenario::{Scenario, healthy};
use super::topologies::ms;

/// Worlds of each kind.
const SEEDS: u64 = 4;

/// A healthy world under traffic that has settled, and what watches it.
fn busy(settings: Settings) -> (Scenario, Rules) {
    let mut scenario = Scenario::idle(settings, Detect::default());
    let mut rules = Rules::new(&mut scenario.world);
    scenario.run(ms(100), &mut rules);
    scenario.offer(200.0, 0.2);
    scenario.run(ms(5_000), &mut rules);
    (scenario, rules)
}

fn assert_nobody_went_down(scenario: &mut Scenario, rules: &mut Rules, why: &str) {
    rules.check_incidents(&mut scenario.world);
    assert!(rules.verdicts.is_empty(), "{why}: {:?}", scenario.world.director().incidents());
}

#[test]
fn a_fifth_of_all_probes_may_be_lost_for_ten_minutes() {
    for seed in 0..SEEDS {
        let (mut scenario, mut rules) = busy(Settings { seed, ..Settings::default() });
        scenario.world.lose(0.2, 0.0);
        scenario.run(ms(600_000), &mut rules);
        assert_nobody_went_down(&mut scenario, &mut rules, &format!("seed {seed}"));
    }
}

#[test]
fn everything_may_become_ten_times_as_slow_at_once() {
    for seed in 0..SEEDS {
        for before_ms in [3, 20] {
            let latency = Latency::Fixed(ms(before_ms));
            let (mut scenario, mut rules) = busy(Settings { seed, latency, ..Settings::default() });
            let now = scenario.world.now();
            for address in scenario.addresses() {
                scenario.world.schedule(now, address, healthy(10 * before_ms));
            }
            scenario.run(ms(60_000), &mut rules);
            let why = format!("seed {seed}, {before_ms} ms");
            assert_nobody_went_down(&mut scenario, &mut rules, &why);
        }
    }
}

#[test]
fn control_may_stand_still_for_two_seconds() {
    for seed in 0..SEEDS {
        for rate_rps in [0.0, 200.0] {
            let settings = Settings { seed, ..Settings::default() };
            let mut scenario = Scenario::idle(settings, Detect::default());
            let mut rules = Rules::new(&mut scenario.world);
            scenario.run(ms(100), &mut rules);
            if rate_rps > 0.0 {
                scenario.offer(rate_rps, 0.2);
            }
            scenario.run(ms(5_000 + 37 * seed), &mut rules);
            scenario.world.stall_control(ms(2_000));
            scenario.run(ms(10_000), &mut rules);
            let why = format!("seed {seed}, {rate_rps} req/s");
            assert_nobody_went_down(&mut scenario, &mut rules, &why);
        }
    }
}
