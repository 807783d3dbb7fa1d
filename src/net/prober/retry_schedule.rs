//! Repeats silent attempts, so that one lost packet does not look like a silent endpoint.
//!
//! The kernel repeats a lost SYN after one second (RFC 6298 2.1), and a lost request after 200 ms.
//! The first is longer than most probe timeouts. A silent probe therefore starts further attempts
//! beside the first one, each on its own connection, and repeats the connect of each attempt twice.
//! A probe whose repetition could have an effect (a body, a POST) repeats only the connect. A probe
//! with a short timeout, such as one of a burst, starts one further attempt.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::Method;

use crate::logic::probing::probe::{ProbeKind, ProbeSpec};

/// When further attempts start, in percent of the timeout.
const RETRY_AT_PERCENT: [u32; 4] = [10, 20, 40, 60];

/// The earliest start of a further attempt: a distant healthy endpoint takes as long to respond.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A timeout shorter than this leaves time for one further attempt.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Connections beyond the first one of each probe, over all probes of a thread. With very many
/// silent endpoints they would use up the descriptors that first attempts need.
const MAX_EXTRA_CONNECTIONS: usize = 256;

/// When a silent probe starts further attempts and connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProbeRetrySchedule {
    /// The starts of further attempts, after that of the first one.
    pub(super) attempt_delays: Vec<Duration>,
    /// The starts of further connects of one attempt, after its own start.
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

/// Counts the connections beyond the first one of each probe.
#[derive(Debug, Default)]
pub(super) struct ExtraConnections {
    in_use: Cell<usize>,
}

impl ExtraConnections {
    /// Permission for one more connection, until the permit is dropped.
    pub(super) fn try_acquire(&self) -> Option<ExtraConnectionPermit<'_>> {
        if self.in_use.get() >= MAX_EXTRA_CONNECTIONS {
            return None;
        }
        self.in_use.set(self.in_use.get() + 1);
        Some(ExtraConnectionPermit { extra_connections: self })
    }
}

/// Permission for one of [`ExtraConnections`].
#[derive(Debug)]
pub(super) struct ExtraConnectionPermit<'a> {
    extra_connections: &'a ExtraConnections,
}

impl ExtraConnectionPermit<'_> {
    /// Holds the permit until `future` has ended.
    pub(super) async fn hold_during<T>(self, future: impl Future<Output = T>) -> T {
        future.await
    }
}

impl Drop for ExtraConnectionPermit<'_> {
    fn drop(&mut self) {
        self.extra_connections.in_use.set(self.extra_connections.in_use.get() - 1);
    }
}

/// Futures that run beside each other in one task.
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

    /// The output of the next future that ends; pending forever if none is left.
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
