//! How long an attempt waits for its response head, and which side is at fault when none comes.
//!
//! Silence is reported at two bounds before the timeout: at the stall bound (another endpoint may
//! be tried beside this one) and at the slow bound (the attempt counts as failed). The bounds start
//! when the whole request has been handed over. A timer that fires late extends the wait, because
//! the response may lie unread in the socket buffer of a process that was not scheduled.

use std::time::{Duration, Instant};

use crate::logic::model::outcome::FailureReason;

/// A timer that fires later than this means that this process was late, whatever the endpoint did.
const LATE_TIMER_THRESHOLD: Duration = Duration::from_millis(20);

/// How often a late timer extends the wait of one attempt.
const MAX_EXTENSIONS: u32 = 3;

/// The waits of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeouts {
    /// Silence for longer than this is evidence of a stall.
    pub stall: Duration,
    /// Silence for longer than this counts as a failure; at least `stall`.
    pub slow: Duration,
    /// From the request's last byte to the response head.
    pub response: Duration,
    /// Between two pieces of the request's body; also the bound on the total time that its client
    /// keeps the attempt waiting, less what the body pays off at `body_rate`.
    pub idle: Duration,
    /// Bytes of the body that pay off one second of waiting for it; zero means no minimum rate.
    pub body_rate: u64,
}

/// The timer of one attempt. What an expiry means depends on what has moved since the last one.
#[derive(Debug)]
pub struct ResponseTimeout {
    timeouts: AttemptTimeouts,
    phase: AttemptPhase,
    reported: ReportedSilence,
    /// When the timer expires next, and how far ahead that was when it was armed.
    due: Instant,
    interval: Duration,
    /// Time added because of late timers: all later bounds move by as much.
    extension: Duration,
    extension_count: u32,
}

#[derive(Debug)]
enum AttemptPhase {
    /// The request is being sent: `moved_bytes` of it until `since`. Its client has kept the
    /// attempt waiting for `client_delay`.
    Sending { since: Instant, moved_bytes: u64, client_delay: Duration },
    /// The whole request was handed over at `since`.
    Waiting { since: Instant },
}

/// How much silence has been reported; each bound is reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportedSilence {
    Nothing,
    Stalled,
    Slow,
}

/// What an expiry of the timer means. An instant is when the timer expires next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerEvent {
    /// No bound is reached.
    Rearm(Instant),
    /// The endpoint has been silent beyond the stall bound.
    Stalled(Instant),
    /// The endpoint has been silent beyond the slow bound.
    Slow(Instant),
    /// The client has stopped sending, or sends too slowly.
    ClientIdle,
    /// The endpoint has not responded in time.
    Timeout,
}

/// The bound up to which an attempt is waited for without doing anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitLimit {
    /// At the stall bound another endpoint may be tried beside this one.
    Stalled,
    /// At the slow bound the attempt has failed.
    Slow,
    /// The response timeout ends the attempt.
    Timeout,
}

/// What the driver of an attempt does after an expiry of its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStep {
    /// Wait on.
    Wait,
    /// Report the failure as evidence, and wait on.
    Report(FailureReason),
    /// Report the stall as evidence, and consider a hedge; the attempt continues.
    Pause,
    /// The attempt has failed with this reason.
    Fail(FailureReason),
    /// The client is at fault: the request ends.
    ClientIdle,
}

impl WaitLimit {
    /// What `event` means for an attempt that is waited for up to this limit.
    pub fn next_step(self, event: TimerEvent) -> WaitStep {
        match (event, self) {
            (TimerEvent::Rearm(_), _) => WaitStep::Wait,
            (TimerEvent::Stalled(_), Self::Stalled) => WaitStep::Pause,
            (TimerEvent::Stalled(_), Self::Slow | Self::Timeout) => {
                WaitStep::Report(FailureReason::Stall)
            }
            (TimerEvent::Slow(_), Self::Slow) => WaitStep::Fail(FailureReason::Slow),
            (TimerEvent::Slow(_), Self::Stalled | Self::Timeout) => {
                WaitStep::Report(FailureReason::Slow)
            }
            (TimerEvent::ClientIdle, _) => WaitStep::ClientIdle,
            (TimerEvent::Timeout, _) => WaitStep::Fail(FailureReason::Timeout),
        }
    }
}

impl AttemptTimeouts {
    /// The waiting time that `moved_bytes` pay off. Each byte of a body is counted twice: when it
    /// is read and when it is written.
    fn credit_for(&self, moved_bytes: u64) -> Duration {
        match self.body_rate {
            0 => Duration::MAX,
            rate => Duration::from_millis(moved_bytes.saturating_mul(500) / rate),
        }
    }
}

impl ResponseTimeout {
    /// A timer for a request that begins to be sent at `now`.
    pub fn new(timeouts: AttemptTimeouts, now: Instant) -> Self {
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

    /// When the timer expires next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The whole request has been handed over at `now`. Returns the new expiry on the first call.
    pub fn on_request_sent(&mut self, now: Instant) -> Option<Instant> {
        match self.phase {
            AttemptPhase::Waiting { .. } => None,
            AttemptPhase::Sending { .. } => {
                self.phase = AttemptPhase::Waiting { since: now };
                self.extension = Duration::ZERO;
                Some(self.arm(now, now + self.timeouts.stall))
            }
        }
    }

    /// When the whole request had been handed over, if it has been.
    pub fn waiting_since(&self) -> Option<Instant> {
        match self.phase {
            AttemptPhase::Waiting { since } => Some(since),
            AttemptPhase::Sending { .. } => None,
        }
    }

    /// Whether the slow bound has been reported.
    pub fn is_slow(&self) -> bool {
        self.reported == ReportedSilence::Slow
    }

    /// The timer expired. `moved_bytes` counts bytes read from the client and written to the
    /// endpoint; `is_waiting_for_client` matters only until the whole request is sent.
    pub fn on_timer(
        &mut self,
        now: Instant,
        moved_bytes: u64,
        is_waiting_for_client: bool,
    ) -> TimerEvent {
        if let AttemptPhase::Sending { since, moved_bytes: before, client_delay } = &mut self.phase
            && moved_bytes > *before
        {
            // A wait that ended with a late timer is this process's own delay.
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

    /// Extends the wait if the timer fired late: at most [`MAX_EXTENSIONS`] times, and no timeout
    /// is more than doubled by it.
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
        // After a sleep beyond the whole timeout, the socket is read once more before the endpoint
        // is at fault.
        let deadline = (since + 2 * timeout).max(now + self.timeouts.stall);
        Some(self.arm(now, deadline.min(now + self.interval)))
    }

    /// The end of a wait of `timeout` that began at `since`, with its extension.
    fn extended_deadline(&self, since: Instant, timeout: Duration) -> Instant {
        since + timeout + self.extension.min(timeout)
    }

    /// The endpoint has been silent since `since`. The timer expires at `due`, or earlier for the
    /// next bound.
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
        let mut now = timer.on_request_sent(t0).expect("first call");
        let mut extensions = 0;
        loop {
            now += ms(400);
            match timer.on_timer(now, 0, false) {
                TimerEvent::Rearm(next) => (extensions, now) = (extensions + 1, next),
                TimerEvent::Stalled(next) | TimerEvent::Slow(next) => now = next,
                TimerEvent::Timeout => break,
                TimerEvent::ClientIdle => panic!("the request is sent"),
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

    /// Sends one byte before each of `steps` expiries, 50 ms apart. Returns the step at which the
    /// client was found idle.
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
        // At 500 bytes/s, 25 bytes pay off 50 ms.
        assert_eq!(
            drip_until_client_idle(500, true, 1_000),
            Some(42),
            "each step owes 24/25 of 50 ms, up to 2 s"
        );
        assert_eq!(
            drip_until_client_idle(20, true, 1_000),
            None,
            "the body comes at the minimum rate"
        );
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

    #[test]
    fn hedgeable_wait_pauses_at_stall_bound_only() {
        let now = Instant::now();
        let steps = |limit: WaitLimit| {
            [TimerEvent::Rearm(now), TimerEvent::Stalled(now), TimerEvent::Slow(now)]
                .map(|event| limit.next_step(event))
        };
        let (stall, slow) = (FailureReason::Stall, FailureReason::Slow);
        let report = WaitStep::Report;
        assert_eq!(steps(WaitLimit::Stalled), [WaitStep::Wait, WaitStep::Pause, report(slow)]);
        assert_eq!(
            steps(WaitLimit::Slow),
            [WaitStep::Wait, report(stall), WaitStep::Fail(slow)],
            "a trial ends at the slow bound"
        );
        assert_eq!(steps(WaitLimit::Timeout), [WaitStep::Wait, report(stall), report(slow)]);
    }
}
