//! How many descriptors workers may use, so that probes and the operator always have some.
//!
//! Clients get half of what workers have: a client that asks for something needs a connection to an
//! endpoint beside its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Kept free for probes and the operator, at least.
pub const RESERVE: usize = 64;

/// Connections that the operator may have open at once.
pub const OPERATOR: usize = 32;

/// What an instance has open whatever it serves: standard streams, the control thread's runtime, the
/// watch of its files, signals, logs, and what is read of the system now and then.
const ALWAYS: usize = 24;

/// What the runtime of a worker has open.
const RUNTIME: usize = 4;

/// With fewer for clients and endpoints together an instance is of no use.
pub const LEAST: usize = 4;

/// What a configuration needs descriptors for, besides connections of clients and to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Threads that serve.
    pub workers: usize,
    /// Addresses that are listened on, by each of them.
    pub listeners: usize,
    /// Probes, and lookups of names, that may be under way at once.
    pub probes: usize,
}

impl Needs {
    /// What is not for workers' connections, if `granted` are granted in all.
    fn others(&self, granted: usize) -> usize {
        let open = ALWAYS + self.workers * (RUNTIME + self.listeners);
        // Very many probes get a quarter at most: they are spread, and seldom all under way.
        let reserve = RESERVE.max((OPERATOR + self.probes).min(granted / 4));
        open + reserve
    }

    /// What is left for workers' connections of `granted`.
    #[must_use]
    pub fn left(&self, granted: usize) -> usize {
        granted.saturating_sub(self.others(granted))
    }

    /// How many must be granted for `clients`.
    #[must_use]
    pub fn granted_for(&self, clients: usize) -> usize {
        let wanted = 2 * clients;
        let few = wanted + self.others(0);
        // Where a quarter is less than all probes could use, it grows with what is granted.
        let many = (wanted + self.others(0) - RESERVE) * 4 / 3 + 1;
        let all = wanted + self.others(usize::MAX);
        if self.left(few) >= wanted { few } else { many.min(all) }
    }
}

/// How many clients may connect at once where workers have `left`.
#[must_use]
pub fn for_clients(left: usize) -> usize {
    left / 2
}

/// What is open, over all workers.
#[derive(Debug)]
pub struct Descriptors {
    at_most: AtomicUsize,
    open: AtomicUsize,
    clients: AtomicUsize,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Endpoint,
}

/// One that is open; given back when dropped.
#[derive(Debug)]
pub struct Descriptor {
    all: Arc<Descriptors>,
    kind: Kind,
}

impl Default for Descriptors {
    /// As many as there may be.
    fn default() -> Self {
        let none = || AtomicUsize::new(0);
        Self { at_most: AtomicUsize::new(usize::MAX), open: none(), clients: none() }
    }
}

impl Descriptors {
    /// Workers may have so many open from now on.
    pub fn allow(&self, at_most: usize) {
        self.at_most.store(at_most, Relaxed);
    }

    /// How many may be open.
    #[must_use]
    pub fn at_most(&self) -> usize {
        self.at_most.load(Relaxed)
    }

    /// How many are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Those of them that are clients'.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Whether one more client may come.
    #[must_use]
    pub fn has_room_for_client(&self) -> bool {
        self.clients() < for_clients(self.at_most()) && self.has_room()
    }

    /// Whether one more may be opened.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open() < self.at_most()
    }

    /// Whether so few are left that none should be kept for nothing.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        let at_most = self.at_most();
        self.open() >= at_most - at_most / 8
    }

    /// One of a client that is here already.
    #[must_use]
    pub fn client(self: &Arc<Self>) -> Descriptor {
        self.open.fetch_add(1, Relaxed);
        self.clients.fetch_add(1, Relaxed);
        Descriptor { all: Arc::clone(self), kind: Kind::Client }
    }

    /// One for a connection to an endpoint, if there is one left.
    #[must_use]
    pub fn endpoint(self: &Arc<Self>) -> Option<Descriptor> {
        let at_most = self.at_most();
        let more = |open: usize| (open < at_most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Descriptor { all: Arc::clone(self), kind: Kind::Endpoint })
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, Relaxed);
        if self.kind == Kind::Client {
            self.all.clients.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_the_operator_keep_their_reserve() {
        let needs = Needs { workers: 1, listeners: 1, probes: 3 };
        assert_eq!(needs.left(1_024), 1_024 - RESERVE - ALWAYS - RUNTIME - 1);
        assert_eq!(needs.left(50), 0);
        let many = Needs { probes: 10_000, ..needs };
        assert_eq!(many.left(1_024), 1_024 - 256 - ALWAYS - RUNTIME - 1, "a quarter");
        assert_eq!(many.left(100_000), 100_000 - 10_032 - ALWAYS - RUNTIME - 1, "all");
    }

    #[test]
    fn what_is_asked_for_suffices() {
        for probes in [0, 32, 33, 100, 1_000, 100_000] {
            for clients in [1, 10, 500, 10_000, 1_000_000] {
                let needs = Needs { workers: 4, listeners: 2, probes };
                let granted = needs.granted_for(clients);
                let room = for_clients(needs.left(granted));
                assert!(room >= clients, "{probes} probes, {clients} clients: {granted}, {room}");
                assert!(room <= clients + clients / 100 + 2, "{probes}, {clients}: {granted}");
            }
        }
    }

    #[test]
    fn what_is_open_is_counted_while_it_lasts() {
        let all = Arc::<Descriptors>::default();
        assert!(all.has_room_for_client() && !all.is_tight());
        all.allow(8);
        let clients: Vec<_> = (0..4).map(|_| all.client()).collect();
        assert!(!all.has_room_for_client(), "half are for connections to endpoints");
        let endpoints: Vec<_> = (0..4).map_while(|_| all.endpoint()).collect();
        assert_eq!((endpoints.len(), all.open()), (4, 8));
        assert!(all.endpoint().is_none() && all.is_tight());
        drop(endpoints);
        assert_eq!((all.open(), all.clients()), (4, 4));
        drop(clients);
        assert!(all.has_room_for_client() && all.endpoint().is_some());
    }
}
