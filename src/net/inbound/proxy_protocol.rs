//! Reads headers of HAProxy's PROXY protocol, versions 1 and 2: the address of a client behind a
//! proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The shortest header of both versions: `PROXY UNKNOWN` with its end of line.
const MIN_HEADER_BYTES: usize = 15;

/// The longest header of version 1.
const V1_MAX_LINE_BYTES: usize = 107;

/// The start of a version 1 header.
const V1_PREFIX: &[u8] = b"PROXY ";

/// The start of a version 2 header.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The fixed part of version 2: signature, command, family and length.
const V2_FIXED_BYTES: usize = 16;

/// Both ends of the client's connection to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxiedAddresses {
    pub client: SocketAddr,
    pub local: SocketAddr,
}

/// Reads the header and no byte after it. A version 2 header may have `max_bytes` after its fixed
/// part. `None` for a connection of the proxy itself, or if the proxy does not know the client.
///
/// # Errors
/// When the header is missing or malformed, or reading fails.
pub async fn read_header(
    stream: &mut TcpStream,
    max_bytes: usize,
) -> io::Result<Option<ProxiedAddresses>> {
    let mut header = vec![0; V1_MAX_LINE_BYTES];
    stream.read_exact(&mut header[..MIN_HEADER_BYTES]).await?;
    if header.starts_with(V1_PREFIX) {
        let length = read_v1_line(stream, &mut header).await?;
        header.truncate(length);
    } else {
        stream.read_exact(&mut header[MIN_HEADER_BYTES..V2_FIXED_BYTES]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if !header.starts_with(V2_SIGNATURE) || length > max_bytes {
            return Err(invalid_header());
        }
        header.resize(V2_FIXED_BYTES + length, 0);
        stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    }
    parse_header(&header).ok_or_else(invalid_header)
}

fn invalid_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "missing or malformed PROXY protocol header")
}

/// Reads the rest of a version 1 line, and returns the length of the whole. Peeks first, because
/// bytes after the line are not part of the header.
async fn read_v1_line(stream: &mut TcpStream, line: &mut [u8]) -> io::Result<usize> {
    let mut filled = MIN_HEADER_BYTES;
    while !line[..filled].ends_with(b"\n") {
        if filled == line.len() {
            return Err(invalid_header());
        }
        let peeked = stream.peek(&mut line[filled..]).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = line[filled..filled + peeked].iter().position(|&b| b == b'\n');
        let line_end = filled + end.map_or(peeked, |end| end + 1);
        stream.read_exact(&mut line[filled..line_end]).await?;
        filled = line_end;
    }
    Ok(filled)
}

/// Parses a complete header of either version; `None` if it is malformed. `Some(None)` is a header
/// for a connection of the proxy itself, or of an unknown client.
pub fn parse_header(header: &[u8]) -> Option<Option<ProxiedAddresses>> {
    if header.starts_with(V1_PREFIX) {
        return parse_v1(header);
    }
    let (fixed, rest) = header.split_first_chunk::<V2_FIXED_BYTES>()?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest.len() == length && fixed.starts_with(V2_SIGNATURE) {
        parse_v2(fixed[12], fixed[13], rest)
    } else {
        None
    }
}

/// Parses a version 1 line, which must end with CRLF.
fn parse_v1(line: &[u8]) -> Option<Option<ProxiedAddresses>> {
    let line = line.strip_suffix(b"\r\n").filter(|line| line.len() + 2 <= V1_MAX_LINE_BYTES)?;
    let line = std::str::from_utf8(line).ok().filter(|line| !line.contains('\n'))?;
    let rest = line.strip_prefix("PROXY ")?;
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = rest.split(' ');
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_v4);
    let (client, local) = (address()?, address()?);
    let mut port = || words.next().and_then(parse_port);
    let (client_port, local_port) = (port()?, port()?);
    words.next().is_none().then_some(Some(ProxiedAddresses {
        client: SocketAddr::new(client, client_port),
        local: SocketAddr::new(local, local_port),
    }))
}

/// Parses a port: digits without leading zeros.
fn parse_port(word: &str) -> Option<u16> {
    let is_canonical =
        word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_canonical)
}

/// Parses a version 2 header from its command and family, and the bytes after the fixed part.
fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Option<Option<ProxiedAddresses>> {
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return None,
    };
    let (addresses, tlvs) = match family {
        0x11 => {
            let (&[a, b, c, d, e, f, g, h, i, j, k, l], tlvs) = rest.split_first_chunk()?;
            let addresses = ProxiedAddresses {
                client: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j])).into(),
                local: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([k, l])).into(),
            };
            (Some(addresses), tlvs)
        }
        0x21 => {
            let (client, rest) = rest.split_first_chunk::<16>()?;
            let (local, rest) = rest.split_first_chunk::<16>()?;
            let (&[a, b, c, d], tlvs) = rest.split_first_chunk()?;
            let addresses = ProxiedAddresses {
                client: (Ipv6Addr::from(*client), u16::from_be_bytes([a, b])).into(),
                local: (Ipv6Addr::from(*local), u16::from_be_bytes([c, d])).into(),
            };
            (Some(addresses), tlvs)
        }
        // Unspecified addresses or Unix sockets: the address of the connection itself counts.
        0x00 => (None, &[][..]),
        0x31 => (None, rest.get(216..)?),
        _ if is_local => (None, &[][..]),
        _ => return None,
    };
    is_tlv_list(tlvs).then_some(addresses.filter(|_| !is_local))
}

/// Whether the bytes are a sequence of TLVs (type, length, value).
fn is_tlv_list(mut fields: &[u8]) -> bool {
    while let Some((&[_, high, low], rest)) = fields.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(next) = rest.get(length..) else { return false };
        fields = next;
    }
    fields.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(client: &str, local: &str) -> Option<Option<ProxiedAddresses>> {
        let address = |text: &str| text.parse().expect("an address");
        Some(Some(ProxiedAddresses { client: address(client), local: address(local) }))
    }

    #[test]
    fn v1_headers_are_parsed_or_rejected() {
        let four = b"PROXY TCP4 192.0.2.1 192.0.2.2 65535 443\r\n";
        assert_eq!(parse_v1(four), addresses("192.0.2.1:65535", "192.0.2.2:443"));
        let six = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(parse_v1(six), addresses("[2001:db8::1]:1", "[::1]:2"));
        assert_eq!(parse_v1(b"PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(parse_v1(b"PROXY UNKNOWN ffff::1 what ever\r\n"), Some(None));
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 065 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +65 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65 443 1\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 65 443\r\n",
            "PROXY TCP4 ::1 ::1 65 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65 443\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 65 443\r\n",
            "PROXY UNKNOWNX\r\n",
            "proxy UNKNOWN\r\n",
        ] {
            assert_eq!(parse_v1(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn v2_headers_are_parsed_or_rejected() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 1, 0, 1, 187];
        assert_eq!(parse_v2(0x21, 0x11, &four), addresses("192.0.2.1:256", "192.0.2.2:443"));
        assert_eq!(parse_v2(0x20, 0x11, &four), Some(None), "its own");
        assert_eq!(parse_v2(0x22, 0x11, &four), None);
        assert_eq!(parse_v2(0x21, 0x12, &four), None, "datagrams");
        assert_eq!(parse_v2(0x21, 0x11, &four[..11]), None);
        assert_eq!(parse_v2(0x21, 0x00, b"anything"), Some(None));
        let is_accepted_with =
            |fields: &[u8]| parse_v2(0x21, 0x11, &[&four, fields].concat()).is_some();
        assert!(is_accepted_with(&[1, 0, 2, b'h', b'2', 4, 0, 0]));
        assert!(!is_accepted_with(&[1, 0, 3, b'h', b'2']) && !is_accepted_with(&[1, 0]));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 1, 5, 6);
        assert_eq!(parse_v2(0x21, 0x21, &six), addresses("[::1]:5", "[::1]:6"));
        assert_eq!(parse_v2(0x21, 0x31, &[0; 216]), Some(None));
        assert_eq!(parse_v2(0x21, 0x31, &[0; 215]), None);
    }
}
