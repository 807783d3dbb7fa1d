//! How long a response head is awaited, and whose fault it is when it does not come.

use std::time::{Duration, Instant};

/// A ring that is heard later than this says that this process was late, whatever the endpoint did:
/// its answer may lie there unread.
const LATE_TIMER_THRESHOLD: Duration = Duration::from_millis(20);

/// How often one try is granted its wait again for that.
const MAX_EXTENSIONS: u32 = 3;

/// The waits of one try.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptTimeouts {
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
    pub(super) body_rate: u64,
}

/// The clock of one try. It rings; what a ring means depends on what has moved since the last.
#[derive(Debug)]
pub(super) struct ResponseTimeout {
    timeouts: AttemptTimeouts,
    phase: AttemptPhase,
    reported: ReportedSilence,
    /// When it is to ring next, and how long that was ahead when it was set.
    due: Instant,
    interval: Duration,
    /// Waits that were granted again: all later marks move by as much.
    extension: Duration,
    extension_count: u32,
}

#[derive(Debug)]
enum AttemptPhase {
    /// The request is on its way; `moved` bytes of it at `since`. Its client has kept us waiting for
    /// `owed`.
    Sending { since: Instant, moved_bytes: u64, client_delay: Duration },
    /// All of it was handed over.
    Waiting { since: Instant },
}

/// What has been said of the wait; each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportedSilence {
    Nothing,
    Stalled,
    Slow,
}

/// What a ring means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerEvent {
    /// Nothing yet: ring again then.
    Rearm(Instant),
    /// The endpoint is silent for longer than it ever is. Ring again then.
    Stalled(Instant),
    /// It is silent for many times longer. Ring again then.
    Slow(Instant),
    /// The client has not sent on.
    ClientIdle,
    /// The endpoint has not answered in time.
    Timeout,
}

impl AttemptTimeouts {
    /// What `moved` bytes pay off; each byte of a body is counted when it comes and when it goes.
    fn credit_for(&self, moved_bytes: u64) -> Duration {
        match self.body_rate {
            0 => Duration::MAX,
            rate => Duration::from_millis(moved_bytes.saturating_mul(500) / rate),
        }
    }
}

impl ResponseTimeout {
    /// A clock that starts now.
    pub(super) fn new(timeouts: AttemptTimeouts, now: Instant) -> Self {
        let stall = timeouts.stall.min(timeouts.response);
        let slow = timeouts.slow.min(timeouts.response);
        Self {
            timeouts: AttemptTimeouts { stall, slow, ..timeouts },
            phase: AttemptPhase::Sending {
                since: now,
                moved_bytes: 0,
                client_delay: Duration::ZERO,
            },
            reported: ReportedSilence::Nothing,
            due: now + stall,
            interval: stall,
            extension: Duration::ZERO,
            extension_count: 0,
        }
    }

    /// When it rings next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// All of the request has been handed over, at `now`; when to ring if this is news.
    pub(super) fn on_request_sent(&mut self, now: Instant) -> Option<Instant> {
        match self.phase {
            AttemptPhase::Waiting { .. } => None,
            AttemptPhase::Sending { .. } => {
                self.phase = AttemptPhase::Waiting { since: now };
                self.extension = Duration::ZERO;
                Some(self.arm(now, now + self.timeouts.stall))
            }
        }
    }

    /// Since when nothing but the endpoint is awaited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match self.phase {
            AttemptPhase::Waiting { since } => Some(since),
            AttemptPhase::Sending { .. } => None,
        }
    }

    /// Whether the wait has been called slow.
    pub(super) fn is_slow(&self) -> bool {
        self.reported == ReportedSilence::Slow
    }

    /// It rings. `moved` counts bytes read from the client and written to the endpoint; until all
    /// is sent, `waits_for_client` says whose turn it is.
    pub(super) fn on_timer(
        &mut self,
        now: Instant,
        moved_bytes: u64,
        is_waiting_for_client: bool,
    ) -> TimerEvent {
        if let AttemptPhase::Sending { since, moved_bytes: before, client_delay } = &mut self.phase
            && moved_bytes > *before
        {
            // A time that began with a ring heard late is nobody's but ours.
            if is_waiting_for_client
                && now.saturating_duration_since(self.due) <= LATE_TIMER_THRESHOLD
            {
                *client_delay += now.saturating_duration_since(*since);
            }
            *client_delay =
                client_delay.saturating_sub(self.timeouts.credit_for(moved_bytes - *before));
            if *client_delay > self.timeouts.idle {
                return TimerEvent::ClientIdle;
            }
            (*since, *before) = (now, moved_bytes);
            self.extension = Duration::ZERO;
            return TimerEvent::Rearm(self.arm(now, now + self.timeouts.stall));
        }
        if let Some(due) = self.extend_if_late(now) {
            return TimerEvent::Rearm(due);
        }
        match self.phase {
            AttemptPhase::Waiting { since } => {
                let deadline = self.extended_deadline(since, self.timeouts.response);
                if now >= deadline {
                    TimerEvent::Timeout
                } else {
                    self.on_silence(now, since, deadline)
                }
            }
            AttemptPhase::Sending { since, .. } => {
                let deadline = self.extended_deadline(since, self.timeouts.idle);
                let due = deadline.min(now + self.timeouts.stall);
                match (now >= deadline, is_waiting_for_client) {
                    (true, true) => TimerEvent::ClientIdle,
                    (true, false) => TimerEvent::Timeout,
                    (false, true) => TimerEvent::Rearm(self.arm(now, due)),
                    (false, false) => self.on_silence(now, since, due),
                }
            }
        }
    }

    /// The same wait again if the ring is heard late, a few times at most; no timeout is more than
    /// doubled by that.
    fn extend_if_late(&mut self, now: Instant) -> Option<Instant> {
        let lateness = now.saturating_duration_since(self.due);
        if lateness <= LATE_TIMER_THRESHOLD || self.extension_count >= MAX_EXTENSIONS {
            return None;
        }
        self.extension_count += 1;
        self.extension += lateness + self.interval;
        let (since, timeout) = match self.phase {
            AttemptPhase::Waiting { since } => (since, self.timeouts.response),
            AttemptPhase::Sending { since, .. } => (since, self.timeouts.idle),
        };
        // Whoever slept through all of it looks once more before it accuses anybody.
        let deadline = (since + 2 * timeout).max(now + self.timeouts.stall);
        Some(self.arm(now, deadline.min(now + self.interval)))
    }

    /// The end of a wait that began at `since` and may last for `timeout`.
    fn extended_deadline(&self, since: Instant, timeout: Duration) -> Instant {
        since + timeout + self.extension.min(timeout)
    }

    /// The endpoint has been silent since then. Rings at `next`, or before if there is more to say.
    fn on_silence(&mut self, now: Instant, since: Instant, due: Instant) -> TimerEvent {
        let slow_at = since + self.timeouts.slow + self.extension;
        match self.reported {
            ReportedSilence::Nothing => {
                self.reported = ReportedSilence::Stalled;
                TimerEvent::Stalled(self.arm(now, slow_at.min(due)))
            }
            ReportedSilence::Stalled if now >= slow_at => {
                self.reported = ReportedSilence::Slow;
                TimerEvent::Slow(self.arm(now, due))
            }
            ReportedSilence::Stalled => TimerEvent::Rearm(self.arm(now, slow_at.min(due))),
            ReportedSilence::Slow => TimerEvent::Rearm(self.arm(now, due)),
        }
    }

    fn arm(&mut self, now: Instant, due: Instant) -> Instant {
        (self.due, self.interval) = (due, due.saturating_duration_since(now));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn response_timeout(now: Instant) -> ResponseTimeout {
        let (stall, slow, response, idle) = (ms(50), ms(200), ms(1_000), ms(2_000));
        ResponseTimeout::new(AttemptTimeouts { stall, slow, response, idle, body_rate: 500 }, now)
    }

    #[test]
    fn silence_is_reported_twice_then_times_out() {
        let t0 = Instant::now();
        let mut timer = response_timeout(t0);
        assert_eq!(timer.on_request_sent(t0), Some(t0 + ms(50)));
        assert_eq!(timer.on_request_sent(t0 + ms(1)), None);
        assert_eq!(timer.on_timer(t0 + ms(50), 0, false), TimerEvent::Stalled(t0 + ms(200)));
        assert_eq!(timer.on_timer(t0 + ms(199), 0, false), TimerEvent::Rearm(t0 + ms(200)));
        assert_eq!(timer.on_timer(t0 + ms(200), 0, false), TimerEvent::Slow(t0 + ms(1_000)));
        assert_eq!(timer.on_timer(t0 + ms(999), 0, false), TimerEvent::Rearm(t0 + ms(1_000)));
        assert_eq!(timer.on_timer(t0 + ms(1_000), 0, false), TimerEvent::Timeout);
    }

    #[test]
    fn wait_beyond_response_timeout_is_only_a_timeout() {
        let t0 = Instant::now();
        let (stall, slow, response, idle) = (ms(500), ms(900), ms(300), ms(900));
        let timeouts = AttemptTimeouts { stall, slow, response, idle, body_rate: 0 };
        let mut timer = ResponseTimeout::new(timeouts, t0);
        assert_eq!(timer.on_request_sent(t0), Some(t0 + ms(300)));
        assert_eq!(timer.on_timer(t0 + ms(300), 0, false), TimerEvent::Timeout);
    }

    #[test]
    fn late_timer_extends_the_wait() {
        let t0 = Instant::now();
        let mut timer = response_timeout(t0);
        let _ = timer.on_request_sent(t0);
        assert_eq!(timer.on_timer(t0 + ms(90), 0, false), TimerEvent::Rearm(t0 + ms(140)));
        assert_eq!(timer.on_timer(t0 + ms(140), 0, false), TimerEvent::Stalled(t0 + ms(290)));
        assert_eq!(timer.on_timer(t0 + ms(290), 0, false), TimerEvent::Slow(t0 + ms(1_090)));
        assert_eq!(timer.on_timer(t0 + ms(1_090), 0, false), TimerEvent::Timeout);
    }

    #[test]
    fn extensions_are_few_and_at_most_double_a_timeout() {
        let t0 = Instant::now();
        let mut timer = response_timeout(t0);
        let mut now = timer.on_request_sent(t0).expect("news");
        let mut extensions = 0;
        loop {
            now += ms(400);
            match timer.on_timer(now, 0, false) {
                TimerEvent::Rearm(next) => (extensions, now) = (extensions + 1, next),
                TimerEvent::Stalled(next) | TimerEvent::Slow(next) => now = next,
                TimerEvent::Timeout => break,
                TimerEvent::ClientIdle => panic!("nothing is left to send"),
            }
        }
        assert_eq!(extensions, 3);
        assert!(timer.due() <= t0 + ms(2_000), "{:?}", timer.due() - t0);
    }

    #[test]
    fn moving_upload_is_not_cut_and_keeps_full_timeout() {
        let t0 = Instant::now();
        let mut timer = response_timeout(t0);
        for step in 1..200 {
            let now = t0 + ms(50 * step);
            assert_eq!(
                timer.on_timer(now, step * 1_000, step % 2 == 0),
                TimerEvent::Rearm(now + ms(50))
            );
        }
        let sent = t0 + ms(10_000);
        assert_eq!(timer.on_request_sent(sent), Some(sent + ms(50)));
        assert_eq!(timer.waiting_since(), Some(sent));
        assert_eq!(timer.on_timer(sent + ms(50), 0, false), TimerEvent::Stalled(sent + ms(200)));
    }

    /// One byte in each of `steps` rings, which come `apart`; when it was given up.
    fn drip_until_client_idle(rate: u64, waits_for_client: bool, steps: u64) -> Option<u64> {
        let t0 = Instant::now();
        let mut timer = response_timeout(t0);
        timer.timeouts.body_rate = rate;
        (1..=steps).find(|step| {
            let now = t0 + ms(50 * step);
            timer.on_timer(now, 2 * step, waits_for_client) == TimerEvent::ClientIdle
        })
    }

    #[test]
    fn slow_upload_is_cut_unless_endpoint_blocks_it() {
        // 50 ms are paid off by 25 bytes.
        assert_eq!(
            drip_until_client_idle(500, true, 1_000),
            Some(42),
            "24 of 25 are owed, and 2 s are borne"
        );
        assert_eq!(drip_until_client_idle(20, true, 1_000), None, "as much as is wanted");
        assert_eq!(drip_until_client_idle(500, false, 1_000), None);
        assert_eq!(drip_until_client_idle(0, true, 1_000), None);
    }

    #[test]
    fn stalled_upload_blames_the_side_that_blocks() {
        let t0 = Instant::now();
        let (mut by_client, mut by_endpoint) = (response_timeout(t0), response_timeout(t0));
        for step in 1..40 {
            let (now, next) = (t0 + ms(50 * step), t0 + ms(50 * step + 50));
            assert_eq!(by_client.on_timer(now, 0, true), TimerEvent::Rearm(next));
            let expected = match step {
                1 => TimerEvent::Stalled(next),
                4 => TimerEvent::Slow(next),
                _ => TimerEvent::Rearm(next),
            };
            assert_eq!(by_endpoint.on_timer(now, 0, false), expected);
        }
        assert_eq!(by_client.on_timer(t0 + ms(2_000), 0, true), TimerEvent::ClientIdle);
        assert_eq!(by_endpoint.on_timer(t0 + ms(2_000), 0, false), TimerEvent::Timeout);
    }
}
