//! The byte stream of a probe, in cleartext or over TLS.

use std::io::ErrorKind;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::net::tls_client;

use super::progress::{AttemptFailure, ProbeProgress};

pub(super) type ProbeStream = Either<TcpStream, TlsStream<TcpStream>>;

/// Bytes of one read.
const READ_BYTES: usize = 8 * 1024;

/// Writes and flushes all of `bytes`.
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
    // An endpoint that refuses the client certificate sends an alert and closes; read the alert.
    let mut byte = [0; 1];
    let tls_error = stream
        .read(&mut byte)
        .await
        .err()
        .filter(|error| tls_client::tls_failure_reason(error).is_some());
    Err(progress.io_failure(&tls_error.unwrap_or(error)))
}

/// Reads once; returns zero at the end of the stream.
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
        // A TLS stream may end without close_notify.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(progress.io_failure(&error)),
    }
}
