//! Who has to leave an endpoint before it has answered.

use super::ConnectionPool;

/// How often a pool was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortEpoch {
    retryable: u64,
    all: u64,
    /// Of what lasts: tunnels.
    streams: u64,
}

impl AbortEpoch {
    /// Whoever holds this does not hear of cuts that concern what may not be sent again.
    #[must_use]
    pub fn ignoring_full_aborts(self) -> Self {
        Self { all: u64::MAX, ..self }
    }
}

impl ConnectionPool {
    /// The verdict is down: wakes the requests that wait for this endpoint, `all` of them or those
    /// only that may be sent again.
    pub fn abort_waiting(&self, should_abort_all: bool) {
        let AbortEpoch { retryable: repeatable, all: before, streams: lasting } =
            self.abort_epoch.get();
        self.abort_epoch.set(AbortEpoch {
            retryable: repeatable + 1,
            all: before + u64::from(should_abort_all),
            streams: lasting,
        });
        self.abort_notify.notify_waiters();
    }

    /// The endpoint is drained: idle connections are closed, and those in use are not kept afterwards,
    /// until somebody comes again.
    pub fn start_draining(&self) {
        self.is_draining.set(true);
        self.close_idle();
    }

    /// The endpoint is drained, and the time of what lasts is up: tunnels end, and answers on their
    /// way. Requests that wait for an answer leave if they may be sent again.
    pub fn end_streams(&self) {
        self.abort_epoch.update(|cuts| AbortEpoch { streams: cuts.streams + 1, ..cuts });
        self.streaming_responses.end_all();
        self.abort_waiting(false);
    }

    /// How often it was cut; to be read before a try begins.
    pub fn abort_epoch(&self) -> AbortEpoch {
        self.abort_epoch.get()
    }

    /// Whether it has been cut since `since`, for a request that is `repeatable` or not.
    pub fn is_aborted_since(&self, since: AbortEpoch, is_retryable: bool) -> bool {
        let now = self.abort_epoch.get();
        now.all > since.all || is_retryable && now.retryable > since.retryable
    }

    /// Ends when a tunnel that was begun at `since` has to; whether that is because the endpoint is
    /// drained, and not because it is silent.
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

    /// Ends when that is so.
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
