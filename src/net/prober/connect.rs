//! Opens a connection, and repeats the opening while the first one is silent.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::upstream::proxy_header;

use super::context::ProbeContext;
use super::progress::is_local_error;
use super::retry_schedule::FutureRace;

/// Whether a connect is the first one of its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectAttempt {
    First,
    Repeated,
}

/// Returns the first connection that is accepted, or the first definite failure.
pub(super) async fn connect(context: &ProbeContext<'_>) -> io::Result<TcpStream> {
    let began = Instant::now();
    let mut repeat_delays = context.connect_delays.iter().copied();
    let mut next_delay = repeat_delays.next();
    let mut race = FutureRace::new();
    race.add(connect_once(context, ConnectAttempt::First));
    loop {
        let next_connect = began + next_delay.unwrap_or(Duration::ZERO);
        tokio::select! {
            biased;
            (attempt, result) = race.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if attempt == ConnectAttempt::Repeated && is_local_error(&error) => {}
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep_until(next_connect), if next_delay.is_some() => {
                next_delay = repeat_delays.next();
                if let Some(permit) = context.extra_connections.try_acquire() {
                    race.add(permit.hold_during(connect_once(context, ConnectAttempt::Repeated)));
                }
            }
        }
    }
}

async fn connect_once(
    context: &ProbeContext<'_>,
    attempt: ConnectAttempt,
) -> (ConnectAttempt, io::Result<TcpStream>) {
    (attempt, open_stream(context).await)
}

async fn open_stream(context: &ProbeContext<'_>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(context.target).await?;
    // A reset on close leaves no TIME_WAIT on either side; Nagle's algorithm would delay writes.
    let _ = stream.set_zero_linger();
    let _ = stream.set_nodelay(true);
    if let Some(version) = context.spec.proxy_protocol {
        stream.write_all(&proxy_header::encode_local(version)).await?;
    }
    Ok(stream)
}
