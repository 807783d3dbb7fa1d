//! A client on a raw connection: sends any bytes, and reads answers strictly.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{Head, Wire};

/// Longest silence that a client bears.
const PATIENCE: Duration = Duration::from_secs(20);

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The status, and the proxy's word for why it answered itself.
    pub(crate) fn verdict(&self) -> (u16, Option<&str>) {
        (self.status, self.field("x-gapless-reason"))
    }
}

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { wire: Wire::new(Arc::new(stream)) })
    }

    /// Connects; for tests that cannot go on without.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::connect(address).expect("a connection")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// The next final answer; `method` says whether a body follows.
    pub(crate) fn answer(&mut self, method: &str) -> io::Result<Answer> {
        loop {
            let head = self.wire.head()?.ok_or(ErrorKind::UnexpectedEof)?;
            let status: u16 = head.word(1).parse().map_err(|_| ErrorKind::InvalidData)?;
            if status < 200 {
                continue;
            }
            let bodiless = method == "HEAD" || status == 204 || status == 304;
            let framed = head.field("content-length").or_else(|| head.field("transfer-encoding"));
            let body = if bodiless {
                Vec::new()
            } else if framed.is_none() {
                self.wire.rest()?
            } else {
                self.wire.body(&head)?
            };
            return Ok(Answer { status, head, body });
        }
    }

    /// Sends a request with a Host and, where there is a body, its length; reads the answer.
    pub(crate) fn exchange(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut wire = format!("{method} {target} HTTP/1.1\r\nhost: test.example\r\n");
        for (name, value) in fields {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            wire.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        wire.push_str("\r\n");
        self.send([wire.as_bytes(), body].concat())?;
        self.answer(method)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.exchange("GET", target, &[], b"").expect("an answer")
    }

    /// Whether the server ends the connection, without another byte.
    pub(crate) fn is_ended(&mut self) -> bool {
        match self.wire.fill() {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn request(address: SocketAddr, method: &str, target: &str, body: &[u8]) -> Answer {
    Client::open(address).exchange(method, target, &[], body).expect("an answer")
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, b"")
}

/// Sends these bytes on a connection of its own and reads the answer.
#[track_caller]
pub(crate) fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::open(address);
    client.send(bytes).expect("sent");
    client.answer("GET").expect("an answer")
}
