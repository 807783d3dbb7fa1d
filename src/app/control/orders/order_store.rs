//! Stores orders in the state directory. A thread of its own writes them, so that control never
//! waits for a disk; the file is replaced as a whole, so that a crash leaves the old or the new
//! one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::app::ops::api::WallClock;
use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::{OperatorOrder, OperatorOrders, OrderAction, OrderSource};
use crate::net::state_files;

/// File name in the state directory.
pub const ORDERS_FILE: &str = "orders.json";

/// Version of the file format.
const FILE_VERSION: u32 = 1;

/// An order as stored. Times are in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOrder {
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
    author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OrdersFile {
    version: u32,
    orders: Vec<StoredOrder>,
}

impl StoredOrder {
    fn new(order: &OperatorOrder, clock: &WallClock) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (over, deadline, weight) = match order.action {
            OrderAction::Drain { fade_duration: over, deadline } => {
                (Some(ms(over)), Some(ms(deadline)), None)
            }
            OrderAction::Weight(weight) => (None, None, Some(weight)),
            OrderAction::Serve => (None, None, None),
        };
        Self {
            id: order.id,
            act: order.action.as_str().to_owned(),
            of: order.scope.to_string(),
            pool: order.pool.as_deref().map(str::to_owned),
            weight,
            over_ms: over,
            deadline_ms: deadline,
            since_us: clock.unix_micros(order.effective_since),
            until_us: order.expires_at.map(|until| clock.unix_micros(until)),
            by: order.source.as_str().to_owned(),
            author: order.author.as_deref().map(str::to_owned),
            note: order.note.as_deref().map(str::to_owned),
        }
    }

    /// `None` if any field is invalid: an order is restored whole or not at all.
    fn to_order(&self, clock: &WallClock) -> Option<OperatorOrder> {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        let action = match self.act.as_str() {
            "drain" => OrderAction::Drain {
                fade_duration: time(self.over_ms)?,
                deadline: time(self.deadline_ms)?,
            },
            "weight" => OrderAction::Weight(self.weight?),
            "serve" => OrderAction::Serve,
            _ => return None,
        };
        Some(OperatorOrder {
            id: self.id,
            scope: TopologySelector::parse(&self.of)?,
            pool: self.pool.as_deref().map(Arc::from),
            action,
            effective_since: clock.instant(self.since_us),
            expires_at: self.until_us.map(|until| clock.instant(until)),
            source: OrderSource::parse(&self.by)?,
            author: self.author.as_deref().map(Arc::from),
            note: self.note.as_deref().map(Arc::from),
        })
    }
}

/// Converts all orders to their stored form.
pub fn to_stored_orders(orders: &OperatorOrders, clock: &WallClock) -> Vec<StoredOrder> {
    orders.iter().map(|order| StoredOrder::new(order, clock)).collect()
}

/// Parses stored orders. Also returns the number of invalid ones.
pub fn from_stored_orders(
    stored: &[StoredOrder],
    clock: &WallClock,
) -> (Vec<OperatorOrder>, usize) {
    let orders: Vec<OperatorOrder> = stored.iter().filter_map(|one| one.to_order(clock)).collect();
    let lost = stored.len() - orders.len();
    (orders, lost)
}

/// Reads the orders that were in force when the last process ended. An invalid file is moved aside
/// and logged.
pub fn load_orders(directory: &Path, clock: &WallClock) -> Vec<OperatorOrder> {
    let place = directory.join(ORDERS_FILE);
    let bytes = match state_files::read_file(directory, ORDERS_FILE) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::error!(file = %place.display(), %error, "saved orders cannot be read");
            return Vec::new();
        }
    };
    let file = serde_json::from_slice::<OrdersFile>(&bytes);
    let (orders, why) = match file {
        Ok(file) => {
            let (orders, lost) = from_stored_orders(&file.orders, clock);
            (orders, (lost > 0).then(|| format!("{lost} of its orders cannot be parsed")))
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    if let Some(why) = why {
        let aside = match state_files::quarantine_file(directory, ORDERS_FILE) {
            Ok(aside) => aside.display().to_string(),
            Err(error) => format!("left in place ({error})"),
        };
        tracing::error!(
            file = %place.display(), kept = aside, why,
            "saved orders are lost: they no longer apply"
        );
    }
    orders
}

#[derive(Debug, Default)]
struct OrderStoreGauges {
    has_failed: AtomicBool,
    failures: AtomicU64,
}

/// Orders to write. `written` receives whether they are on the disk.
struct OrderWriteRequest {
    orders: Vec<StoredOrder>,
    written: Option<oneshot::Sender<bool>>,
}

/// Handle to the thread that writes orders; without a state directory it stores nothing.
#[derive(Debug, Default)]
pub struct OrderStore {
    write_requests: Option<mpsc::Sender<OrderWriteRequest>>,
    gauges: Arc<OrderStoreGauges>,
}

impl OrderStore {
    /// Starts the writer thread for `directory`, if one is configured.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(directory: Option<PathBuf>) -> io::Result<Self> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        let (requests, inbox) = mpsc::channel();
        let gauges = Arc::<OrderStoreGauges>::default();
        let ours = Arc::clone(&gauges);
        let writer = move || run_writer(&directory, &inbox, &ours);
        std::thread::Builder::new().name("orders".to_owned()).spawn(writer)?;
        Ok(Self { write_requests: Some(requests), gauges })
    }

    /// Queues the orders for writing. The receiver gets whether they are on the disk; `None`
    /// without a state directory.
    pub fn save(&self, orders: Vec<StoredOrder>) -> Option<oneshot::Receiver<bool>> {
        let (done, answer) = oneshot::channel();
        self.write_requests
            .as_ref()?
            .send(OrderWriteRequest { orders, written: Some(done) })
            .ok()?;
        Some(answer)
    }

    /// Whether the last write succeeded; `None` without a state directory.
    pub fn is_durable(&self) -> Option<bool> {
        self.write_requests.as_ref().map(|_| !self.gauges.has_failed.load(Relaxed))
    }

    pub fn failures(&self) -> u64 {
        self.gauges.failures.load(Relaxed)
    }
}

fn run_writer(
    directory: &Path,
    inbox: &mpsc::Receiver<OrderWriteRequest>,
    gauges: &OrderStoreGauges,
) {
    let mut written: Option<Vec<StoredOrder>> = None;
    while let Ok(first) = inbox.recv() {
        // Each request holds all orders, so only the last queued one is written.
        let mut requests: Vec<OrderWriteRequest> =
            std::iter::once(first).chain(inbox.try_iter()).collect();
        let Some(orders) = requests.last_mut().map(|request| std::mem::take(&mut request.orders))
        else {
            continue;
        };
        let is_done = written.as_ref() == Some(&orders) || write_orders(directory, &orders, gauges);
        written = is_done.then_some(orders);
        gauges.has_failed.store(!is_done, Relaxed);
        for done in requests.into_iter().filter_map(|request| request.written) {
            let _ = done.send(is_done);
        }
    }
}

fn write_orders(directory: &Path, orders: &[StoredOrder], gauges: &OrderStoreGauges) -> bool {
    let page = OrdersFile { version: FILE_VERSION, orders: orders.to_vec() };
    let bytes = serde_json::to_vec_pretty(&page).map_err(io::Error::other);
    match bytes.and_then(|bytes| state_files::write_file(directory, ORDERS_FILE, &bytes)) {
        Ok(()) => true,
        Err(error) => {
            gauges.failures.fetch_add(1, Relaxed);
            let file = directory.join(ORDERS_FILE);
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

    fn orders(now: Instant) -> Vec<OperatorOrder> {
        let order = |id, what: &str, act, until| OperatorOrder {
            id,
            scope: TopologySelector::parse(what).expect("a selector"),
            pool: (id == 2).then(|| "web".into()),
            action: act,
            effective_since: now - Duration::from_secs(id),
            expires_at: until,
            source: if id == 3 { OrderSource::Config } else { OrderSource::Operator },
            author: (id == 1).then(|| "alice".into()),
            note: (id == 1).then(|| "a new kernel".into()),
        };
        let (fade_duration, deadline) = (Duration::from_millis(1_500), Duration::from_secs(30));
        let until = Some(now + Duration::from_hours(1));
        vec![
            order(1, "r/a", OrderAction::Drain { fade_duration, deadline }, until),
            order(2, "10.0.0.1:80", OrderAction::Weight(7), None),
            order(3, "r", OrderAction::Serve, until),
        ]
    }

    fn is_about_equal(some: &[OperatorOrder], others: &[OperatorOrder]) -> bool {
        let near =
            |a: Instant, b: Instant| a.max(b).duration_since(a.min(b)) < Duration::from_millis(1);
        some.len() == others.len()
            && some.iter().zip(others).all(|(a, b)| {
                near(a.effective_since, b.effective_since)
                    && a.expires_at.zip(b.expires_at).is_none_or(|(a, b)| near(a, b))
                    && *a
                        == OperatorOrder {
                            effective_since: a.effective_since,
                            expires_at: a.expires_at,
                            ..b.clone()
                        }
            })
    }

    #[test]
    fn written_orders_are_read_back_equal() {
        let directory = tempfile::tempdir().expect("a directory");
        let (clock, now) = (WallClock::read(), Instant::now());
        assert!(load_orders(directory.path(), &clock).is_empty(), "no file yet");
        let orders_before = orders(now);
        let store = OrderStore::start(Some(directory.path().to_owned())).expect("a thread");
        let done = store
            .save(to_stored_orders(&OperatorOrders::from_orders(orders_before.clone()), &clock))
            .expect("a state directory");
        assert_eq!(done.blocking_recv(), Ok(true));
        assert_eq!((store.is_durable(), store.failures()), (Some(true), 0));
        let later = WallClock::read();
        assert!(is_about_equal(&load_orders(directory.path(), &later), &orders_before));
    }

    #[test]
    fn invalid_orders_file_is_moved_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = WallClock::read();
        for page in [
            &b"half of {"[..],
            b"",
            br#"{"version":1,"orders":[{"id":1,"act":"dance","of":"r/a","since_us":1,"by":"api"}]}"#,
        ] {
            state_files::write_file(directory.path(), ORDERS_FILE, page).expect("written");
            assert!(load_orders(directory.path(), &clock).is_empty());
            assert_eq!(state_files::read_file(directory.path(), ORDERS_FILE).expect("gone"), None);
        }
        let aside = std::fs::read_dir(directory.path()).expect("readable").count();
        assert!(aside >= 1);
    }

    #[test]
    fn failed_write_is_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let store = OrderStore::start(Some(file)).expect("a thread");
        let done = store.save(Vec::new()).expect("a state directory");
        assert_eq!(done.blocking_recv(), Ok(false));
        assert_eq!((store.is_durable(), store.failures()), (Some(false), 1));
        assert!(OrderStore::default().save(Vec::new()).is_none());
    }
}
