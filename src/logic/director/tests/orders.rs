//! Orders of operators, and their effects.

use super::*;
use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::selector::TopologySelector;
use crate::logic::model::topology::{EvictionSpec, RecoverySpec};
use crate::logic::orders::{DEFAULT_DRAIN_DEADLINE, OrderAction};

const IMMEDIATE_DRAIN: OrderAction =
    OrderAction::Drain { fade_duration: Duration::ZERO, deadline: DEFAULT_DRAIN_DEADLINE };

fn selector(text: &str) -> TopologySelector {
    TopologySelector::parse(text).expect("something")
}

fn endpoint_at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn command(text: &str, action: OperatorAction) -> OperatorCommand {
    OperatorCommand {
        selector: selector(text),
        pool: None,
        action,
        until: None,
        author: None,
        note: None,
        is_forced: false,
    }
}

impl Rig {
    fn execute(&mut self, command: OperatorCommand) -> Result<AppliedCommand, CommandError> {
        let result = self.director.execute_command(command, self.now);
        self.turn([]);
        result
    }

    #[track_caller]
    fn issue(&mut self, text: &str, act: OrderAction) -> u64 {
        let applied = self.execute(command(text, OperatorAction::Issue(act))).expect("granted");
        applied.order.expect("an order").id
    }

    #[track_caller]
    fn force(&mut self, text: &str, act: OrderAction) {
        let command =
            OperatorCommand { is_forced: true, ..command(text, OperatorAction::Issue(act)) };
        self.execute(command).expect("granted");
    }

    #[track_caller]
    fn restore(&mut self, text: &str) -> AppliedCommand {
        self.execute(command(text, OperatorAction::Restore)).expect("granted")
    }

    #[track_caller]
    fn rejection_reasons(&mut self, text: &str) -> String {
        let reasons = match self.execute(command(text, OperatorAction::Issue(IMMEDIATE_DRAIN))) {
            Err(CommandError::InsufficientCapacity(reasons)) => reasons,
            other => panic!("{other:?}"),
        };
        reasons.join("; ")
    }

    fn serving_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.view().targets().map(|one| one.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    /// In thousandths of the pool's traffic.
    fn share(&self, port: u16) -> u32 {
        let share = self.director.traffic_shares().get(&self.id(port)).copied().unwrap_or_default();
        (share * f64::from(FULL_SHARE_PERMILLE)).round() as u32
    }

    fn eligibility(&self, port: u16) -> Eligibility {
        self.status(port).eligibility
    }

    /// Endpoints that requests leave, from the last outputs, and whether that is final.
    fn drained_outputs(&self) -> Vec<(EndpointId, bool)> {
        let drained = |output: &Output| match output {
            Output::Drained { endpoint, is_deadline_passed: is_over } => {
                Some((*endpoint, *is_over))
            }
            _ => None,
        };
        self.outputs.iter().filter_map(drained).collect()
    }
}

fn two_zones() -> Rig {
    Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3, 4])])
}

#[test]
fn drained_endpoint_share_goes_to_its_zone() {
    let mut rig = two_zones();
    rig.issue(&endpoint_at(1), IMMEDIATE_DRAIN);
    assert_eq!(rig.eligibility(1), Eligibility::Drained);
    assert_eq!(
        (rig.share(1), rig.share(2), rig.share(3)),
        (0, FULL_SHARE_PERMILLE, 0),
        "its zone keeps it all"
    );
    assert_eq!(rig.drained_outputs(), [(rig.id(1), false)]);
    assert!(!rig.view().is_panicking);
    let applied = rig.restore(&endpoint_at(1));
    assert_eq!((applied.lifted.len(), applied.order), (1, None));
    assert_eq!(rig.share(3), 0, "capacity that grows back is not missed");
    assert!(rig.share(1) > 0 && rig.share(1) < rig.share(2), "its share grows");
    rig.run_for(ms(11_000), |_| PASS);
    assert_eq!(rig.share(1), FULL_SHARE_PERMILLE / 2);
}

#[test]
fn evacuated_zone_share_goes_to_next_tier() {
    let mut rig = two_zones();
    assert_eq!(rig.share(1) + rig.share(2), FULL_SHARE_PERMILLE);
    rig.issue("r/a", IMMEDIATE_DRAIN);
    assert_eq!(rig.serving_ports(), [3, 4]);
    assert_eq!(rig.share(3) + rig.share(4), FULL_SHARE_PERMILLE);
    assert!(rig.panic_changes().is_empty());
    assert!(rig.director.is_routable());
    rig.restore("r/a");
    let back = rig.share(1) + rig.share(2);
    assert!((100..200).contains(&back), "{back}: it ramps");
    rig.run_for(ms(11_000), |_| PASS);
    assert_eq!(rig.share(1) + rig.share(2), FULL_SHARE_PERMILLE);
}

#[test]
fn drain_ramps_down_and_restore_resumes_from_current_share() {
    let mut rig = two_zones();
    rig.issue("r/a", OrderAction::Drain { fade_duration: ms(10_000), deadline: ms(5_000) });
    let mut shares = vec![rig.share(1) + rig.share(2)];
    for _ in 0..60 {
        rig.run_for(ms(100), |_| PASS);
        shares.push(rig.share(1) + rig.share(2));
    }
    assert!(shares.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 30));
    assert!((500..650).contains(&shares[60]), "{shares:?}: 1.4 times 40 %");
    assert!(rig.drained_outputs().is_empty());
    rig.restore("r/a");
    let back = rig.share(1) + rig.share(2);
    assert!(back.abs_diff(shares[60]) <= 30, "{back} after {}", shares[60]);
    rig.run_for(ms(10_000), |_| PASS);
    assert_eq!(rig.share(1) + rig.share(2), FULL_SHARE_PERMILLE);
    rig.issue("r/a", OrderAction::Drain { fade_duration: ms(1_000), deadline: ms(5_000) });
    rig.run_for(ms(1_100), |_| PASS);
    assert_eq!(rig.serving_ports(), [3, 4]);
    assert!(
        rig.drained_outputs().iter().all(|(_, is_over)| !is_over)
            && rig.drained_outputs().len() == 2
    );
    rig.run_for(ms(4_800), |_| PASS);
    assert!(rig.drained_outputs().is_empty(), "running streams may stay");
    rig.run_for(ms(200), |_| PASS);
    let over: Vec<bool> = rig.drained_outputs().iter().map(|&(_, is_over)| is_over).collect();
    assert_eq!(over, [true, true], "until the deadline");
}

#[test]
fn drained_endpoint_failure_opens_no_incident() {
    let recover = RecoverySpec { ramp: Duration::ZERO, ..RecoverySpec::default() };
    let evict = EvictionSpec { max_down_endpoints: 1, ..EvictionSpec::default() };
    let spec = PoolSpec {
        recovery: recover,
        eviction: evict,
        ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])])
    };
    let mut rig = Rig::with_pool(spec);
    rig.issue("r/a", IMMEDIATE_DRAIN);
    rig.take_down(&[1]);
    let mut down = rig.down_ports();
    rig.take_down(&[2]);
    down.extend(rig.down_ports());
    assert!(down.contains(&1) && down.contains(&2), "it is known: {down:?}");
    assert!(rig.director.incidents().is_empty(), "but no request can have met it");
    let pool = &rig.director.pools()[0];
    assert_eq!((pool.down, pool.drained, pool.is_in_panic), (0, 2, false));
    rig.take_down(&[3]);
    assert_eq!(rig.serving_ports(), [4], "the budget of evictions has room");
    rig.restore("r/a");
    assert_eq!(rig.serving_ports(), [4], "an endpoint that is down stays down");
    rig.run_for(ms(5_000), |_| PASS);
    assert_eq!(rig.serving_ports(), [1, 2, 3, 4]);
}

#[test]
fn drain_order_holds_during_panic() {
    let mut rig = two_zones();
    rig.issue(&endpoint_at(1), IMMEDIATE_DRAIN);
    rig.take_down(&[2, 3, 4]);
    assert!(rig.view().is_panicking);
    assert_eq!(rig.serving_ports(), [2, 3, 4]);
    for port in 2..=4 {
        rig.force(&endpoint_at(port), IMMEDIATE_DRAIN);
    }
    let view = rig.view();
    assert!(view.is_drained && !view.is_panicking);
    assert!(rig.serving_ports().is_empty());
    rig.restore(&endpoint_at(1));
    assert_eq!(rig.serving_ports(), [1]);
    assert!(!rig.view().is_drained);
}

#[test]
fn drain_leaving_too_little_is_rejected_with_figures() {
    let mut rig = two_zones();
    assert!(rig.rejection_reasons("r").contains("all of its 4 endpoints"));
    rig.issue("r/a", IMMEDIATE_DRAIN);
    let why = rig.rejection_reasons("r/b");
    assert!(why.contains("nothing would be left"), "{why}");
    let why = rig.rejection_reasons(&endpoint_at(3));
    assert!(why.contains("1 of 4") && why.contains("r/a is drained (order 1)"), "{why}");
    rig.restore("r/a");
    rig.take_down(&[3, 4]);
    let why = rig.rejection_reasons("r/a");
    assert!(why.contains("nothing healthy would be left"), "{why}");
    rig.issue("r/b", IMMEDIATE_DRAIN);
    assert_eq!(rig.serving_ports(), [1, 2], "what does not serve can be drained");
    assert_eq!(rig.director.orders().iter().count(), 1, "what is refused is no order");
    rig.force("r/a", IMMEDIATE_DRAIN);
    assert!(rig.serving_ports().is_empty());
}

#[test]
fn drain_below_pool_limits_is_rejected() {
    let evict = EvictionSpec { panic_percent: 60, ..EvictionSpec::default() };
    let spec = PoolSpec { eviction: evict, ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]) };
    let mut rig = Rig::with_pool(spec);
    let why = rig.rejection_reasons("r/a");
    assert!(why.contains("2 of 4") && why.contains("60 %"), "{why}");
    let mut spec = pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]);
    spec.limits.circuit_breakers.endpoint.requests = Some(10);
    let mut rig = Rig::with_pool(spec);
    (0..25).for_each(|_| rig.stats(1).request_started(1));
    rig.run_for(ms(6_000), |_| PASS);
    let why = rig.rejection_reasons("r/a");
    assert!(why.contains("20 requests") && why.contains("25"), "{why}");
    (0..20).for_each(|_| rig.stats(1).request_ended());
    rig.run_for(ms(6_000), |_| PASS);
    rig.issue("r/a", IMMEDIATE_DRAIN);
}

#[test]
fn drain_is_judged_by_load_and_stated_capacity() {
    let zones: [(&str, &[u16]); 2] = [("r/a", &[1, 2, 3, 4, 5]), ("r/b", &[6])];
    let rig_with_load = |rate: u32, change: fn(&mut PoolSpec)| {
        let mut spec = pool(&zones);
        change(&mut spec);
        let mut rig = Rig::with_pool(spec);
        for _ in 0..60 {
            (0..rate / 10).for_each(|_| {
                rig.stats(1).request_started(1);
                rig.stats(1).request_ended();
                rig.stats(1).record_success();
            });
            rig.run_for(ms(100), |_| PASS);
        }
        rig
    };
    let stated = |spec: &mut PoolSpec| spec.steer.endpoint_capacity.rate_rps = Some(100_000);
    let small = |spec: &mut PoolSpec| spec.steer.endpoint_capacity.rate_rps = Some(100);
    let why = rig_with_load(200, |_| {}).rejection_reasons("r/a");
    assert!(why.contains("r/b would get 5.0 times the present load"), "{why}");
    rig_with_load(0, |_| {}).issue("r/a", IMMEDIATE_DRAIN);
    rig_with_load(200, stated).issue("r/a", IMMEDIATE_DRAIN);
    let why = rig_with_load(200, small).rejection_reasons("r/a");
    assert!(why.contains("r/b would get 19") && why.contains("and can take 100"), "{why}");
}

#[test]
fn order_expires_at_its_time() {
    let mut rig = two_zones();
    let until = Some(rig.now + ms(5_000));
    rig.execute(OperatorCommand {
        until,
        ..command("r/a", OperatorAction::Issue(IMMEDIATE_DRAIN))
    })
    .expect("granted");
    rig.run_for(ms(4_900), |_| PASS);
    assert_eq!(rig.serving_ports(), [3, 4]);
    rig.run_for(ms(200), |_| PASS);
    assert!(rig.serving_ports().contains(&1));
    assert!(rig.director.orders().is_empty());
    let expired =
        |event: &Event| matches!(event, Event::OrderChanged { change: OrderChange::Expired, .. });
    assert!(rig.events().iter().any(expired));
}

#[test]
fn weight_order_applies_until_restored() {
    let mut rig = two_zones();
    rig.issue(&endpoint_at(1), OrderAction::Weight(3));
    assert_eq!((rig.share(1), rig.share(2), rig.share(3)), (750, 250, 0));
    assert_eq!(rig.status(1).weight, 3);
    assert!(rig.view().targets().any(|one| one.address.port() == 1 && one.weight == 3));
    rig.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(rig.status(1).weight, 3, "a reload keeps it");
    rig.restore(&endpoint_at(1));
    assert_eq!((rig.share(1), rig.status(1).weight), (500, 1));
}

#[test]
fn restore_overrides_drain_of_the_config_file() {
    let spec = || PoolSpec {
        drained_scopes: vec![selector("r/a"), selector(&endpoint_at(3))],
        recovery: RecoverySpec { ramp: Duration::ZERO, ..RecoverySpec::default() },
        ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])])
    };
    let mut rig = Rig::with_pool(spec());
    assert_eq!(rig.serving_ports(), [4]);
    let applied = rig.restore(&endpoint_at(1));
    assert!(applied.order.is_some() && applied.remaining.is_empty());
    assert_eq!(rig.serving_ports(), [1, 4]);
    rig.configure(spec());
    assert_eq!(rig.serving_ports(), [1, 4], "the file says nothing new");
    let applied = rig.restore("r/a");
    assert_eq!(applied.remaining.len(), 0);
    assert_eq!(rig.serving_ports(), [1, 2, 4]);
    rig.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(rig.serving_ports(), [1, 2, 3, 4]);
    assert!(rig.director.lift_order(99, rig.now).is_err());
    rig.configure(spec());
    assert_eq!(rig.serving_ports(), [4], "said anew");
    let file = rig.director.orders().iter().next_back().expect("the file's").id;
    assert!(matches!(rig.director.lift_order(file, rig.now), Err(CommandError::Invalid(_))));
}

#[test]
fn replaced_pool_serves_old_endpoints_except_drained() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.configure(PoolSpec {
        drained_scopes: vec![selector(&endpoint_at(3))],
        ..pool(&[("r/a", &[3, 4])])
    });
    assert_eq!(rig.serving_ports(), [1, 2], "until something is known of the new");
    rig.answer_all_probes(PASS);
    assert_eq!(rig.serving_ports(), [4]);
    let spec = || pool(&[("r/a", &[4, 5])]);
    let mut rig = Rig::with_pool(spec());
    rig.force("r/a", IMMEDIATE_DRAIN);
    rig.configure(spec());
    assert!(rig.serving_ports().is_empty());
}

#[test]
fn loaded_orders_apply_from_first_snapshot() {
    let mut rig = two_zones();
    rig.issue("r/a", IMMEDIATE_DRAIN);
    let orders: Vec<_> = rig.director.orders().iter().cloned().collect();
    let mut successor = Rig::unconfigured();
    successor.director.handle(Input::LoadOrders(orders.clone()), successor.now);
    successor.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(successor.eligibility(1), Eligibility::Drained);
    successor.answer_all_probes(PASS);
    assert_eq!(successor.serving_ports(), [3, 4]);
    let kept: Vec<_> = successor.director.orders().iter().cloned().collect();
    assert_eq!(kept, orders);
}

#[test]
fn command_for_unknown_target_is_rejected() {
    let mut rig = two_zones();
    let unknown =
        |rig: &mut Rig, text: &str| match rig.execute(command(text, OperatorAction::Restore)) {
            Err(CommandError::UnknownTarget(why)) => why,
            other => panic!("{other:?}"),
        };
    assert!(unknown(&mut rig, "r/c").contains("r/a, r/b"));
    assert!(unknown(&mut rig, "s").contains("region `s`"));
    assert!(unknown(&mut rig, "127.0.0.1:9").contains("127.0.0.1:1"));
    let elsewhere =
        OperatorCommand { pool: Some("api".into()), ..command("r/a", OperatorAction::Restore) };
    assert!(
        matches!(rig.execute(elsewhere), Err(CommandError::UnknownTarget(why)) if why.contains("`api`"))
    );
    assert_eq!(rig.restore("r/a"), AppliedCommand::default(), "there is nothing to restore");
}
