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

use crate::logic::probe::{ProbeKind, ProbeSpec};

/// Parts of the timeout, in percent, after which a probe begins again.
const PERCENT: [u32; 4] = [10, 20, 40, 60];

/// Nothing begins again earlier: answers of a healthy endpoint far away take as long.
const SOONEST: Duration = Duration::from_millis(20);

/// A timeout shorter than this leaves time to begin again once.
const SHORT: Duration = Duration::from_millis(100);

/// Connections at once, over all probes, that were opened because another one heard nothing. With
/// very many silent endpoints they would use up the descriptors that first attempts need.
const SPARE: usize = 256;

/// When a probe begins again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    /// Further attempts, after the first one's begin.
    pub(super) attempts: Vec<Duration>,
    /// Further openings of one attempt's connection, after its begin.
    pub(super) openings: Vec<Duration>,
}

impl Again {
    pub(super) fn of(spec: &ProbeSpec, timeout: Duration) -> Self {
        let mut marks: Vec<Duration> = if timeout < SHORT {
            vec![timeout / 2]
        } else {
            PERCENT.iter().map(|percent| (timeout * *percent / 100).max(SOONEST)).collect()
        };
        marks.dedup();
        match (may_be_asked_twice(&spec.kind), timeout < SHORT) {
            (true, true) => Self { attempts: marks, openings: Vec::new() },
            (true, false) => Self { openings: marks[..2].to_vec(), attempts: marks },
            (false, _) => Self { attempts: Vec::new(), openings: marks },
        }
    }
}

fn may_be_asked_twice(kind: &ProbeKind) -> bool {
    match kind {
        ProbeKind::Tcp { send, .. } => send.is_none(),
        ProbeKind::Tls | ProbeKind::Grpc(_) => true,
        ProbeKind::Http(http) => {
            let harmless = matches!(http.method, Method::GET | Method::HEAD | Method::OPTIONS);
            harmless && http.body.is_none()
        }
    }
}

/// Counts the connections beyond each attempt's first.
#[derive(Debug, Default)]
pub(super) struct Spare {
    used: Cell<usize>,
}

impl Spare {
    /// Leave for one more, until what is returned is dropped.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        if self.used.get() >= SPARE {
            return None;
        }
        self.used.set(self.used.get() + 1);
        Some(Taken { spare: self })
    }
}

/// One of [`Spare`].
#[derive(Debug)]
pub(super) struct Taken<'a> {
    spare: &'a Spare,
}

impl Taken<'_> {
    /// Holds it until `future` has ended.
    pub(super) async fn during<T>(self, future: impl Future<Output = T>) -> T {
        future.await
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.spare.used.set(self.spare.used.get() - 1);
    }
}

/// Futures beside each other.
pub(super) struct Race<'a, T> {
    running: Vec<Pin<Box<dyn Future<Output = T> + 'a>>>,
}

impl<'a, T> Race<'a, T> {
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
    use crate::logic::probe::HttpProbe;

    fn ms(list: &[u64]) -> Vec<Duration> {
        list.iter().copied().map(Duration::from_millis).collect()
    }

    fn again(spec: &ProbeSpec, timeout: u64) -> (Vec<Duration>, Vec<Duration>) {
        let again = Again::of(spec, Duration::from_millis(timeout));
        (again.attempts, again.openings)
    }

    #[test]
    fn what_is_harmless_is_asked_again() {
        let get = ProbeSpec::http(HttpProbe::get("/"));
        assert_eq!(again(&get, 500), (ms(&[50, 100, 200, 300]), ms(&[50, 100])));
        assert_eq!(again(&get, 150), (ms(&[20, 30, 60, 90]), ms(&[20, 30])));
        assert_eq!(again(&get, 100), (ms(&[20, 40, 60]), ms(&[20, 40])));
        assert_eq!(again(&get, 60), (ms(&[30]), ms(&[])));
        assert_eq!(again(&ProbeSpec::tcp(), 500).0.len(), 4);
    }

    #[test]
    fn what_might_count_twice_is_asked_once() {
        let mut post = HttpProbe::get("/");
        post.method = Method::POST;
        assert_eq!(again(&ProbeSpec::http(post), 500), (ms(&[]), ms(&[50, 100, 200, 300])));
        let mut body = HttpProbe::get("/");
        body.body = Some(Vec::new());
        assert_eq!(again(&ProbeSpec::http(body), 60), (ms(&[]), ms(&[30])));
        let talk = ProbeKind::Tcp { send: Some(b"PING".to_vec()), expect: None };
        assert!(again(&ProbeSpec::new(talk), 500).0.is_empty());
    }

    #[test]
    fn spare_connections_are_bounded() {
        let spare = Spare::default();
        let taken: Vec<_> = (0..SPARE).map_while(|_| spare.take()).collect();
        assert_eq!(taken.len(), SPARE);
        assert!(spare.take().is_none());
        drop(taken);
        assert!(spare.take().is_some());
    }
}
