//! Orders over time: which ones hold for an endpoint.

use super::*;
use crate::logic::model::id::Locality;

const DRAIN: OrderAction =
    OrderAction::Drain { fade_duration: Duration::ZERO, deadline: DEFAULT_DRAIN_DEADLINE };

fn scope(text: &str) -> TopologySelector {
    TopologySelector::parse(text).expect("something")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

struct OrdersFixture {
    orders: OperatorOrders,
    now: Instant,
}

impl OrdersFixture {
    fn new() -> Self {
        Self { orders: OperatorOrders::default(), now: Instant::now() }
    }

    fn issue(&mut self, text: &str, act: OrderAction) -> u64 {
        self.issue_in_pool(text, None, act)
    }

    fn issue_in_pool(&mut self, text: &str, pool: Option<&str>, act: OrderAction) -> u64 {
        let pool = pool.map(Arc::from);
        let draft =
            OrderDraft { scope: scope(text), pool, action: act, expires_at: None, note: None };
        self.orders.issue(draft, self.now).id
    }

    fn is_drained(&self, place: &str, port: u16) -> bool {
        let place = Locality::parse(place).expect("a place");
        let address = ([10, 0, 0, 1], port).into();
        self.orders
            .drains_for(OrderedEndpoint { pool: "web", locality: &place, address })
            .next()
            .is_some()
    }
}

#[test]
fn restored_scope_is_exempt_from_wider_earlier_drain() {
    let mut set = OrdersFixture::new();
    set.issue("r", DRAIN);
    set.issue("10.0.0.1:1", DRAIN);
    assert!(set.is_drained("r/a", 1) && set.is_drained("r/b", 2));
    assert!(!set.is_drained("s/a", 2));
    set.issue("r/a", OrderAction::Serve);
    assert!(!set.is_drained("r/a", 2), "its zone is restored");
    assert!(set.is_drained("r/a", 1), "but it was drained itself");
    assert!(set.is_drained("r/b", 2), "and the rest of the region stays drained");
    set.issue("10.0.0.1:1", OrderAction::Serve);
    assert!(!set.is_drained("r/a", 1));
    set.issue("r", DRAIN);
    assert!(set.is_drained("r/a", 1) && set.is_drained("r/a", 2), "the later order counts");
}

#[test]
fn newer_order_replaces_order_with_same_scope() {
    let mut set = OrdersFixture::new();
    let first = set.issue("r/a", DRAIN);
    let other = set.issue_in_pool("r/a", Some("web"), DRAIN);
    let second = set.issue("r/a", DRAIN);
    assert!(set.orders.find(first).is_none() && set.orders.find(other).is_some());
    assert_eq!(set.orders.revoke_matching(&scope("r/a"), Some("web")).len(), 1);
    assert!(set.is_drained("r/a", 1));
    assert_eq!(set.orders.revoke_matching(&scope("r/a"), None)[0].id, second);
    assert!(set.orders.is_empty());
}

#[test]
fn unchanged_config_drain_keeps_its_order_id() {
    let mut set = OrdersFixture::new();
    let config_drains = [ConfigDrain { scope: scope("r/a"), pool: "web".into() }];
    let (new, gone) = set.orders.sync_config_drains(&config_drains, set.now);
    assert_eq!((new.len(), gone.len()), (1, 0));
    assert!(set.is_drained("r/a", 1));
    set.issue("r/a", OrderAction::Serve);
    assert!(!set.is_drained("r/a", 1), "an operator says otherwise");
    let (new, gone) = set.orders.sync_config_drains(&config_drains, set.now);
    assert_eq!((new.len(), gone.len()), (0, 0), "nothing new");
    assert!(!set.is_drained("r/a", 1));
    assert_eq!(set.orders.sync_config_drains(&[], set.now).1.len(), 1);
    set.orders.sync_config_drains(&config_drains, set.now);
    assert!(set.is_drained("r/a", 1), "said anew, so it is the later order");
}

#[test]
fn drain_share_fades_smoothly_and_resumes_when_reissued() {
    let mut set = OrdersFixture::new();
    let t0 = set.now;
    let slowly =
        |over| OrderAction::Drain { fade_duration: secs(over), deadline: DEFAULT_DRAIN_DEADLINE };
    let id = set.issue("r/a", slowly(10));
    let order = set.orders.find(id).expect("given").clone();
    let shares: Vec<u32> =
        (0..=100).map(|part| order.share_permille(t0 + secs(10) * part / 100)).collect();
    assert_eq!((shares[0], shares[99], shares[100]), (FULL_SHARE_PERMILLE, 10, 0));
    assert!(shares.windows(2).all(|pair| pair[0] > pair[1] && pair[0] - pair[1] <= 11));
    set.now = t0 + secs(5);
    let id = set.issue("r/a", slowly(100));
    let again = set.orders.find(id).expect("given");
    assert_eq!(again.share_permille(set.now), 500);
    assert_eq!(again.share_permille(set.now + secs(50)), 0);
}

#[test]
fn order_past_its_expiry_is_removed() {
    let mut set = OrdersFixture::new();
    let until = Some(set.now + secs(60));
    let draft = OrderDraft {
        scope: scope("r/a"),
        pool: None,
        action: DRAIN,
        expires_at: until,
        note: None,
    };
    set.orders.issue(draft, set.now);
    assert_eq!(set.orders.next_expiry(), until);
    assert!(set.orders.remove_expired(set.now + secs(59)).is_empty());
    assert_eq!(set.orders.remove_expired(set.now + secs(60)).len(), 1);
    assert!(set.orders.is_empty());
}

#[test]
fn latest_weight_order_for_endpoint_wins() {
    let mut set = OrdersFixture::new();
    set.issue("10.0.0.1:1", OrderAction::Weight(5));
    set.issue_in_pool("10.0.0.1:1", Some("web"), OrderAction::Weight(7));
    set.issue("10.0.0.1:1", DRAIN);
    let place = Locality::parse("r/a").expect("a place");
    let of = |pool, port| OrderedEndpoint {
        pool,
        locality: &place,
        address: ([10, 0, 0, 1], port).into(),
    };
    let weight = |of: &OrderedEndpoint<'_>| set.orders.weight_for(of).map(|(_, weight)| weight);
    assert_eq!(weight(&of("web", 1)), Some(7));
    assert_eq!(weight(&of("api", 1)), Some(5));
    assert_eq!(weight(&of("web", 2)), None);
}
