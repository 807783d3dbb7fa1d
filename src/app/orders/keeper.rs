//! Orders in the state directory: written on a thread of their own, so that control never waits for a
//! disk, and as a whole, so that a crash leaves what was in force before or after.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::app::api::Clock;
use crate::logic::director::What;
use crate::logic::operator::{Act, By, Order, Orders};
use crate::net::state;

/// The file's name in the state directory.
pub const FILE: &str = "orders.json";

/// How the file is written; a later one may be understood or not.
const VERSION: u32 = 1;

/// An order as it outlives the process. Times are in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    id: u64,
    act: String,
    of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    since_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_us: Option<u64>,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    version: u32,
    orders: Vec<Kept>,
}

impl Kept {
    fn new(order: &Order, clock: &Clock) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (over, deadline, weight) = match order.act {
            Act::Drain { over, deadline } => (Some(ms(over)), Some(ms(deadline)), None),
            Act::Weight(weight) => (None, None, Some(weight)),
            Act::Serve => (None, None, None),
        };
        Self {
            id: order.id,
            act: order.act.as_str().to_owned(),
            of: order.what.to_string(),
            pool: order.pool.as_deref().map(str::to_owned),
            weight,
            over_ms: over,
            deadline_ms: deadline,
            since_us: clock.micros(order.since),
            until_us: order.until.map(|until| clock.micros(until)),
            by: order.by.as_str().to_owned(),
            note: order.note.as_deref().map(str::to_owned),
        }
    }

    /// All of it or nothing: half an order is none.
    fn read(&self, clock: &Clock) -> Option<Order> {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        let act = match self.act.as_str() {
            "drain" => Act::Drain { over: time(self.over_ms)?, deadline: time(self.deadline_ms)? },
            "weight" => Act::Weight(self.weight?),
            "serve" => Act::Serve,
            _ => return None,
        };
        Some(Order {
            id: self.id,
            what: What::parse(&self.of)?,
            pool: self.pool.as_deref().map(Arc::from),
            act,
            since: clock.instant(self.since_us),
            until: self.until_us.map(|until| clock.instant(until)),
            by: By::parse(&self.by)?,
            note: self.note.as_deref().map(Arc::from),
        })
    }
}

/// All orders, to be kept.
#[must_use]
pub fn kept(orders: &Orders, clock: &Clock) -> Vec<Kept> {
    orders.iter().map(|order| Kept::new(order, clock)).collect()
}

/// Those that are understood, and how many are not.
#[must_use]
pub fn read_kept(kept: &[Kept], clock: &Clock) -> (Vec<Order>, usize) {
    let orders: Vec<Order> = kept.iter().filter_map(|one| one.read(clock)).collect();
    let lost = kept.len() - orders.len();
    (orders, lost)
}

/// What was in force when the last process that kept its orders here ended. What cannot be understood
/// is said, and the file is put aside.
#[must_use]
pub fn load(directory: &Path, clock: &Clock) -> Vec<Order> {
    let place = directory.join(FILE);
    let bytes = match state::read(directory, FILE) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::error!(file = %place.display(), %error, "orders of before cannot be read");
            return Vec::new();
        }
    };
    let page = serde_json::from_slice::<Page>(&bytes);
    let (orders, why) = match page {
        Ok(page) => {
            let (orders, lost) = read_kept(&page.orders, clock);
            (orders, (lost > 0).then(|| format!("{lost} of its orders are not understood")))
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    if let Some(why) = why {
        let aside = match state::put_aside(directory, FILE) {
            Ok(aside) => aside.display().to_string(),
            Err(error) => format!("where it was ({error})"),
        };
        tracing::error!(
            file = %place.display(), kept = aside, why,
            "orders of before are lost: traffic goes as without them"
        );
    }
    orders
}

/// How keeping goes.
#[derive(Debug, Default)]
struct Gauges {
    has_failed: AtomicBool,
    failures: AtomicU64,
}

/// What is to be written, and who waits for it: whether it is on the disk.
struct Note {
    orders: Vec<Kept>,
    done: Option<oneshot::Sender<bool>>,
}

/// Where orders are kept.
#[derive(Debug, Default)]
pub struct Keeper {
    notes: Option<mpsc::Sender<Note>>,
    gauges: Arc<Gauges>,
}

impl Keeper {
    /// Keeps orders in `directory`, if there is one.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(directory: Option<PathBuf>) -> io::Result<Self> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        let (notes, inbox) = mpsc::channel();
        let gauges = Arc::<Gauges>::default();
        let ours = Arc::clone(&gauges);
        let work = move || keep(&directory, &inbox, &ours);
        std::thread::Builder::new().name("orders".to_owned()).spawn(work)?;
        Ok(Self { notes: Some(notes), gauges })
    }

    /// Has these be what is in force after a restart. Who waits for the answer hears whether they are
    /// on the disk; `None` where nothing is kept.
    pub fn keep(&self, orders: Vec<Kept>) -> Option<oneshot::Receiver<bool>> {
        let (done, answer) = oneshot::channel();
        self.notes.as_ref()?.send(Note { orders, done: Some(done) }).ok()?;
        Some(answer)
    }

    /// Whether they are on the disk; `None` where nothing is kept.
    #[must_use]
    pub fn is_durable(&self) -> Option<bool> {
        self.notes.as_ref().map(|_| !self.gauges.has_failed.load(Relaxed))
    }

    /// Writes that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.gauges.failures.load(Relaxed)
    }
}

fn keep(directory: &Path, inbox: &mpsc::Receiver<Note>, gauges: &Gauges) {
    let mut written: Option<Vec<Kept>> = None;
    while let Ok(first) = inbox.recv() {
        // Only the last of what waits counts.
        let mut notes: Vec<Note> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let Some(orders) = notes.last_mut().map(|note| std::mem::take(&mut note.orders)) else {
            continue;
        };
        let is_done = written.as_ref() == Some(&orders) || write(directory, &orders, gauges);
        written = is_done.then_some(orders);
        gauges.has_failed.store(!is_done, Relaxed);
        for done in notes.into_iter().filter_map(|note| note.done) {
            let _ = done.send(is_done);
        }
    }
}

fn write(directory: &Path, orders: &[Kept], gauges: &Gauges) -> bool {
    let page = Page { version: VERSION, orders: orders.to_vec() };
    let bytes = serde_json::to_vec_pretty(&page).map_err(io::Error::other);
    match bytes.and_then(|bytes| state::write(directory, FILE, &bytes)) {
        Ok(()) => true,
        Err(error) => {
            gauges.failures.fetch_add(1, Relaxed);
            let file = directory.join(FILE);
            tracing::error!(
                file = %file.display(), %error,
                "orders cannot be written: they end with this process"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Instant;

    fn orders(now: Instant) -> Vec<Order> {
        let order = |id, what: &str, act, until| Order {
            id,
            what: What::parse(what).expect("something"),
            pool: (id == 2).then(|| "web".into()),
            act,
            since: now - Duration::from_secs(id),
            until,
            by: if id == 3 { By::File } else { By::Operator },
            note: (id == 1).then(|| "a new kernel".into()),
        };
        let (over, deadline) = (Duration::from_millis(1_500), Duration::from_secs(30));
        let until = Some(now + Duration::from_hours(1));
        vec![
            order(1, "r/a", Act::Drain { over, deadline }, until),
            order(2, "10.0.0.1:80", Act::Weight(7), None),
            order(3, "r", Act::Serve, until),
        ]
    }

    fn about_equal(some: &[Order], others: &[Order]) -> bool {
        let near =
            |a: Instant, b: Instant| a.max(b).duration_since(a.min(b)) < Duration::from_millis(1);
        some.len() == others.len()
            && some.iter().zip(others).all(|(a, b)| {
                near(a.since, b.since)
                    && a.until.zip(b.until).is_none_or(|(a, b)| near(a, b))
                    && *a == Order { since: a.since, until: a.until, ..b.clone() }
            })
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let (clock, now) = (Clock::read(), Instant::now());
        assert!(load(directory.path(), &clock).is_empty(), "there is no file");
        let given = orders(now);
        let keeper = Keeper::start(Some(directory.path().to_owned())).expect("a thread");
        let done = keeper.keep(kept(&Orders::of(given.clone()), &clock)).expect("kept");
        assert_eq!(done.blocking_recv(), Ok(true));
        assert_eq!((keeper.is_durable(), keeper.failures()), (Some(true), 0));
        let later = Clock::read();
        assert!(about_equal(&load(directory.path(), &later), &given));
    }

    #[test]
    fn a_file_that_is_not_understood_is_put_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::read();
        for page in [
            &b"half of {"[..],
            b"",
            br#"{"version":1,"orders":[{"id":1,"act":"dance","of":"r/a","since_us":1,"by":"api"}]}"#,
        ] {
            state::write(directory.path(), FILE, page).expect("written");
            assert!(load(directory.path(), &clock).is_empty());
            assert_eq!(state::read(directory.path(), FILE).expect("gone"), None);
        }
        let aside = std::fs::read_dir(directory.path()).expect("readable").count();
        assert!(aside >= 1);
    }

    #[test]
    fn who_cannot_write_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let keeper = Keeper::start(Some(file)).expect("a thread");
        let done = keeper.keep(Vec::new()).expect("asked");
        assert_eq!(done.blocking_recv(), Ok(false));
        assert_eq!((keeper.is_durable(), keeper.failures()), (Some(false), 1));
        assert!(Keeper::default().keep(Vec::new()).is_none());
    }
}
