//! The subset of HTTP/1.1 of endpoint and load: heads, and bodies with a content length.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Size limit of a head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The end of a head.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// A message whose body was read and discarded.
#[derive(Debug)]
pub(crate) struct Http1Message {
    head: String,
    /// Whether the connection may carry another message.
    pub(crate) is_keep_alive: bool,
}

impl Http1Message {
    /// The request line or the status line.
    pub(crate) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The status, if the message is a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    /// The value of the first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_fields(&self.head)
            .find(|(field_name, _)| field_name.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

fn header_fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim()))
}

/// Reads one message; `None` if the connection ended before one began.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Http1Message>> {
    let end = loop {
        let found = buffer.windows(BLANK_LINE.len()).position(|window| window == BLANK_LINE);
        if let Some(at) = found {
            break at + BLANK_LINE.len();
        }
        if buffer.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("a head without an end"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(unexpected_eof()) };
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    let mut body_bytes = 0;
    let mut is_keep_alive = true;
    for (name, value) in header_fields(&head) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("connection") {
            is_keep_alive = !value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::other("a body of unknown length"));
        }
    }
    discard_body(stream, buffer, body_bytes).await?;
    Ok(Some(Http1Message { head, is_keep_alive }))
}

async fn discard_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    mut body_bytes: usize,
) -> io::Result<()> {
    loop {
        let buffered_bytes = body_bytes.min(buffer.len());
        buffer.advance(buffered_bytes);
        body_bytes -= buffered_bytes;
        if body_bytes == 0 {
            return Ok(());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(unexpected_eof());
        }
    }
}

fn unexpected_eof() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
