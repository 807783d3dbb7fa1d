//! How many descriptors workers may use, so that probes and the operator always have some.
//!
//! Clients get half of what workers have: a client that asks for something needs a connection to an
//! endpoint beside its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Kept free for probes and the operator, at least.
pub const MIN_RESERVED: usize = 64;

/// Connections that the operator may have open at once.
pub const MAX_ADMIN_CONNECTIONS: usize = 32;

/// What an instance has open whatever it serves: standard streams, the control thread's runtime, the
/// watch of its files, signals, logs, and what is read of the system now and then.
const PROCESS_DESCRIPTORS: usize = 24;

/// What the runtime of a worker has open.
const WORKER_RUNTIME_DESCRIPTORS: usize = 4;

/// With fewer for clients and endpoints together an instance is of no use.
pub const MIN_USABLE_DESCRIPTORS: usize = 4;

/// What a configuration needs descriptors for, besides connections of clients and to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorDemand {
    pub workers: usize,
    /// Addresses that are listened on, by each of them.
    pub listeners: usize,
    /// Probes, and lookups of names, that may be under way at once.
    pub max_concurrent_probes: usize,
}

impl DescriptorDemand {
    /// What is not for workers' connections, if `granted` are granted in all.
    fn reserved(&self, limit: usize) -> usize {
        let open =
            PROCESS_DESCRIPTORS + self.workers * (WORKER_RUNTIME_DESCRIPTORS + self.listeners);
        // Very many probes get a quarter at most: they are spread, and seldom all under way.
        let reserve =
            MIN_RESERVED.max((MAX_ADMIN_CONNECTIONS + self.max_concurrent_probes).min(limit / 4));
        open + reserve
    }

    /// What is left for workers' connections of `granted`.
    pub fn available(&self, limit: usize) -> usize {
        limit.saturating_sub(self.reserved(limit))
    }

    /// How many must be granted for `clients`.
    pub fn required_limit(&self, clients: usize) -> usize {
        let wanted = 2 * clients;
        let few = wanted + self.reserved(0);
        // Where a quarter is less than all probes could use, it grows with what is granted.
        let many = (wanted + self.reserved(0) - MIN_RESERVED) * 4 / 3 + 1;
        let all = wanted + self.reserved(usize::MAX);
        if self.available(few) >= wanted { few } else { many.min(all) }
    }
}

/// How many clients may connect at once where workers have `left`.
pub fn max_clients(available: usize) -> usize {
    available / 2
}

/// What is open, over all workers.
#[derive(Debug)]
pub struct DescriptorPool {
    limit: AtomicUsize,
    open: AtomicUsize,
    clients: AtomicUsize,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DescriptorKind {
    Client,
    Endpoint,
}

/// One that is open; given back when dropped.
#[derive(Debug)]
pub struct DescriptorPermit {
    pool: Arc<DescriptorPool>,
    kind: DescriptorKind,
}

impl Default for DescriptorPool {
    /// As many as there may be.
    fn default() -> Self {
        let none = || AtomicUsize::new(0);
        Self { limit: AtomicUsize::new(usize::MAX), open: none(), clients: none() }
    }
}

impl DescriptorPool {
    /// Workers may have so many open from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// How many may be open.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub fn open_count(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Those of them that are clients'.
    pub fn client_count(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Whether one more client may come.
    pub fn has_client_capacity(&self) -> bool {
        self.client_count() < max_clients(self.limit()) && self.has_capacity()
    }

    /// Whether one more may be opened.
    pub fn has_capacity(&self) -> bool {
        self.open_count() < self.limit()
    }

    /// Whether so few are left that none should be kept for nothing.
    pub fn is_near_limit(&self) -> bool {
        let at_most = self.limit();
        self.open_count() >= at_most - at_most / 8
    }

    /// One of a client that is here already.
    #[must_use]
    pub fn acquire_client(self: &Arc<Self>) -> DescriptorPermit {
        self.open.fetch_add(1, Relaxed);
        self.clients.fetch_add(1, Relaxed);
        DescriptorPermit { pool: Arc::clone(self), kind: DescriptorKind::Client }
    }

    /// One for a connection to an endpoint, if there is one left.
    #[must_use]
    pub fn try_acquire_endpoint(self: &Arc<Self>) -> Option<DescriptorPermit> {
        let at_most = self.limit();
        let more = |open: usize| (open < at_most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(DescriptorPermit { pool: Arc::clone(self), kind: DescriptorKind::Endpoint })
    }
}

impl Drop for DescriptorPermit {
    fn drop(&mut self) {
        self.pool.open.fetch_sub(1, Relaxed);
        if self.kind == DescriptorKind::Client {
            self.pool.clients.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_descriptors_exclude_probe_and_admin_reserve() {
        let needs = DescriptorDemand { workers: 1, listeners: 1, max_concurrent_probes: 3 };
        assert_eq!(
            needs.available(1_024),
            1_024 - MIN_RESERVED - PROCESS_DESCRIPTORS - WORKER_RUNTIME_DESCRIPTORS - 1
        );
        assert_eq!(needs.available(50), 0);
        let many = DescriptorDemand { max_concurrent_probes: 10_000, ..needs };
        assert_eq!(
            many.available(1_024),
            1_024 - 256 - PROCESS_DESCRIPTORS - WORKER_RUNTIME_DESCRIPTORS - 1,
            "a quarter"
        );
        assert_eq!(
            many.available(100_000),
            100_000 - 10_032 - PROCESS_DESCRIPTORS - WORKER_RUNTIME_DESCRIPTORS - 1,
            "all"
        );
    }

    #[test]
    fn required_limit_suffices_for_requested_clients() {
        for probes in [0, 32, 33, 100, 1_000, 100_000] {
            for clients in [1, 10, 500, 10_000, 1_000_000] {
                let needs =
                    DescriptorDemand { workers: 4, listeners: 2, max_concurrent_probes: probes };
                let granted = needs.required_limit(clients);
                let room = max_clients(needs.available(granted));
                assert!(room >= clients, "{probes} probes, {clients} clients: {granted}, {room}");
                assert!(room <= clients + clients / 100 + 2, "{probes}, {clients}: {granted}");
            }
        }
    }

    #[test]
    fn open_descriptors_are_counted_until_drop() {
        let all = Arc::<DescriptorPool>::default();
        assert!(all.has_client_capacity() && !all.is_near_limit());
        all.set_limit(8);
        let clients: Vec<_> = (0..4).map(|_| all.acquire_client()).collect();
        assert!(!all.has_client_capacity(), "half are for connections to endpoints");
        let endpoints: Vec<_> = (0..4).map_while(|_| all.try_acquire_endpoint()).collect();
        assert_eq!((endpoints.len(), all.open_count()), (4, 8));
        assert!(all.try_acquire_endpoint().is_none() && all.is_near_limit());
        drop(endpoints);
        assert_eq!((all.open_count(), all.client_count()), (4, 4));
        drop(clients);
        assert!(all.has_client_capacity() && all.try_acquire_endpoint().is_some());
    }
}
