//! Runs one probe and reports its outcome.
//!
//! A probe starts one attempt, and further ones while no response arrives (`retry_schedule`). The
//! first attempt that passes decides, and so does the first definite failure. The probe times out
//! when all attempts were silent for the time in which this process was running
//! (`stall_aware_timeout`). A failure of this process makes the outcome inconclusive.

mod attempt;
mod attempt_schedule;
mod connect;
mod connection;
mod connection_cache;
mod context;
mod grpc;
mod h2_session;
mod http1;
mod http2;
mod lingering_close;
mod progress;
mod response_check;
mod retry_schedule;
mod stall_aware_timeout;
mod stream;
mod tcp;
mod tls;

pub use connection_cache::ProbeConnectionCache;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason, ProbeOutcome};
use crate::logic::probing::probe::ProbeSpec;

use attempt::{FinishedAttempt, MAX_ATTEMPTS, run_attempt};
use attempt_schedule::{AttemptSchedule, ProbeStep};
use context::ProbeContext;
use lingering_close::LingeringStreams;
use progress::{AttemptFailure, ProbeProgress};
use retry_schedule::{ExtraConnections, FutureRace, ProbeRetrySchedule};

/// Runs the probes of one thread.
#[derive(Debug, Default)]
pub struct Prober {
    tls_configs: tls::TlsConfigCache,
    extra_connections: ExtraConnections,
    lingering: LingeringStreams,
}

impl Prober {
    /// Probes `address` as `spec` states. `timeout` counts only time in which this process was
    /// running. A connection that the next probe may reuse goes into `cache`, which belongs to this
    /// endpoint and this probe.
    pub async fn probe(
        &self,
        address: SocketAddr,
        spec: &ProbeSpec,
        timeout: Duration,
        cache: &ProbeConnectionCache,
    ) -> ProbeOutcome {
        self.lingering.close_expired(Instant::now());
        // Built before the timeout starts: the first one reads the system's certificates.
        let tls = match &spec.tls {
            None => None,
            Some(tls) => match self.tls_configs.get_or_build(tls).await {
                Ok(config) => Some(config),
                Err(error) => {
                    tracing::error!(%error, "probe TLS configuration failed");
                    return ProbeOutcome::Inconclusive;
                }
            },
        };
        let retries = ProbeRetrySchedule::for_probe(spec, timeout);
        let context = ProbeContext {
            extra_connections: &self.extra_connections,
            lingering: &self.lingering,
            spec,
            address,
            target: SocketAddr::new(
                spec.address.unwrap_or_else(|| address.ip()),
                spec.port.unwrap_or_else(|| address.port()),
            ),
            tls,
            connect_delays: &retries.connect_delays,
        };
        let schedule =
            AttemptSchedule::new(timeout, spec.first_byte_timeout, &retries.attempt_delays);
        run_attempts(&context, schedule, cache).await
    }
}

/// Runs attempts beside each other until one decides, or all of them time out.
async fn run_attempts(
    context: &ProbeContext<'_>,
    mut schedule: AttemptSchedule<'_>,
    cache: &ProbeConnectionCache,
) -> ProbeOutcome {
    let progress: [ProbeProgress; MAX_ATTEMPTS] = Default::default();
    let mut race = FutureRace::new();
    race.add(run_attempt(context, &progress, 0, cache.take(context)));
    let has_response = || progress.iter().any(|attempt| attempt.has_response.get());
    loop {
        let wakeup = schedule.next_wakeup(has_response());
        let step = tokio::select! {
            biased;
            ended = race.next() => ProbeStep::AttemptEnded(ended),
            () = tokio::time::sleep_until(wakeup.into()) => schedule.on_timer(has_response()),
        };
        match step {
            ProbeStep::AttemptEnded(FinishedAttempt { number, result: Ok(passed) }) => {
                let outcome = passed.outcome(schedule.attempt_elapsed(number));
                cache.put(context, passed.connection);
                return outcome;
            }
            ProbeStep::AttemptEnded(FinishedAttempt {
                result: Err(AttemptFailure::Failed(failure)),
                ..
            }) => {
                // ETIMEDOUT of the kernel: this attempt was silent, others may not be.
                if failure.reason != FailureReason::Timeout {
                    return ProbeOutcome::Fail(failure);
                }
            }
            ProbeStep::AttemptEnded(FinishedAttempt {
                number,
                result: Err(AttemptFailure::Local),
            }) => {
                if number == 0 {
                    return ProbeOutcome::Inconclusive;
                }
            }
            ProbeStep::Unattended => return ProbeOutcome::Inconclusive,
            ProbeStep::KeepWaiting => {}
            ProbeStep::StartAttempt(number) => {
                if let Some(permit) = context.extra_connections.try_acquire() {
                    let retry = run_attempt(context, &progress, number, None);
                    race.add(permit.hold_during(retry));
                }
            }
            ProbeStep::TimedOut => {
                let furthest = progress.iter().map(|attempt| attempt.layer.get()).max();
                let layer = furthest.unwrap_or(FailureLayer::Connect);
                return ProbeOutcome::Fail(Failure { layer, reason: FailureReason::Timeout });
            }
        }
    }
}
