//! The endpoint: this same program in a process of its own. Orders come on standard input, one
//! word a line, and each is acknowledged when it is in force; the input's end is the process's end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::certificates;
use crate::class::Fault;
use crate::layout::TLS_PORT;
use crate::wire::{Message, read_message};

/// How long it takes one that is slow.
const SLOW_TIME: Duration = Duration::from_secs(2);

/// The share of bad answers of one that errs.
const ERRORS_SHARE: f64 = 0.3;

/// The acknowledgement of an order, and of the start.
pub(crate) const DONE: &str = "done";

/// The field of an answer that says which endpoint gave it.
pub(crate) const SERVED_BY: &str = "x-served-by";

/// The word that makes this program an endpoint.
pub(crate) const WORD: &str = "endpoint";

/// What an endpoint is, besides its address and its faults.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Setting {
    /// How long a request takes.
    pub(crate) service: Duration,
    /// Where its certificates are, if it answers probes over TLS too.
    pub(crate) certificates: Option<PathBuf>,
    /// Where it puts a line for each POST that it has read whole, before it answers: the last part of
    /// the path, and the microseconds since 1970.
    pub(crate) posts: Option<PathBuf>,
}

/// The fault in force, as its position in [`Fault::ALL`].
type Current = Arc<AtomicUsize>;

/// What all connections of the endpoint share.
struct Service {
    address: SocketAddr,
    time: Duration,
    posts: Option<File>,
    current: Current,
}

/// Serves on `address` until standard input ends; `setting` is a [`Setting`] as JSON.
pub(crate) fn main(address: &str, setting: &str) -> ExitCode {
    // A stopped process does not see its input end.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match serve(address, setting) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endpoint {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, setting: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let setting: Setting = serde_json::from_str(setting)?;
    let listen = |port: u16| {
        let listener = TcpListener::bind((address.ip(), port))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    let listener = listen(address.port())?;
    let probed = setting
        .certificates
        .map(|dir| Ok::<_, io::Error>((listen(TLS_PORT)?, certificates::read(&dir)?)))
        .transpose()?;
    let append = |path: PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let posts = setting.posts.map(append).transpose()?;
    let current = Current::default();
    let orders = Arc::clone(&current);
    std::thread::spawn(move || obey(&orders));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let service = Rc::new(Service { address, time: setting.service, posts, current });
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        if let Some((probed, acceptors)) = probed {
            let probed = tokio::net::TcpListener::from_std(probed)?;
            tokio::task::spawn_local(serve_tls(probed, acceptors, Rc::clone(&service)));
        }
        acknowledge();
        loop {
            let (stream, _) = listener.accept().await?;
            let service = Rc::clone(&service);
            tokio::task::spawn_local(async move {
                // How a connection ends is the other side's to judge.
                let _ = service.connection(stream).await;
            });
        }
    })
}

/// Answers probes over TLS, all of them well, but not always with a certificate that does.
async fn serve_tls(
    listener: tokio::net::TcpListener,
    acceptors: [TlsAcceptor; 2],
    service: Rc<Service>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let has_expired = service.fault() == Fault::Certificate;
        let acceptor = acceptors[usize::from(has_expired)].clone();
        let service = Rc::clone(&service);
        tokio::task::spawn_local(async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut buffer = BytesMut::new();
            while let Some(message) = read_message(&mut stream, &mut buffer).await? {
                tokio::time::sleep(service.time).await;
                if !service.write_answer(&mut stream, &message, "200 OK", "well\n").await? {
                    stream.shutdown().await?;
                    break;
                }
            }
            Ok::<_, io::Error>(())
        });
    }
}

fn obey(current: &Current) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Some(fault) = Fault::ALL.iter().position(|fault| fault.word() == line) {
            current.store(fault, SeqCst);
            acknowledge();
        }
    }
    std::process::exit(0);
}

fn acknowledge() {
    let mut out = io::stdout().lock();
    // Nobody who reads it is nobody who waits for it.
    let _ = writeln!(out, "{DONE}").and_then(|()| out.flush());
}

impl Service {
    fn fault(&self) -> Fault {
        Fault::ALL[self.current.load(SeqCst)]
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        while let Some(message) = read_message(&mut stream, &mut buffer).await? {
            self.note(message.first_line())?;
            if self.fault() == Fault::None {
                tokio::time::sleep(self.time).await;
            }
            if !self.answer(&mut stream, &message).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whoever has read a POST whole has begun to do what it asks for.
    fn note(&self, request_line: &str) -> io::Result<()> {
        let Some(mut posts) = self.posts.as_ref() else { return Ok(()) };
        let Some(path) = request_line.strip_prefix("POST ") else { return Ok(()) };
        let id = path.split(' ').next().and_then(|path| path.rsplit('/').next());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // In one write, for all endpoints append to the same file; of 32 bytes, for a write that spans two
        // pages may be torn by SIGKILL.
        let line = format!("{:0>10} {:020}\n", id.unwrap_or_default(), now.as_micros());
        posts.write_all(line.as_bytes())
    }

    /// Answers, and says whether the connection goes on.
    async fn answer(&self, stream: &mut TcpStream, message: &Message) -> io::Result<bool> {
        let is_probe = message.first_line().contains(" /healthz ");
        let (status, body) = match self.fault() {
            Fault::Reset => {
                stream.set_zero_linger()?;
                return Ok(false);
            }
            Fault::Cut if !is_probe => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n").await?;
                stream.write_all(&[b'.'; 32]).await?;
                return Ok(false);
            }
            Fault::StatusAll => ("503 Service Unavailable", "unwell\n"),
            Fault::StatusTraffic if !is_probe => ("503 Service Unavailable", "unwell\n"),
            Fault::Errors30 if !is_probe && fastrand::f64() < ERRORS_SHARE => {
                ("500 Internal Server Error", "unlucky\n")
            }
            Fault::WrongBody if is_probe => ("200 OK", "maintenance\n"),
            Fault::Slow => {
                tokio::time::sleep(SLOW_TIME).await;
                ("200 OK", "well\n")
            }
            Fault::None
            | Fault::StatusTraffic
            | Fault::Errors30
            | Fault::Cut
            | Fault::WrongBody
            | Fault::Certificate => ("200 OK", "well\n"),
        };
        self.write_answer(stream, message, status, body).await
    }

    async fn write_answer(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        message: &Message,
        status: &str,
        body: &str,
    ) -> io::Result<bool> {
        let connection = if message.keeps { "" } else { "connection: close\r\n" };
        let (length, address) = (body.len(), self.address);
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{SERVED_BY}: {address}\r\n\
             {connection}\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        Ok(message.keeps)
    }
}
