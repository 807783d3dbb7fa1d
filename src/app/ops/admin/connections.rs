//! The open connections of one operator listener. At its bound a new connection displaces another,
//! so that connections without requests keep no operator out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

/// Connections by number. Only the control thread uses it.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    max_connections: usize,
    open: BTreeMap<u64, TableEntry>,
    /// Counts connections and responses: a smaller number is an earlier one.
    sequence: u64,
}

#[derive(Debug)]
struct TableEntry {
    /// Whether a request is being answered.
    is_busy: bool,
    /// When the connection was opened or was last answered, in the order of the table.
    idle_since: u64,
    displaced: CancellationToken,
}

/// A place in the table; given up on drop.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    table: Rc<RefCell<ConnectionTable>>,
    number: u64,
    /// Cancelled when the connection has to make room.
    pub(super) displaced: CancellationToken,
}

/// Marks a connection as busy until it is dropped.
#[derive(Debug)]
pub(super) struct BusyMark<'p>(&'p ConnectionPlace);

impl ConnectionTable {
    pub(super) fn new(max_connections: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { max_connections, open: BTreeMap::new(), sequence: 0 }))
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The connection to displace: the one that is idle for the longest time, or the oldest if all
    /// are busy.
    fn oldest(&self) -> Option<u64> {
        let order = |entry: &TableEntry| (entry.is_busy, entry.idle_since);
        self.open.iter().min_by_key(|(_, entry)| order(entry)).map(|(&number, _)| number)
    }
}

impl ConnectionPlace {
    /// Adds a connection. Also returns whether another one was displaced for it.
    pub(super) fn open(table: &Rc<RefCell<ConnectionTable>>) -> (Self, bool) {
        let mut entries = table.borrow_mut();
        let oldest = entries.oldest().filter(|_| entries.open.len() >= entries.max_connections);
        let displaced_entry = oldest.and_then(|number| entries.open.remove(&number));
        if let Some(entry) = &displaced_entry {
            entry.displaced.cancel();
        }
        let number = entries.next_sequence();
        let displaced = CancellationToken::new();
        let entry = TableEntry { is_busy: false, idle_since: number, displaced: displaced.clone() };
        entries.open.insert(number, entry);
        drop(entries);
        (Self { table: Rc::clone(table), number, displaced }, displaced_entry.is_some())
    }

    /// Marks the connection as busy with a request.
    pub(super) fn begin_request(&self) -> BusyMark<'_> {
        self.set_busy(true);
        BusyMark(self)
    }

    fn set_busy(&self, is_busy: bool) {
        let mut entries = self.table.borrow_mut();
        let sequence = entries.next_sequence();
        if let Some(entry) = entries.open.get_mut(&self.number) {
            (entry.is_busy, entry.idle_since) = (is_busy, sequence);
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.borrow_mut().open.remove(&self.number);
    }
}

impl Drop for BusyMark<'_> {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_idle_connection_makes_room() {
        let table = ConnectionTable::new(2);
        let (first, _) = ConnectionPlace::open(&table);
        let (second, was_displaced) = ConnectionPlace::open(&table);
        assert!(!was_displaced);
        drop(first.begin_request());
        let (third, was_displaced) = ConnectionPlace::open(&table);
        assert!(was_displaced && second.displaced.is_cancelled(), "it has sent nothing");
        assert!(!first.displaced.is_cancelled(), "it was just answered");
        let busy = (first.begin_request(), third.begin_request());
        let (fourth, _) = ConnectionPlace::open(&table);
        assert!(first.displaced.is_cancelled(), "the oldest of busy ones");
        assert!(!third.displaced.is_cancelled());
        drop(busy);
        drop(fourth);
        assert!(!ConnectionPlace::open(&table).1, "a closed connection has left its place");
    }
}
