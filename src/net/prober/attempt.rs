//! One attempt of a probe: opens a connection or reuses one, and runs the check on it.

use std::time::{Duration, Instant};

use tokio_util::either::Either;

use crate::logic::model::outcome::{FailureLayer, ProbeOutcome};
use crate::logic::probing::probe::ProbeKind;

use super::connection::{PassedCheck, ProbeConnection, ProbeTransport};
use super::context::ProbeContext;
use super::h2_session::H2ProbeSession;
use super::progress::{AttemptFailure, ProbeProgress};
use super::{connect, grpc, http1, http2, tcp, tls};

/// Attempts of one probe, at most.
pub(super) const MAX_ATTEMPTS: usize = 5;

/// An attempt that passed.
pub(super) struct PassedAttempt {
    is_degraded: bool,
    pub(super) connection: Option<ProbeConnection>,
}

/// An attempt that has ended.
pub(super) struct FinishedAttempt {
    pub(super) number: usize,
    pub(super) result: Result<PassedAttempt, AttemptFailure>,
}

impl PassedAttempt {
    pub(super) fn outcome(&self, latency: Duration) -> ProbeOutcome {
        if self.is_degraded {
            ProbeOutcome::Degraded { latency }
        } else {
            ProbeOutcome::Pass { latency }
        }
    }
}

/// Runs attempt `number`, on the cached connection if there is one.
pub(super) async fn run_attempt(
    context: &ProbeContext<'_>,
    progress: &[ProbeProgress; MAX_ATTEMPTS],
    number: usize,
    cached: Option<ProbeConnection>,
) -> FinishedAttempt {
    let progress = &progress[number];
    if let Some(connection) = cached {
        let result = run_check(context, progress, connection).await;
        // A cached connection that failed without a response proves nothing: a new one decides.
        let is_stale =
            matches!(result, Err(AttemptFailure::Failed(_))) && !progress.has_response.get();
        if !is_stale {
            return FinishedAttempt { number, result };
        }
    }
    FinishedAttempt { number, result: attempt_on_new_connection(context, progress).await }
}

/// Opens a connection and runs the check on it.
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
        ProbeTransport::H2(Box::new(H2ProbeSession::open(progress, stream).await?))
    } else {
        ProbeTransport::ByteStream(Box::new(stream))
    };
    run_check(context, progress, ProbeConnection { opened_at: Instant::now(), transport }).await
}

/// Runs the check on an open connection.
async fn run_check(
    context: &ProbeContext<'_>,
    progress: &ProbeProgress,
    ProbeConnection { opened_at, transport }: ProbeConnection,
) -> Result<PassedAttempt, AttemptFailure> {
    let set_layer = |layer| progress.layer.set(layer);
    let PassedCheck { is_degraded, transport } = match (&context.spec.kind, transport) {
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
        // The protocol of a connection is that of its probe.
        (_, ProbeTransport::H2(_)) | (ProbeKind::Grpc(_), ProbeTransport::ByteStream(_)) => {
            Err(AttemptFailure::Local)
        }
    }?;
    let connection = transport.map(|transport| ProbeConnection { opened_at, transport });
    Ok(PassedAttempt { is_degraded, connection })
}
