//! A TLS client with HTTP/1.1.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};

use crate::support::pki::{CertificateAuthority, Identity};

pub(crate) const TLS12_AND_TLS13: &[&SupportedProtocolVersion] =
    &[&version::TLS13, &version::TLS12];
pub(crate) const TLS12_ONLY: &[&SupportedProtocolVersion] = &[&version::TLS12];

/// A client's roots, certificate and ALPN.
pub(crate) fn client_config(
    authority: &CertificateAuthority,
    identity: Option<&Identity>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("an authority");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("a chain");
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a certificate and its key")
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.enable_early_data = true;
    Arc::new(config)
}

/// A client that trusts `authority`.
pub(crate) fn default_client_config(authority: &CertificateAuthority) -> Arc<ClientConfig> {
    client_config(authority, None, &["http/1.1"], TLS12_AND_TLS13)
}

#[derive(Debug)]
pub(crate) struct TlsResponse {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct TlsTestClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl TlsTestClient {
    pub(crate) fn connect(
        address: SocketAddr,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        Self::connect_with_prefix(address, b"", name, config)
    }

    /// Sends these bytes before the handshake.
    pub(crate) fn connect_with_prefix(
        address: SocketAddr,
        prefix: &[u8],
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(prefix)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) fn exchange(&mut self, fields: &str, body: &[u8]) -> io::Result<TlsResponse> {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n{fields}\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        self.stream.flush()?;
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize =
            length.and_then(|text| text.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        self.buffer.drain(..end);
        while self.buffer.len() < length {
            self.fill()?;
        }
        let body = self.buffer.drain(..length).collect();
        Ok(TlsResponse { status: status.ok_or(ErrorKind::InvalidData)?, body })
    }

    /// Sends one request with these header lines and returns its status.
    #[track_caller]
    pub(crate) fn request_status(&mut self, fields: &str) -> u16 {
        self.exchange(fields, b"").expect("an answer").status
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..read]);
        if read == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Whether the session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// The certificate that the server showed.
    pub(crate) fn peer_certificate(&self) -> Vec<u8> {
        let chain = self.stream.conn.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }
}

/// The first certificate of a PEM file.
pub(crate) fn certificate_der(identity: &Identity) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(identity.chain_pem.as_bytes());
    der.expect("a certificate").to_vec()
}
