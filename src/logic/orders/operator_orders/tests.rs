//! The orders that hold for an endpoint over time.

use super::*;
use crate::logic::model::id::Locality;

const DRAIN: OrderAction =
    OrderAction::Drain { fade_duration: Duration::ZERO, deadline: DEFAULT_DRAIN_DEADLINE };

fn scope(text: &str) -> TopologySelector {
    TopologySelector::parse(text).expect("a selector")
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

    fn issue(&mut self, text: &str, action: OrderAction) -> u64 {
        self.issue_in_pool(text, None, action)
    }

    fn issue_in_pool(&mut self, text: &str, pool: Option<&str>, action: OrderAction) -> u64 {
        let pool = pool.map(Arc::from);
        let scope = scope(text);
        let draft = OrderDraft { scope, pool, action, expires_at: None, author: None, note: None };
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
fn repeated_drain_keeps_its_note_and_takes_the_new_author() {
    let mut fixture = OrdersFixture::new();
    let mut issue = |action, author: &str, note: Option<&str>| {
        let (author, note) = (Some(author.into()), note.map(Arc::from));
        let draft =
            OrderDraft { scope: scope("r/a"), pool: None, action, expires_at: None, author, note };
        let order = fixture.orders.issue(draft, fixture.now);
        (order.author.as_deref() == Some("bob"), order.note.as_deref().unwrap_or("").to_owned())
    };
    assert_eq!(issue(DRAIN, "alice", Some("racks")), (false, "racks".into()));
    assert_eq!(issue(DRAIN, "bob", None), (true, "racks".into()));
    assert_eq!(issue(DRAIN, "bob", Some("power")), (true, "power".into()));
    assert_eq!(issue(OrderAction::Serve, "bob", None), (true, "".into()), "it is another order");
}

#[test]
fn restored_scope_is_exempt_from_wider_earlier_drain() {
    let mut fixture = OrdersFixture::new();
    fixture.issue("r", DRAIN);
    fixture.issue("10.0.0.1:1", DRAIN);
    assert!(fixture.is_drained("r/a", 1) && fixture.is_drained("r/b", 2));
    assert!(!fixture.is_drained("s/a", 2));
    fixture.issue("r/a", OrderAction::Serve);
    assert!(!fixture.is_drained("r/a", 2), "its zone is exempt");
    assert!(fixture.is_drained("r/a", 1), "but it was drained itself");
    assert!(fixture.is_drained("r/b", 2), "and the rest of the region stays drained");
    fixture.issue("10.0.0.1:1", OrderAction::Serve);
    assert!(!fixture.is_drained("r/a", 1));
    fixture.issue("r", DRAIN);
    assert!(fixture.is_drained("r/a", 1) && fixture.is_drained("r/a", 2), "the later order counts");
}

#[test]
fn newer_order_replaces_order_with_same_scope() {
    let mut fixture = OrdersFixture::new();
    let first = fixture.issue("r/a", DRAIN);
    let other = fixture.issue_in_pool("r/a", Some("web"), DRAIN);
    let second = fixture.issue("r/a", DRAIN);
    assert!(fixture.orders.find(first).is_none() && fixture.orders.find(other).is_some());
    assert_eq!(fixture.orders.revoke_matching(&scope("r/a"), Some("web")).len(), 1);
    assert!(fixture.is_drained("r/a", 1));
    assert_eq!(fixture.orders.revoke_matching(&scope("r/a"), None)[0].id, second);
    assert!(fixture.orders.is_empty());
}

#[test]
fn unchanged_config_drain_keeps_its_order_id() {
    let mut fixture = OrdersFixture::new();
    let config_drains = [ConfigDrain { scope: scope("r/a"), pool: "web".into() }];
    let (new, gone) = fixture.orders.sync_config_drains(&config_drains, fixture.now);
    assert_eq!((new.len(), gone.len()), (1, 0));
    assert!(fixture.is_drained("r/a", 1));
    fixture.issue("r/a", OrderAction::Serve);
    assert!(!fixture.is_drained("r/a", 1), "the exemption is later");
    let (new, gone) = fixture.orders.sync_config_drains(&config_drains, fixture.now);
    assert_eq!((new.len(), gone.len()), (0, 0), "nothing new");
    assert!(!fixture.is_drained("r/a", 1));
    assert_eq!(fixture.orders.sync_config_drains(&[], fixture.now).1.len(), 1);
    fixture.orders.sync_config_drains(&config_drains, fixture.now);
    assert!(fixture.is_drained("r/a", 1), "a new drain is the later order");
}

#[test]
fn drain_share_fades_smoothly_and_resumes_when_reissued() {
    let mut fixture = OrdersFixture::new();
    let t0 = fixture.now;
    let slowly =
        |over| OrderAction::Drain { fade_duration: secs(over), deadline: DEFAULT_DRAIN_DEADLINE };
    let id = fixture.issue("r/a", slowly(10));
    let order = fixture.orders.find(id).expect("the order").clone();
    let shares: Vec<u32> =
        (0..=100).map(|part| order.share_permille(t0 + secs(10) * part / 100)).collect();
    assert_eq!((shares[0], shares[99], shares[100]), (FULL_SHARE_PERMILLE, 10, 0));
    assert!(shares.windows(2).all(|pair| pair[0] > pair[1] && pair[0] - pair[1] <= 11));
    fixture.now = t0 + secs(5);
    let id = fixture.issue("r/a", slowly(100));
    let again = fixture.orders.find(id).expect("the order");
    assert_eq!(again.share_permille(fixture.now), 500);
    assert_eq!(again.share_permille(fixture.now + secs(50)), 0);
}

#[test]
fn order_past_its_expiry_is_removed() {
    let mut fixture = OrdersFixture::new();
    let expires_at = Some(fixture.now + secs(60));
    let draft = OrderDraft {
        scope: scope("r/a"),
        pool: None,
        action: DRAIN,
        expires_at,
        author: None,
        note: None,
    };
    fixture.orders.issue(draft, fixture.now);
    assert_eq!(fixture.orders.next_expiry(), expires_at);
    assert!(fixture.orders.remove_expired(fixture.now + secs(59)).is_empty());
    assert_eq!(fixture.orders.remove_expired(fixture.now + secs(60)).len(), 1);
    assert!(fixture.orders.is_empty());
}

#[test]
fn latest_weight_order_for_endpoint_wins() {
    let mut fixture = OrdersFixture::new();
    fixture.issue("10.0.0.1:1", OrderAction::Weight(5));
    fixture.issue_in_pool("10.0.0.1:1", Some("web"), OrderAction::Weight(7));
    fixture.issue("10.0.0.1:1", DRAIN);
    let place = Locality::parse("r/a").expect("a place");
    let endpoint = |pool, port| OrderedEndpoint {
        pool,
        locality: &place,
        address: ([10, 0, 0, 1], port).into(),
    };
    let weight = |endpoint: &OrderedEndpoint<'_>| {
        fixture.orders.weight_for(endpoint).map(|(_, weight)| weight)
    };
    assert_eq!(weight(&endpoint("web", 1)), Some(7));
    assert_eq!(weight(&endpoint("api", 1)), Some(5));
    assert_eq!(weight(&endpoint("web", 2)), None);
}
