//! HTTP/1.1 messages on the wire, for the client and the endpoints of the tests.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(crate) struct MessageHead {
    /// The request line or status line.
    pub(crate) start_line: String,
    /// Fields in the order in which they were sent.
    pub(crate) fields: Vec<(String, String)>,
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct WireStream {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
}

impl MessageHead {
    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a field.
    pub(crate) fn field_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let has_same_name = move |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.fields.iter().filter(has_same_name).map(|(_, value)| value.as_str())
    }

    /// Word number `index` of the start line.
    pub(crate) fn start_line_word(&self, index: usize) -> &str {
        self.start_line.split(' ').nth(index).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
                Ok((name.to_owned(), value.trim().to_owned()))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { start_line: start, fields })
    }
}

impl WireStream {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new() }
    }

    /// A second handle of the same connection, for another thread.
    pub(crate) fn shared_handle(&self) -> Self {
        Self { stream: Arc::clone(&self.stream), buffer: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        (&*self.stream).write_all(bytes.as_ref())
    }

    /// Reads once; 0 at the end of the stream.
    pub(crate) fn read_some(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let read = (&*self.stream).read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    fn read_some_or_eof(&mut self) -> io::Result<()> {
        if self.read_some()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next head; `None` if the other side closed before its first byte.
    pub(crate) fn read_head(&mut self) -> io::Result<Option<MessageHead>> {
        loop {
            if let Some(end) = find_bytes(&self.buffer, b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return MessageHead::parse(&bytes[..end]).map(Some);
            }
            if self.read_some()? == 0 {
                let is_empty = self.buffer.is_empty();
                return if is_empty { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads exactly this many bytes.
    pub(crate) fn read_exact(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.read_some_or_eof()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// The next chunk; `None` after the last one and its trailers.
    pub(crate) fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| ErrorKind::InvalidData)?;
        if size == 0 {
            while !self.read_line()?.is_empty() {}
            return Ok(None);
        }
        let data = self.read_exact(size)?;
        if self.read_exact(2)? == b"\r\n" {
            Ok(Some(data))
        } else {
            Err(ErrorKind::InvalidData.into())
        }
    }

    /// Reads to the end of the stream.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.read_some()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads the body that the head frames; empty without framing.
    pub(crate) fn read_body(&mut self, head: &MessageHead) -> io::Result<Vec<u8>> {
        if head.field("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            while let Some(chunk) = self.read_chunk()? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        let length = head.field("content-length").map_or(Ok(0), str::parse);
        self.read_exact(length.map_err(|_| ErrorKind::InvalidData)?)
    }

    pub(crate) fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find_bytes(&self.buffer, b"\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&bytes[..end]).into_owned());
            }
            self.read_some_or_eof()?;
        }
    }
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
