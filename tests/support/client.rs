//! A client on a raw connection: sends any bytes, and parses responses strictly.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{MessageHead, WireStream};

/// Read timeout of a client.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) head: MessageHead,
    pub(crate) body: Vec<u8>,
}

impl TestResponse {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The status, and `x-gapless-reason` of a local reply.
    pub(crate) fn status_and_reason(&self) -> (u16, Option<&str>) {
        (self.status, self.field("x-gapless-reason"))
    }
}

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct TestClient {
    pub(crate) wire: WireStream,
}

impl TestClient {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        Ok(Self { wire: WireStream::new(Arc::new(stream)) })
    }

    /// Connects, or panics.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::connect(address).expect("a connection")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Reads the next final response; `method` decides whether a body follows.
    pub(crate) fn read_response(&mut self, method: &str) -> io::Result<TestResponse> {
        loop {
            let head = self.wire.read_head()?.ok_or(ErrorKind::UnexpectedEof)?;
            let status: u16 =
                head.start_line_word(1).parse().map_err(|_| ErrorKind::InvalidData)?;
            if status < 200 {
                continue;
            }
            let has_no_body = method == "HEAD" || status == 204 || status == 304;
            let framed = head.field("content-length").or_else(|| head.field("transfer-encoding"));
            let body = if has_no_body {
                Vec::new()
            } else if framed.is_none() {
                self.wire.read_to_end()?
            } else {
                self.wire.read_body(&head)?
            };
            return Ok(TestResponse { status, head, body });
        }
    }

    /// Sends a request with Host and, for a body, Content-Length; reads the response.
    pub(crate) fn exchange(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<TestResponse> {
        let mut wire = format!("{method} {target} HTTP/1.1\r\nhost: test.example\r\n");
        for (name, value) in fields {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            wire.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        wire.push_str("\r\n");
        self.send([wire.as_bytes(), body].concat())?;
        self.read_response(method)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> TestResponse {
        self.exchange("GET", target, &[], b"").expect("an answer")
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) fn is_closed_by_server(&mut self) -> bool {
        match self.wire.read_some() {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: &[u8],
) -> TestResponse {
    TestClient::open(address).exchange(method, target, &[], body).expect("an answer")
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> TestResponse {
    request(address, "GET", target, b"")
}

/// Sends these bytes on a connection of its own and reads the answer.
#[track_caller]
pub(crate) fn send_raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TestResponse {
    let mut client = TestClient::open(address);
    client.send(bytes).expect("sent");
    client.read_response("GET").expect("an answer")
}
