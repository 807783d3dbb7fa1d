//! As much of HTTP/1.1 as the endpoint and the load speak: heads, and bodies of announced length.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A head longer than this is none.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What ends a head.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// A message whose body was read and forgotten.
#[derive(Debug)]
pub(crate) struct Message {
    head: String,
    /// The connection may carry another message.
    pub(crate) keeps: bool,
}

impl Message {
    /// The request line or the status line.
    pub(crate) fn first_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The status, if it is an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    /// The value of the first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        fields(&self.head)
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name, value.trim()))
}

/// Reads one message; `None` if the connection ended before one began.
pub(crate) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Message>> {
    let end = loop {
        let found = buffer.windows(BLANK_LINE.len()).position(|window| window == BLANK_LINE);
        if let Some(at) = found {
            break at + BLANK_LINE.len();
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("a head without an end"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(cut_short()) };
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    let mut body_bytes = 0;
    let mut keeps = true;
    for (name, value) in fields(&head) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.parse().map_err(io::Error::other)?;
        } else if name.eq_ignore_ascii_case("connection") {
            keeps = !value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::other("a body of unknown length"));
        }
    }
    skip(stream, buffer, body_bytes).await?;
    Ok(Some(Message { head, keeps }))
}

async fn skip(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    mut body_bytes: usize,
) -> io::Result<()> {
    loop {
        let here = body_bytes.min(buffer.len());
        buffer.advance(here);
        body_bytes -= here;
        if body_bytes == 0 {
            return Ok(());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(cut_short());
        }
    }
}

fn cut_short() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
