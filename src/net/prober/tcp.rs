//! Bytes sent and bytes expected, over TCP or TLS.

use std::io::ErrorKind;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::logic::outcome::Reason;
use crate::net::tls_client;

use super::kept::Line;
use super::{Ended, Passed, Progress, Question, Stream, expect};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// Sends `send` and reads until `expect` has come; with neither, being connected is enough.
pub(super) async fn ask(
    question: &Question<'_>,
    send: Option<&[u8]>,
    expect: Option<&[u8]>,
    progress: &Progress,
    mut stream: Box<Stream>,
) -> Passed {
    if let Some(bytes) = send {
        write(&mut stream, progress, bytes).await?;
    }
    if let Some(text) = expect {
        read_until(&mut stream, progress, text, question.spec.read_bytes).await?;
    }
    Ok((false, Some(Line::Bytes(stream))))
}

/// Writes all of `bytes`.
pub(super) async fn write(
    stream: &mut Stream,
    progress: &Progress,
    bytes: &[u8],
) -> Result<(), Ended> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let Err(error) = written.await else { return Ok(()) };
    // Who refuses our certificate says so and closes; the word may be there to be read.
    let mut word = [0; 1];
    let why = stream.read(&mut word).await.err().filter(|why| tls_client::reason_of(why).is_some());
    Err(progress.broken(&why.unwrap_or(error)))
}

async fn read_until(
    stream: &mut Stream,
    progress: &Progress,
    text: &[u8],
    at_most_bytes: usize,
) -> Result<(), Ended> {
    let mut seen = BytesMut::new();
    while seen.len() < at_most_bytes {
        // The text may begin in the piece before, and no earlier.
        let from = seen.len().saturating_sub(text.len().saturating_sub(1));
        if read(stream, &mut seen, progress).await? == 0 {
            let reason = if seen.is_empty() { Reason::Closed } else { Reason::Body };
            return Err(progress.failed(reason));
        }
        seen.truncate(at_most_bytes);
        if expect::contains(&seen[from..], text) {
            return Ok(());
        }
    }
    Err(progress.failed(Reason::Body))
}

/// Reads what is there; zero bytes at the end.
pub(super) async fn read(
    stream: &mut Stream,
    into: &mut BytesMut,
    progress: &Progress,
) -> Result<usize, Ended> {
    if into.capacity() - into.len() < READ_BYTES / 4 {
        into.reserve(READ_BYTES);
    }
    match stream.read_buf(into).await {
        Ok(read) => {
            if read > 0 {
                progress.is_heard.set(true);
            }
            Ok(read)
        }
        // An end of TLS without a word of goodbye is one all the same.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(progress.broken(&error)),
    }
}
