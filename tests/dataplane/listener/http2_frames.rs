//! HTTP/2 on raw frames, as no library sends them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::support::client::TestClient;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// Fields to be sent.
pub(crate) type H2Fields<'a> = &'a [(&'a [u8], &'a [u8])];

#[derive(Debug)]
pub(crate) struct H2Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// An encoded frame.
pub(crate) fn encode_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, each literal, without Huffman's code and never indexed (RFC 7541 6.2.3).
pub(crate) fn encode_fields(fields: H2Fields<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        for text in [name, value] {
            // An integer with a prefix of seven bits.
            let mut length = text.len();
            if length < 127 {
                out.push(u8::try_from(length).expect("short"));
            } else {
                out.push(127);
                length -= 127;
                while length >= 128 {
                    out.push(u8::try_from(length % 128).expect("short") | 128);
                    length /= 128;
                }
                out.push(u8::try_from(length).expect("short"));
            }
            out.extend_from_slice(text);
        }
    }
    out
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// An answer with this status.
    Response(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, or just the end.
    ConnectionClosed(Option<u32>),
}

/// A connection that has begun with HTTP/2 in cleartext.
pub(crate) struct RawH2Client {
    pub(crate) client: TestClient,
    last_stream_id: u32,
}

impl RawH2Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut client = TestClient::open(address);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.send([&preface[..], &encode_frame(SETTINGS, 0, 0, b"")].concat()).expect("sent");
        Self { client, last_stream_id: 0 }
    }

    /// The next frame of interest; settings and pings are left out.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<H2Frame>> {
        loop {
            let head = match self.client.wire.read_exact(9) {
                Ok(head) => head,
                Err(error) if is_connection_end(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.client.wire.read_exact(length)?;
            let frame = H2Frame { kind: head[3], flags: head[4], stream, payload };
            let is_own_ping = frame.kind == PING && frame.flags & ACK != 0;
            if frame.kind != SETTINGS && (frame.kind != PING || is_own_ping) {
                return Ok(Some(frame));
            }
        }
    }

    /// A new stream's number.
    pub(crate) fn next_stream_id(&mut self) -> u32 {
        self.last_stream_id = if self.last_stream_id == 0 { 1 } else { self.last_stream_id + 2 };
        self.last_stream_id
    }

    /// Sends a request, with a body in frames of DATA if there are any; how it ended.
    pub(crate) fn send_request(&mut self, fields: H2Fields<'_>, body: &[&[u8]]) -> StreamEnd {
        let stream = self.next_stream_id();
        let end = if body.is_empty() { END_STREAM } else { 0 };
        let mut bytes = encode_frame(HEADERS, END_HEADERS | end, stream, &encode_fields(fields));
        for (at, piece) in body.iter().enumerate() {
            let end = if at + 1 == body.len() { END_STREAM } else { 0 };
            bytes.extend(encode_frame(DATA, end, stream, piece));
        }
        // The connection may be closed already while this is sent.
        let _ = self.client.send(bytes);
        self.stream_end(stream)
    }

    /// How a stream ends.
    pub(crate) fn stream_end(&mut self, stream: u32) -> StreamEnd {
        let mut goaway = None;
        while let Ok(Some(frame)) = self.next_frame() {
            let code = |at: usize| {
                let bytes = frame.payload[at..at + 4].try_into().expect("four");
                u32::from_be_bytes(bytes)
            };
            match frame.kind {
                GOAWAY => goaway = Some(code(4)),
                RST_STREAM if frame.stream == stream => return StreamEnd::Reset(code(0)),
                HEADERS if frame.stream == stream => {
                    return StreamEnd::Response(decode_status(&frame));
                }
                _ => {}
            }
        }
        StreamEnd::ConnectionClosed(goaway)
    }

    /// Waits until all that was sent before has been read.
    pub(crate) fn wait_for_ping(&mut self) -> io::Result<()> {
        self.client.send(encode_frame(PING, 0, 0, b"settled!"))?;
        while let Some(frame) = self.next_frame()? {
            if frame.kind == PING {
                return Ok(());
            }
        }
        Err(ErrorKind::UnexpectedEof.into())
    }
}

fn is_connection_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// The status, which comes first: indexed, or literal after an indexed name (RFC 7541 A).
fn decode_status(frame: &H2Frame) -> u16 {
    let payload = &frame.payload;
    match payload[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A name of the table, then the value; Huffman's code has digits in five or six bits.
        _ => {
            let length = usize::from(payload[1] & 0x7f);
            let value = &payload[2..2 + length];
            if payload[1] & 0x80 == 0 {
                return String::from_utf8_lossy(value).parse().expect("a status");
            }
            decode_huffman_digits(value)
        }
    }
}

/// Digits in Huffman's code (RFC 7541 B): 0 to 2 have five bits, the others six.
fn decode_huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect();
    let (mut at, mut number) = (0, 0);
    let take = |at: usize, count: usize| {
        let bits = bits.get(at..at + count)?;
        Some(bits.iter().fold(0_u16, |sum, bit| sum * 2 + u16::from(*bit)))
    };
    for _ in 0..3 {
        let short = take(at, 5).expect("a digit");
        if short < 3 {
            (number, at) = (number * 10 + short, at + 5);
        } else {
            let long = take(at, 6).expect("a digit");
            assert!((0x19..=0x1f).contains(&long), "{long:x}");
            (number, at) = (number * 10 + long - 0x19 + 3, at + 6);
        }
    }
    number
}
