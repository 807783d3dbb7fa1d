//! Responses over HTTP/1.1: the parsed result does not depend on how the bytes are split.

use bytes::BytesMut;
use gapless::net::h1::{BodyDecoder, Decoded, parse_response};
use http::{HeaderMap, Method};

/// The number of leading bytes at which the input is split.
const MAX_CUT_POSITION: usize = 300;

/// The most interim responses before the final one.
const MAX_INTERIM_RESPONSES: usize = 16;

/// The result of parsing some bytes.
#[derive(Debug, Default, PartialEq)]
struct ParsedResponse {
    /// Each head, in debug format.
    heads: Vec<String>,
    fields: Vec<HeaderMap>,
    body: Vec<u8>,
    trailers: Option<Box<HeaderMap>>,
    end: ParseEnd,
}

#[derive(Debug, Default, PartialEq)]
enum ParseEnd {
    /// The response is incomplete, or ends with the connection.
    #[default]
    Open,
    /// The body is complete; these bytes are left.
    Complete(Vec<u8>),
    /// The bytes are malformed.
    Malformed,
}

/// Panics if `data` violates the property. The first byte selects the method, the rest is the
/// response.
pub fn check(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let method = if first & 1 == 0 { Method::GET } else { Method::HEAD };
    let whole = parse_pieces(&method, &[wire]);
    for cut in 0..wire.len().min(MAX_CUT_POSITION) {
        let (one, two) = wire.split_at(cut);
        assert_eq!(parse_pieces(&method, &[one, two]), whole, "cut at {cut}");
    }
    let piece_len = usize::from(first >> 1).max(1);
    let pieces: Vec<&[u8]> = wire.chunks(piece_len).collect();
    assert_eq!(parse_pieces(&method, &pieces), whole, "in pieces of {piece_len}");
    if let ParseEnd::Complete(rest) = &whole.end {
        assert!(wire.ends_with(rest), "what is left is what came last");
    }
}

fn parse_pieces(method: &Method, pieces: &[&[u8]]) -> ParsedResponse {
    let mut read = ParsedResponse::default();
    let mut decoder = None;
    let mut buf = BytesMut::new();
    for (at, piece) in pieces.iter().enumerate() {
        buf.extend_from_slice(piece);
        match decode_available(method, &mut buf, &mut decoder, &mut read) {
            Ok(false) => {}
            Ok(true) => {
                let left = pieces[at + 1..].concat();
                read.end = ParseEnd::Complete([&buf[..], &left].concat());
                break;
            }
            Err(()) => {
                read.end = ParseEnd::Malformed;
                break;
            }
        }
    }
    read
}

/// Parses the available bytes; returns whether the response is complete.
fn decode_available(
    method: &Method,
    buf: &mut BytesMut,
    decoder: &mut Option<BodyDecoder>,
    read: &mut ParsedResponse,
) -> Result<bool, ()> {
    while decoder.is_none() {
        let Some(head) = parse_response(buf, method).map_err(drop)? else { return Ok(false) };
        let (status, framing) = (head.status, head.framing);
        read.heads.push(format!("{status} {framing:?} {} {:?}", head.is_keep_alive, head.upgrade));
        read.fields.push(head.headers);
        if !status.is_informational() || read.heads.len() > MAX_INTERIM_RESPONSES {
            *decoder = Some(BodyDecoder::new(framing));
        }
    }
    let Some(decoder) = decoder else { return Ok(false) };
    loop {
        match decoder.decode(buf).map_err(drop)? {
            Decoded::Data(data) => {
                assert!(!data.is_empty(), "an empty piece would end a body");
                read.body.extend_from_slice(&data);
            }
            Decoded::NeedMore => return Ok(false),
            Decoded::End => {
                read.trailers = decoder.take_trailers();
                return Ok(true);
            }
        }
    }
}
