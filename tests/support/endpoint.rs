//! An endpoint in this process that answers well, or fails in a chosen way, and counts what it got.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::HeldPort;
use super::wire::{Head, Wire};

/// How an endpoint meets a request.
#[derive(Clone)]
pub(crate) enum Mode {
    /// 200, with the endpoint's name as body and in `x-endpoint`.
    Ok,
    /// The same with another status.
    Status(u16),
    /// 200 with this body.
    Body(String),
    /// Answers well after a while.
    Slow(Duration),
    /// Answers well, then closes without having said so.
    CloseAfter,
    /// These bytes, as they are; then the next request.
    Raw(Vec<u8>),
    /// These bytes, as they are; then the end of the connection.
    RawClose(Vec<u8>),
    /// Reads the request, closes.
    Close,
    /// Reads the request, resets.
    Reset,
    /// Reads the request, and no more.
    Hang,
    /// Anything: gets the head, with the body still unread.
    Script(Arc<Script>),
}

type Script = dyn Fn(&Head, &mut Wire) -> io::Result<Next> + Send + Sync;

/// What happens to a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Keep,
    Close,
    Reset,
}

impl Mode {
    pub(crate) fn script(
        script: impl Fn(&Head, &mut Wire) -> io::Result<Next> + Send + Sync + 'static,
    ) -> Self {
        Self::Script(Arc::new(script))
    }

    /// Half of what content-length promised, then the end.
    pub(crate) fn truncated() -> Self {
        Self::RawClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!".to_vec())
    }

    /// A head and none of its body, then the end.
    pub(crate) fn close_after_head() -> Self {
        Self::RawClose(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_vec())
    }

    /// Not HTTP.
    pub(crate) fn malformed() -> Self {
        Self::RawClose(b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n".to_vec())
    }
}

/// A request as the endpoint got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Counts the endpoint's connections.
    pub(crate) connection: usize,
}

struct State {
    name: String,
    traffic: Mutex<Mode>,
    probe: Mutex<Mode>,
    seen: Mutex<Vec<Seen>>,
    probes: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    accepted: AtomicUsize,
    resets: AtomicUsize,
}

/// An endpoint; gone when dropped.
pub(crate) struct Endpoint {
    port: HeldPort,
    state: Arc<State>,
    door: Mutex<Option<Door>>,
}

struct Door {
    listener: Arc<TcpListener>,
    thread: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    /// Answers everything well.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_on(name, HeldPort::take())
    }

    /// The same at this address; on any port if that is 0.
    #[track_caller]
    pub(crate) fn start_at(name: &str, address: SocketAddr) -> Self {
        Self::start_on(name, HeldPort::at(address))
    }

    fn start_on(name: &str, port: HeldPort) -> Self {
        let state = State {
            name: name.to_owned(),
            traffic: Mutex::new(Mode::Ok),
            probe: Mutex::new(Mode::Ok),
            seen: Mutex::default(),
            probes: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
        };
        let endpoint = Self { port, state: Arc::new(state), door: Mutex::default() };
        endpoint.listen();
        endpoint
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How requests are met from now on; probes are not touched.
    pub(crate) fn set(&self, mode: Mode) {
        *lock(&self.state.traffic) = mode;
    }

    /// How probes are met from now on.
    pub(crate) fn set_probe(&self, mode: Mode) {
        *lock(&self.state.probe) = mode;
    }

    /// Requests and probes alike.
    pub(crate) fn set_all(&self, mode: Mode) {
        self.set_probe(mode.clone());
        self.set(mode);
    }

    /// Requests so far, without probes; those of a script as soon as their head was there.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    pub(crate) fn probes(&self) -> Vec<Seen> {
        lock(&self.state.probes).clone()
    }

    /// How often a request with this `x-id` came.
    pub(crate) fn count(&self, id: &str) -> usize {
        lock(&self.state.seen).iter().filter(|seen| seen.head.field("x-id") == Some(id)).count()
    }

    /// Connections on which requests came.
    pub(crate) fn connections(&self) -> usize {
        let used: HashSet<usize> =
            lock(&self.state.seen).iter().map(|seen| seen.connection).collect();
        used.len()
    }

    /// Connections that are open, those of probes counted too.
    pub(crate) fn open(&self) -> usize {
        lock(&self.state.connections).iter().filter(|known| known.strong_count() > 0).count()
    }

    /// Connections that the other side reset, those of probes not counted.
    pub(crate) fn resets(&self) -> usize {
        self.state.resets.load(SeqCst)
    }

    /// Connecting is refused from now on; open connections are not touched.
    pub(crate) fn refuse(&self) {
        let Some(door) = lock(&self.door).take() else { return };
        // On Linux this ends a blocked accept, and the listening with it.
        let _ = SockRef::from(&*door.listener).shutdown(Shutdown::Both);
        let _ = door.thread.join();
    }

    /// Accepts connections (again).
    pub(crate) fn listen(&self) {
        let listener = Arc::new(self.port.listen());
        let (accepting, state) = (Arc::clone(&listener), Arc::clone(&self.state));
        let thread = std::thread::spawn(move || accept(&accepting, &state));
        *lock(&self.door) = Some(Door { listener, thread });
    }

    /// As if the process had been killed: nothing listens, and every connection ends.
    pub(crate) fn die(&self) {
        self.refuse();
        for stream in lock(&self.state.connections).drain(..).filter_map(|known| known.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.die();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
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

fn serve(state: &State, stream: &Arc<TcpStream>, number: usize) {
    let mut wire = Wire::new(Arc::clone(stream));
    loop {
        match serve_one(state, &mut wire, number) {
            Ok(Next::Keep) => {}
            Ok(Next::Close) => return,
            Err(error) => {
                let carried = |seen: &Seen| seen.connection == number;
                if error.kind() == io::ErrorKind::ConnectionReset
                    && lock(&state.seen).iter().any(carried)
                {
                    state.resets.fetch_add(1, SeqCst);
                }
                return;
            }
            Ok(Next::Reset) => {
                let _ = SockRef::from(&**stream).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

fn serve_one(state: &State, wire: &mut Wire, connection: usize) -> io::Result<Next> {
    let Some(head) = wire.head()? else { return Ok(Next::Close) };
    let is_probe = head.word(1) == "/healthz" || head.field("user-agent") == Some("gapless-probe");
    let (mode, log) =
        if is_probe { (&state.probe, &state.probes) } else { (&state.traffic, &state.seen) };
    if !is_probe && head.field("expect").is_some() {
        wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let early = lock(mode).clone();
    if let Mode::Script(script) = early {
        lock(log).push(Seen { head: head.clone(), body: Vec::new(), connection });
        return script(&head, wire);
    }
    let body = wire.body(&head)?;
    let method = head.word(0).to_owned();
    lock(log).push(Seen { head, body, connection });
    let chosen = lock(mode).clone();
    react(chosen, &state.name, &method, wire)
}

fn react(mode: Mode, name: &str, method: &str, wire: &mut Wire) -> io::Result<Next> {
    match mode {
        Mode::Ok => wire.send(answer(200, name, name, method)).map(|()| Next::Keep),
        Mode::Status(status) => wire.send(answer(status, name, name, method)).map(|()| Next::Keep),
        Mode::Body(body) => wire.send(answer(200, name, &body, method)).map(|()| Next::Keep),
        Mode::Slow(pause) => {
            std::thread::sleep(pause);
            wire.send(answer(200, name, name, method)).map(|()| Next::Keep)
        }
        Mode::CloseAfter => wire.send(answer(200, name, name, method)).map(|()| Next::Close),
        Mode::Raw(bytes) => wire.send(bytes).map(|()| Next::Keep),
        Mode::RawClose(bytes) => wire.send(bytes).map(|()| Next::Close),
        Mode::Close => Ok(Next::Close),
        Mode::Reset => Ok(Next::Reset),
        Mode::Hang => wire.rest().map(|_| Next::Close),
        Mode::Script(_) => Ok(Next::Close),
    }
}

/// A plain answer.
pub(crate) fn answer(status: u16, name: &str, body: &str, method: &str) -> String {
    let head = format!(
        "HTTP/1.1 {status} Status\r\nx-endpoint: {name}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    if method == "HEAD" || status == 204 || status == 304 { head } else { head + body }
}
