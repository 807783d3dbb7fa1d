//! An HTTP check over HTTP/1.1.

use bytes::BytesMut;
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{Method, StatusCode};

use crate::logic::model::outcome::FailureReason;
use crate::logic::probing::probe::HttpProbe;
use crate::net::h1::{self, BodyDecoder, Decoded, ResponseHead};

use super::connection::{CheckResult, PassedCheck, ProbeTransport};
use super::context::{ProbeContext, USER_AGENT};
use super::progress::{AttemptFailure, ProbeProgress};
use super::response_check::ResponseCheck;
use super::stream::{self, ProbeStream};

/// Bytes of a response head, at most.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Initial capacity of the buffers for a request and a response head.
const INITIAL_BUFFER_BYTES: usize = 1024;

/// Informational responses before the final one, at most.
const MAX_INFORMATIONAL: u32 = 16;

pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    progress: &ProbeProgress,
    mut stream: Box<ProbeStream>,
) -> CheckResult {
    let spec = context.spec;
    stream::write_all(&mut stream, progress, &encode_request(context, probe)).await?;
    let mut connection =
        BufferedProbeStream { stream, buffer: BytesMut::with_capacity(INITIAL_BUFFER_BYTES) };
    let head = read_head(&mut connection, &probe.method, progress).await?;
    let result = check_response(context, probe, &head, &mut connection, progress).await;
    let BufferedProbeStream { stream, buffer } = connection;
    let (is_degraded, is_body_complete) = match result {
        Ok(checked) => (checked.is_degraded, checked.is_body_complete),
        Err(failure) => {
            context.lingering.add(stream);
            return Err(failure);
        }
    };
    if !is_body_complete {
        context.lingering.add(stream);
        return Ok(PassedCheck { is_degraded, transport: None });
    }
    let can_reuse = spec.is_connection_reused && head.is_keep_alive && buffer.is_empty();
    let transport = can_reuse.then_some(ProbeTransport::ByteStream(stream));
    Ok(PassedCheck { is_degraded, transport })
}

/// A connection with the bytes that were read from it and not parsed yet.
struct BufferedProbeStream {
    stream: Box<ProbeStream>,
    buffer: BytesMut,
}

impl BufferedProbeStream {
    async fn read_some(&mut self, progress: &ProbeProgress) -> Result<usize, AttemptFailure> {
        stream::read_some(&mut self.stream, &mut self.buffer, progress).await
    }
}

/// A response that passed.
struct CheckedResponse {
    is_degraded: bool,
    is_body_complete: bool,
}

async fn check_response(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    head: &ResponseHead,
    connection: &mut BufferedProbeStream,
    progress: &ProbeProgress,
) -> Result<CheckedResponse, AttemptFailure> {
    let spec = context.spec;
    let mut check = ResponseCheck::new(probe, spec.degraded.as_ref(), spec.max_body_bytes);
    check.check_head(head.status, &head.headers).map_err(|reason| progress.failure(reason))?;
    let mut is_body_complete = false;
    if probe.method == Method::HEAD {
        is_body_complete = true;
    } else if check.should_read_body() || spec.is_connection_reused {
        let mut body = BodyReader {
            decoder: BodyDecoder::new(head.framing),
            max_body_bytes: spec.max_body_bytes,
            should_read_to_end: spec.is_connection_reused,
        };
        is_body_complete = body.read_into(connection, &mut check, progress).await?;
    }
    let is_degraded = check.finish().map_err(|reason| progress.failure(reason))?;
    Ok(CheckedResponse { is_degraded, is_body_complete })
}

fn encode_request(context: &ProbeContext<'_>, probe: &HttpProbe) -> BytesMut {
    let mut wire = BytesMut::with_capacity(INITIAL_BUFFER_BYTES);
    h1::write_request_line(&mut wire, &probe.method, &probe.path);
    match &probe.host {
        Some(host) => h1::write_header(&mut wire, "host", host.as_bytes()),
        None => h1::write_header(&mut wire, "host", context.address.to_string().as_bytes()),
    }
    if !probe.headers.contains_key(USER_AGENT_FIELD) {
        h1::write_header(&mut wire, "user-agent", USER_AGENT.as_bytes());
    }
    for (name, value) in &probe.headers {
        h1::write_header(&mut wire, name.as_str(), value.as_bytes());
    }
    if let Some(body) = &probe.body {
        h1::write_header(&mut wire, "content-length", body.len().to_string().as_bytes());
    }
    if !context.spec.is_connection_reused {
        h1::write_header(&mut wire, "connection", b"close");
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(probe.body.as_deref().unwrap_or_default());
    wire
}

async fn read_head(
    connection: &mut BufferedProbeStream,
    method: &Method,
    progress: &ProbeProgress,
) -> Result<ResponseHead, AttemptFailure> {
    let mut informational = 0;
    loop {
        match h1::parse_response(&mut connection.buffer, method) {
            Err(_) => return Err(progress.failure(FailureReason::Malformed)),
            Ok(Some(head))
                if head.status.is_informational()
                    && head.status != StatusCode::SWITCHING_PROTOCOLS =>
            {
                informational += 1;
                if informational > MAX_INFORMATIONAL {
                    return Err(progress.failure(FailureReason::Malformed));
                }
            }
            Ok(Some(head)) => return Ok(head),
            Ok(None) if connection.buffer.len() > MAX_HEAD_BYTES => {
                return Err(progress.failure(FailureReason::Malformed));
            }
            Ok(None) => {
                if connection.read_some(progress).await? == 0 {
                    return Err(progress.failure(FailureReason::Closed));
                }
            }
        }
    }
}

struct BodyReader {
    decoder: BodyDecoder,
    max_body_bytes: usize,
    /// Whether to read on after the check is decided, so that the connection can be reused.
    should_read_to_end: bool,
}

impl BodyReader {
    /// Passes the body to `check`; returns whether all of it was read.
    async fn read_into(
        &mut self,
        connection: &mut BufferedProbeStream,
        check: &mut ResponseCheck<'_>,
        progress: &ProbeProgress,
    ) -> Result<bool, AttemptFailure> {
        let mut remaining_bytes = self.max_body_bytes;
        loop {
            match self.decoder.decode(&mut connection.buffer) {
                Err(_) => return Err(progress.failure(FailureReason::Malformed)),
                Ok(Decoded::End) => return Ok(true),
                Ok(Decoded::Data(chunk)) => {
                    let should_read_more = check.push_body(&chunk);
                    remaining_bytes = remaining_bytes.saturating_sub(chunk.len());
                    if !should_read_more && !self.should_read_to_end {
                        return Ok(false);
                    }
                    // The bytes in the buffer may hold the end.
                    if remaining_bytes == 0 && self.decoder.remaining() != Some(0) {
                        return Ok(false);
                    }
                }
                Ok(Decoded::NeedMore) => {
                    if connection.read_some(progress).await? == 0 {
                        if self.decoder.is_complete_at_close() {
                            return Ok(false);
                        }
                        return Err(progress.failure(FailureReason::Closed));
                    }
                }
            }
        }
    }
}
