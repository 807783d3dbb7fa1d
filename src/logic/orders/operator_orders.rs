//! What operators have ordered: who is to get no new requests, who another weight, and until when.
//!
//! An order outranks a drill, and a drill a verdict: what is drained gets nothing, however healthy it
//! is, and what is restored is judged like anybody else. Orders are numbered as they were given.
//! Those of the file stand among the others: they count from when the file first said so.
//!
//! What is drained by itself leaves its zone smaller. What is drained with its zone is missed there,
//! so that the share of the zone goes where that of a zone goes that is down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::recovery::FULL_SHARE_PERMILLE;
use crate::logic::model::id::Locality;
use crate::logic::model::selector::TopologySelector;

/// Orders that are in force at once, besides those of the file.
pub const MAX_ORDERS: usize = 1_000;

/// How long long-lived connections may stay where nothing new comes any more, unless said otherwise.
pub const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// No share takes longer to go, and no connection longer to end.
pub const MAX_DRAIN_DURATION: Duration = Duration::from_hours(24);

/// Bytes of a note.
pub const MAX_NOTE_BYTES: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderAction {
    Drain {
        /// The share goes to nothing over this time.
        fade_duration: Duration,
        /// After that, what lasts may stay for so long.
        deadline: Duration,
    },
    /// Another weight than the declared one.
    Weight(u32),
    /// Requests, in spite of an earlier order to drain this or what it is part of.
    Serve,
}

impl OrderAction {
    pub const NAMES: [&str; 3] = ["drain", "weight", "serve"];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain { .. } => Self::NAMES[0],
            Self::Weight(_) => Self::NAMES[1],
            Self::Serve => Self::NAMES[2],
        }
    }

    /// Whether the later of both takes the place of the earlier, if they are about the same thing.
    fn can_replace(self, other: Self) -> bool {
        matches!(self, Self::Weight(_)) == matches!(other, Self::Weight(_))
    }
}

/// Who has given an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderSource {
    /// Somebody at the admin listener.
    Operator,
    Config,
}

impl OrderSource {
    pub const ALL: [Self; 2] = [Self::Operator, Self::Config];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "api",
            Self::Config => "file",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorOrder {
    /// Its number: a later order has a greater one.
    pub id: u64,
    /// What it is about.
    pub scope: TopologySelector,
    /// In this pool only; otherwise in every pool that has it.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    pub effective_since: Instant,
    /// It is over then; `None` if somebody has to say so.
    pub expires_at: Option<Instant>,
    /// Who has given it.
    pub source: OrderSource,
    /// Why, in somebody's words.
    pub note: Option<Arc<str>>,
}

impl fmt::Display for OperatorOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            OrderAction::Drain { .. } => write!(f, "drain {}", self.scope),
            OrderAction::Weight(weight) => write!(f, "weight {} {weight}", self.scope),
            OrderAction::Serve => write!(f, "restore {}", self.scope),
        }?;
        match &self.pool {
            Some(pool) => write!(f, " in pool {pool}"),
            None => Ok(()),
        }
    }
}

/// An endpoint, as orders are about it.
#[derive(Clone, Copy, Debug)]
pub struct OrderedEndpoint<'a> {
    pub pool: &'a str,
    pub locality: &'a Locality,
    pub address: SocketAddr,
}

/// How much it is that is ordered about: what is said of something lifts what was said before of as
/// much, or of more that it is part of.
fn scope_rank(scope: &TopologySelector) -> u8 {
    match scope {
        TopologySelector::Endpoint(_) => 0,
        TopologySelector::Zone(_) => 1,
        TopologySelector::Region(_) => 2,
    }
}

impl OperatorOrder {
    /// Whether it is about this endpoint.
    pub fn has_effect_on(&self, endpoint: &OrderedEndpoint<'_>) -> bool {
        self.pool.as_deref().is_none_or(|pool| pool == endpoint.pool)
            && self.scope.covers(endpoint.locality, endpoint.address)
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|until| now >= until)
    }

    /// What it leaves of a share, in thousandths.
    pub fn share_permille(&self, now: Instant) -> u32 {
        match self.action {
            OrderAction::Drain { fade_duration: over, .. } => {
                fading_share_permille(self.effective_since, over, now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => FULL_SHARE_PERMILLE,
        }
    }
}

/// What is left, in thousandths, of a share that goes to nothing over this time.
pub fn fading_share_permille(since: Instant, over: Duration, now: Instant) -> u32 {
    let passed = now.saturating_duration_since(since);
    if passed >= over {
        return 0;
    }
    let fraction = passed.as_secs_f64() / over.as_secs_f64();
    // Nothing is left at the end, and not before.
    ((f64::from(FULL_SHARE_PERMILLE) * (1.0 - fraction)) as u32).clamp(1, FULL_SHARE_PERMILLE)
}

/// What the file orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDrain {
    pub scope: TopologySelector,
    pub pool: Arc<str>,
}

/// All orders that are in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorOrders {
    /// In the order in which they were given.
    all: Vec<OperatorOrder>,
    last_id: u64,
}

/// An order that is about to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderDraft {
    /// What it is about.
    pub scope: TopologySelector,
    /// In this pool only.
    pub pool: Option<Arc<str>>,
    pub action: OrderAction,
    /// It is over then.
    pub expires_at: Option<Instant>,
    pub note: Option<Arc<str>>,
}

impl OperatorOrders {
    /// Those that were in force before, in another process.
    pub fn from_orders(mut all: Vec<OperatorOrder>) -> Self {
        all.sort_by_key(|order| order.id);
        all.dedup_by_key(|order| order.id);
        let last = all.last().map_or(0, |order| order.id);
        Self { all, last_id: last }
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &OperatorOrder> {
        self.all.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no more may be given.
    pub fn is_full(&self) -> bool {
        self.all.iter().filter(|order| order.source == OrderSource::Operator).count() >= MAX_ORDERS
    }

    /// Orders to drain that hold for this endpoint.
    pub fn drains_for<'a>(
        &'a self,
        endpoint: OrderedEndpoint<'a>,
    ) -> impl Iterator<Item = &'a OperatorOrder> {
        let mut restored_ids = [0; 3];
        for order in self
            .all
            .iter()
            .filter(|order| order.action == OrderAction::Serve && order.has_effect_on(&endpoint))
        {
            restored_ids[usize::from(scope_rank(&order.scope))] = order.id;
        }
        self.all.iter().filter(move |order| {
            let upto = usize::from(scope_rank(&order.scope));
            matches!(order.action, OrderAction::Drain { .. })
                && order.has_effect_on(&endpoint)
                && restored_ids[..=upto].iter().all(|id| *id < order.id)
        })
    }

    /// The order that says how much it weighs, and the weight.
    pub fn weight_for(&self, endpoint: &OrderedEndpoint<'_>) -> Option<(&OperatorOrder, u32)> {
        self.all.iter().rev().find_map(|order| match order.action {
            OrderAction::Weight(weight) if order.has_effect_on(endpoint) => Some((order, weight)),
            _ => None,
        })
    }

    pub fn find(&self, id: u64) -> Option<&OperatorOrder> {
        self.all.iter().find(|order| order.id == id)
    }

    /// Gives an order. It takes the place of an earlier one about the same thing; a share that is going
    /// already goes on from where it is.
    pub fn issue(&mut self, draft: OrderDraft, now: Instant) -> &OperatorOrder {
        let OrderDraft { scope: what, pool, action: act, expires_at: until, note } = draft;
        let is_same = |order: &OperatorOrder| {
            order.source == OrderSource::Operator
                && order.scope == what
                && order.pool == pool
                && order.action.can_replace(act)
        };
        let remaining =
            self.all.iter().filter(|order| is_same(order)).map(|order| order.share_permille(now));
        let remaining = remaining.min().unwrap_or(FULL_SHARE_PERMILLE);
        self.all.retain(|order| !is_same(order));
        let since = match act {
            OrderAction::Drain { fade_duration: over, .. } => {
                let gone = over * (FULL_SHARE_PERMILLE - remaining) / FULL_SHARE_PERMILLE;
                now.checked_sub(gone).unwrap_or(now)
            }
            OrderAction::Weight(_) | OrderAction::Serve => now,
        };
        self.push(OperatorOrder {
            id: 0,
            scope: what,
            pool,
            action: act,
            effective_since: since,
            expires_at: until,
            source: OrderSource::Operator,
            note,
        })
    }

    fn push(&mut self, order: OperatorOrder) -> &OperatorOrder {
        self.last_id += 1;
        let index = self.all.len();
        self.all.push(OperatorOrder { id: self.last_id, ..order });
        &self.all[index]
    }

    pub fn revoke(&mut self, id: u64) -> Option<OperatorOrder> {
        let index = self.all.iter().position(|order| order.id == id)?;
        Some(self.all.remove(index))
    }

    /// Takes back what operators have said of this very thing, in this pool or in all.
    pub fn revoke_matching(
        &mut self,
        what: &TopologySelector,
        pool: Option<&str>,
    ) -> Vec<OperatorOrder> {
        let is_matching = |order: &mut OperatorOrder| {
            let is_in = pool.is_none_or(|pool| order.pool.as_deref() == Some(pool));
            order.source == OrderSource::Operator && order.scope == *what && is_in
        };
        self.all.extract_if(.., is_matching).collect()
    }

    /// Takes back those whose time is up.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<OperatorOrder> {
        self.all.extract_if(.., |order| order.is_expired(now)).collect()
    }

    /// When the next one's time is up.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.all.iter().filter_map(|order| order.expires_at).min()
    }

    /// The file says this from now on; gives what is new of it and what it says no more. What it has
    /// said all the time keeps its place among the other orders.
    pub fn sync_config_drains(
        &mut self,
        config_drains: &[ConfigDrain],
        now: Instant,
    ) -> (Vec<OperatorOrder>, Vec<OperatorOrder>) {
        let is_same_drain = |order: &OperatorOrder, one: &ConfigDrain| {
            order.scope == one.scope && order.pool.as_ref() == Some(&one.pool)
        };
        let is_removed = |order: &mut OperatorOrder| {
            order.source == OrderSource::Config
                && !config_drains.iter().any(|one| is_same_drain(order, one))
        };
        let lifted: Vec<OperatorOrder> = self.all.extract_if(.., is_removed).collect();
        let mut new = Vec::new();
        for one in config_drains {
            if self
                .all
                .iter()
                .any(|order| order.source == OrderSource::Config && is_same_drain(order, one))
            {
                continue;
            }
            let act = OrderAction::Drain {
                fade_duration: Duration::ZERO,
                deadline: DEFAULT_DRAIN_DEADLINE,
            };
            let (what, pool) = (one.scope.clone(), Some(Arc::clone(&one.pool)));
            let (by, note) = (OrderSource::Config, None);
            let order = OperatorOrder {
                id: 0,
                scope: what,
                pool,
                action: act,
                effective_since: now,
                expires_at: None,
                source: by,
                note,
            };
            new.push(self.push(order).clone());
        }
        (new, lifted)
    }

    /// How many there are of a word, from one side.
    pub fn count(&self, action_name: &str, by: OrderSource) -> usize {
        self.all
            .iter()
            .filter(|order| order.action.as_str() == action_name && order.source == by)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let slowly = |over| OrderAction::Drain {
            fade_duration: secs(over),
            deadline: DEFAULT_DRAIN_DEADLINE,
        };
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
}
