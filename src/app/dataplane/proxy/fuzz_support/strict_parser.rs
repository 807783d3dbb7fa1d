//! A parser that accepts one form of requests only and panics at anything else.

use super::CLIENT_IP;

/// Names that a forwarded head never has: the client's fields are dropped or replaced.
const FORBIDDEN_HEADERS: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "expect",
    "forwarded",
    "x-forwarded-client-cert",
];

/// Names that trailers never have (RFC 9110 6.5.1).
const FORBIDDEN_TRAILERS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "authorization",
    "cookie",
    "connection",
    "x-forwarded-for",
];

/// Parses all requests. Returns their number.
pub(super) fn parse_requests(mut wire: &[u8]) -> usize {
    let mut count = 0;
    while !wire.is_empty() {
        wire = parse_request(wire);
        count += 1;
    }
    count
}

type ParsedField<'a> = (&'a str, &'a [u8]);

fn parse_request(wire: &[u8]) -> &[u8] {
    let (line, mut rest) = split_line(wire);
    check_request_line(line);
    let fields = parse_fields(&mut rest);
    assert!(fields.iter().all(|(name, _)| !name.contains('_')), "underscores are refused");
    let all = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value).collect()
    };
    let host = all("host");
    assert_eq!(host.len(), 1, "one Host");
    for name in FORBIDDEN_HEADERS {
        assert!(all(name).is_empty(), "{name}");
    }
    let client = CLIENT_IP.map(|octet| octet.to_string()).join(".");
    assert_eq!(all("x-forwarded-for"), [client.as_bytes()], "not the client's");
    assert_eq!(all("x-forwarded-proto"), [b"http"], "not the client's");
    // HTTP/1.0 requests may lack a Host.
    let expected_host: Vec<&[u8]> = host.into_iter().filter(|host| !host.is_empty()).collect();
    assert_eq!(all("x-forwarded-host"), expected_host, "not the client's");
    assert!(all("via").last().is_some_and(|via| via.ends_with(b" gapless")), "ours is the last");
    let te = all("te");
    assert!(te.is_empty() || te == [b"trailers"], "{te:?}");
    let upgrade = all("upgrade");
    assert!(upgrade.is_empty() || upgrade == [b"websocket"], "{upgrade:?}");
    let mut expected_options: Vec<&[u8]> = [(&te, &b"te"[..]), (&upgrade, b"upgrade")]
        .into_iter()
        .filter(|(fields, _)| !fields.is_empty())
        .map(|(_, name)| name)
        .collect();
    expected_options.sort_unstable();
    let mut options = all("connection");
    options.sort_unstable();
    assert_eq!(options, expected_options, "only what is ours is nominated");
    skip_body(rest, &all("transfer-encoding"), &all("content-length"))
}

/// `METHOD target HTTP/1.1`, with a normalised path.
fn check_request_line(line: &[u8]) {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("{}", line.escape_ascii()) };
    assert!(!method.is_empty() && method.iter().all(|&byte| is_token(byte)), "a method");
    assert_ne!(method, b"CONNECT");
    assert_eq!(version, b"HTTP/1.1");
    assert!(target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic), "a target");
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        assert!(segment != b"." && segment != b"..", "dots: {}", target.escape_ascii());
        assert!(!segment.is_empty() || segments.peek().is_none(), "{}", target.escape_ascii());
    }
    assert!(!path.contains(&b'#') && !path.contains(&b'\\'), "{}", target.escape_ascii());
    assert!(!path.windows(3).any(|three| three == b"%00"), "{}", target.escape_ascii());
}

fn skip_body<'a>(wire: &'a [u8], codings: &[&[u8]], lengths: &[&[u8]]) -> &'a [u8] {
    match (codings, lengths) {
        ([], []) => wire,
        ([], [digits]) => {
            let text = std::str::from_utf8(digits).expect("digits");
            assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
            assert!(text == "0" || !text.starts_with('0'), "{text}");
            let length: usize = text.parse().expect("a length");
            wire.get(length..).expect("all of the body")
        }
        ([b"chunked"], []) => skip_chunks(wire),
        _ => panic!("two framings"),
    }
}

fn skip_chunks(mut wire: &[u8]) -> &[u8] {
    loop {
        let (size, rest) = split_line(wire);
        assert!((1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit));
        let text = std::str::from_utf8(size).expect("digits");
        let size = usize::from_str_radix(text, 16).expect("a size");
        wire = rest;
        if size == 0 {
            let fields = parse_fields(&mut wire);
            for (name, _) in fields {
                // Many servers treat both characters alike.
                let normalized = name.replace('_', "-");
                assert!(!FORBIDDEN_TRAILERS.contains(&&*normalized), "{name} behind a body");
            }
            return wire;
        }
        assert_eq!(wire.get(size..size + 2), Some(&b"\r\n"[..]), "the end of a chunk");
        wire = &wire[size + 2..];
    }
}

/// Fields up to an empty line.
fn parse_fields<'a>(wire: &mut &'a [u8]) -> Vec<ParsedField<'a>> {
    let mut fields = Vec::new();
    loop {
        let (line, rest) = split_line(wire);
        *wire = rest;
        if line.is_empty() {
            return fields;
        }
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_name = |&byte: &u8| is_token(byte) && !byte.is_ascii_uppercase();
        assert!(!name.is_empty() && name.iter().all(is_name), "{}", line.escape_ascii());
        let value = value.strip_prefix(b" ").expect("one blank");
        let is_text = |&byte: &u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
        assert!(value.iter().all(is_text), "{}", line.escape_ascii());
        assert_eq!(value, value.trim_ascii(), "{}", line.escape_ascii());
        fields.push((std::str::from_utf8(name).expect("a token"), value));
    }
}

fn split_line(wire: &[u8]) -> (&[u8], &[u8]) {
    let end = wire.iter().position(|&byte| byte == b'\n').expect("a whole line");
    let line = wire[..end].strip_suffix(b"\r").expect("CR before LF");
    assert!(!line.contains(&b'\r'), "a bare CR");
    (line, &wire[end + 1..])
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
