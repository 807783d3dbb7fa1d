//! A connection over HTTP/2 that several clients share.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderName, Method, Request};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::layout::pool_name;
use crate::post::{IdempotencyPromise, Post};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One connection, opened on demand and reopened after its end.
#[derive(Debug)]
pub(crate) struct SharedH2Connection {
    proxy: SocketAddr,
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl SharedH2Connection {
    /// A client of `proxy`, not connected yet.
    pub(crate) fn new(proxy: SocketAddr) -> Self {
        Self { proxy, sender: Mutex::default() }
    }

    /// Sends `post`, reads the whole response, and returns its status.
    pub(crate) async fn exchange(&self, post: &Post) -> io::Result<u16> {
        let uri = format!("http://{}{}", pool_name(0), post.path());
        let mut request = Request::builder().method(Method::POST).uri(uri);
        request = request.header(http::header::CONTENT_LENGTH, post.body.len());
        if post.promise != IdempotencyPromise::None {
            request = request.header(IDEMPOTENCY_KEY, format!("\"{}\"", post.number));
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let mut client = self.ready_sender().await?;
        let is_empty = post.body.is_empty();
        let (answer, mut body) =
            client.send_request(request, is_empty).map_err(io::Error::other)?;
        if !is_empty {
            body.send_data(Bytes::from_static(post.body), true).map_err(io::Error::other)?;
        }
        let answer = answer.await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let mut answer = answer.into_body();
        while let Some(data) = answer.data().await {
            let data = data.map_err(io::Error::other)?;
            // Releasing capacity fails only for a closed stream.
            let _ = answer.flow_control().release_capacity(data.len());
        }
        Ok(status)
    }

    async fn ready_sender(&self) -> io::Result<SendRequest<Bytes>> {
        let mut sender = self.sender.lock().await;
        if let Some(client) = sender.clone()
            && let Ok(client) = client.ready().await
        {
            return Ok(client);
        }
        let stream = TcpStream::connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        let (client, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Each stream reports the error of the connection.
            let _ = connection.await;
        });
        *sender = Some(client.clone());
        client.ready().await.map_err(io::Error::other)
    }
}
