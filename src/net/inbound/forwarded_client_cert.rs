//! Encodes a client's certificate as one element of `x-forwarded-client-cert` (Envoy's format):
//! `Hash=…;Subject="…";URI=…;DNS=…`.

use std::fmt::Write;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Bytes of one element, about and at most: each request of the client carries it.
const MAX_ELEMENT_BYTES: usize = 4 * 1024;

/// Subject attributes by the bytes of their object identifiers (RFC 4514 3, and other common
/// ones).
const ATTRIBUTES: [(&[u8], &str); 10] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// UTF8String, PrintableString, T61String, IA5String.
const STRING_TAGS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// The element for a verified certificate; `None` if it would be too long.
pub(super) fn forwarded_client_cert(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let mut out = String::new();
    if let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() {
        out.push_str("Hash=");
        write_hex(&mut out, suite.common.hash_provider.hash(certificate).as_ref());
        out.push(';');
    }
    // RFC 4514 has escaped the quotes inside.
    let _ = write!(out, "Subject=\"{}\"", format_subject(parsed.subject()).unwrap_or_default());
    let names = parsed.valid_uri_names().map(|name| ("URI", name));
    for (key, name) in names.chain(parsed.valid_dns_names().map(|name| ("DNS", name))) {
        let is_quotable = name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if !is_quotable || out.len() + name.len() > MAX_ELEMENT_BYTES {
            continue;
        }
        let quote = if name.contains([',', ';', '=']) { "\"" } else { "" };
        let _ = write!(out, ";{key}={quote}{name}{quote}");
    }
    (out.len() <= MAX_ELEMENT_BYTES + 64).then_some(out)
}

fn write_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// A distinguished name as text, the last part first (RFC 4514 2); `None` if it is malformed.
fn format_subject(mut der: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while !der.is_empty() {
        let (mut attributes, rest) = read_value(SET, der)?;
        der = rest;
        let mut part = String::new();
        while !attributes.is_empty() {
            let (attribute, rest) = read_value(SEQUENCE, attributes)?;
            attributes = rest;
            if !part.is_empty() {
                part.push('+');
            }
            write_attribute(&mut part, attribute)?;
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn write_attribute(out: &mut String, attribute: &[u8]) -> Option<()> {
    let (oid, value) = read_value(OBJECT_IDENTIFIER, attribute)?;
    let (tag, text, _) = read_element(value)?;
    match ATTRIBUTES.iter().find(|(id, _)| *id == oid) {
        Some((_, name)) => out.push_str(name),
        None => write_oid(out, oid),
    }
    out.push('=');
    if !STRING_TAGS.contains(&tag) {
        out.push('#');
        write_hex(out, value);
        return Some(());
    }
    for (at, &byte) in text.iter().enumerate() {
        let is_edge = at == 0 || at + 1 == text.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', byte as char]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if is_edge => out.push_str("\\ "),
            b' '..=b'~' => out.push(byte as char),
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
    Some(())
}

/// Writes an object identifier in dotted decimal form.
fn write_oid(out: &mut String, id: &[u8]) {
    let mut number: u64 = 0;
    let mut is_first = true;
    for &byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let first_arc = (number / 40).min(2);
            let _ = write!(out, "{first_arc}.{}", number - 40 * first_arc);
        } else {
            let _ = write!(out, ".{number}");
        }
        (number, is_first) = (0, false);
    }
}

/// The value of the leading element of `der`, if it has this tag, and the rest of `der`.
fn read_value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, value, rest) = read_element(der)?;
    (found == tag).then_some((value, rest))
}

/// The tag and value of the leading element of `der`, and the rest.
fn read_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => {
            let (&length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(value.len()).expect("short")], value].concat()
    }

    fn rdn(id: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
        let pair = [tlv(OBJECT_IDENTIFIER, id), tlv(tag, text)].concat();
        tlv(SET, &tlv(SEQUENCE, &pair))
    }

    #[test]
    fn subject_is_reversed_and_escaped() {
        let name = [
            rdn(&[0x55, 4, 10], 0x13, b"Acme, \"Inc\""),
            rdn(&[0x55, 4, 3], 0x0c, " a\u{e4}\r\n".as_bytes()),
            rdn(&[0x2a, 0x86, 0x48, 1], 0x0c, b"x"),
            rdn(&[0x55, 4, 6], 0x1e, &[0, 65]),
        ]
        .concat();
        let expected = "C=#1e020041,1.2.840.1=x,CN=\\ a\\C3\\A4\\0D\\0A,O=Acme\\, \\\"Inc\\\"";
        assert_eq!(format_subject(&name).as_deref(), Some(expected));
        assert_eq!(format_subject(&[]).as_deref(), Some(""));
    }

    #[test]
    fn malformed_subject_gives_none() {
        for bad in [&[0x31, 5, 0][..], &[0x31, 0x80, 0], &[0x31, 0x82, 1], &[0x30, 0], &[0x31]] {
            assert_eq!(format_subject(bad), None, "{bad:?}");
        }
    }
}
