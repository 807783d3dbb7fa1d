//! How long a response head is awaited, and whose fault it is when it does not come.

use std::time::{Duration, Instant};

/// The clock of one try. It rings; what a ring means depends on what has moved since the last.
#[derive(Debug)]
pub(super) struct Patience {
    /// A wait longer than this is evidence.
    stall: Duration,
    /// From the request's last byte to the response head.
    response: Duration,
    /// Between two pieces of the request's body.
    idle: Duration,
    state: State,
    is_reported: bool,
}

#[derive(Debug)]
enum State {
    /// The request is on its way; `moved` bytes of it at `since`.
    Sending { since: Instant, moved: u64 },
    /// All of it was handed over.
    Waiting { since: Instant },
}

/// What a ring means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Nothing yet: ring again then.
    Again(Instant),
    /// The endpoint is silent for longer than it ever is: evidence. Ring again then.
    Stalled(Instant),
    /// The client has not sent on.
    ClientIdle,
    /// The endpoint has not answered in time.
    Timeout,
}

impl Patience {
    /// A clock that starts now.
    pub(super) fn new(stall: Duration, response: Duration, idle: Duration, now: Instant) -> Self {
        let state = State::Sending { since: now, moved: 0 };
        Self { stall: stall.min(response), response, idle, state, is_reported: false }
    }

    /// When it rings first.
    pub(super) fn first(&self, now: Instant) -> Instant {
        now + self.stall
    }

    /// All of the request has been handed over, at `now`; when to ring if this is news.
    pub(super) fn sent(&mut self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Waiting { .. } => None,
            State::Sending { .. } => {
                self.state = State::Waiting { since: now };
                Some(now + self.stall)
            }
        }
    }

    /// Since when nothing but the endpoint is awaited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { since } => Some(since),
            State::Sending { .. } => None,
        }
    }

    /// It rings. `moved` counts bytes read from the client and written to the endpoint; until all
    /// is sent, `waits_for_client` says whose turn it is.
    pub(super) fn ring(&mut self, now: Instant, moved: u64, waits_for_client: bool) -> Ring {
        match &mut self.state {
            State::Waiting { since } => {
                let until = *since + self.response;
                if now >= until { Ring::Timeout } else { self.stalled(until) }
            }
            State::Sending { since, moved: before } if moved > *before => {
                *since = now;
                *before = moved;
                Ring::Again(now + self.stall)
            }
            State::Sending { since, .. } => {
                let until = *since + self.idle;
                match (now >= until, waits_for_client) {
                    (true, true) => Ring::ClientIdle,
                    (true, false) => Ring::Timeout,
                    (false, true) => Ring::Again(until.min(now + self.stall)),
                    (false, false) => self.stalled(until.min(now + self.stall)),
                }
            }
        }
    }

    /// A stall is told once.
    fn stalled(&mut self, next: Instant) -> Ring {
        if std::mem::replace(&mut self.is_reported, true) {
            Ring::Again(next)
        } else {
            Ring::Stalled(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn patience(now: Instant) -> Patience {
        Patience::new(ms(50), ms(1_000), ms(2_000), now)
    }

    #[test]
    fn silence_is_told_once_and_ends_with_the_response_timeout() {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        assert_eq!(clock.sent(t0), Some(t0 + ms(50)));
        assert_eq!(clock.sent(t0 + ms(1)), None);
        assert_eq!(clock.ring(t0 + ms(50), 0, false), Ring::Stalled(t0 + ms(1_000)));
        assert_eq!(clock.ring(t0 + ms(999), 0, false), Ring::Again(t0 + ms(1_000)));
        assert_eq!(clock.ring(t0 + ms(1_000), 0, false), Ring::Timeout);
    }

    #[test]
    fn an_upload_that_moves_is_never_cut_and_its_answer_has_the_whole_timeout() {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        for step in 1..200 {
            let now = t0 + ms(50 * step);
            assert_eq!(clock.ring(now, step * 1_000, step % 2 == 0), Ring::Again(now + ms(50)));
        }
        let sent = t0 + ms(10_000);
        assert_eq!(clock.sent(sent), Some(sent + ms(50)));
        assert_eq!(clock.waiting_since(), Some(sent));
        assert_eq!(clock.ring(sent + ms(50), 0, false), Ring::Stalled(sent + ms(1_000)));
    }

    #[test]
    fn an_upload_that_stands_still_is_its_clients_or_its_endpoints_fault() {
        let t0 = Instant::now();
        let mut by_client = patience(t0);
        assert_eq!(by_client.ring(t0 + ms(50), 0, true), Ring::Again(t0 + ms(100)));
        assert_eq!(by_client.ring(t0 + ms(2_000), 0, true), Ring::ClientIdle);
        let mut by_endpoint = patience(t0);
        assert_eq!(by_endpoint.ring(t0 + ms(50), 0, false), Ring::Stalled(t0 + ms(100)));
        assert_eq!(by_endpoint.ring(t0 + ms(2_000), 0, false), Ring::Timeout);
    }
}
