//! Answers of endpoints over HTTP/1.1: what they say does not depend on how they are cut.

use bytes::BytesMut;
use gapless::net::h1::{BodyDecoder, Decoded, parse_response};
use http::{HeaderMap, Method};

/// Cut at each of its first bytes.
const MAX_CUT_POSITION: usize = 300;

/// Interim answers before the final one.
const MAX_INTERIM_RESPONSES: usize = 16;

/// What came of some bytes.
#[derive(Debug, Default, PartialEq)]
struct ParsedResponse {
    /// What is known of each head, in the words of its debug form.
    heads: Vec<String>,
    fields: Vec<HeaderMap>,
    body: Vec<u8>,
    trailers: Option<Box<HeaderMap>>,
    end: ParseEnd,
}

#[derive(Debug, Default, PartialEq)]
enum ParseEnd {
    /// More is to come, or nothing that would be missed.
    #[default]
    Open,
    /// The body is over; these bytes are left.
    Complete(Vec<u8>),
    /// It breaks the rules.
    Malformed,
}

/// Panics if `data` breaks it: who is asked for, then the answer.
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

/// Reads what is there; whether the answer is over.
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
