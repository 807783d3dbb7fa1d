//! An HTTP/1.1 client that posts to one server, one request at a time, over one reused connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::logic::model::upstream_protocol::UpstreamTls;

use super::tls_client;

/// Bytes of a response body, at most.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Why a post has no response.
#[derive(Debug)]
pub enum PostError {
    /// The server's name cannot be resolved, or the server is not reachable.
    Connect(io::Error),
    /// The TLS configuration is unusable.
    Tls(rustls::Error),
    /// The exchange ended early, or the response is malformed.
    Http(hyper::Error),
    /// The response body ended early or is too long.
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(error) => write!(f, "TLS configuration: {error}"),
            Self::Http(error) => write!(f, "no response: {error}"),
            Self::Body(error) => write!(f, "incomplete response: {error}"),
        }
    }
}

impl std::error::Error for PostError {}

#[derive(Clone, Debug)]
pub struct PostResponse {
    pub status: StatusCode,
    /// The server's Retry-After, if it is in seconds (RFC 9110 10.2.3).
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// A server and the connection to it.
#[derive(Debug)]
pub struct PostClient {
    target: Uri,
    headers: HeaderMap,
    tls: Option<Arc<UpstreamTls>>,
    tls_config: Option<Arc<ClientConfig>>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl PostClient {
    /// A client for `target`, an absolute URL. It sends `headers`, and Host from the URL. With
    /// `tls`, the server name is that of `tls` or of the URL.
    pub fn new(target: Uri, mut headers: HeaderMap, tls: Option<Arc<UpstreamTls>>) -> Self {
        let host = target.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        Self { target, headers, tls, tls_config: None, sender: None }
    }

    /// Posts `body`. Dropping the future before the response closes the connection.
    ///
    /// # Errors
    /// [`PostError`]; the server may have processed the request.
    pub async fn post(&mut self, body: Bytes) -> Result<PostResponse, PostError> {
        // Put back only after a complete exchange.
        let reusable = self.sender.take().filter(|open| !open.is_closed());
        let mut sender = match reusable {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let path = self.target.path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        request.headers_mut().clone_from(&self.headers);
        sender.ready().await.map_err(PostError::Http)?;
        let response = sender.send_request(request).await.map_err(PostError::Http)?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(parse_seconds);
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(PostError::Body)?.to_bytes();
        self.sender = Some(sender);
        Ok(PostResponse { status, retry_after, body })
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let host = self.target.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let default_port = if self.tls.is_some() { 443 } else { 80 };
        let port = self.target.port_u16().unwrap_or(default_port);
        let stream = match host.parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
            Err(_) => TcpStream::connect((host.as_str(), port)).await,
        };
        let stream = stream.map_err(PostError::Connect)?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.clone() else { return open_connection(stream).await };
        let config = match &self.tls_config {
            Some(tls_config) => Arc::clone(tls_config),
            None => {
                let tls_config = tls_client::client_config(&tls).await.map_err(PostError::Tls)?;
                Arc::clone(self.tls_config.insert(Arc::new(tls_config)))
            }
        };
        let name = ServerName::try_from(tls.server_name.clone().unwrap_or(host));
        let name =
            name.map_err(|error| PostError::Tls(rustls::Error::General(error.to_string())))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        open_connection(stream.map_err(PostError::Connect)?).await
    }
}

async fn open_connection<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, PostError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(PostError::Http)?;
    // The task ends with its handle, which also reports its error.
    tokio::spawn(connection);
    Ok(sender)
}

fn parse_seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
