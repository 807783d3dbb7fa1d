//! Asks the admin listener of a running instance.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{FAILED, OK};

/// The whole exchange ends by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// An answer of the admin listener.
#[derive(Debug)]
pub struct Answer {
    /// The status line's code.
    pub status: u16,
    /// All of the body.
    pub body: String,
}

/// `GET path` at `admin`.
///
/// # Errors
/// If nobody answers in time, or not in HTTP.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(admin, &format!("GET {path} HTTP/1.0\r\nhost: {admin}\r\n\r\n"))
}

/// `method path` at `admin`, with a body of JSON.
///
/// # Errors
/// As [`get`].
pub fn send(admin: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {admin}\r\n");
    let kind = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    ask(admin, &format!("{head}{kind}{body}"))
}

/// A good answer of `admin`; what else came of asking is said on standard error.
#[must_use]
pub fn heard(admin: SocketAddr, answer: io::Result<Answer>) -> Option<Answer> {
    match answer {
        Ok(answer) if answer.status < 300 => return Some(answer),
        Ok(answer) => eprintln!("gapless: {}", answer.body.trim_end()),
        Err(error) => eprintln!(
            "gapless: nobody to ask at {admin}: {error}; `--admin` says where the admin listener is"
        ),
    }
    None
}

/// Asks at `admin`, prints the answer as it comes, and gives the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn print(admin: SocketAddr, path: &str, out: &mut impl Write) -> io::Result<u8> {
    let Some(answer) = heard(admin, get(admin, path)) else { return Ok(FAILED) };
    out.write_all(answer.body.as_bytes())?;
    Ok(OK)
}

fn ask(admin: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer { status: status.ok_or(io::ErrorKind::InvalidData)?, body: body.to_owned() })
}
