//! Runs one probe and says how it ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::logic::outcome::{Failure, Layer, Outcome, Reason};
use crate::logic::probe::{BodyTest, HttpProbe, ProbeKind, ProbeSpec};
use crate::net::h1::{self, BodyDecoder, Decoded};
use crate::net::upstream::reason_of;

/// Largest head and largest part of a body that a probe reads.
const MAX_READ_BYTES: usize = 64 * 1024;

/// A timeout that rings this much later than it should was heard by a busy observer.
const LATE: Duration = Duration::from_millis(20);

/// Probes `address` as `spec` says, for at most `timeout`.
pub async fn probe(address: SocketAddr, spec: &ProbeSpec, timeout: Duration) -> Outcome {
    let started = Instant::now();
    let mut layer = Layer::Connect;
    let run = attempt(address, spec, &mut layer);
    match tokio::time::timeout(timeout, run).await {
        Ok(Ok(())) => Outcome::Pass { latency: started.elapsed() },
        Ok(Err(Ended::Failed(reason))) => Outcome::Fail(Failure { layer, reason }),
        Ok(Err(Ended::Ours)) => Outcome::Void,
        Err(_) if started.elapsed() > timeout + LATE.max(timeout / 2) => Outcome::Void,
        Err(_) => Outcome::Fail(Failure { layer, reason: Reason::Timeout }),
    }
}

enum Ended {
    Failed(Reason),
    /// This process lacks descriptors, ports or memory.
    Ours,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        reason_of(&error).map_or(Self::Ours, Self::Failed)
    }
}

async fn attempt(address: SocketAddr, spec: &ProbeSpec, layer: &mut Layer) -> Result<(), Ended> {
    let target = SocketAddr::new(address.ip(), spec.port.unwrap_or_else(|| address.port()));
    let mut stream = TcpStream::connect(target).await?;
    // A probe leaves no connection waiting behind, on either side.
    let _ = stream.set_zero_linger();
    *layer = Layer::Http;
    match &spec.kind {
        ProbeKind::Tcp { .. } | ProbeKind::Tls | ProbeKind::Grpc(_) => Ok(()),
        ProbeKind::Http(http) => exchange(&mut stream, address, http).await,
    }
}

async fn exchange(
    stream: &mut TcpStream,
    address: SocketAddr,
    probe: &HttpProbe,
) -> Result<(), Ended> {
    let mut wire = BytesMut::with_capacity(1024);
    h1::write_request_line(&mut wire, &probe.method, &probe.path);
    match &probe.host {
        Some(host) => h1::write_header(&mut wire, "host", host.as_bytes()),
        None => h1::write_header(&mut wire, "host", address.to_string().as_bytes()),
    }
    if !probe.headers.contains_key(http::header::USER_AGENT) {
        h1::write_header(&mut wire, "user-agent", b"gapless-probe");
    }
    for (name, value) in &probe.headers {
        h1::write_header(&mut wire, name.as_str(), value.as_bytes());
    }
    wire.extend_from_slice(b"connection: close\r\n\r\n");
    stream.write_all(&wire).await?;
    wire.clear();
    let head = loop {
        match h1::parse_response(&mut wire, &probe.method) {
            Err(_) => return Err(Ended::Failed(Reason::Malformed)),
            Ok(Some(head)) if head.status.is_informational() => {}
            Ok(Some(head)) => break head,
            Ok(None) => read_some(stream, &mut wire).await?,
        }
    };
    let status = head.status.as_u16();
    if !probe.expect_status.iter().any(|range| range.contains(&status)) {
        return Err(Ended::Failed(Reason::Status(status)));
    }
    match probe.expect_body.first() {
        Some(BodyTest::Contains(text)) if probe.method != Method::HEAD => {
            let decoder = BodyDecoder::new(head.framing);
            expect_body(stream, wire, decoder, text.as_bytes()).await
        }
        _ => Ok(()),
    }
}

/// Reads more, within the bound.
async fn read_some(stream: &mut TcpStream, wire: &mut BytesMut) -> Result<(), Ended> {
    if wire.len() > MAX_READ_BYTES {
        return Err(Ended::Failed(Reason::Malformed));
    }
    match stream.read_buf(wire).await? {
        0 => Err(Ended::Failed(Reason::Closed)),
        _ => Ok(()),
    }
}

async fn expect_body(
    stream: &mut TcpStream,
    mut wire: BytesMut,
    mut decoder: BodyDecoder,
    text: &[u8],
) -> Result<(), Ended> {
    let mut body = Vec::new();
    loop {
        match decoder.decode(&mut wire) {
            Err(_) => return Err(Ended::Failed(Reason::Malformed)),
            Ok(Decoded::End) => return Err(Ended::Failed(Reason::Body)),
            Ok(Decoded::Data(data)) => {
                let (seen, left) = (body.len(), MAX_READ_BYTES - body.len());
                body.extend_from_slice(&data[..data.len().min(left)]);
                // A match may begin in the piece before, and no earlier.
                let from = seen.saturating_sub(text.len().saturating_sub(1));
                if body[from..].windows(text.len().max(1)).any(|window| window == text) {
                    return Ok(());
                }
                if body.len() == MAX_READ_BYTES {
                    return Err(Ended::Failed(Reason::Body));
                }
            }
            Ok(Decoded::More) => match read_some(stream, &mut wire).await {
                Err(Ended::Failed(Reason::Closed)) if decoder.ends_at_close() => {
                    return Err(Ended::Failed(Reason::Body));
                }
                other => other?,
            },
        }
    }
}
