//! Idle HTTP/1.1 connections of clients; connections that the proxy has closed are never used.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1_message::{Http1Message, read_message};

/// The idle connections. They are used in turn, so that every worker gets its share.
#[derive(Debug)]
pub(crate) struct KeepAliveConnections {
    proxy: SocketAddr,
    idle: RefCell<VecDeque<TcpStream>>,
}

impl KeepAliveConnections {
    pub(crate) async fn open(proxy: SocketAddr, connections: usize) -> Self {
        let kept = Self { proxy, idle: RefCell::default() };
        for _ in 0..connections {
            // A failure to connect shows again at the request that needs the connection.
            if let Ok(stream) = TcpStream::connect(proxy).await {
                kept.idle.borrow_mut().push_back(stream);
            }
        }
        kept
    }

    /// Sends one request and reads its response; `None` if the connection ended instead.
    pub(crate) async fn exchange(&self, request: &[u8]) -> io::Result<Option<Http1Message>> {
        let mut stream = match self.next_open() {
            Some(stream) => stream,
            None => TcpStream::connect(self.proxy).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(request).await?;
        let response = read_message(&mut stream, &mut BytesMut::new()).await?;
        if response.as_ref().is_some_and(|answer| answer.is_keep_alive) {
            self.idle.borrow_mut().push_back(stream);
        }
        Ok(response)
    }

    /// The connection that has been idle for the longest time, of those that are still open.
    fn next_open(&self) -> Option<TcpStream> {
        let is_open = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop_front()).find(is_open)
    }
}
