//! The header of the PROXY protocol, versions 1 and 2: for whom a proxy has connected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The least that both versions have: `PROXY UNKNOWN` and the end of its line.
const LEAST: usize = 15;

/// The longest line of version 1.
const MAX_LINE_BYTES: usize = 107;

/// What version 1 begins with.
const BEGIN: &[u8] = b"PROXY ";

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family and length.
const FIXED: usize = 16;

/// What follows them in version 2, further fields included.
const MAX_REST_BYTES: usize = 2 * 1024;

/// Both ends of the connection that the proxy passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected to the proxy.
    pub client: SocketAddr,
    /// Where.
    pub local: SocketAddr,
}

/// Reads the header, and not one byte more. `None` if the connection is the proxy's own, or the
/// proxy does not know.
///
/// # Errors
/// When there is none, it is not one, or reading fails.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut header = [0; FIXED + MAX_REST_BYTES];
    stream.read_exact(&mut header[..LEAST]).await?;
    let length = if header.starts_with(BEGIN) {
        line(stream, &mut header[..MAX_LINE_BYTES]).await?
    } else {
        stream.read_exact(&mut header[LEAST..FIXED]).await?;
        let length = FIXED + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if !header.starts_with(SIGNATURE) || length > header.len() {
            return Err(refused());
        }
        stream.read_exact(&mut header[FIXED..length]).await?;
        length
    };
    parse(&header[..length]).ok_or_else(refused)
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

/// The rest of a line is looked at before it is taken: what follows it is not ours. The length of all
/// of it.
async fn line(stream: &mut TcpStream, line: &mut [u8]) -> io::Result<usize> {
    let mut filled = LEAST;
    while !line[..filled].ends_with(b"\n") {
        if filled == line.len() {
            return Err(refused());
        }
        let seen = stream.peek(&mut line[filled..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = line[filled..filled + seen].iter().position(|&b| b == b'\n');
        let ours = filled + end.map_or(seen, |end| end + 1);
        stream.read_exact(&mut line[filled..ours]).await?;
        filled = ours;
    }
    Ok(filled)
}

/// What a whole header of either version says: `Some(None)` if the connection is the proxy's own, or
/// the proxy does not know; `None` if it is not one.
#[must_use]
pub fn parse(header: &[u8]) -> Option<Option<Ends>> {
    if header.starts_with(BEGIN) {
        return text(header);
    }
    let (fixed, rest) = header.split_first_chunk::<FIXED>()?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let is_whole = rest.len() == length && length <= MAX_REST_BYTES;
    if is_whole && fixed.starts_with(SIGNATURE) { binary(fixed[12], fixed[13], rest) } else { None }
}

/// A line of version 1, to its end.
fn text(line: &[u8]) -> Option<Option<Ends>> {
    let line = line.strip_suffix(b"\r\n").filter(|line| line.len() + 2 <= MAX_LINE_BYTES)?;
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
    let mut port = || words.next().and_then(port);
    let (client_port, local_port) = (port()?, port()?);
    words.next().is_none().then_some(Some(Ends {
        client: SocketAddr::new(client, client_port),
        local: SocketAddr::new(local, local_port),
    }))
}

/// Digits without leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain =
        word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// What follows the fixed part of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Option<Option<Ends>> {
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return None,
    };
    let (ends, further) = match family {
        0x11 => {
            let (&[a, b, c, d, e, f, g, h, i, j, k, l], further) = rest.split_first_chunk()?;
            let ends = Ends {
                client: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j])).into(),
                local: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([k, l])).into(),
            };
            (Some(ends), further)
        }
        0x21 => {
            let (client, rest) = rest.split_first_chunk::<16>()?;
            let (local, rest) = rest.split_first_chunk::<16>()?;
            let (&[a, b, c, d], further) = rest.split_first_chunk()?;
            let ends = Ends {
                client: (Ipv6Addr::from(*client), u16::from_be_bytes([a, b])).into(),
                local: (Ipv6Addr::from(*local), u16::from_be_bytes([c, d])).into(),
            };
            (Some(ends), further)
        }
        // Not said, or two ends of a Unix socket: there is no other address than the real one.
        0x00 => (None, &[][..]),
        0x31 => (None, rest.get(216..)?),
        _ if is_local => (None, &[][..]),
        _ => return None,
    };
    is_list(further).then_some(ends.filter(|_| !is_local))
}

/// Whether the bytes are fields of type, length and value.
fn is_list(mut fields: &[u8]) -> bool {
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

    fn ends(client: &str, local: &str) -> Option<Option<Ends>> {
        let address = |text: &str| text.parse().expect("an address");
        Some(Some(Ends { client: address(client), local: address(local) }))
    }

    #[test]
    fn lines() {
        let four = b"PROXY TCP4 192.0.2.1 192.0.2.2 65535 443\r\n";
        assert_eq!(text(four), ends("192.0.2.1:65535", "192.0.2.2:443"));
        let six = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(text(six), ends("[2001:db8::1]:1", "[::1]:2"));
        assert_eq!(text(b"PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(text(b"PROXY UNKNOWN ffff::1 what ever\r\n"), Some(None));
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
            assert_eq!(text(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn bytes() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 1, 0, 1, 187];
        assert_eq!(binary(0x21, 0x11, &four), ends("192.0.2.1:256", "192.0.2.2:443"));
        assert_eq!(binary(0x20, 0x11, &four), Some(None), "its own");
        assert_eq!(binary(0x22, 0x11, &four), None);
        assert_eq!(binary(0x21, 0x12, &four), None, "datagrams");
        assert_eq!(binary(0x21, 0x11, &four[..11]), None);
        assert_eq!(binary(0x21, 0x00, b"anything"), Some(None));
        let with = |fields: &[u8]| binary(0x21, 0x11, &[&four, fields].concat()).is_some();
        assert!(with(&[1, 0, 2, b'h', b'2', 4, 0, 0]));
        assert!(!with(&[1, 0, 3, b'h', b'2']) && !with(&[1, 0]));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 1, 5, 6);
        assert_eq!(binary(0x21, 0x21, &six), ends("[::1]:5", "[::1]:6"));
        assert_eq!(binary(0x21, 0x31, &[0; 216]), Some(None));
        assert_eq!(binary(0x21, 0x31, &[0; 215]), None);
    }
}
