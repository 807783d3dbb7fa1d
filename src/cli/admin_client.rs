//! An HTTP/1.0 client for the admin listener or the status listener of a running instance.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{EXIT_FAILED, EXIT_OK};
use crate::config::model::AdminToken;
use crate::net::tls_client;

/// The time limit of each step of an exchange.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Size limit of a response.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024 * 1024;

/// Size limit of a file with a token or with CA certificates.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

const TOKEN_FILE_ENV: &str = "GAPLESS_ADMIN_TOKEN_FILE";

const CA_ENV: &str = "GAPLESS_ADMIN_CA";

/// How a command reaches a running instance.
#[derive(Clone, Debug, Args)]
pub struct AdminClientArguments {
    /// The instance's admin listener: HOST:PORT, or https://HOST:PORT if it has TLS
    #[arg(
        long,
        value_name = "ADDRESS",
        global = true,
        env = "GAPLESS_ADMIN",
        hide_env_values = true,
        default_value = DEFAULT_ADMIN
    )]
    admin: AdminAddress,
    /// A file with the token of the admin listener
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        env = TOKEN_FILE_ENV,
        hide_env_values = true
    )]
    admin_token_file: Option<PathBuf>,
    /// A file with the CA certificates for the admin listener's certificate, in PEM [default: the
    /// system's]
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        env = CA_ENV,
        hide_env_values = true
    )]
    admin_ca: Option<PathBuf>,
}

impl AdminClientArguments {
    /// An address from another option; the files are those that the environment names.
    pub fn with_environment(admin: AdminAddress) -> Self {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Self { admin, admin_token_file: path(TOKEN_FILE_ENV), admin_ca: path(CA_ENV) }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If a file cannot be read, or the token would be sent in cleartext to another machine.
    pub fn client(&self) -> io::Result<AdminClient> {
        let token = self.admin_token_file.as_deref().map(read_token).transpose()?;
        let address = self.admin.clone();
        if token.is_some() && !address.is_tls && !address.is_local() {
            let why =
                format!("the token is sent over TLS only: write https://{}", address.host_port());
            return Err(io::Error::other(why));
        }
        let tls = match (&self.admin_ca, address.is_tls) {
            (ca, true) => {
                let pem = ca.as_deref().map(read_file).transpose()?;
                Some(tls_client::blocking_config(pem.as_deref()).map_err(io::Error::other)?)
            }
            (Some(_), false) if !address.is_local() => {
                let why = format!("--admin-ca needs TLS: write https://{}", address.host_port());
                return Err(io::Error::other(why));
            }
            (_, false) => None,
        };
        Ok(AdminClient { address, token, tls })
    }
}

/// The address of an admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress {
    is_tls: bool,
    /// A name, or an IP address without brackets.
    host: String,
    port: u16,
}

impl AdminAddress {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    fn host_port(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn is_local(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_tls { "https://" } else { "" }, self.host_port())
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help =
            || format!("`{text}` is not HOST:PORT, such as {DEFAULT_ADMIN} or https://lb:9900");
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => (false, text),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(help)?;
        let port = port.parse().map_err(|_| help())?;
        let is_ipv6 = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
        let host = match host.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')) {
            Some(ip) if is_ipv6(ip) => ip,
            Some(_) => return Err(help()),
            None => host,
        };
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !(is_ipv6(host) || host.bytes().all(is_name_byte)) {
            return Err(help());
        }
        Ok(Self { is_tls, host: host.to_owned(), port })
    }
}

/// A client for one instance.
#[derive(Clone, Debug)]
pub struct AdminClient {
    address: AdminAddress,
    token: Option<AdminToken>,
    tls: Option<Arc<ClientConfig>>,
}

/// A response of the admin listener.
#[derive(Debug)]
pub struct ApiResponse {
    /// The status line's code.
    pub status: u16,
    /// The whole body.
    pub body: String,
}

impl From<SocketAddr> for AdminClient {
    /// A client in cleartext, without a token.
    fn from(address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        Self { address: AdminAddress { is_tls: false, host, port }, token: None, tls: None }
    }
}

impl fmt::Display for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl AdminClient {
    /// Sends `GET path`.
    ///
    /// # Errors
    /// If no response arrives in time, or none in HTTP.
    pub fn get(&self, path: &str) -> io::Result<ApiResponse> {
        self.exchange(&format!("GET {path} HTTP/1.0\r\n"), "")
    }

    /// Sends `method path` with a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn send(&self, method: &str, path: &str, body: &str) -> io::Result<ApiResponse> {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\n");
        self.exchange(&format!("{head}content-type: application/json\r\n"), body)
    }

    /// Returns a response with a status below 300; prints anything else on standard error.
    pub fn success_or_report(&self, result: io::Result<ApiResponse>) -> Option<ApiResponse> {
        match result {
            Ok(answer) if answer.status < 300 => return Some(answer),
            Ok(answer) => eprintln!("gapless: {}", answer.body.trim_end()),
            Err(error) => eprintln!(
                "gapless: no answer from {self}: {error}; `--admin` says where the admin listener is"
            ),
        }
        None
    }

    /// Sends `GET path`, prints the body, and returns the exit code.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn print_response(&self, path: &str, out: &mut impl Write) -> io::Result<u8> {
        let Some(answer) = self.success_or_report(self.get(path)) else { return Ok(EXIT_FAILED) };
        out.write_all(answer.body.as_bytes())?;
        Ok(EXIT_OK)
    }

    /// The fields of every request. `host` is the authority that it is sent to.
    fn fields(&self, host: &str) -> String {
        let token = self.token.as_ref();
        let authorization =
            token.map(|token| format!("authorization: Bearer {}\r\n", token.as_str()));
        format!("host: {host}\r\n{}", authorization.unwrap_or_default())
    }

    /// `head` is the request line with fields; those of every request are added.
    fn exchange(&self, head: &str, body: &str) -> io::Result<ApiResponse> {
        let stream = connect(&self.address)?;
        let Some(config) = &self.tls else {
            // Without a token the listener accepts addresses only, whatever name led here.
            let fields = self.fields(&stream.peer_addr()?.to_string());
            return exchange_over(stream, &format!("{head}{fields}\r\n{body}"));
        };
        let name = ServerName::try_from(self.address.host.clone()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let fields = self.fields(&self.address.host_port());
        exchange_over(StreamOwned::new(session, stream), &format!("{head}{fields}\r\n{body}"))
    }
}

/// Connects to the first address of the host that accepts.
fn connect(address: &AdminAddress) -> io::Result<TcpStream> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for one in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, ADMIN_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
                stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn exchange_over(mut stream: impl Read + Write, request: &str) -> io::Result<ApiResponse> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(ApiResponse { status: status.ok_or(io::ErrorKind::InvalidData)?, body: body.to_owned() })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| io::Error::other(format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}

fn read_token(path: &Path) -> io::Result<AdminToken> {
    let bytes = read_file(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not text".to_owned());
    let token = text.and_then(|text| AdminToken::parse(text.trim()));
    token.map_err(|why| io::Error::other(format!("the token in {} {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_address_is_a_host_and_a_port() {
        for (text, shown, is_local) in [
            ("127.0.0.1:9900", "127.0.0.1:9900", true),
            ("localhost:9900", "localhost:9900", true),
            ("http://[::1]:9900/", "[::1]:9900", true),
            ("https://lb-1.example:443", "https://lb-1.example:443", false),
        ] {
            let address: AdminAddress = text.parse().expect("valid");
            assert_eq!((address.to_string().as_str(), address.is_local()), (shown, is_local));
        }
        for text in
            ["", "lb", "lb:", ":9900", "lb:99999", "a@lb:1", "[lb]:1", "ftp://lb:1", "lb/x:1"]
        {
            assert!(
                text.parse::<AdminAddress>().expect_err("invalid").contains("HOST:PORT"),
                "{text}"
            );
        }
    }

    #[test]
    fn token_is_not_sent_in_cleartext_to_another_machine() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").expect("written");
        let client = |admin: &str| {
            let (admin, admin_token_file) = (admin.parse().expect("valid"), Some(file.clone()));
            AdminClientArguments { admin, admin_token_file, admin_ca: None }.client()
        };
        let fields = client("127.0.0.1:9900").expect("loopback").fields("127.0.0.1:9900");
        assert!(fields.contains("authorization: Bearer 0123456789abcdef\r\n"), "{fields}");
        let error = client("10.0.0.1:9900").expect_err("cleartext").to_string();
        assert!(error.contains("https://10.0.0.1:9900"), "{error}");
    }
}
