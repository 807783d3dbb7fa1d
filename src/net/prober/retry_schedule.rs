//! Loss is not silence.
//!
//! The kernel repeats a lost SYN after a second (RFC 6298 2.1), longer than most probes wait, and a
//! lost request after 200 ms. One lost packet in a probe of 500 ms would look like a silent
//! endpoint. So a probe that hears nothing begins again beside itself: whole attempts, each on a
//! connection of its own, and within each the opening of its connection twice more. What might be
//! counted twice at the other side (a body, a POST) is asked once: there only the opening is
//! repeated. Bursts, whose timeouts are short, begin again once.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::Method;

use crate::logic::probing::probe::{ProbeKind, ProbeSpec};

/// Parts of the timeout, in percent, after which a probe begins again.
const RETRY_AT_PERCENT: [u32; 4] = [10, 20, 40, 60];

/// Nothing begins again earlier: answers of a healthy endpoint far away take as long.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A timeout shorter than this leaves time to begin again once.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Connections at once, over all probes, that were opened because another one heard nothing. With
/// very many silent endpoints they would use up the descriptors that first attempts need.
const MAX_EXTRA_CONNECTIONS: usize = 256;

/// When a probe begins again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProbeRetrySchedule {
    /// Further attempts, after the first one's begin.
    pub(super) attempt_delays: Vec<Duration>,
    /// Further openings of one attempt's connection, after its begin.
    pub(super) connect_delays: Vec<Duration>,
}

impl ProbeRetrySchedule {
    pub(super) fn for_probe(spec: &ProbeSpec, timeout: Duration) -> Self {
        let mut delays: Vec<Duration> = if timeout < SHORT_TIMEOUT {
            vec![timeout / 2]
        } else {
            RETRY_AT_PERCENT
                .iter()
                .map(|percent| (timeout * *percent / 100).max(MIN_RETRY_DELAY))
                .collect()
        };
        delays.dedup();
        match (can_repeat(&spec.kind), timeout < SHORT_TIMEOUT) {
            (true, true) => Self { attempt_delays: delays, connect_delays: Vec::new() },
            (true, false) => Self { connect_delays: delays[..2].to_vec(), attempt_delays: delays },
            (false, _) => Self { attempt_delays: Vec::new(), connect_delays: delays },
        }
    }
}

fn can_repeat(kind: &ProbeKind) -> bool {
    match kind {
        ProbeKind::Tcp { send, .. } => send.is_none(),
        ProbeKind::Tls | ProbeKind::Grpc(_) => true,
        ProbeKind::Http(http) => {
            let is_safe = matches!(http.method, Method::GET | Method::HEAD | Method::OPTIONS);
            is_safe && http.body.is_none()
        }
    }
}

/// Counts the connections beyond each attempt's first.
#[derive(Debug, Default)]
pub(super) struct ExtraConnections {
    in_use: Cell<usize>,
}

impl ExtraConnections {
    /// Leave for one more, until what is returned is dropped.
    pub(super) fn try_acquire(&self) -> Option<ExtraConnectionPermit<'_>> {
        if self.in_use.get() >= MAX_EXTRA_CONNECTIONS {
            return None;
        }
        self.in_use.set(self.in_use.get() + 1);
        Some(ExtraConnectionPermit { extra_connections: self })
    }
}

/// One of [`Spare`].
#[derive(Debug)]
pub(super) struct ExtraConnectionPermit<'a> {
    extra_connections: &'a ExtraConnections,
}

impl ExtraConnectionPermit<'_> {
    /// Holds it until `future` has ended.
    pub(super) async fn hold_during<T>(self, future: impl Future<Output = T>) -> T {
        future.await
    }
}

impl Drop for ExtraConnectionPermit<'_> {
    fn drop(&mut self) {
        self.extra_connections.in_use.set(self.extra_connections.in_use.get() - 1);
    }
}

/// Futures beside each other.
pub(super) struct FutureRace<'a, T> {
    running: Vec<Pin<Box<dyn Future<Output = T> + 'a>>>,
}

impl<'a, T> FutureRace<'a, T> {
    pub(super) fn new() -> Self {
        Self { running: Vec::new() }
    }

    pub(super) fn add(&mut self, future: impl Future<Output = T> + 'a) {
        self.running.push(Box::pin(future));
    }

    /// The next one that ends. Waits for ever if none is left.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|cx| {
            for at in 0..self.running.len() {
                if let Poll::Ready(output) = self.running[at].as_mut().poll(cx) {
                    drop(self.running.swap_remove(at));
                    return Poll::Ready(output);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::probing::probe::HttpProbe;

    fn ms(list: &[u64]) -> Vec<Duration> {
        list.iter().copied().map(Duration::from_millis).collect()
    }

    fn retry_delays(spec: &ProbeSpec, timeout: u64) -> (Vec<Duration>, Vec<Duration>) {
        let schedule = ProbeRetrySchedule::for_probe(spec, Duration::from_millis(timeout));
        (schedule.attempt_delays, schedule.connect_delays)
    }

    #[test]
    fn safe_probe_is_repeated() {
        let get = ProbeSpec::http(HttpProbe::get("/"));
        assert_eq!(retry_delays(&get, 500), (ms(&[50, 100, 200, 300]), ms(&[50, 100])));
        assert_eq!(retry_delays(&get, 150), (ms(&[20, 30, 60, 90]), ms(&[20, 30])));
        assert_eq!(retry_delays(&get, 100), (ms(&[20, 40, 60]), ms(&[20, 40])));
        assert_eq!(retry_delays(&get, 60), (ms(&[30]), ms(&[])));
        assert_eq!(retry_delays(&ProbeSpec::tcp(), 500).0.len(), 4);
    }

    #[test]
    fn unsafe_probe_repeats_only_its_connect() {
        let mut post = HttpProbe::get("/");
        post.method = Method::POST;
        assert_eq!(retry_delays(&ProbeSpec::http(post), 500), (ms(&[]), ms(&[50, 100, 200, 300])));
        let mut body = HttpProbe::get("/");
        body.body = Some(Vec::new());
        assert_eq!(retry_delays(&ProbeSpec::http(body), 60), (ms(&[]), ms(&[30])));
        let exchange = ProbeKind::Tcp { send: Some(b"PING".to_vec()), expect: None };
        assert!(retry_delays(&ProbeSpec::new(exchange), 500).0.is_empty());
    }

    #[test]
    fn extra_connections_are_bounded() {
        let extra_connections = ExtraConnections::default();
        let permits: Vec<_> =
            (0..MAX_EXTRA_CONNECTIONS).map_while(|_| extra_connections.try_acquire()).collect();
        assert_eq!(permits.len(), MAX_EXTRA_CONNECTIONS);
        assert!(extra_connections.try_acquire().is_none());
        drop(permits);
        assert!(extra_connections.try_acquire().is_some());
    }
}
