//! Parses response heads.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use super::framing::{Framing, Malformed};
use super::hop_by_hop::{ConnectionOptions, is_hop_by_hop};

/// Header fields in a response, at most; more are malformed.
const MAX_RESPONSE_FIELDS: usize = 100;

/// A response head, ready to be forwarded.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// The end-to-end fields, Content-Length included. Hop-by-hop fields are removed; Trailer
    /// stays if the body may have trailers.
    pub headers: HeaderMap,
    pub framing: Framing,
    /// Whether the connection may carry another exchange.
    pub is_keep_alive: bool,
    /// The protocol that a 101 names.
    pub upgrade: Option<HeaderValue>,
}

/// The position of one field line in its head.
struct FieldRange {
    name: Range<usize>,
    value: Range<usize>,
}

impl FieldRange {
    /// The position of `header`, which was parsed from a buffer that starts at `base`.
    fn from_parsed(header: &httparse::Header<'_>, base: *const u8) -> Self {
        let range = |part: &[u8]| {
            let start = part.as_ptr() as usize - base as usize;
            start..start + part.len()
        };
        Self { name: range(header.name.as_bytes()), value: range(header.value) }
    }

    fn has_name(&self, name: &HeaderName, head: &[u8]) -> bool {
        head[self.name.clone()].eq_ignore_ascii_case(name.as_str().as_bytes())
    }

    fn header_value(&self, head: &Bytes) -> Result<HeaderValue, Malformed> {
        HeaderValue::from_maybe_shared(head.slice(self.value.clone())).map_err(|_| Malformed)
    }
}

/// Removes a response head from the start of `buf`; `None` if it is not complete yet.
///
/// # Errors
/// [`Malformed`] if it is not HTTP/1.x, or if its framing is ambiguous.
pub fn parse_response(
    buf: &mut BytesMut,
    method: &Method,
) -> Result<Option<ResponseHead>, Malformed> {
    if buf.is_empty() {
        return Ok(None);
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_RESPONSE_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, buf, &mut headers);
    let length = match status.map_err(|_| Malformed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let is_http11 = parsed.version == Some(1);
    let fields = parsed.headers.iter().map(|header| FieldRange::from_parsed(header, buf.as_ptr()));
    let fields: SmallVec<[FieldRange; 16]> = fields.collect();
    let head = buf.split_to(length).freeze();
    parse_fields(&fields, &head, status, is_http11)?.into_head(method).map(Some)
}

/// The parsed fields of a response.
struct ResponseFields {
    status: StatusCode,
    is_http11: bool,
    /// The fields to forward.
    headers: HeaderMap,
    has_trailer: bool,
    is_keep_alive: bool,
    transfer_encoding: TransferEncoding,
    length: Option<u64>,
    upgrade: Option<HeaderValue>,
}

fn parse_fields(
    fields: &[FieldRange],
    head: &Bytes,
    status: StatusCode,
    is_http11: bool,
) -> Result<ResponseFields, Malformed> {
    let mut options = ConnectionOptions::default();
    for field in fields.iter().filter(|field| field.has_name(&CONNECTION, head)) {
        options.add(std::str::from_utf8(&head[field.value.clone()]).map_err(|_| Malformed)?);
    }
    let mut parsed = ResponseFields {
        status,
        is_http11,
        headers: HeaderMap::with_capacity(fields.len() + 2),
        has_trailer: false,
        is_keep_alive: if is_http11 {
            !options.has_option("close")
        } else {
            options.has_option("keep-alive")
        },
        transfer_encoding: TransferEncoding::Absent,
        length: None,
        upgrade: None,
    };
    let (mut has_length, mut upgrades) = (false, 0);
    for field in fields {
        let name = HeaderName::from_bytes(&head[field.name.clone()]).map_err(|_| Malformed)?;
        if name == CONTENT_LENGTH {
            // Content-Length frames the body even if a Connection field nominates it.
            if has_length {
                return Err(Malformed);
            }
            parsed.length = Some(parse_content_length(&head[field.value.clone()])?);
            has_length = true;
            parsed.headers.append(name, field.header_value(head)?);
            continue;
        }
        if name == TRANSFER_ENCODING {
            parsed.transfer_encoding =
                parsed.transfer_encoding.add_value(&head[field.value.clone()])?;
        } else if name == UPGRADE {
            upgrades += 1;
            parsed.upgrade = Some(field.header_value(head)?).filter(|_| upgrades == 1);
        }
        parsed.has_trailer |= name == TRAILER;
        let is_removed = is_hop_by_hop(&name) && name != TRAILER;
        if !is_removed && !options.has_option(name.as_str()) {
            parsed.headers.append(name, field.header_value(head)?);
        }
    }
    Ok(parsed)
}

impl ResponseFields {
    fn into_head(self, method: &Method) -> Result<ResponseHead, Malformed> {
        // RFC 9112 6.1: a transfer coding in HTTP/1.0 is faulty framing.
        if self.transfer_encoding == TransferEncoding::Chunked && !self.is_http11 {
            return Err(Malformed);
        }
        let framing = self.framing(method)?;
        let Self { status, mut headers, is_keep_alive, upgrade, .. } = self;
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            headers.remove(CONTENT_LENGTH);
        }
        if framing != Framing::Chunked && self.has_trailer {
            headers.remove(TRAILER);
        }
        let upgrade = upgrade.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS);
        let is_keep_alive = is_keep_alive && framing != Framing::UntilClose;
        Ok(ResponseHead { status, headers, framing, is_keep_alive, upgrade })
    }

    fn framing(&self, method: &Method) -> Result<Framing, Malformed> {
        let (is_chunked, status) =
            (self.transfer_encoding == TransferEncoding::Chunked, self.status);
        if is_chunked && self.length.is_some() {
            return Err(Malformed);
        }
        if status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || *method == Method::HEAD
        {
            return Ok(Framing::None);
        }
        Ok(match self.length {
            _ if is_chunked => Framing::Chunked,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum TransferEncoding {
    Absent,
    Chunked,
}

impl TransferEncoding {
    /// Accepts exactly one `chunked` and nothing else (RFC 9112 6.1).
    fn add_value(self, value: &[u8]) -> Result<Self, Malformed> {
        let is_first = self == Self::Absent;
        if is_first && value.eq_ignore_ascii_case(b"chunked") {
            Ok(Self::Chunked)
        } else {
            Err(Malformed)
        }
    }
}

/// Parses digits only. A list of equal lengths is malformed too, which RFC 9110 8.6 permits.
fn parse_content_length(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
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
    fn ambiguous_framing_is_malformed() {
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
    fn hop_by_hop_and_nominated_fields_are_removed() {
        let head = parse(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x-a, Keep-Alive\r\nX-A: 1\r\nX-B: 2\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\r\n",
        )
        .expect("valid")
        .expect("complete");
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "x-b"]);
        assert!(head.is_keep_alive);
    }

    #[test]
    fn nominated_content_length_still_frames_the_body() {
        let nominated =
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\n";
        assert_eq!(framing_of(nominated), Framing::Length(5));
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old).err(), Some(Malformed));
    }

    #[test]
    fn keep_alive_follows_version_and_connection_option() {
        let is_keep_alive =
            |text: &str| parse(text).expect("valid").expect("complete").is_keep_alive;
        assert!(is_keep_alive("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!is_keep_alive(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\n"
        ));
        assert!(!is_keep_alive("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(is_keep_alive(
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"
        ));
        assert!(!is_keep_alive("HTTP/1.1 200 OK\r\n\r\n"), "until close");
    }

    #[test]
    fn partial_head_gives_none() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).expect("valid so far").is_none(), "{cut}");
        }
    }
}
