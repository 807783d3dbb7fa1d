//! The budget of file descriptors for workers, so that probes and administration always have some.
//!
//! Half of the budget is for clients, because each client also needs a connection to an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Minimum number reserved for probes and administration.
pub const MIN_RESERVED: usize = 64;

/// Upper bound on concurrent admin connections.
pub const MAX_ADMIN_CONNECTIONS: usize = 32;

/// Upper bound on concurrent connections to the status listener.
pub const MAX_STATUS_CONNECTIONS: usize = 32;

/// Descriptors of an idle instance: standard streams, the runtime of the control thread, file
/// watches, signals, logs, and reads of `/proc`.
const PROCESS_DESCRIPTORS: usize = 24;

/// Descriptors of one worker's runtime.
const WORKER_RUNTIME_DESCRIPTORS: usize = 4;

/// An instance with fewer descriptors for clients and endpoints refuses to start.
pub const MIN_USABLE_DESCRIPTORS: usize = 4;

/// The descriptors that a configuration needs besides client and endpoint connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorDemand {
    pub workers: usize,
    /// Listening sockets per worker.
    pub listeners: usize,
    /// Concurrent probes and DNS lookups.
    pub max_concurrent_probes: usize,
    /// Whether there is a status listener.
    pub has_status: bool,
}

impl DescriptorDemand {
    /// Descriptors that are not for worker connections, of a process limit.
    fn reserved(&self, limit: usize) -> usize {
        let open =
            PROCESS_DESCRIPTORS + self.workers * (WORKER_RUNTIME_DESCRIPTORS + self.listeners);
        // A large number of probes reserves a quarter at most: they are spread over time and rarely
        // all run at once.
        let reserve =
            MIN_RESERVED.max((MAX_ADMIN_CONNECTIONS + self.max_concurrent_probes).min(limit / 4));
        open + reserve + if self.has_status { MAX_STATUS_CONNECTIONS } else { 0 }
    }

    /// Descriptors for worker connections, of a process limit.
    pub fn available(&self, limit: usize) -> usize {
        limit.saturating_sub(self.reserved(limit))
    }

    /// The process limit that `clients` concurrent clients require.
    pub fn required_limit(&self, clients: usize) -> usize {
        let required = 2 * clients;
        let with_fixed_reserve = required + self.reserved(0);
        // When the reserve is a quarter, it grows with the limit itself.
        let with_quarter_reserve = (required + self.reserved(0) - MIN_RESERVED) * 4 / 3 + 1;
        let with_full_reserve = required + self.reserved(usize::MAX);
        if self.available(with_fixed_reserve) >= required {
            with_fixed_reserve
        } else {
            with_quarter_reserve.min(with_full_reserve)
        }
    }
}

/// Maximum number of concurrent clients for this many descriptors.
pub fn max_clients(available: usize) -> usize {
    available / 2
}

/// The descriptors in use, over all workers.
#[derive(Debug)]
pub struct DescriptorPool {
    limit: AtomicUsize,
    open: AtomicUsize,
    clients: AtomicUsize,
}

/// The use of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DescriptorKind {
    Client,
    Endpoint,
}

/// One descriptor in use; released on drop.
#[derive(Debug)]
pub struct DescriptorPermit {
    pool: Arc<DescriptorPool>,
    kind: DescriptorKind,
}

impl Default for DescriptorPool {
    /// A pool without a limit.
    fn default() -> Self {
        let none = || AtomicUsize::new(0);
        Self { limit: AtomicUsize::new(usize::MAX), open: none(), clients: none() }
    }
}

impl DescriptorPool {
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub fn open_count(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The number of client connections.
    pub fn client_count(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Whether another client connection fits.
    pub fn has_client_capacity(&self) -> bool {
        self.client_count() < max_clients(self.limit()) && self.has_capacity()
    }

    /// Whether another descriptor fits.
    pub fn has_capacity(&self) -> bool {
        self.open_count() < self.limit()
    }

    /// Whether at least seven eighths are in use: idle connections should be closed.
    pub fn is_near_limit(&self) -> bool {
        let limit = self.limit();
        self.open_count() >= limit - limit / 8
    }

    /// Counts an accepted client connection, even beyond the limit.
    #[must_use]
    pub fn acquire_client(self: &Arc<Self>) -> DescriptorPermit {
        self.open.fetch_add(1, Relaxed);
        self.clients.fetch_add(1, Relaxed);
        DescriptorPermit { pool: Arc::clone(self), kind: DescriptorKind::Client }
    }

    /// Counts a connection to an endpoint; `None` at the limit.
    #[must_use]
    pub fn try_acquire_endpoint(self: &Arc<Self>) -> Option<DescriptorPermit> {
        let limit = self.limit();
        let more = |open: usize| (open < limit).then_some(open + 1);
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
        let needs = DescriptorDemand {
            workers: 1,
            listeners: 1,
            max_concurrent_probes: 3,
            has_status: false,
        };
        assert_eq!(
            needs.available(1_024),
            1_024 - MIN_RESERVED - PROCESS_DESCRIPTORS - WORKER_RUNTIME_DESCRIPTORS - 1
        );
        assert_eq!(needs.available(50), 0);
        let with_status = DescriptorDemand { has_status: true, ..needs };
        let fewer = needs.available(1_024) - with_status.available(1_024);
        assert_eq!(fewer, MAX_STATUS_CONNECTIONS);
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
                let has_status = probes % 2 == 0;
                let needs = DescriptorDemand {
                    workers: 4,
                    listeners: 2,
                    max_concurrent_probes: probes,
                    has_status,
                };
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
