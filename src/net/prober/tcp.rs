//! A TCP check: bytes sent and bytes expected, in cleartext or over TLS.

use bytes::BytesMut;

use crate::logic::model::outcome::FailureReason;

use super::connection::{CheckResult, PassedCheck, ProbeTransport};
use super::context::ProbeContext;
use super::progress::{AttemptFailure, ProbeProgress};
use super::response_check;
use super::stream::{ProbeStream, read_some, write_all};

/// Sends `send` and reads until `expect` has arrived; without both, the connection is enough.
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
    let transport = Some(ProbeTransport::ByteStream(stream));
    Ok(PassedCheck { is_degraded: false, transport })
}

async fn read_until_text(
    stream: &mut ProbeStream,
    progress: &ProbeProgress,
    text: &[u8],
    max_bytes: usize,
) -> Result<(), AttemptFailure> {
    let mut received = BytesMut::new();
    while received.len() < max_bytes {
        // The text may begin in the previous read, and no earlier.
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
