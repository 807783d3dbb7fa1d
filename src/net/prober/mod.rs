//! Runs one probe and says how it ended.
//!
//! A probe is one attempt, and further ones while nothing is heard (`again`). Any that passes makes
//! the probe pass; any that meets a definite failure ends it; silence is what all of them heard, in
//! time that this process attended to (`attended`). What goes wrong on this side is void.

mod again;
mod attended;
mod connect;
mod expect;
mod fading;
mod grpc;
mod http1;
mod http2;
mod kept;
mod tcp;
mod tls;
mod wait;

pub use kept::Kept;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::logic::outcome::{Failure, Layer, Outcome, Reason};
use crate::logic::probe::{ProbeKind, ProbeSpec};
use crate::net::tls_client;
use crate::net::upstream::reason_of;

use again::{Again, Race, Spare};
use fading::Fading;
use kept::{Line, Open};
use wait::{Next, Wait};

/// What a probe calls itself.
const USER_AGENT: &str = "gapless-probe";

/// Attempts of one probe, at most.
const ATTEMPTS: usize = 5;

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// What all probes of one thread share.
#[derive(Debug, Default)]
pub struct Prober {
    tls: tls::Configs,
    spare: Spare,
    fading: Fading,
}

/// What is asked, of whom.
struct Question<'a> {
    spare: &'a Spare,
    fading: &'a Fading,
    spec: &'a ProbeSpec,
    /// The endpoint's own address, which is its name where it has no other.
    address: SocketAddr,
    /// Where the connection goes.
    target: SocketAddr,
    /// What the spec says of TLS, made ready.
    tls: Option<Arc<ClientConfig>>,
    /// When the opening of a connection is repeated.
    openings: &'a [Duration],
}

/// How far an attempt has come.
#[derive(Debug)]
struct Progress {
    layer: Cell<Layer>,
    /// How long the handshake took.
    handshake: Cell<Duration>,
    /// A byte of the answer has come.
    is_heard: Cell<bool>,
}

/// An attempt that passed.
struct Answer {
    is_degraded: bool,
    open: Option<Open>,
}

/// A pass, and whether it is a degraded one; with the connection, if it can carry another probe.
type Passed = Result<(bool, Option<Line>), Ended>;

/// An attempt that did not pass.
#[derive(Debug)]
enum Ended {
    Failed(Failure),
    /// This process lacks descriptors, ports or memory, or its network is down.
    Ours,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            layer: Cell::new(Layer::Connect),
            handshake: Cell::default(),
            is_heard: Cell::default(),
        }
    }
}

impl Progress {
    fn failed(&self, reason: Reason) -> Ended {
        Ended::Failed(Failure { layer: self.layer.get(), reason })
    }

    fn broken(&self, error: &io::Error) -> Ended {
        if let Some(reason) = tls_client::reason_of(error) {
            // A refusal of our certificate comes only when the handshake is over on our side.
            return Ended::Failed(Failure { layer: Layer::Tls, reason });
        }
        if is_ours(error) {
            return Ended::Ours;
        }
        reason_of(error).map_or(Ended::Ours, |reason| self.failed(reason))
    }
}

/// Whether an error says something of this process or its network and nothing of the endpoint.
fn is_ours(error: &io::Error) -> bool {
    let is_down =
        matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NetworkUnreachable);
    is_down || reason_of(error).is_none()
}

impl Prober {
    /// Probes `address` as `spec` says, for at most `timeout` of attended time. A connection that
    /// the next probe may use is put into `kept`, which belongs to this endpoint and this probe.
    pub async fn probe(
        &self,
        address: SocketAddr,
        spec: &ProbeSpec,
        timeout: Duration,
        kept: &Kept,
    ) -> Outcome {
        self.fading.close(Instant::now());
        let again = Again::of(spec, timeout);
        let target = SocketAddr::new(
            spec.address.unwrap_or_else(|| address.ip()),
            spec.port.unwrap_or_else(|| address.port()),
        );
        let openings = &again.openings;
        // Made before the clock runs: the first one reads the system's certificates.
        let tls = match &spec.tls {
            None => None,
            Some(tls) => match self.tls.of(tls).await {
                Ok(config) => Some(config),
                Err(error) => {
                    tracing::error!(%error, "no TLS for a probe");
                    return Outcome::Void;
                }
            },
        };
        let (spare, fading) = (&self.spare, &self.fading);
        let question = Question { spare, fading, spec, address, target, tls, openings };
        let progress: [Progress; ATTEMPTS] = Default::default();
        let mut wait = Wait::new(timeout, spec.first_byte, &again.attempts);
        let mut race = Race::new();
        race.add(attempt(&question, &progress, 0, kept.take(&question)));
        let is_heard = || progress.iter().any(|attempt| attempt.is_heard.get());
        loop {
            let ring = wait.plan(is_heard());
            let next = tokio::select! {
                biased;
                ended = race.next() => Next::Ended(ended),
                () = tokio::time::sleep_until(ring.into()) => wait.rang(is_heard()),
            };
            match next {
                Next::Ended((number, Ok(answer))) => {
                    let outcome = answer.outcome(wait.since_begin_of(number));
                    kept.put(&question, answer.open);
                    return outcome;
                }
                // The kernel has given up: that attempt heard nothing, and others may.
                Next::Ended((_, Err(Ended::Failed(Failure { reason: Reason::Timeout, .. })))) => {}
                Next::Ended((_, Err(Ended::Failed(failure)))) => return Outcome::Fail(failure),
                Next::Ended((0, Err(Ended::Ours))) | Next::Lost => return Outcome::Void,
                Next::Ended((_, Err(Ended::Ours))) | Next::On => {}
                Next::Attempt(number) => {
                    if let Some(taken) = self.spare.take() {
                        let attempt = attempt(&question, &progress, number, None);
                        race.add(taken.during(attempt));
                    }
                }
                Next::Silent => {
                    let furthest = progress.iter().map(|attempt| attempt.layer.get()).max();
                    let layer = furthest.unwrap_or(Layer::Connect);
                    return Outcome::Fail(Failure { layer, reason: Reason::Timeout });
                }
            }
        }
    }
}

impl Answer {
    fn outcome(&self, latency: Duration) -> Outcome {
        if self.is_degraded { Outcome::Degraded { latency } } else { Outcome::Pass { latency } }
    }
}

/// One attempt, on the kept connection if there is one, with its number.
async fn attempt(
    question: &Question<'_>,
    progress: &[Progress; ATTEMPTS],
    number: usize,
    kept: Option<Open>,
) -> (usize, Result<Answer, Ended>) {
    let progress = &progress[number];
    if let Some(open) = kept {
        let answer = ask(question, progress, open).await;
        // What became of a connection while nobody used it says nothing of its owner.
        let is_stale = matches!(answer, Err(Ended::Failed(_))) && !progress.is_heard.get();
        if !is_stale {
            return (number, answer);
        }
    }
    (number, anew(question, progress).await)
}

/// One attempt on a new connection.
async fn anew(question: &Question<'_>, progress: &Progress) -> Result<Answer, Ended> {
    progress.layer.set(Layer::Connect);
    let stream = connect::connect(question).await.map_err(|error| progress.broken(&error))?;
    let stream = match &question.tls {
        Some(tls) => {
            progress.layer.set(Layer::Tls);
            Either::Right(tls::shake_hands(question, progress, tls, stream).await?)
        }
        None => Either::Left(stream),
    };
    let line = if question.spec.speaks_h2() {
        progress.layer.set(Layer::Http);
        Line::H2(Box::new(http2::Session::open(progress, stream).await?))
    } else {
        Line::Bytes(Box::new(stream))
    };
    ask(question, progress, Open { since: Instant::now(), line }).await
}

/// Asks on an open connection.
async fn ask(
    question: &Question<'_>,
    progress: &Progress,
    Open { since, line }: Open,
) -> Result<Answer, Ended> {
    let at = |layer| progress.layer.set(layer);
    let (is_degraded, line) = match (&question.spec.kind, line) {
        (ProbeKind::Tcp { send, expect }, Line::Bytes(stream)) => {
            if send.is_some() || expect.is_some() {
                at(Layer::Tcp);
            }
            tcp::ask(question, send.as_deref(), expect.as_deref(), progress, stream).await
        }
        (ProbeKind::Tls, Line::Bytes(stream)) => {
            at(Layer::Tls);
            tls::await_refusal(progress, stream).await
        }
        (ProbeKind::Http(http), Line::Bytes(stream)) => {
            at(Layer::Http);
            http1::ask(question, http, progress, stream).await
        }
        (ProbeKind::Http(http), Line::H2(session)) => {
            at(Layer::Http);
            http2::ask(question, http, progress, session).await
        }
        (ProbeKind::Grpc(grpc), Line::H2(session)) => {
            at(Layer::Http);
            grpc::ask(question, grpc, progress, session).await
        }
        // What was opened or kept for a probe is of its protocol.
        (_, Line::H2(_)) | (ProbeKind::Grpc(_), Line::Bytes(_)) => Err(Ended::Ours),
    }?;
    Ok(Answer { is_degraded, open: line.map(|line| Open { since, line }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn what_this_side_lacks_is_void() {
        let progress = Progress::default();
        let ended = |errno: Errno| progress.broken(&io::Error::from(errno));
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
            assert!(matches!(ended(errno), Ended::Ours), "{errno:?}");
        }
        for (errno, reason) in [
            (Errno::CONNREFUSED, Reason::Refused),
            (Errno::HOSTUNREACH, Reason::Unreachable),
            (Errno::CONNRESET, Reason::Reset),
            (Errno::TIMEDOUT, Reason::Timeout),
        ] {
            let Ended::Failed(failure) = ended(errno) else { panic!("{errno:?}") };
            assert_eq!(failure, Failure { layer: Layer::Connect, reason });
        }
    }
}
