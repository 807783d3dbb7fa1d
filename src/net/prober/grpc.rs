//! The gRPC health checking protocol, `grpc.health.v1.Health/Check`.
//!
//! The two messages have one field each, so that a Protocol Buffers library is not needed. A field
//! is its number and wire type, then its value.

use bytes::{BufMut, Bytes};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, StatusCode};

use crate::logic::model::outcome::{FailureLayer, FailureReason};
use crate::logic::probing::probe::GrpcProbe;

use super::connection::{CheckResult, PassedCheck, ProbeTransport};
use super::context::ProbeContext;
use super::h2_session::{H2ProbeResponse, H2ProbeSession};
use super::http2;
use super::progress::{AttemptFailure, ProbeProgress};

const CHECK_PATH: &str = "/grpc.health.v1.Health/Check";

/// The field with the status of a call: in the trailers or, without a message, in the head.
const GRPC_STATUS: &str = "grpc-status";

/// Bytes of a response message, at most; a serving endpoint sends seven.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// The prefix of a message: its compression flag and its length.
const PREFIX_BYTES: usize = 5;

/// `ServingStatus::SERVING` of the protocol.
const SERVING: u64 = 1;

pub(super) async fn run_probe(
    context: &ProbeContext<'_>,
    probe: &GrpcProbe,
    progress: &ProbeProgress,
    mut session: Box<H2ProbeSession>,
) -> CheckResult {
    let mut headers = HeaderMap::new();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let authority = probe.authority.as_deref();
    let request = http2::build_request(context, &Method::POST, authority, CHECK_PATH, &headers)?;
    let body = Some(Bytes::from(encode_check_request(&probe.service)));
    let H2ProbeResponse { head, mut body } = session.send_request(progress, request, body).await?;
    if head.status() != StatusCode::OK {
        return Err(progress.failure(FailureReason::Status(head.status().as_u16())));
    }
    let content_type = head.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/grpc") {
        return Err(progress.failure(FailureReason::Malformed));
    }
    progress.layer.set(FailureLayer::Grpc);
    let failed = |reason| progress.failure(reason);
    if head.headers().contains_key(GRPC_STATUS) {
        check_grpc_status(head.headers()).map_err(failed)?;
    }
    let message = read_message(progress, &mut session, &mut body).await?;
    let trailers = session.trailers(progress, &mut body).await?;
    check_grpc_status(trailers.as_ref().unwrap_or_else(|| head.headers())).map_err(failed)?;
    match decode_serving_status(&message) {
        Some(SERVING) => {
            let transport = Some(ProbeTransport::H2(session));
            Ok(PassedCheck { is_degraded: false, transport })
        }
        Some(_) => Err(failed(FailureReason::NotServing)),
        None => Err(failed(FailureReason::Malformed)),
    }
}

async fn read_message(
    progress: &ProbeProgress,
    session: &mut H2ProbeSession,
    body: &mut h2::RecvStream,
) -> Result<Vec<u8>, AttemptFailure> {
    let mut message = Vec::new();
    while let Some(chunk) = session.next_chunk(progress, body).await? {
        message.extend_from_slice(&chunk);
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(progress.failure(FailureReason::Malformed));
        }
    }
    Ok(message)
}

/// Checks the status of the call, which is not that of the service.
fn check_grpc_status(fields: &HeaderMap) -> Result<(), FailureReason> {
    let status = fields.get(GRPC_STATUS).and_then(|value| value.to_str().ok()?.parse().ok());
    match status {
        Some(0) => Ok(()),
        Some(code) => Err(FailureReason::GrpcStatus(code)),
        None => Err(FailureReason::Malformed),
    }
}

/// Encodes `HealthCheckRequest { string service = 1 }`, with its prefix.
fn encode_check_request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        write_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = Vec::with_capacity(message.len() + PREFIX_BYTES);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Decodes `HealthCheckResponse { ServingStatus status = 1 }`; `None` if it is malformed.
fn decode_serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, mut message) = framed.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || message.len() != usize::try_from(length).ok()? {
        return None;
    }
    // An absent field has the value zero.
    let mut status = 0;
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = read_varint(&mut message)?,
            (_, 0) => drop(read_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_request_is_encoded_as_protobuf() {
        assert_eq!(encode_check_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(encode_check_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = encode_check_request(&"s".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn check_response_is_decoded_or_rejected() {
        assert_eq!(decode_serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(decode_serving_status(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(decode_serving_status(&[0, 0, 0, 0, 0]), Some(0), "left out");
        let unknown = [0, 0, 0, 0, 9, 0x12, 1, b'x', 8, 1, 0x1d, 0, 0, 0];
        assert_eq!(decode_serving_status(&unknown), None, "cut short");
        let unknown = [0, 0, 0, 0, 10, 0x12, 1, b'x', 8, 1, 0x1d, 0, 0, 0, 0];
        assert_eq!(decode_serving_status(&unknown), Some(1), "unknown fields are skipped");
        assert_eq!(decode_serving_status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(decode_serving_status(&[0, 0, 0, 0, 3, 8, 1]), None, "another length");
        assert_eq!(decode_serving_status(&[0, 0, 0, 0, 2, 8, 0x80]), None, "no end");
        assert_eq!(decode_serving_status(b""), None);
    }
}
