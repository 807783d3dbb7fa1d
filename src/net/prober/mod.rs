//! Runs one probe and says how it ended.
//!
//! A probe is one attempt, and further ones while nothing is heard (`again`). Any that passes makes
//! the probe pass; any that meets a definite failure ends it; silence is what all of them heard, in
//! time that this process attended to (`attended`). What goes wrong on this side is void.

mod attempt_schedule;
mod connect;
mod connection_cache;
mod grpc;
mod http1;
mod http2;
mod lingering_close;
mod response_check;
mod retry_schedule;
mod stall_aware_timeout;
mod tcp;
mod tls;

pub use connection_cache::ProbeConnectionCache;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::logic::model::outcome::{Failure, FailureLayer, FailureReason, ProbeOutcome};
use crate::logic::probing::probe::{ProbeKind, ProbeSpec};
use crate::net::tls_client;
use crate::net::upstream::io_failure_reason;

use attempt_schedule::{AttemptSchedule, ProbeStep};
use connection_cache::{ProbeConnection, ProbeTransport};
use lingering_close::LingeringStreams;
use retry_schedule::{ExtraConnections, FutureRace, ProbeRetrySchedule};

/// What a probe calls itself.
const USER_AGENT: &str = "gapless-probe";

/// Attempts of one probe, at most.
const MAX_ATTEMPTS: usize = 5;

type ProbeStream = Either<TcpStream, TlsStream<TcpStream>>;

/// What all probes of one thread share.
#[derive(Debug, Default)]
pub struct Prober {
    tls_configs: tls::TlsConfigCache,
    extra_connections: ExtraConnections,
    lingering: LingeringStreams,
}

/// What is asked, of whom.
struct ProbeContext<'a> {
    extra_connections: &'a ExtraConnections,
    lingering: &'a LingeringStreams,
    spec: &'a ProbeSpec,
    /// The endpoint's own address, which is its name where it has no other.
    address: SocketAddr,
    /// Where the connection goes.
    target: SocketAddr,
    /// What the spec says of TLS, made ready.
    tls: Option<Arc<ClientConfig>>,
    /// When the opening of a connection is repeated.
    connect_delays: &'a [Duration],
}

/// How far an attempt has come.
#[derive(Debug)]
struct ProbeProgress {
    layer: Cell<FailureLayer>,
    /// How long the handshake took.
    handshake_time: Cell<Duration>,
    /// A byte of the answer has come.
    has_response: Cell<bool>,
}

/// An attempt that passed.
struct PassedAttempt {
    is_degraded: bool,
    connection: Option<ProbeConnection>,
}

/// A pass, and whether it is a degraded one; with the connection, if it can carry another probe.
type CheckResult = Result<(bool, Option<ProbeTransport>), AttemptFailure>;

/// An attempt that did not pass.
#[derive(Debug)]
enum AttemptFailure {
    Failed(Failure),
    /// This process lacks descriptors, ports or memory, or its network is down.
    Local,
}

impl Default for ProbeProgress {
    fn default() -> Self {
        Self {
            layer: Cell::new(FailureLayer::Connect),
            handshake_time: Cell::default(),
            has_response: Cell::default(),
        }
    }
}

impl ProbeProgress {
    fn failure(&self, reason: FailureReason) -> AttemptFailure {
        AttemptFailure::Failed(Failure { layer: self.layer.get(), reason })
    }

    fn io_failure(&self, error: &io::Error) -> AttemptFailure {
        if let Some(reason) = tls_client::tls_failure_reason(error) {
            // A refusal of our certificate comes only when the handshake is over on our side.
            return AttemptFailure::Failed(Failure { layer: FailureLayer::Tls, reason });
        }
        if is_local_error(error) {
            return AttemptFailure::Local;
        }
        io_failure_reason(error).map_or(AttemptFailure::Local, |reason| self.failure(reason))
    }
}

/// Whether an error says something of this process or its network and nothing of the endpoint.
fn is_local_error(error: &io::Error) -> bool {
    let is_down =
        matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NetworkUnreachable);
    is_down || io_failure_reason(error).is_none()
}

impl Prober {
    /// Probes `address` as `spec` says, for at most `timeout` of attended time. A connection that
    /// the next probe may use is put into `kept`, which belongs to this endpoint and this probe.
    pub async fn probe(
        &self,
        address: SocketAddr,
        spec: &ProbeSpec,
        timeout: Duration,
        cache: &ProbeConnectionCache,
    ) -> ProbeOutcome {
        self.lingering.close_expired(Instant::now());
        let retries = ProbeRetrySchedule::for_probe(spec, timeout);
        let target = SocketAddr::new(
            spec.address.unwrap_or_else(|| address.ip()),
            spec.port.unwrap_or_else(|| address.port()),
        );
        let connect_delays = &retries.connect_delays;
        // Made before the clock runs: the first one reads the system's certificates.
        let tls = match &spec.tls {
            None => None,
            Some(tls) => match self.tls_configs.get_or_build(tls).await {
                Ok(config) => Some(config),
                Err(error) => {
                    tracing::error!(%error, "no TLS for a probe");
                    return ProbeOutcome::Inconclusive;
                }
            },
        };
        let (extra_connections, lingering) = (&self.extra_connections, &self.lingering);
        let context = ProbeContext {
            extra_connections,
            lingering,
            spec,
            address,
            target,
            tls,
            connect_delays,
        };
        let progress: [ProbeProgress; MAX_ATTEMPTS] = Default::default();
        let mut schedule =
            AttemptSchedule::new(timeout, spec.first_byte_timeout, &retries.attempt_delays);
        let mut race = FutureRace::new();
        race.add(run_attempt(&context, &progress, 0, cache.take(&context)));
        let has_response = || progress.iter().any(|attempt| attempt.has_response.get());
        loop {
            let wakeup = schedule.next_wakeup(has_response());
            let step = tokio::select! {
                biased;
                ended = race.next() => ProbeStep::AttemptEnded(ended),
                () = tokio::time::sleep_until(wakeup.into()) => schedule.on_timer(has_response()),
            };
            match step {
                ProbeStep::AttemptEnded((number, Ok(passed))) => {
                    let outcome = passed.outcome(schedule.attempt_elapsed(number));
                    cache.put(&context, passed.connection);
                    return outcome;
                }
                // The kernel has given up: that attempt heard nothing, and others may.
                ProbeStep::AttemptEnded((
                    _,
                    Err(AttemptFailure::Failed(Failure { reason: FailureReason::Timeout, .. })),
                )) => {}
                ProbeStep::AttemptEnded((_, Err(AttemptFailure::Failed(failure)))) => {
                    return ProbeOutcome::Fail(failure);
                }
                ProbeStep::AttemptEnded((0, Err(AttemptFailure::Local)))
                | ProbeStep::Unattended => return ProbeOutcome::Inconclusive,
                ProbeStep::AttemptEnded((_, Err(AttemptFailure::Local)))
                | ProbeStep::KeepWaiting => {}
                ProbeStep::StartAttempt(number) => {
                    if let Some(permit) = self.extra_connections.try_acquire() {
                        let retry = run_attempt(&context, &progress, number, None);
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
}

impl PassedAttempt {
    fn outcome(&self, latency: Duration) -> ProbeOutcome {
        if self.is_degraded {
            ProbeOutcome::Degraded { latency }
        } else {
            ProbeOutcome::Pass { latency }
        }
    }
}

/// One attempt, on the kept connection if there is one, with its number.
async fn run_attempt(
    context: &ProbeContext<'_>,
    progress: &[ProbeProgress; MAX_ATTEMPTS],
    number: usize,
    cached: Option<ProbeConnection>,
) -> (usize, Result<PassedAttempt, AttemptFailure>) {
    let progress = &progress[number];
    if let Some(connection) = cached {
        let result = run_check(context, progress, connection).await;
        // What became of a connection while nobody used it says nothing of its owner.
        let is_stale =
            matches!(result, Err(AttemptFailure::Failed(_))) && !progress.has_response.get();
        if !is_stale {
            return (number, result);
        }
    }
    (number, attempt_on_new_connection(context, progress).await)
}

/// One attempt on a new connection.
async fn attempt_on_new_connection(
    context: &ProbeContext<'_>,
    progress: &ProbeProgress,
) -> Result<PassedAttempt, AttemptFailure> {
    progress.layer.set(FailureLayer::Connect);
    let stream = connect::connect(context).await.map_err(|error| progress.io_failure(&error))?;
    let stream = match &context.tls {
        Some(tls) => {
            progress.layer.set(FailureLayer::Tls);
            Either::Right(tls::tls_handshake(context, progress, tls, stream).await?)
        }
        None => Either::Left(stream),
    };
    let transport = if context.spec.is_http2() {
        progress.layer.set(FailureLayer::Http);
        ProbeTransport::H2(Box::new(http2::H2ProbeSession::open(progress, stream).await?))
    } else {
        ProbeTransport::ByteStream(Box::new(stream))
    };
    run_check(context, progress, ProbeConnection { opened_at: Instant::now(), transport }).await
}

/// Asks on an open connection.
async fn run_check(
    context: &ProbeContext<'_>,
    progress: &ProbeProgress,
    ProbeConnection { opened_at, transport }: ProbeConnection,
) -> Result<PassedAttempt, AttemptFailure> {
    let set_layer = |layer| progress.layer.set(layer);
    let (is_degraded, transport) = match (&context.spec.kind, transport) {
        (ProbeKind::Tcp { send, expect }, ProbeTransport::ByteStream(stream)) => {
            if send.is_some() || expect.is_some() {
                set_layer(FailureLayer::Tcp);
            }
            tcp::run_probe(context, send.as_deref(), expect.as_deref(), progress, stream).await
        }
        (ProbeKind::Tls, ProbeTransport::ByteStream(stream)) => {
            set_layer(FailureLayer::Tls);
            tls::await_refusal(progress, stream).await
        }
        (ProbeKind::Http(http), ProbeTransport::ByteStream(stream)) => {
            set_layer(FailureLayer::Http);
            http1::run_probe(context, http, progress, stream).await
        }
        (ProbeKind::Http(http), ProbeTransport::H2(session)) => {
            set_layer(FailureLayer::Http);
            http2::run_probe(context, http, progress, session).await
        }
        (ProbeKind::Grpc(grpc), ProbeTransport::H2(session)) => {
            set_layer(FailureLayer::Http);
            grpc::run_probe(context, grpc, progress, session).await
        }
        // What was opened or kept for a probe is of its protocol.
        (_, ProbeTransport::H2(_)) | (ProbeKind::Grpc(_), ProbeTransport::ByteStream(_)) => {
            Err(AttemptFailure::Local)
        }
    }?;
    Ok(PassedAttempt {
        is_degraded,
        connection: transport.map(|line| ProbeConnection { opened_at, transport: line }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn local_errors_are_not_endpoint_failures() {
        let progress = ProbeProgress::default();
        let failure_of = |errno: Errno| progress.io_failure(&io::Error::from(errno));
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::PERM,
        ] {
            assert!(matches!(failure_of(errno), AttemptFailure::Local), "{errno:?}");
        }
        for (errno, reason) in [
            (Errno::CONNREFUSED, FailureReason::Refused),
            (Errno::HOSTUNREACH, FailureReason::Unreachable),
            (Errno::CONNRESET, FailureReason::Reset),
            (Errno::TIMEDOUT, FailureReason::Timeout),
        ] {
            let AttemptFailure::Failed(failure) = failure_of(errno) else { panic!("{errno:?}") };
            assert_eq!(failure, Failure { layer: FailureLayer::Connect, reason });
        }
    }
}
