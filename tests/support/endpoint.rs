//! An endpoint in this process that answers, or fails in a chosen way, and records its requests.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::ReservedPort;
use super::wire::{MessageHead, WireStream};

/// The reaction of an endpoint to a request.
#[derive(Clone)]
pub(crate) enum ResponseMode {
    /// 200, with the endpoint's name as body and in `x-endpoint`.
    Ok,
    /// The same with this status.
    Status(u16),
    /// 200 with this body.
    Body(String),
    /// 200 after this delay.
    Slow(Duration),
    /// 200, then a close that was not announced.
    CloseAfter,
    /// These bytes; then the next request.
    Raw(Vec<u8>),
    /// These bytes; then the end of the connection.
    RawClose(Vec<u8>),
    /// Reads the request, closes.
    Close,
    /// Reads the request, resets.
    Reset,
    /// Reads the request and does not answer.
    Hang,
    /// A script: receives the head while the body is unread.
    Script(Arc<ResponseScript>),
}

type ResponseScript =
    dyn Fn(&MessageHead, &mut WireStream) -> io::Result<ConnectionAction> + Send + Sync;

/// What happens to a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionAction {
    Keep,
    Close,
    Reset,
}

impl ResponseMode {
    pub(crate) fn script(
        script: impl Fn(&MessageHead, &mut WireStream) -> io::Result<ConnectionAction>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::Script(Arc::new(script))
    }

    /// Half of the bytes that Content-Length declares, then the end.
    pub(crate) fn truncated() -> Self {
        Self::RawClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!".to_vec())
    }

    /// A head and none of its body, then the end.
    pub(crate) fn close_after_head() -> Self {
        Self::RawClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_vec())
    }

    pub(crate) fn malformed() -> Self {
        Self::RawClose(b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n".to_vec())
    }
}

/// A request as the endpoint received it.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) head: MessageHead,
    pub(crate) body: Vec<u8>,
    /// The number of the endpoint's connection.
    pub(crate) connection: usize,
}

struct TestEndpointState {
    name: String,
    request_mode: Mutex<ResponseMode>,
    probe_mode: Mutex<ResponseMode>,
    requests: Mutex<Vec<ReceivedRequest>>,
    probes: Mutex<Vec<ReceivedRequest>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    accepted: AtomicUsize,
    resets: AtomicUsize,
}

/// An endpoint; ends when dropped.
pub(crate) struct TestEndpoint {
    port: ReservedPort,
    state: Arc<TestEndpointState>,
    accept_thread: Mutex<Option<AcceptThread>>,
}

struct AcceptThread {
    listener: Arc<TcpListener>,
    thread: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestEndpoint {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_on(name, ReservedPort::reserve())
    }

    /// Starts at this address; port 0 is any free port.
    #[track_caller]
    pub(crate) fn start_at(name: &str, address: SocketAddr) -> Self {
        Self::start_on(name, ReservedPort::reserve_at(address))
    }

    fn start_on(name: &str, port: ReservedPort) -> Self {
        let state = TestEndpointState {
            name: name.to_owned(),
            request_mode: Mutex::new(ResponseMode::Ok),
            probe_mode: Mutex::new(ResponseMode::Ok),
            requests: Mutex::default(),
            probes: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
        };
        let endpoint = Self { port, state: Arc::new(state), accept_thread: Mutex::default() };
        endpoint.listen();
        endpoint
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Sets the reaction to requests; probes keep theirs.
    pub(crate) fn set_mode(&self, mode: ResponseMode) {
        *lock(&self.state.request_mode) = mode;
    }

    /// Sets the reaction to probes.
    pub(crate) fn set_probe_mode(&self, mode: ResponseMode) {
        *lock(&self.state.probe_mode) = mode;
    }

    /// Sets the reaction to requests and probes.
    pub(crate) fn set_all_modes(&self, mode: ResponseMode) {
        self.set_probe_mode(mode.clone());
        self.set_mode(mode);
    }

    /// Requests so far, without probes. A scripted request counts once its head has arrived.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        lock(&self.state.requests).clone()
    }

    pub(crate) fn probes(&self) -> Vec<ReceivedRequest> {
        lock(&self.state.probes).clone()
    }

    /// The number of requests with this `x-id`.
    pub(crate) fn count_with_id(&self, id: &str) -> usize {
        lock(&self.state.requests).iter().filter(|seen| seen.head.field("x-id") == Some(id)).count()
    }

    /// Connections that carried requests.
    pub(crate) fn used_connection_count(&self) -> usize {
        let used_connections: HashSet<usize> =
            lock(&self.state.requests).iter().map(|seen| seen.connection).collect();
        used_connections.len()
    }

    /// Open connections, those of probes included.
    pub(crate) fn open_connection_count(&self) -> usize {
        lock(&self.state.connections).iter().filter(|known| known.strong_count() > 0).count()
    }

    /// Connections that the peer reset, those of probes excluded.
    pub(crate) fn reset_count(&self) -> usize {
        self.state.resets.load(SeqCst)
    }

    /// Refuses new connections; open ones stay.
    pub(crate) fn refuse_connections(&self) {
        let Some(accept_thread) = lock(&self.accept_thread).take() else { return };
        // On Linux this wakes a blocked accept and ends listening.
        let _ = SockRef::from(&*accept_thread.listener).shutdown(Shutdown::Both);
        let _ = accept_thread.thread.join();
    }

    pub(crate) fn listen(&self) {
        let listener = Arc::new(self.port.listen());
        let (accepting, state) = (Arc::clone(&listener), Arc::clone(&self.state));
        let thread = std::thread::spawn(move || accept(&accepting, &state));
        *lock(&self.accept_thread) = Some(AcceptThread { listener, thread });
    }

    /// Acts like a killed process: stops listening and closes every connection.
    pub(crate) fn kill(&self) {
        self.refuse_connections();
        for stream in lock(&self.state.connections).drain(..).filter_map(|known| known.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for TestEndpoint {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept(listener: &TcpListener, state: &Arc<TestEndpointState>) {
    while let Ok((stream, _)) = listener.accept() {
        let stream = Arc::new(stream);
        let mut connections = lock(&state.connections);
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Arc::downgrade(&stream));
        drop(connections);
        let number = state.accepted.fetch_add(1, SeqCst);
        let state = Arc::clone(state);
        std::thread::spawn(move || serve(&state, &stream, number));
    }
}

fn serve(state: &TestEndpointState, stream: &Arc<TcpStream>, number: usize) {
    let mut wire = WireStream::new(Arc::clone(stream));
    loop {
        match serve_one(state, &mut wire, number) {
            Ok(ConnectionAction::Keep) => {}
            Ok(ConnectionAction::Close) => return,
            Err(error) => {
                let has_request = |seen: &ReceivedRequest| seen.connection == number;
                if error.kind() == io::ErrorKind::ConnectionReset
                    && lock(&state.requests).iter().any(has_request)
                {
                    state.resets.fetch_add(1, SeqCst);
                }
                return;
            }
            Ok(ConnectionAction::Reset) => {
                let _ = SockRef::from(&**stream).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

fn serve_one(
    state: &TestEndpointState,
    wire: &mut WireStream,
    connection: usize,
) -> io::Result<ConnectionAction> {
    let Some(head) = wire.read_head()? else { return Ok(ConnectionAction::Close) };
    let is_probe =
        head.start_line_word(1) == "/healthz" || head.field("user-agent") == Some("gapless-probe");
    let (mode, log) = if is_probe {
        (&state.probe_mode, &state.probes)
    } else {
        (&state.request_mode, &state.requests)
    };
    if !is_probe && head.field("expect").is_some() {
        wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let current_mode = lock(mode).clone();
    if let ResponseMode::Script(script) = current_mode {
        lock(log).push(ReceivedRequest { head: head.clone(), body: Vec::new(), connection });
        return script(&head, wire);
    }
    let body = wire.read_body(&head)?;
    let method = head.start_line_word(0).to_owned();
    lock(log).push(ReceivedRequest { head, body, connection });
    let response_mode = lock(mode).clone();
    respond(response_mode, &state.name, &method, wire)
}

fn respond(
    mode: ResponseMode,
    name: &str,
    method: &str,
    wire: &mut WireStream,
) -> io::Result<ConnectionAction> {
    match mode {
        ResponseMode::Ok => {
            wire.send(response_text(200, name, name, method)).map(|()| ConnectionAction::Keep)
        }
        ResponseMode::Status(status) => {
            wire.send(response_text(status, name, name, method)).map(|()| ConnectionAction::Keep)
        }
        ResponseMode::Body(body) => {
            wire.send(response_text(200, name, &body, method)).map(|()| ConnectionAction::Keep)
        }
        ResponseMode::Slow(pause) => {
            std::thread::sleep(pause);
            wire.send(response_text(200, name, name, method)).map(|()| ConnectionAction::Keep)
        }
        ResponseMode::CloseAfter => {
            wire.send(response_text(200, name, name, method)).map(|()| ConnectionAction::Close)
        }
        ResponseMode::Raw(bytes) => wire.send(bytes).map(|()| ConnectionAction::Keep),
        ResponseMode::RawClose(bytes) => wire.send(bytes).map(|()| ConnectionAction::Close),
        ResponseMode::Close => Ok(ConnectionAction::Close),
        ResponseMode::Reset => Ok(ConnectionAction::Reset),
        ResponseMode::Hang => wire.read_to_end().map(|_| ConnectionAction::Close),
        ResponseMode::Script(_) => Ok(ConnectionAction::Close),
    }
}

pub(crate) fn response_text(status: u16, name: &str, body: &str, method: &str) -> String {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nx-endpoint: {name}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    if method == "HEAD" || status == 204 || status == 304 { head } else { head + body }
}
