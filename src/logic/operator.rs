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

use super::director::What;
use super::id::Place;
use super::recovery::FULL;

/// Orders that are in force at once, besides those of the file.
pub const AT_MOST: usize = 1_000;

/// How long long-lived connections may stay where nothing new comes any more, unless said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// No share takes longer to go, and no connection longer to end.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Bytes of a note.
pub const NOTE_BYTES: usize = 200;

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// No new requests.
    Drain {
        /// The share goes to nothing over this time.
        over: Duration,
        /// After that, what lasts may stay for so long.
        deadline: Duration,
    },
    /// Another weight than the declared one.
    Weight(u32),
    /// Requests, in spite of an earlier order to drain this or what it is part of.
    Serve,
}

impl Act {
    /// All words.
    pub const WORDS: [&str; 3] = ["drain", "weight", "serve"];

    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain { .. } => Self::WORDS[0],
            Self::Weight(_) => Self::WORDS[1],
            Self::Serve => Self::WORDS[2],
        }
    }

    /// Whether the later of both takes the place of the earlier, if they are about the same thing.
    fn is_like(self, other: Self) -> bool {
        matches!(self, Self::Weight(_)) == matches!(other, Self::Weight(_))
    }
}

/// Who has given an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Somebody at the admin listener.
    Operator,
    /// The configuration.
    File,
}

impl By {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Operator, Self::File];

    /// The word used in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "api",
            Self::File => "file",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number: a later order has a greater one.
    pub id: u64,
    /// What it is about.
    pub what: What,
    /// In this pool only; otherwise in every pool that has it.
    pub pool: Option<Arc<str>>,
    /// What is ordered.
    pub act: Act,
    /// Since when.
    pub since: Instant,
    /// It is over then; `None` if somebody has to say so.
    pub until: Option<Instant>,
    /// Who has given it.
    pub by: By,
    /// Why, in somebody's words.
    pub note: Option<Arc<str>>,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.act {
            Act::Drain { .. } => write!(f, "drain {}", self.what),
            Act::Weight(weight) => write!(f, "weight {} {weight}", self.what),
            Act::Serve => write!(f, "restore {}", self.what),
        }?;
        match &self.pool {
            Some(pool) => write!(f, " in pool {pool}"),
            None => Ok(()),
        }
    }
}

/// An endpoint, as orders are about it.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Its pool's name.
    pub pool: &'a str,
    /// Its zone.
    pub place: &'a Place,
    /// Its address.
    pub address: SocketAddr,
}

/// How much it is that is ordered about: what is said of something lifts what was said before of as
/// much, or of more that it is part of.
fn width(what: &What) -> u8 {
    match what {
        What::Endpoint(_) => 0,
        What::Zone(_) => 1,
        What::Region(_) => 2,
    }
}

impl Order {
    /// Whether it is about this endpoint.
    #[must_use]
    pub fn covers(&self, of: &Of<'_>) -> bool {
        self.pool.as_deref().is_none_or(|pool| pool == of.pool)
            && self.what.covers(of.place, of.address)
    }

    /// Whether its time is up.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// What it leaves of a share, in thousandths.
    #[must_use]
    pub fn share(&self, now: Instant) -> u32 {
        match self.act {
            Act::Drain { over, .. } => falling(self.since, over, now),
            Act::Weight(_) | Act::Serve => FULL,
        }
    }
}

/// What is left, in thousandths, of a share that goes to nothing over this time.
#[must_use]
pub fn falling(since: Instant, over: Duration, now: Instant) -> u32 {
    let passed = now.saturating_duration_since(since);
    if passed >= over {
        return 0;
    }
    let part = passed.as_secs_f64() / over.as_secs_f64();
    // Nothing is left at the end, and not before.
    ((f64::from(FULL) * (1.0 - part)) as u32).clamp(1, FULL)
}

/// What the file orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// What is drained.
    pub what: What,
    /// In which pool.
    pub pool: Arc<str>,
}

/// All orders that are in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// In the order in which they were given.
    all: Vec<Order>,
    last: u64,
}

/// An order that is about to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it is about.
    pub what: What,
    /// In this pool only.
    pub pool: Option<Arc<str>>,
    /// What is ordered.
    pub act: Act,
    /// It is over then.
    pub until: Option<Instant>,
    /// Why.
    pub note: Option<Arc<str>>,
}

impl Orders {
    /// Those that were in force before, in another process.
    #[must_use]
    pub fn of(mut all: Vec<Order>) -> Self {
        all.sort_by_key(|order| order.id);
        all.dedup_by_key(|order| order.id);
        let last = all.last().map_or(0, |order| order.id);
        Self { all, last }
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Order> {
        self.all.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no more may be given.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.all.iter().filter(|order| order.by == By::Operator).count() >= AT_MOST
    }

    /// Orders to drain that hold for this endpoint.
    pub fn drains<'a>(&'a self, of: Of<'a>) -> impl Iterator<Item = &'a Order> {
        let mut served = [0; 3];
        for order in self.all.iter().filter(|order| order.act == Act::Serve && order.covers(&of)) {
            served[usize::from(width(&order.what))] = order.id;
        }
        self.all.iter().filter(move |order| {
            let upto = usize::from(width(&order.what));
            matches!(order.act, Act::Drain { .. })
                && order.covers(&of)
                && served[..=upto].iter().all(|id| *id < order.id)
        })
    }

    /// The order that says how much it weighs, and the weight.
    #[must_use]
    pub fn weight(&self, of: &Of<'_>) -> Option<(&Order, u32)> {
        self.all.iter().rev().find_map(|order| match order.act {
            Act::Weight(weight) if order.covers(of) => Some((order, weight)),
            _ => None,
        })
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<&Order> {
        self.all.iter().find(|order| order.id == id)
    }

    /// Gives an order. It takes the place of an earlier one about the same thing; a share that is going
    /// already goes on from where it is.
    pub fn give(&mut self, draft: Draft, now: Instant) -> &Order {
        let Draft { what, pool, act, until, note } = draft;
        let is_same = |order: &Order| {
            order.by == By::Operator
                && order.what == what
                && order.pool == pool
                && order.act.is_like(act)
        };
        let left = self.all.iter().filter(|order| is_same(order)).map(|order| order.share(now));
        let left = left.min().unwrap_or(FULL);
        self.all.retain(|order| !is_same(order));
        let since = match act {
            Act::Drain { over, .. } => {
                let gone = over * (FULL - left) / FULL;
                now.checked_sub(gone).unwrap_or(now)
            }
            Act::Weight(_) | Act::Serve => now,
        };
        self.push(Order { id: 0, what, pool, act, since, until, by: By::Operator, note })
    }

    fn push(&mut self, order: Order) -> &Order {
        self.last += 1;
        let place = self.all.len();
        self.all.push(Order { id: self.last, ..order });
        &self.all[place]
    }

    /// Takes one back.
    pub fn lift(&mut self, id: u64) -> Option<Order> {
        let place = self.all.iter().position(|order| order.id == id)?;
        Some(self.all.remove(place))
    }

    /// Takes back what operators have said of this very thing, in this pool or in all.
    pub fn lift_all(&mut self, what: &What, pool: Option<&str>) -> Vec<Order> {
        let is_meant = |order: &mut Order| {
            let is_in = pool.is_none_or(|pool| order.pool.as_deref() == Some(pool));
            order.by == By::Operator && order.what == *what && is_in
        };
        self.all.extract_if(.., is_meant).collect()
    }

    /// Takes back those whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<Order> {
        self.all.extract_if(.., |order| order.is_over(now)).collect()
    }

    /// When the next one's time is up.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.all.iter().filter_map(|order| order.until).min()
    }

    /// The file says this from now on; gives what is new of it and what it says no more. What it has
    /// said all the time keeps its place among the other orders.
    pub fn file(&mut self, filed: &[Filed], now: Instant) -> (Vec<Order>, Vec<Order>) {
        let says = |order: &Order, one: &Filed| {
            order.what == one.what && order.pool.as_ref() == Some(&one.pool)
        };
        let gone =
            |order: &mut Order| order.by == By::File && !filed.iter().any(|one| says(order, one));
        let lifted: Vec<Order> = self.all.extract_if(.., gone).collect();
        let mut new = Vec::new();
        for one in filed {
            if self.all.iter().any(|order| order.by == By::File && says(order, one)) {
                continue;
            }
            let act = Act::Drain { over: Duration::ZERO, deadline: DEADLINE };
            let (what, pool) = (one.what.clone(), Some(Arc::clone(&one.pool)));
            let (by, note) = (By::File, None);
            let order = Order { id: 0, what, pool, act, since: now, until: None, by, note };
            new.push(self.push(order).clone());
        }
        (new, lifted)
    }

    /// How many there are of a word, from one side.
    #[must_use]
    pub fn count(&self, word: &str, by: By) -> usize {
        self.all.iter().filter(|order| order.act.as_str() == word && order.by == by).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Act = Act::Drain { over: Duration::ZERO, deadline: DEADLINE };

    fn what(text: &str) -> What {
        What::parse(text).expect("something")
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    struct Set {
        orders: Orders,
        now: Instant,
    }

    impl Set {
        fn new() -> Self {
            Self { orders: Orders::default(), now: Instant::now() }
        }

        fn give(&mut self, text: &str, act: Act) -> u64 {
            self.give_in(text, None, act)
        }

        fn give_in(&mut self, text: &str, pool: Option<&str>, act: Act) -> u64 {
            let pool = pool.map(Arc::from);
            let draft = Draft { what: what(text), pool, act, until: None, note: None };
            self.orders.give(draft, self.now).id
        }

        fn is_drained(&self, place: &str, port: u16) -> bool {
            let place = Place::parse(place).expect("a place");
            let address = ([10, 0, 0, 1], port).into();
            self.orders.drains(Of { pool: "web", place: &place, address }).next().is_some()
        }
    }

    #[test]
    fn who_is_restored_is_an_exception_from_what_it_is_part_of() {
        let mut set = Set::new();
        set.give("r", DRAIN);
        set.give("10.0.0.1:1", DRAIN);
        assert!(set.is_drained("r/a", 1) && set.is_drained("r/b", 2));
        assert!(!set.is_drained("s/a", 2));
        set.give("r/a", Act::Serve);
        assert!(!set.is_drained("r/a", 2), "its zone is restored");
        assert!(set.is_drained("r/a", 1), "but it was drained itself");
        assert!(set.is_drained("r/b", 2), "and the rest of the region stays drained");
        set.give("10.0.0.1:1", Act::Serve);
        assert!(!set.is_drained("r/a", 1));
        set.give("r", DRAIN);
        assert!(set.is_drained("r/a", 1) && set.is_drained("r/a", 2), "the later order counts");
    }

    #[test]
    fn an_order_takes_the_place_of_one_about_the_same_thing() {
        let mut set = Set::new();
        let first = set.give("r/a", DRAIN);
        let other = set.give_in("r/a", Some("web"), DRAIN);
        let second = set.give("r/a", DRAIN);
        assert!(set.orders.find(first).is_none() && set.orders.find(other).is_some());
        assert_eq!(set.orders.lift_all(&what("r/a"), Some("web")).len(), 1);
        assert!(set.is_drained("r/a", 1));
        assert_eq!(set.orders.lift_all(&what("r/a"), None)[0].id, second);
        assert!(set.orders.is_empty());
    }

    #[test]
    fn the_file_counts_from_when_it_first_said_so() {
        let mut set = Set::new();
        let filed = [Filed { what: what("r/a"), pool: "web".into() }];
        let (new, gone) = set.orders.file(&filed, set.now);
        assert_eq!((new.len(), gone.len()), (1, 0));
        assert!(set.is_drained("r/a", 1));
        set.give("r/a", Act::Serve);
        assert!(!set.is_drained("r/a", 1), "an operator says otherwise");
        let (new, gone) = set.orders.file(&filed, set.now);
        assert_eq!((new.len(), gone.len()), (0, 0), "nothing new");
        assert!(!set.is_drained("r/a", 1));
        assert_eq!(set.orders.file(&[], set.now).1.len(), 1);
        set.orders.file(&filed, set.now);
        assert!(set.is_drained("r/a", 1), "said anew, so it is the later order");
    }

    #[test]
    fn a_share_goes_without_steps_and_goes_on_when_it_is_ordered_again() {
        let mut set = Set::new();
        let t0 = set.now;
        let slowly = |over| Act::Drain { over: secs(over), deadline: DEADLINE };
        let id = set.give("r/a", slowly(10));
        let order = set.orders.find(id).expect("given").clone();
        let shares: Vec<u32> =
            (0..=100).map(|part| order.share(t0 + secs(10) * part / 100)).collect();
        assert_eq!((shares[0], shares[99], shares[100]), (FULL, 10, 0));
        assert!(shares.windows(2).all(|pair| pair[0] > pair[1] && pair[0] - pair[1] <= 11));
        set.now = t0 + secs(5);
        let id = set.give("r/a", slowly(100));
        let again = set.orders.find(id).expect("given");
        assert_eq!(again.share(set.now), 500);
        assert_eq!(again.share(set.now + secs(50)), 0);
    }

    #[test]
    fn orders_end_when_their_time_is_up() {
        let mut set = Set::new();
        let until = Some(set.now + secs(60));
        let draft = Draft { what: what("r/a"), pool: None, act: DRAIN, until, note: None };
        set.orders.give(draft, set.now);
        assert_eq!(set.orders.next_end(), until);
        assert!(set.orders.expire(set.now + secs(59)).is_empty());
        assert_eq!(set.orders.expire(set.now + secs(60)).len(), 1);
        assert!(set.orders.is_empty());
    }

    #[test]
    fn weights_are_said_of_endpoints_and_the_last_one_counts() {
        let mut set = Set::new();
        set.give("10.0.0.1:1", Act::Weight(5));
        set.give_in("10.0.0.1:1", Some("web"), Act::Weight(7));
        set.give("10.0.0.1:1", DRAIN);
        let place = Place::parse("r/a").expect("a place");
        let of = |pool, port| Of { pool, place: &place, address: ([10, 0, 0, 1], port).into() };
        let weight = |of: &Of<'_>| set.orders.weight(of).map(|(_, weight)| weight);
        assert_eq!(weight(&of("web", 1)), Some(7));
        assert_eq!(weight(&of("api", 1)), Some(5));
        assert_eq!(weight(&of("web", 2)), None);
    }
}
