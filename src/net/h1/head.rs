//! Message heads: requests written, responses parsed.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{BufMut, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use super::Malformed;

/// Header fields in a response; more is malformed.
const MAX_FIELDS: usize = 100;

/// How a response's body ends (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// When the connection closes.
    UntilClose,
}

/// A parsed response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: StatusCode,
    /// End-to-end fields only, content-length included; hop-by-hop fields are left out, but for
    /// Trailer where there may be any.
    pub headers: HeaderMap,
    /// How the body ends.
    pub framing: Framing,
    /// The connection may carry another exchange after this one.
    pub keep_alive: bool,
    /// The protocol that a 101 switches to, where it names one.
    pub upgrade: Option<HeaderValue>,
}

/// The field names that a Connection header nominates (RFC 9110 7.6.1).
#[derive(Debug, Default)]
pub struct ConnectionOptions<'a> {
    names: SmallVec<[&'a str; 4]>,
}

impl<'a> ConnectionOptions<'a> {
    /// Adds the options of one field line.
    pub fn add(&mut self, value: &'a str) {
        self.names.extend(value.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }

    /// All options of a message.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut options = Self::default();
        for value in headers.get_all(CONNECTION) {
            if let Ok(text) = value.to_str() {
                options.add(text);
            }
        }
        options
    }

    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.names.iter().copied()
    }

    /// Whether `name` is nominated.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|nominated| nominated.eq_ignore_ascii_case(name))
    }
}

/// Whether a field belongs to the connection and not to the message.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    if *name == CONNECTION || *name == TRANSFER_ENCODING || *name == UPGRADE {
        return true;
    }
    if *name == TE || *name == TRAILER {
        return true;
    }
    matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Writes `METHOD target HTTP/1.1`.
pub fn write_request_line(out: &mut BytesMut, method: &Method, target: &str) {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
}

/// Writes one field line.
pub fn write_header(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes one chunk; an empty one would end the body, so nothing is written for it.
pub fn write_chunk(out: &mut BytesMut, data: &[u8]) {
    if !data.is_empty() {
        out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.put_slice(data);
        out.put_slice(b"\r\n");
    }
}

struct Field {
    name: HeaderName,
    value: Range<usize>,
}

/// Parses a response head at the start of `buf` and takes its bytes out; `None` if more is needed.
///
/// # Errors
/// [`Malformed`] for what is not HTTP/1.x, and for framing that could be read in two ways.
pub fn parse_response(
    buf: &mut BytesMut,
    method: &Method,
) -> Result<Option<ResponseHead>, Malformed> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let base = buf.as_ptr() as usize;
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, buf, &mut slots);
    let length = match status.map_err(|_| Malformed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let is_1_1 = parsed.version == Some(1);
    let mut fields: SmallVec<[Field; 16]> = SmallVec::new();
    let mut options = ConnectionOptions::default();
    let mut chunked = Chunked::Absent;
    let mut upgrades: SmallVec<[Range<usize>; 1]> = SmallVec::new();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Malformed)?;
        if name == CONNECTION {
            options.add(std::str::from_utf8(header.value).map_err(|_| Malformed)?);
        } else if name == TRANSFER_ENCODING {
            chunked = chunked.and(header.value)?;
        }
        let start = header.value.as_ptr() as usize - base;
        let value = start..start + header.value.len();
        if name == UPGRADE && code == StatusCode::SWITCHING_PROTOCOLS {
            upgrades.push(value.clone());
        }
        fields.push(Field { name, value });
    }
    let keep_alive = if is_1_1 { !options.has("close") } else { options.has("keep-alive") };
    let nominated: SmallVec<[String; 4]> =
        options.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    drop(options);
    let head = buf.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(fields.len() + 2);
    let mut has_trailer = false;
    for field in fields {
        // The length frames the body whatever the endpoint nominates.
        let is_nominated = nominated.iter().any(|name| *name == field.name.as_str());
        let is_trailer = field.name == TRAILER;
        has_trailer |= is_trailer;
        let is_left_out = is_hop_by_hop(&field.name) && !is_trailer;
        if is_left_out || is_nominated && field.name != CONTENT_LENGTH {
            continue;
        }
        let value =
            HeaderValue::from_maybe_shared(head.slice(field.value)).map_err(|_| Malformed)?;
        headers.append(field.name, value);
    }
    // RFC 9112 6.1: a transfer coding in HTTP/1.0 is faulty framing.
    if chunked == Chunked::Final && !is_1_1 {
        return Err(Malformed);
    }
    let upgrade = match upgrades.as_slice() {
        [only] => HeaderValue::from_maybe_shared(head.slice(only.clone())).ok(),
        _ => None,
    };
    let framing = framing(method, code, chunked, &mut headers)?;
    if framing != Framing::Chunked && has_trailer {
        headers.remove(TRAILER);
    }
    let keep_alive = keep_alive && framing != Framing::UntilClose;
    Ok(Some(ResponseHead { status: code, headers, framing, keep_alive, upgrade }))
}

#[derive(Clone, Copy, PartialEq)]
enum Chunked {
    Absent,
    Final,
}

impl Chunked {
    /// Exactly one `chunked`, and nothing else (RFC 9112 6.1).
    fn and(self, value: &[u8]) -> Result<Self, Malformed> {
        let first = self == Self::Absent;
        if first && value.eq_ignore_ascii_case(b"chunked") {
            Ok(Self::Final)
        } else {
            Err(Malformed)
        }
    }
}

fn framing(
    method: &Method,
    status: StatusCode,
    chunked: Chunked,
    headers: &mut HeaderMap,
) -> Result<Framing, Malformed> {
    let length = content_length(headers)?;
    if chunked == Chunked::Final && length.is_some() {
        return Err(Malformed);
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
        return Ok(Framing::None);
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(match (chunked, length) {
        (Chunked::Final, _) => Framing::Chunked,
        (Chunked::Absent, Some(0)) => Framing::None,
        (Chunked::Absent, Some(length)) => Framing::Length(length),
        (Chunked::Absent, None) => Framing::UntilClose,
    })
}

/// One value of digits, or several that are equal are refused: nobody needs them (RFC 9110 8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    text.parse().map(Some).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<ResponseHead>, Malformed> {
        parse_response(&mut BytesMut::from(text), &Method::GET)
    }

    fn framing_of(text: &str) -> Framing {
        parse(text).expect("valid").expect("complete").framing
    }

    #[test]
    fn framing_follows_rfc_9112() {
        assert_eq!(framing_of("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Framing::Length(5));
        assert_eq!(framing_of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Framing::None);
        assert_eq!(
            framing_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            Framing::Chunked
        );
        assert_eq!(framing_of("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(framing_of("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"), Framing::None);
        assert_eq!(framing_of("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), Framing::None);
        let mut buf = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrest");
        let head = parse_response(&mut buf, &Method::HEAD).expect("valid").expect("complete");
        assert_eq!((head.framing, &buf[..]), (Framing::None, &b"rest"[..]));
        assert_eq!(head.headers[CONTENT_LENGTH], "5");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Bad Name: x\r\n",
            "X: a\r\n b\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(parse(&text).err(), Some(Malformed), "{fields:?}");
        }
        for line in
            ["HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/2.0 200 OK", "garbage", "HTTP/1.1 099 x"]
        {
            let text = format!("{line}\r\nContent-Length: 1\r\n\r\n");
            assert_eq!(parse(&text).err(), Some(Malformed), "{line:?}");
        }
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_are_left_out() {
        let head = parse(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x-a, Keep-Alive\r\nX-A: 1\r\nX-B: 2\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\r\n",
        )
        .expect("valid")
        .expect("complete");
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "x-b"]);
        assert!(head.keep_alive);
    }

    #[test]
    fn neither_nomination_nor_version_changes_the_framing() {
        let nominated =
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\n";
        assert_eq!(framing_of(nominated), Framing::Length(5));
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old).err(), Some(Malformed));
    }

    #[test]
    fn keep_alive_by_version_and_option() {
        let keeps = |text: &str| parse(text).expect("valid").expect("complete").keep_alive;
        assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"), "a body until close");
    }

    #[test]
    fn a_partial_head_waits() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).expect("valid so far").is_none(), "{cut}");
        }
    }
}
