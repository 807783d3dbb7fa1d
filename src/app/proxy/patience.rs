//! How long a response head is awaited, and whose fault it is when it does not come.

use std::time::{Duration, Instant};

/// A ring that is heard later than this says that this process was late, whatever the endpoint did:
/// its answer may lie there unread.
const LATE: Duration = Duration::from_millis(20);

/// How often one try is granted its wait again for that.
const GRANTS: u32 = 3;

/// The waits of one try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// Longer than this is a reason to look.
    pub(super) stall: Duration,
    /// Longer than this is as good as failed; no less than `stall`.
    pub(super) slow: Duration,
    /// From the request's last byte to the response head.
    pub(super) response: Duration,
    /// Between two pieces of the request's body; and what its client may keep us waiting in all,
    /// beyond what it pays off by `rate`.
    pub(super) idle: Duration,
    /// Bytes of the body that pay off a second of waiting for it; zero lets it drip.
    pub(super) rate: u64,
}

/// The clock of one try. It rings; what a ring means depends on what has moved since the last.
#[derive(Debug)]
pub(super) struct Patience {
    waits: Waits,
    state: State,
    told: Told,
    /// When it is to ring next, and how long that was ahead when it was set.
    due: Instant,
    ahead: Duration,
    /// Waits that were granted again: all later marks move by as much.
    excused: Duration,
    grants: u32,
}

#[derive(Debug)]
enum State {
    /// The request is on its way; `moved` bytes of it at `since`. Its client has kept us waiting for
    /// `owed`.
    Sending { since: Instant, moved: u64, owed: Duration },
    /// All of it was handed over.
    Waiting { since: Instant },
}

/// What has been said of the wait; each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Stalled,
    Slow,
}

/// What a ring means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Nothing yet: ring again then.
    Again(Instant),
    /// The endpoint is silent for longer than it ever is. Ring again then.
    Stalled(Instant),
    /// It is silent for many times longer. Ring again then.
    Slow(Instant),
    /// The client has not sent on.
    ClientIdle,
    /// The endpoint has not answered in time.
    Timeout,
}

impl Waits {
    /// What `moved` bytes pay off; each byte of a body is counted when it comes and when it goes.
    fn paid_by(&self, moved: u64) -> Duration {
        match self.rate {
            0 => Duration::MAX,
            rate => Duration::from_millis(moved.saturating_mul(500) / rate),
        }
    }
}

impl Patience {
    /// A clock that starts now.
    pub(super) fn new(waits: Waits, now: Instant) -> Self {
        let stall = waits.stall.min(waits.response);
        let slow = waits.slow.min(waits.response);
        Self {
            waits: Waits { stall, slow, ..waits },
            state: State::Sending { since: now, moved: 0, owed: Duration::ZERO },
            told: Told::Nothing,
            due: now + stall,
            ahead: stall,
            excused: Duration::ZERO,
            grants: 0,
        }
    }

    /// When it rings next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// All of the request has been handed over, at `now`; when to ring if this is news.
    pub(super) fn sent(&mut self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Waiting { .. } => None,
            State::Sending { .. } => {
                self.state = State::Waiting { since: now };
                self.excused = Duration::ZERO;
                Some(self.set(now, now + self.waits.stall))
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

    /// Whether the wait has been called slow.
    pub(super) fn was_slow(&self) -> bool {
        self.told == Told::Slow
    }

    /// It rings. `moved` counts bytes read from the client and written to the endpoint; until all
    /// is sent, `waits_for_client` says whose turn it is.
    pub(super) fn ring(&mut self, now: Instant, moved: u64, waits_for_client: bool) -> Ring {
        if let State::Sending { since, moved: before, owed } = &mut self.state
            && moved > *before
        {
            // A time that began with a ring heard late is nobody's but ours.
            if waits_for_client && now.saturating_duration_since(self.due) <= LATE {
                *owed += now.saturating_duration_since(*since);
            }
            *owed = owed.saturating_sub(self.waits.paid_by(moved - *before));
            if *owed > self.waits.idle {
                return Ring::ClientIdle;
            }
            (*since, *before) = (now, moved);
            self.excused = Duration::ZERO;
            return Ring::Again(self.set(now, now + self.waits.stall));
        }
        if let Some(again) = self.grant(now) {
            return Ring::Again(again);
        }
        match self.state {
            State::Waiting { since } => {
                let until = self.until(since, self.waits.response);
                if now >= until { Ring::Timeout } else { self.silent(now, since, until) }
            }
            State::Sending { since, .. } => {
                let until = self.until(since, self.waits.idle);
                let next = until.min(now + self.waits.stall);
                match (now >= until, waits_for_client) {
                    (true, true) => Ring::ClientIdle,
                    (true, false) => Ring::Timeout,
                    (false, true) => Ring::Again(self.set(now, next)),
                    (false, false) => self.silent(now, since, next),
                }
            }
        }
    }

    /// The same wait again if the ring is heard late, a few times at most; no timeout is more than
    /// doubled by that.
    fn grant(&mut self, now: Instant) -> Option<Instant> {
        let late = now.saturating_duration_since(self.due);
        if late <= LATE || self.grants >= GRANTS {
            return None;
        }
        self.grants += 1;
        self.excused += late + self.ahead;
        let (since, timeout) = match self.state {
            State::Waiting { since } => (since, self.waits.response),
            State::Sending { since, .. } => (since, self.waits.idle),
        };
        // Whoever slept through all of it looks once more before it accuses anybody.
        let end = (since + 2 * timeout).max(now + self.waits.stall);
        Some(self.set(now, end.min(now + self.ahead)))
    }

    /// The end of a wait that began at `since` and may last for `timeout`.
    fn until(&self, since: Instant, timeout: Duration) -> Instant {
        since + timeout + self.excused.min(timeout)
    }

    /// The endpoint has been silent since then. Rings at `next`, or before if there is more to say.
    fn silent(&mut self, now: Instant, since: Instant, next: Instant) -> Ring {
        let slow_at = since + self.waits.slow + self.excused;
        match self.told {
            Told::Nothing => {
                self.told = Told::Stalled;
                Ring::Stalled(self.set(now, slow_at.min(next)))
            }
            Told::Stalled if now >= slow_at => {
                self.told = Told::Slow;
                Ring::Slow(self.set(now, next))
            }
            Told::Stalled => Ring::Again(self.set(now, slow_at.min(next))),
            Told::Slow => Ring::Again(self.set(now, next)),
        }
    }

    fn set(&mut self, now: Instant, due: Instant) -> Instant {
        (self.due, self.ahead) = (due, due.saturating_duration_since(now));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn patience(now: Instant) -> Patience {
        let (stall, slow, response, idle) = (ms(50), ms(200), ms(1_000), ms(2_000));
        Patience::new(Waits { stall, slow, response, idle, rate: 500 }, now)
    }

    #[test]
    fn silence_is_told_twice_and_ends_with_the_response_timeout() {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        assert_eq!(clock.sent(t0), Some(t0 + ms(50)));
        assert_eq!(clock.sent(t0 + ms(1)), None);
        assert_eq!(clock.ring(t0 + ms(50), 0, false), Ring::Stalled(t0 + ms(200)));
        assert_eq!(clock.ring(t0 + ms(199), 0, false), Ring::Again(t0 + ms(200)));
        assert_eq!(clock.ring(t0 + ms(200), 0, false), Ring::Slow(t0 + ms(1_000)));
        assert_eq!(clock.ring(t0 + ms(999), 0, false), Ring::Again(t0 + ms(1_000)));
        assert_eq!(clock.ring(t0 + ms(1_000), 0, false), Ring::Timeout);
    }

    #[test]
    fn a_wait_beyond_the_response_timeout_is_neither_stalled_nor_slow() {
        let t0 = Instant::now();
        let (stall, slow, response, idle) = (ms(500), ms(900), ms(300), ms(900));
        let waits = Waits { stall, slow, response, idle, rate: 0 };
        let mut clock = Patience::new(waits, t0);
        assert_eq!(clock.sent(t0), Some(t0 + ms(300)));
        assert_eq!(clock.ring(t0 + ms(300), 0, false), Ring::Timeout);
    }

    #[test]
    fn who_hears_the_ring_late_grants_the_wait_again() {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        let _ = clock.sent(t0);
        assert_eq!(clock.ring(t0 + ms(90), 0, false), Ring::Again(t0 + ms(140)));
        assert_eq!(clock.ring(t0 + ms(140), 0, false), Ring::Stalled(t0 + ms(290)));
        assert_eq!(clock.ring(t0 + ms(290), 0, false), Ring::Slow(t0 + ms(1_090)));
        assert_eq!(clock.ring(t0 + ms(1_090), 0, false), Ring::Timeout);
    }

    #[test]
    fn grants_are_few_and_never_double_a_timeout() {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        let mut now = clock.sent(t0).expect("news");
        let mut late = 0;
        loop {
            now += ms(400);
            match clock.ring(now, 0, false) {
                Ring::Again(next) => (late, now) = (late + 1, next),
                Ring::Stalled(next) | Ring::Slow(next) => now = next,
                Ring::Timeout => break,
                Ring::ClientIdle => panic!("nothing is left to send"),
            }
        }
        assert_eq!(late, 3);
        assert!(clock.due() <= t0 + ms(2_000), "{:?}", clock.due() - t0);
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
        assert_eq!(clock.ring(sent + ms(50), 0, false), Ring::Stalled(sent + ms(200)));
    }

    /// One byte in each of `steps` rings, which come `apart`; when it was given up.
    fn drip(rate: u64, waits_for_client: bool, steps: u64) -> Option<u64> {
        let t0 = Instant::now();
        let mut clock = patience(t0);
        clock.waits.rate = rate;
        (1..=steps).find(|step| {
            let now = t0 + ms(50 * step);
            clock.ring(now, 2 * step, waits_for_client) == Ring::ClientIdle
        })
    }

    #[test]
    fn an_upload_that_drips_is_cut_unless_its_endpoint_takes_no_more() {
        // 50 ms are paid off by 25 bytes.
        assert_eq!(drip(500, true, 1_000), Some(42), "24 of 25 are owed, and 2 s are borne");
        assert_eq!(drip(20, true, 1_000), None, "as much as is wanted");
        assert_eq!(drip(500, false, 1_000), None);
        assert_eq!(drip(0, true, 1_000), None);
    }

    #[test]
    fn an_upload_that_stands_still_is_its_clients_or_its_endpoints_fault() {
        let t0 = Instant::now();
        let (mut by_client, mut by_endpoint) = (patience(t0), patience(t0));
        for step in 1..40 {
            let (now, next) = (t0 + ms(50 * step), t0 + ms(50 * step + 50));
            assert_eq!(by_client.ring(now, 0, true), Ring::Again(next));
            let expected = match step {
                1 => Ring::Stalled(next),
                4 => Ring::Slow(next),
                _ => Ring::Again(next),
            };
            assert_eq!(by_endpoint.ring(now, 0, false), expected);
        }
        assert_eq!(by_client.ring(t0 + ms(2_000), 0, true), Ring::ClientIdle);
        assert_eq!(by_endpoint.ring(t0 + ms(2_000), 0, false), Ring::Timeout);
    }
}
