//! The endpoint: this same program in a process of its own. Orders come on standard input, one
//! word a line, and each is acknowledged when it is in force; the input's end is the process's end.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::certificates;
use crate::class::Fault;
use crate::layout::TLS_PORT;
use crate::wire::{Message, read_message};

/// How long a request takes: what the simulator takes an endpoint for.
const SERVICE_TIME: Duration = Duration::from_millis(1);

/// How long it takes one that is slow.
const SLOW_TIME: Duration = Duration::from_secs(2);

/// The share of bad answers of one that errs.
const ERRORS_SHARE: f64 = 0.3;

/// The acknowledgement of an order, and of the start.
pub(crate) const DONE: &str = "done";

/// The fault in force, as its position in [`Fault::ALL`].
type Current = Arc<AtomicUsize>;

/// Serves on `address` until standard input ends; probes over TLS too if there is a directory of
/// certificates.
pub(crate) fn main(address: &str, certificates: Option<&Path>) -> ExitCode {
    // A stopped process does not see its input end.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match serve(address, certificates) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endpoint {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, certificates: Option<&Path>) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let listen = |port: u16| {
        let listener = TcpListener::bind((address.ip(), port))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    let listener = listen(address.port())?;
    let probed = certificates
        .map(|dir| Ok::<_, io::Error>((listen(TLS_PORT)?, certificates::read(dir)?)))
        .transpose()?;
    let current = Current::default();
    let orders = Arc::clone(&current);
    std::thread::spawn(move || obey(&orders));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        if let Some((probed, acceptors)) = probed {
            let probed = tokio::net::TcpListener::from_std(probed)?;
            tokio::task::spawn_local(serve_tls(probed, acceptors, Arc::clone(&current)));
        }
        acknowledge();
        loop {
            let (stream, _) = listener.accept().await?;
            let current = Arc::clone(&current);
            tokio::task::spawn_local(async move {
                // How a connection ends is the other side's to judge.
                let _ = connection(stream, &current).await;
            });
        }
    })
}

/// Answers probes over TLS, all of them well, but not always with a certificate that does.
async fn serve_tls(
    listener: tokio::net::TcpListener,
    acceptors: [TlsAcceptor; 2],
    current: Current,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let has_expired = Fault::ALL[current.load(SeqCst)] == Fault::Certificate;
        let acceptor = acceptors[usize::from(has_expired)].clone();
        tokio::task::spawn_local(async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut buffer = BytesMut::new();
            while let Some(message) = read_message(&mut stream, &mut buffer).await? {
                tokio::time::sleep(SERVICE_TIME).await;
                if !write_answer(&mut stream, &message, "200 OK", "well\n").await? {
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

async fn connection(mut stream: TcpStream, current: &Current) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    while let Some(message) = read_message(&mut stream, &mut buffer).await? {
        if Fault::ALL[current.load(SeqCst)] == Fault::None {
            tokio::time::sleep(SERVICE_TIME).await;
        }
        let fault = Fault::ALL[current.load(SeqCst)];
        if !answer(&mut stream, &message, fault).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Answers, and says whether the connection goes on.
async fn answer(stream: &mut TcpStream, message: &Message, fault: Fault) -> io::Result<bool> {
    let is_probe = message.first_line.contains(" /healthz ");
    let (status, body) = match fault {
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
    write_answer(stream, message, status, body).await
}

async fn write_answer(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &Message,
    status: &str,
    body: &str,
) -> io::Result<bool> {
    let connection = if message.keeps { "" } else { "connection: close\r\n" };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{connection}\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(message.keeps)
}
