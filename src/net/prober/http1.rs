//! One exchange over HTTP/1.1.

use bytes::BytesMut;
use http::header::USER_AGENT as USER_AGENT_FIELD;
use http::{Method, StatusCode};

use crate::logic::outcome::Reason;
use crate::logic::probe::HttpProbe;
use crate::net::h1::{self, BodyDecoder, Decoded, ResponseHead};

use super::expect::Judge;
use super::kept::Line;
use super::{Ended, Passed, Progress, Question, Stream, USER_AGENT, tcp};

/// Largest head that a probe reads.
const HEAD_BYTES: usize = 64 * 1024;

/// Informational responses before the final one, at most.
const MAX_INFORMATIONAL: u32 = 16;

pub(super) async fn ask(
    question: &Question<'_>,
    probe: &HttpProbe,
    progress: &Progress,
    mut stream: Box<Stream>,
) -> Passed {
    let spec = question.spec;
    tcp::write(&mut stream, progress, &request(question, probe)).await?;
    let mut wire = BytesMut::with_capacity(1024);
    let head = read_head(&mut stream, &mut wire, &probe.method, progress).await?;
    let judged = judge(question, probe, &head, (&mut stream, &mut wire), progress).await;
    let is_over = matches!(judged, Ok((_, true)));
    if !is_over {
        question.fading.put(stream);
        return judged.map(|(is_degraded, _)| (is_degraded, None));
    }
    let keeps = spec.reuse && head.keep_alive && wire.is_empty();
    judged.map(|(is_degraded, _)| (is_degraded, keeps.then_some(Line::Bytes(stream))))
}

/// Whether an answer that passes is a degraded one, and whether it was read to its end.
async fn judge(
    question: &Question<'_>,
    probe: &HttpProbe,
    head: &ResponseHead,
    (stream, wire): (&mut Stream, &mut BytesMut),
    progress: &Progress,
) -> Result<(bool, bool), Ended> {
    let spec = question.spec;
    let mut judge = Judge::new(probe, spec.degraded.as_ref(), spec.read_bytes);
    judge.head(head.status, &head.headers).map_err(|reason| progress.failed(reason))?;
    let mut is_over = false;
    if probe.method == Method::HEAD {
        is_over = true;
    } else if judge.wants_body() || spec.reuse {
        let mut body = Body {
            decoder: BodyDecoder::new(head.framing),
            at_most_bytes: spec.read_bytes,
            to_its_end: spec.reuse,
        };
        is_over = body.read(stream, wire, &mut judge, progress).await?;
    }
    let is_degraded = judge.end().map_err(|reason| progress.failed(reason))?;
    Ok((is_degraded, is_over))
}

fn request(question: &Question<'_>, probe: &HttpProbe) -> BytesMut {
    let mut wire = BytesMut::with_capacity(1024);
    h1::write_request_line(&mut wire, &probe.method, &probe.path);
    match &probe.host {
        Some(host) => h1::write_header(&mut wire, "host", host.as_bytes()),
        None => h1::write_header(&mut wire, "host", question.address.to_string().as_bytes()),
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
    if !question.spec.reuse {
        h1::write_header(&mut wire, "connection", b"close");
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(probe.body.as_deref().unwrap_or_default());
    wire
}

async fn read_head(
    stream: &mut Stream,
    wire: &mut BytesMut,
    method: &Method,
    progress: &Progress,
) -> Result<ResponseHead, Ended> {
    let mut informational = 0;
    loop {
        match h1::parse_response(wire, method) {
            Err(_) => return Err(progress.failed(Reason::Malformed)),
            Ok(Some(head))
                if head.status.is_informational()
                    && head.status != StatusCode::SWITCHING_PROTOCOLS =>
            {
                informational += 1;
                if informational > MAX_INFORMATIONAL {
                    return Err(progress.failed(Reason::Malformed));
                }
            }
            Ok(Some(head)) => return Ok(head),
            Ok(None) if wire.len() > HEAD_BYTES => return Err(progress.failed(Reason::Malformed)),
            Ok(None) => {
                if tcp::read(stream, wire, progress).await? == 0 {
                    return Err(progress.failed(Reason::Closed));
                }
            }
        }
    }
}

struct Body {
    decoder: BodyDecoder,
    at_most_bytes: usize,
    /// Read on when the judge has seen enough.
    to_its_end: bool,
}

impl Body {
    /// Hands the body to `judge`; whether all of it was read.
    async fn read(
        &mut self,
        stream: &mut Stream,
        wire: &mut BytesMut,
        judge: &mut Judge<'_>,
        progress: &Progress,
    ) -> Result<bool, Ended> {
        let mut left = self.at_most_bytes;
        loop {
            match self.decoder.decode(wire) {
                Err(_) => return Err(progress.failed(Reason::Malformed)),
                Ok(Decoded::End) => return Ok(true),
                Ok(Decoded::Data(piece)) => {
                    let wants_more = judge.take(&piece);
                    left = left.saturating_sub(piece.len());
                    if !wants_more && !self.to_its_end {
                        return Ok(false);
                    }
                    // What was read already may hold the end.
                    if left == 0 && self.decoder.remaining() != Some(0) {
                        return Ok(false);
                    }
                }
                Ok(Decoded::More) => {
                    if tcp::read(stream, wire, progress).await? == 0 {
                        if self.decoder.ends_at_close() {
                            return Ok(false);
                        }
                        return Err(progress.failed(Reason::Closed));
                    }
                }
            }
        }
    }
}
