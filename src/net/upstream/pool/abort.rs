//! Aborting requests that wait for an endpoint's response, and its long-lived streams.

use super::ConnectionPool;

/// How often a pool has aborted its requests, by kind. Compared by a request with the epoch at its
/// start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortEpoch {
    retryable: u64,
    all: u64,
    /// Tunnels that a drain has ended.
    streams: u64,
}

impl AbortEpoch {
    /// An epoch whose holder ignores aborts of requests that may not be retried.
    #[must_use]
    pub fn ignoring_full_aborts(self) -> Self {
        Self { all: u64::MAX, ..self }
    }
}

impl ConnectionPool {
    /// The verdict is down: aborts the requests that wait for a response head, all of them or only
    /// the retryable ones.
    pub fn abort_waiting(&self, should_abort_all: bool) {
        self.abort_epoch.update(|epoch| AbortEpoch {
            retryable: epoch.retryable + 1,
            all: epoch.all + u64::from(should_abort_all),
            ..epoch
        });
        self.abort_notify.notify_waiters();
    }

    /// The endpoint is drained: closes idle connections now and used ones when they are returned,
    /// until the next checkout.
    pub fn start_draining(&self) {
        self.is_draining.set(true);
        self.close_idle();
    }

    /// The drain deadline has passed: ends tunnels and streaming responses. Retryable requests that
    /// wait for a response head are aborted.
    pub fn end_streams(&self) {
        self.abort_epoch.update(|epoch| AbortEpoch { streams: epoch.streams + 1, ..epoch });
        self.streaming_responses.end_all();
        self.abort_waiting(false);
    }

    /// The current epoch, to be read before an attempt starts.
    pub fn abort_epoch(&self) -> AbortEpoch {
        self.abort_epoch.get()
    }

    /// Whether a request that started at `since` has been aborted.
    pub fn is_aborted_since(&self, since: AbortEpoch, is_retryable: bool) -> bool {
        let now = self.abort_epoch.get();
        now.all > since.all || is_retryable && now.retryable > since.retryable
    }

    /// Waits until a tunnel that started at `since` has to end: `true` because of a drain, `false`
    /// because of a verdict.
    pub async fn wait_for_tunnel_end(&self, since: AbortEpoch) -> bool {
        loop {
            let notified = self.abort_notify.notified();
            if self.is_aborted_since(since, false) {
                return false;
            }
            if self.abort_epoch.get().streams > since.streams {
                return true;
            }
            notified.await;
        }
    }

    /// Waits until a request that started at `since` is aborted.
    pub async fn wait_for_abort(&self, since: AbortEpoch, is_retryable: bool) {
        loop {
            let notified = self.abort_notify.notified();
            if self.is_aborted_since(since, is_retryable) {
                return;
            }
            notified.await;
        }
    }
}
