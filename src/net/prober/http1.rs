//! One exchange over HTTP/1.1.

use bytes::BytesMut;
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{Method, StatusCode};

use crate::logic::model::outcome::FailureReason;
use crate::logic::probing::probe::HttpProbe;
use crate::net::h1::{self, BodyDecoder, Decoded, ResponseHead};

use super::connection_cache::ProbeTransport;
use super::response_check::ResponseCheck;
use super::{
    AttemptFailure, CheckResult, ProbeContext, ProbeProgress, ProbeStream, USER_AGENT, tcp,
};

/// Largest head that a probe reads.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Informational responses before the final one, at most.
const MAX_INFORMATIONAL: u32 = 16;

pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    progress: &ProbeProgress,
    mut stream: Box<ProbeStream>,
) -> CheckResult {
    let spec = context.spec;
    tcp::write_all(&mut stream, progress, &encode_request(context, probe)).await?;
    let mut buffer = BytesMut::with_capacity(1024);
    let head = read_head(&mut stream, &mut buffer, &probe.method, progress).await?;
    let checked = check_response(context, probe, &head, (&mut stream, &mut buffer), progress).await;
    let is_body_complete = matches!(checked, Ok((_, true)));
    if !is_body_complete {
        context.lingering.add(stream);
        return checked.map(|(is_degraded, _)| (is_degraded, None));
    }
    let can_reuse = spec.is_connection_reused && head.is_keep_alive && buffer.is_empty();
    checked.map(|(is_degraded, _)| {
        (is_degraded, can_reuse.then_some(ProbeTransport::ByteStream(stream)))
    })
}

/// Whether an answer that passes is a degraded one, and whether it was read to its end.
async fn check_response(
    context: &ProbeContext<'_>,
    probe: &HttpProbe,
    head: &ResponseHead,
    (stream, buffer): (&mut ProbeStream, &mut BytesMut),
    progress: &ProbeProgress,
) -> Result<(bool, bool), AttemptFailure> {
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
        is_body_complete = body.read_into(stream, buffer, &mut check, progress).await?;
    }
    let is_degraded = check.finish().map_err(|reason| progress.failure(reason))?;
    Ok((is_degraded, is_body_complete))
}

fn encode_request(context: &ProbeContext<'_>, probe: &HttpProbe) -> BytesMut {
    let mut wire = BytesMut::with_capacity(1024);
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
    stream: &mut ProbeStream,
    buffer: &mut BytesMut,
    method: &Method,
    progress: &ProbeProgress,
) -> Result<ResponseHead, AttemptFailure> {
    let mut informational = 0;
    loop {
        match h1::parse_response(buffer, method) {
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
            Ok(None) if buffer.len() > MAX_HEAD_BYTES => {
                return Err(progress.failure(FailureReason::Malformed));
            }
            Ok(None) => {
                if tcp::read_some(stream, buffer, progress).await? == 0 {
                    return Err(progress.failure(FailureReason::Closed));
                }
            }
        }
    }
}

struct BodyReader {
    decoder: BodyDecoder,
    max_body_bytes: usize,
    /// Read on when the judge has seen enough.
    should_read_to_end: bool,
}

impl BodyReader {
    /// Hands the body to `judge`; whether all of it was read.
    async fn read_into(
        &mut self,
        stream: &mut ProbeStream,
        buffer: &mut BytesMut,
        check: &mut ResponseCheck<'_>,
        progress: &ProbeProgress,
    ) -> Result<bool, AttemptFailure> {
        let mut remaining_bytes = self.max_body_bytes;
        loop {
            match self.decoder.decode(buffer) {
                Err(_) => return Err(progress.failure(FailureReason::Malformed)),
                Ok(Decoded::End) => return Ok(true),
                Ok(Decoded::Data(chunk)) => {
                    let should_read_more = check.push_body(&chunk);
                    remaining_bytes = remaining_bytes.saturating_sub(chunk.len());
                    if !should_read_more && !self.should_read_to_end {
                        return Ok(false);
                    }
                    // What was read already may hold the end.
                    if remaining_bytes == 0 && self.decoder.remaining() != Some(0) {
                        return Ok(false);
                    }
                }
                Ok(Decoded::NeedMore) => {
                    if tcp::read_some(stream, buffer, progress).await? == 0 {
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
