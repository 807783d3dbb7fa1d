//! Answers of endpoints over HTTP/1.1: what they say does not depend on how they are cut.

use bytes::BytesMut;
use gapless::net::h1::{BodyDecoder, Decoded, parse_response};
use http::{HeaderMap, Method};

/// Cut at each of its first bytes.
const CUTS: usize = 300;

/// Interim answers before the final one.
const INTERIM: usize = 16;

/// What came of some bytes.
#[derive(Debug, Default, PartialEq)]
struct Read {
    /// What is known of each head, in the words of its debug form.
    heads: Vec<String>,
    fields: Vec<HeaderMap>,
    body: Vec<u8>,
    trailers: Option<Box<HeaderMap>>,
    end: End,
}

#[derive(Debug, Default, PartialEq)]
enum End {
    /// More is to come, or nothing that would be missed.
    #[default]
    Open,
    /// The body is over; these bytes are left.
    Whole(Vec<u8>),
    /// It breaks the rules.
    Malformed,
}

/// Panics if `data` breaks it: who is asked for, then the answer.
pub fn holds(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let method = if first & 1 == 0 { Method::GET } else { Method::HEAD };
    let whole = read(&method, &[wire]);
    for cut in 0..wire.len().min(CUTS) {
        let (one, two) = wire.split_at(cut);
        assert_eq!(read(&method, &[one, two]), whole, "cut at {cut}");
    }
    let step = usize::from(first >> 1).max(1);
    let pieces: Vec<&[u8]> = wire.chunks(step).collect();
    assert_eq!(read(&method, &pieces), whole, "in pieces of {step}");
    if let End::Whole(rest) = &whole.end {
        assert!(wire.ends_with(rest), "what is left is what came last");
    }
}

fn read(method: &Method, pieces: &[&[u8]]) -> Read {
    let mut read = Read::default();
    let mut decoder = None;
    let mut buf = BytesMut::new();
    for (at, piece) in pieces.iter().enumerate() {
        buf.extend_from_slice(piece);
        match step(method, &mut buf, &mut decoder, &mut read) {
            Ok(false) => {}
            Ok(true) => {
                let left = pieces[at + 1..].concat();
                read.end = End::Whole([&buf[..], &left].concat());
                break;
            }
            Err(()) => {
                read.end = End::Malformed;
                break;
            }
        }
    }
    read
}

/// Reads what is there; whether the answer is over.
fn step(
    method: &Method,
    buf: &mut BytesMut,
    decoder: &mut Option<BodyDecoder>,
    read: &mut Read,
) -> Result<bool, ()> {
    while decoder.is_none() {
        let Some(head) = parse_response(buf, method).map_err(drop)? else { return Ok(false) };
        let (status, framing) = (head.status, head.framing);
        read.heads.push(format!("{status} {framing:?} {} {:?}", head.keep_alive, head.upgrade));
        read.fields.push(head.headers);
        if !status.is_informational() || read.heads.len() > INTERIM {
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
            Decoded::More => return Ok(false),
            Decoded::End => {
                read.trailers = decoder.take_trailers();
                return Ok(true);
            }
        }
    }
}
