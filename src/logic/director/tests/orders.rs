//! What operators order, and what becomes of it.

use super::*;
use crate::logic::operator::{Act, DEADLINE};
use crate::logic::recovery::FULL;
use crate::logic::topology::{Evict, Recover};

const AT_ONCE: Act = Act::Drain { over: Duration::ZERO, deadline: DEADLINE };

fn what(text: &str) -> What {
    What::parse(text).expect("something")
}

fn endpoint_at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn wish(text: &str, verb: Verb) -> Wish {
    Wish { what: what(text), pool: None, verb, until: None, note: None, is_forced: false }
}

impl Rig {
    fn wants(&mut self, wish: Wish) -> Result<Granted, Denied> {
        let granted = self.director.operate(wish, self.now);
        self.turn([]);
        granted
    }

    #[track_caller]
    fn gives(&mut self, text: &str, act: Act) -> u64 {
        let granted = self.wants(wish(text, Verb::Give(act))).expect("granted");
        granted.order.expect("an order").id
    }

    #[track_caller]
    fn forces(&mut self, text: &str, act: Act) {
        let wish = Wish { is_forced: true, ..wish(text, Verb::Give(act)) };
        self.wants(wish).expect("granted");
    }

    #[track_caller]
    fn restores(&mut self, text: &str) -> Granted {
        self.wants(wish(text, Verb::Restore)).expect("granted")
    }

    #[track_caller]
    fn refuses(&mut self, text: &str) -> String {
        let reasons = match self.wants(wish(text, Verb::Give(AT_ONCE))) {
            Err(Denied::NoRoom(reasons)) => reasons,
            other => panic!("{other:?}"),
        };
        reasons.join("; ")
    }

    fn gets(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.view().targets().map(|one| one.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    /// In thousandths of the pool's traffic.
    fn share(&self, port: u16) -> u32 {
        let share = self.director.shares().get(&self.id(port)).copied().unwrap_or_default();
        (share * f64::from(FULL)).round() as u32
    }

    fn standing(&self, port: u16) -> Standing {
        self.status(port).standing
    }

    /// Endpoints that are to be left, in what was said last; with whether for good.
    fn left(&self) -> Vec<(EndpointId, bool)> {
        let left = |output: &Output| match output {
            Output::Drained { endpoint, is_over } => Some((*endpoint, *is_over)),
            _ => None,
        };
        self.said.iter().filter_map(left).collect()
    }
}

fn two_zones() -> Rig {
    Rig::new(&[("r/a", &[1, 2]), ("r/b", &[3, 4])])
}

#[test]
fn a_drained_endpoint_leaves_its_share_to_its_neighbours() {
    let mut rig = two_zones();
    rig.gives(&endpoint_at(1), AT_ONCE);
    assert_eq!(rig.standing(1), Standing::Drained);
    assert_eq!((rig.share(1), rig.share(2), rig.share(3)), (0, FULL, 0), "its zone keeps it all");
    assert_eq!(rig.left(), [(rig.id(1), false)]);
    assert!(!rig.view().panic);
    let granted = rig.restores(&endpoint_at(1));
    assert_eq!((granted.lifted.len(), granted.order), (1, None));
    assert_eq!(rig.share(3), 0, "what grows back was missed by nobody");
    assert!(rig.share(1) > 0 && rig.share(1) < rig.share(2), "its share grows");
    rig.live_on(ms(11_000), |_| PASS);
    assert_eq!(rig.share(1), FULL / 2);
}

#[test]
fn an_evacuated_zone_leaves_its_share_to_the_next_tier() {
    let mut rig = two_zones();
    assert_eq!(rig.share(1) + rig.share(2), FULL);
    rig.gives("r/a", AT_ONCE);
    assert_eq!(rig.gets(), [3, 4]);
    assert_eq!(rig.share(3) + rig.share(4), FULL);
    assert!(rig.panics().is_empty());
    assert!(rig.director.is_routable());
    rig.restores("r/a");
    let back = rig.share(1) + rig.share(2);
    assert!((100..200).contains(&back), "{back}: it ramps");
    rig.live_on(ms(11_000), |_| PASS);
    assert_eq!(rig.share(1) + rig.share(2), FULL);
}

#[test]
fn a_share_goes_in_small_steps_and_comes_back_from_where_it_is() {
    let mut rig = two_zones();
    rig.gives("r/a", Act::Drain { over: ms(10_000), deadline: ms(5_000) });
    let mut shares = vec![rig.share(1) + rig.share(2)];
    for _ in 0..60 {
        rig.live_on(ms(100), |_| PASS);
        shares.push(rig.share(1) + rig.share(2));
    }
    assert!(shares.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 30));
    assert!((500..650).contains(&shares[60]), "{shares:?}: 1.4 times 40 %");
    assert!(rig.left().is_empty());
    rig.restores("r/a");
    let back = rig.share(1) + rig.share(2);
    assert!(back.abs_diff(shares[60]) <= 30, "{back} after {}", shares[60]);
    rig.live_on(ms(10_000), |_| PASS);
    assert_eq!(rig.share(1) + rig.share(2), FULL);
    rig.gives("r/a", Act::Drain { over: ms(1_000), deadline: ms(5_000) });
    rig.live_on(ms(1_100), |_| PASS);
    assert_eq!(rig.gets(), [3, 4]);
    assert!(rig.left().iter().all(|(_, is_over)| !is_over) && rig.left().len() == 2);
    rig.live_on(ms(4_800), |_| PASS);
    assert!(rig.left().is_empty(), "what lasts may stay");
    rig.live_on(ms(200), |_| PASS);
    let over: Vec<bool> = rig.left().iter().map(|&(_, is_over)| is_over).collect();
    assert_eq!(over, [true, true], "until the deadline");
}

#[test]
fn health_is_kept_and_a_drained_failure_is_none() {
    let recover = Recover { ramp: Duration::ZERO, ..Recover::default() };
    let evict = Evict { endpoints: 1, ..Evict::default() };
    let spec = PoolSpec { recover, evict, ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]) };
    let mut rig = Rig::with(spec);
    rig.gives("r/a", AT_ONCE);
    rig.fell(&[1]);
    let mut down = rig.down();
    rig.fell(&[2]);
    down.extend(rig.down());
    assert!(down.contains(&1) && down.contains(&2), "it is known: {down:?}");
    assert!(rig.director.incidents().is_empty(), "but nobody can have met it");
    let pool = &rig.director.pools()[0];
    assert_eq!((pool.down, pool.drained, pool.panic), (0, 2, false));
    rig.fell(&[3]);
    assert_eq!(rig.gets(), [4], "the budget of evictions has room");
    rig.restores("r/a");
    assert_eq!(rig.gets(), [4], "who is down stays down");
    rig.live_on(ms(5_000), |_| PASS);
    assert_eq!(rig.gets(), [1, 2, 3, 4]);
}

#[test]
fn an_operator_outranks_a_panic() {
    let mut rig = two_zones();
    rig.gives(&endpoint_at(1), AT_ONCE);
    rig.fell(&[2, 3, 4]);
    assert!(rig.view().panic);
    assert_eq!(rig.gets(), [2, 3, 4]);
    for port in 2..=4 {
        rig.forces(&endpoint_at(port), AT_ONCE);
    }
    let view = rig.view();
    assert!(view.is_drained && !view.panic);
    assert!(rig.gets().is_empty());
    rig.restores(&endpoint_at(1));
    assert_eq!(rig.gets(), [1]);
    assert!(!rig.view().is_drained);
}

#[test]
fn too_little_left_is_refused_with_figures() {
    let mut rig = two_zones();
    assert!(rig.refuses("r").contains("all of its 4 endpoints"));
    rig.gives("r/a", AT_ONCE);
    let why = rig.refuses("r/b");
    assert!(why.contains("nothing would be left"), "{why}");
    let why = rig.refuses(&endpoint_at(3));
    assert!(why.contains("1 of 4") && why.contains("r/a is drained (order 1)"), "{why}");
    rig.restores("r/a");
    rig.fell(&[3, 4]);
    let why = rig.refuses("r/a");
    assert!(why.contains("nothing healthy would be left"), "{why}");
    rig.gives("r/b", AT_ONCE);
    assert_eq!(rig.gets(), [1, 2], "what serves nobody can be taken away");
    assert_eq!(rig.director.orders().iter().count(), 1, "what is refused is no order");
    rig.forces("r/a", AT_ONCE);
    assert!(rig.gets().is_empty());
}

#[test]
fn the_bounds_of_the_pool_are_kept_to() {
    let evict = Evict { panic_percent: 60, ..Evict::default() };
    let spec = PoolSpec { evict, ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]) };
    let mut rig = Rig::with(spec);
    let why = rig.refuses("r/a");
    assert!(why.contains("2 of 4") && why.contains("60 %"), "{why}");
    let mut spec = pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]);
    spec.limits.breakers.endpoint.requests = Some(10);
    let mut rig = Rig::with(spec);
    (0..21).for_each(|_| rig.live(1).enter(1));
    let why = rig.refuses("r/a");
    assert!(why.contains("20 requests") && why.contains("21"), "{why}");
    (0..11).for_each(|_| rig.live(1).leave());
    rig.gives("r/a", AT_ONCE);
    let mut rig = Rig::new(&[("r/a", &[1, 2, 3]), ("r/b", &[4])]);
    let why = rig.refuses("r/a");
    assert!(why.contains("4.0 times"), "{why}");
}

#[test]
fn orders_end_by_themselves() {
    let mut rig = two_zones();
    let until = Some(rig.now + ms(5_000));
    rig.wants(Wish { until, ..wish("r/a", Verb::Give(AT_ONCE)) }).expect("granted");
    rig.live_on(ms(4_900), |_| PASS);
    assert_eq!(rig.gets(), [3, 4]);
    rig.live_on(ms(200), |_| PASS);
    assert!(rig.gets().contains(&1));
    assert!(rig.director.orders().is_empty());
    let expired = |event: &Event| matches!(event, Event::Order { fate: Fate::Expired, .. });
    assert!(rig.events().iter().any(expired));
}

#[test]
fn a_weight_is_another_one_until_it_is_taken_back() {
    let mut rig = two_zones();
    rig.gives(&endpoint_at(1), Act::Weight(3));
    assert_eq!((rig.share(1), rig.share(2), rig.share(3)), (750, 250, 0));
    assert_eq!(rig.status(1).weight, 3);
    assert!(rig.view().targets().any(|one| one.address.port() == 1 && one.weight == 3));
    rig.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(rig.status(1).weight, 3, "a reload keeps it");
    rig.restores(&endpoint_at(1));
    assert_eq!((rig.share(1), rig.status(1).weight), (500, 1));
}

#[test]
fn the_file_drains_and_an_operator_says_otherwise() {
    let spec = || PoolSpec {
        drained: vec![what("r/a"), what(&endpoint_at(3))],
        recover: Recover { ramp: Duration::ZERO, ..Recover::default() },
        ..pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])])
    };
    let mut rig = Rig::with(spec());
    assert_eq!(rig.gets(), [4]);
    let granted = rig.restores(&endpoint_at(1));
    assert!(granted.order.is_some() && granted.still.is_empty());
    assert_eq!(rig.gets(), [1, 4]);
    rig.configure(spec());
    assert_eq!(rig.gets(), [1, 4], "the file says nothing new");
    let granted = rig.restores("r/a");
    assert_eq!(granted.still.len(), 0);
    assert_eq!(rig.gets(), [1, 2, 4]);
    rig.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(rig.gets(), [1, 2, 3, 4]);
    assert!(rig.director.lift(99, rig.now).is_err());
    rig.configure(spec());
    assert_eq!(rig.gets(), [4], "said anew");
    let file = rig.director.orders().iter().next_back().expect("the file's").id;
    assert!(matches!(rig.director.lift(file, rig.now), Err(Denied::Senseless(_))));
}

#[test]
fn a_replaced_pool_serves_from_old_endpoints_but_not_from_drained_ones() {
    let mut rig = Rig::new(&[("r/a", &[1, 2])]);
    rig.configure(PoolSpec { drained: vec![what(&endpoint_at(3))], ..pool(&[("r/a", &[3, 4])]) });
    assert_eq!(rig.gets(), [1, 2], "until something is known of the new");
    rig.all_answer(PASS);
    assert_eq!(rig.gets(), [4]);
    let spec = || pool(&[("r/a", &[4, 5])]);
    let mut rig = Rig::with(spec());
    rig.forces("r/a", AT_ONCE);
    rig.configure(spec());
    assert!(rig.gets().is_empty());
}

#[test]
fn orders_of_before_hold_from_the_first_snapshot_on() {
    let mut rig = two_zones();
    rig.gives("r/a", AT_ONCE);
    let orders: Vec<_> = rig.director.orders().iter().cloned().collect();
    let mut heir = Rig::blank();
    heir.director.handle(Input::Orders(orders.clone()), heir.now);
    heir.configure(pool(&[("r/a", &[1, 2]), ("r/b", &[3, 4])]));
    assert_eq!(heir.standing(1), Standing::Drained);
    heir.all_answer(PASS);
    assert_eq!(heir.gets(), [3, 4]);
    let kept: Vec<_> = heir.director.orders().iter().cloned().collect();
    assert_eq!(kept, orders);
}

#[test]
fn what_is_not_there_cannot_be_ordered_about() {
    let mut rig = two_zones();
    let unknown = |rig: &mut Rig, text: &str| match rig.wants(wish(text, Verb::Restore)) {
        Err(Denied::Unknown(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(unknown(&mut rig, "r/c").contains("r/a, r/b"));
    assert!(unknown(&mut rig, "s").contains("region `s`"));
    assert!(unknown(&mut rig, "127.0.0.1:9").contains("127.0.0.1:1"));
    let elsewhere = Wish { pool: Some("api".into()), ..wish("r/a", Verb::Restore) };
    assert!(matches!(rig.wants(elsewhere), Err(Denied::Unknown(why)) if why.contains("`api`")));
    assert_eq!(rig.restores("r/a"), Granted::default(), "there is nothing to restore");
}
