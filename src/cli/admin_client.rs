//! An HTTP/1.0 client for the admin listener of a running instance.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{EXIT_FAILED, EXIT_OK};

/// The time limit of each step of an exchange.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Size limit of a response.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024 * 1024;

/// A response of the admin listener.
#[derive(Debug)]
pub struct ApiResponse {
    /// The status line's code.
    pub status: u16,
    /// The whole body.
    pub body: String,
}

/// Sends `GET path` to `admin`.
///
/// # Errors
/// If no response arrives in time, or none in HTTP.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<ApiResponse> {
    exchange(admin, &format!("GET {path} HTTP/1.0\r\nhost: {admin}\r\n\r\n"))
}

/// Sends `method path` to `admin`, with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn send(admin: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<ApiResponse> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {admin}\r\n");
    let kind = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    exchange(admin, &format!("{head}{kind}{body}"))
}

/// Returns a response with a status below 300; prints anything else on standard error.
pub fn success_or_report(
    admin: SocketAddr,
    result: io::Result<ApiResponse>,
) -> Option<ApiResponse> {
    match result {
        Ok(answer) if answer.status < 300 => return Some(answer),
        Ok(answer) => eprintln!("gapless: {}", answer.body.trim_end()),
        Err(error) => eprintln!(
            "gapless: no answer from {admin}: {error}; `--admin` says where the admin listener is"
        ),
    }
    None
}

/// Sends `GET path` to `admin`, prints the body, and returns the exit code.
///
/// # Errors
/// When `out` cannot be written to.
pub fn print_response(admin: SocketAddr, path: &str, out: &mut impl Write) -> io::Result<u8> {
    let Some(answer) = success_or_report(admin, get(admin, path)) else { return Ok(EXIT_FAILED) };
    out.write_all(answer.body.as_bytes())?;
    Ok(EXIT_OK)
}

fn exchange(admin: SocketAddr, request: &str) -> io::Result<ApiResponse> {
    let mut stream = TcpStream::connect_timeout(&admin, ADMIN_TIMEOUT)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(ApiResponse { status: status.ok_or(io::ErrorKind::InvalidData)?, body: body.to_owned() })
}
