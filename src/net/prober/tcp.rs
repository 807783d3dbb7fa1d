//! Bytes sent and bytes expected, over TCP or TLS.

use std::io::ErrorKind;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::logic::model::outcome::FailureReason;
use crate::net::tls_client;

use super::connection_cache::ProbeTransport;
use super::{
    AttemptFailure, CheckResult, ProbeContext, ProbeProgress, ProbeStream, response_check,
};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// Sends `send` and reads until `expect` has come; with neither, being connected is enough.
pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    send: Option<&[u8]>,
    expect: Option<&[u8]>,
    progress: &ProbeProgress,
    mut stream: Box<ProbeStream>,
) -> CheckResult {
    if let Some(bytes) = send {
        write_all(&mut stream, progress, bytes).await?;
    }
    if let Some(text) = expect {
        read_until_text(&mut stream, progress, text, context.spec.max_body_bytes).await?;
    }
    Ok((false, Some(ProbeTransport::ByteStream(stream))))
}

/// Writes all of `bytes`.
pub(super) async fn write_all(
    stream: &mut ProbeStream,
    progress: &ProbeProgress,
    bytes: &[u8],
) -> Result<(), AttemptFailure> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let Err(error) = written.await else { return Ok(()) };
    // Who refuses our certificate says so and closes; the word may be there to be read.
    let mut byte = [0; 1];
    let tls_error = stream
        .read(&mut byte)
        .await
        .err()
        .filter(|why| tls_client::tls_failure_reason(why).is_some());
    Err(progress.io_failure(&tls_error.unwrap_or(error)))
}

async fn read_until_text(
    stream: &mut ProbeStream,
    progress: &ProbeProgress,
    text: &[u8],
    max_bytes: usize,
) -> Result<(), AttemptFailure> {
    let mut received = BytesMut::new();
    while received.len() < max_bytes {
        // The text may begin in the piece before, and no earlier.
        let from = received.len().saturating_sub(text.len().saturating_sub(1));
        if read_some(stream, &mut received, progress).await? == 0 {
            let reason =
                if received.is_empty() { FailureReason::Closed } else { FailureReason::Body };
            return Err(progress.failure(reason));
        }
        received.truncate(max_bytes);
        if response_check::has_subslice(&received[from..], text) {
            return Ok(());
        }
    }
    Err(progress.failure(FailureReason::Body))
}

/// Reads what is there; zero bytes at the end.
pub(super) async fn read_some(
    stream: &mut ProbeStream,
    into: &mut BytesMut,
    progress: &ProbeProgress,
) -> Result<usize, AttemptFailure> {
    if into.capacity() - into.len() < READ_BYTES / 4 {
        into.reserve(READ_BYTES);
    }
    match stream.read_buf(into).await {
        Ok(read) => {
            if read > 0 {
                progress.has_response.set(true);
            }
            Ok(read)
        }
        // An end of TLS without a word of goodbye is one all the same.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(progress.io_failure(&error)),
    }
}
