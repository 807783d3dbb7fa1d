//! Bytes sent and bytes expected, over TCP or TLS.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::logic::outcome::Reason;

use super::kept::Line;
use super::{Ended, Passed, Progress, Question, Stream, expect};

/// Bytes asked of the socket at once.
pub(super) const READ_BYTES: usize = 8 * 1024;

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
    let why = stream.read(&mut word).await.err().filter(|why| super::tls::reason_of(why).is_some());
    Err(progress.broken(&why.unwrap_or(error)))
}

async fn read_until(
    stream: &mut Stream,
    progress: &Progress,
    text: &[u8],
    at_most_bytes: usize,
) -> Result<(), Ended> {
    let mut seen = Vec::new();
    while !expect::contains(&seen, text) {
        if seen.len() >= at_most_bytes {
            return Err(progress.failed(Reason::Body));
        }
        let room = READ_BYTES.min(at_most_bytes - seen.len());
        let mut piece = (&mut *stream).take(room as u64);
        match piece.read_buf(&mut seen).await {
            Ok(0) if seen.is_empty() => return Err(progress.failed(Reason::Closed)),
            Ok(0) => return Err(progress.failed(Reason::Body)),
            Ok(_) => progress.is_heard.set(true),
            Err(error) => return Err(progress.broken(&error)),
        }
    }
    Ok(())
}
