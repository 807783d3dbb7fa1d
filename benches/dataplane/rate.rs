//! Requests at a fixed rate, each sent when it is due whatever became of those before, over kept
//! connections. Latency counts from when a request was due: one that waits for the proxy, for a
//! free connection or for this very loop has waited.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use crate::case::CONNECTIONS;
use crate::client::{get, micros};
use crate::parse::{LoadReport, Percentiles, answer_head};

/// Requests that have no answer so long after the last was due have failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer is not longer than this.
const ANSWER_BYTES_MAX: usize = 4096;
/// How late the kernel may be with a time that is waited for, in nanoseconds; 50 µs by default.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// A connection, and what has been read of the answer that it waits for.
struct Connection {
    stream: TcpStream,
    due: Instant,
    waits: bool,
    buffer: [u8; ANSWER_BYTES_MAX],
    filled: usize,
}

/// Everything that is under way.
struct Run {
    request: Box<[u8]>,
    connections: Vec<Connection>,
    /// Indices of those that wait for nothing, the longest idle first.
    idle: VecDeque<usize>,
    latencies_us: Vec<u64>,
    response_bytes: u64,
}

/// Asks `port` for `path`, `per_second` times a second for so long.
pub(crate) fn run(port: u16, path: &str, per_second: f64, seconds: u64) -> io::Result<LoadReport> {
    set_current_timer_slack(Some(TIMER_SLACK_NS))?;
    let total = (per_second * seconds as f64) as u64;
    let mut run = Run::new(port, get(path, "keep-alive").as_bytes(), total)?;
    let began = Instant::now();
    let due = |number: u64| began + Duration::from_secs_f64(number as f64 / per_second);
    let give_up = due(total) + PATIENCE;
    let mut sent = 0;
    loop {
        let now = Instant::now();
        while sent < total && due(sent) <= now && run.send(due(sent))? {
            sent += 1;
        }
        let answered = run.latencies_us.len() as u64;
        if answered == total || now >= give_up {
            break;
        }
        // Without an idle connection, nothing can be done before an answer comes.
        let is_next_sendable = sent < total && !run.idle.is_empty();
        let until = if is_next_sendable { due(sent) } else { give_up };
        run.wait(until)?;
    }
    let requests = run.latencies_us.len() as u64;
    Ok(LoadReport {
        requests,
        duration_us: micros(began.elapsed()),
        response_bytes: run.response_bytes,
        errors: total - requests,
        latency: Percentiles::of(run.latencies_us),
    })
}

impl Run {
    fn new(port: u16, request: &[u8], total: u64) -> io::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let (due, buffer) = (Instant::now(), [0; ANSWER_BYTES_MAX]);
            connections.push(Connection { stream, due, waits: false, buffer, filled: 0 });
        }
        Ok(Self {
            request: request.into(),
            idle: (0..connections.len()).collect(),
            connections,
            latencies_us: Vec::with_capacity(usize::try_from(total).unwrap_or(0)),
            response_bytes: 0,
        })
    }

    /// Sends a request on the connection that has idled longest; `false` if none idles.
    fn send(&mut self, due: Instant) -> io::Result<bool> {
        let Some(index) = self.idle.pop_front() else { return Ok(false) };
        let connection = &mut self.connections[index];
        // So little fits into the buffer of a socket from which all was sent.
        connection.stream.write_all(&self.request)?;
        (connection.due, connection.waits, connection.filled) = (due, true, 0);
        Ok(true)
    }

    /// Waits for answers until then, and reads those that are there.
    fn wait(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let waiting: Vec<usize> =
            (0..self.connections.len()).filter(|&index| self.connections[index].waits).collect();
        let mut polled: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|&index| PollFd::new(&self.connections[index].stream, PollFlags::IN))
            .collect();
        poll(&mut polled, Some(&timeout))?;
        let is_ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        for (index, _) in waiting.into_iter().zip(is_ready).filter(|&(_, is_ready)| is_ready) {
            if let Some(answer_bytes) = self.connections[index].read()? {
                let connection = &mut self.connections[index];
                connection.waits = false;
                self.latencies_us.push(micros(connection.due.elapsed()));
                self.response_bytes += answer_bytes as u64;
                self.idle.push_back(index);
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what is there; the length of the answer once it is complete.
    fn read(&mut self) -> io::Result<Option<usize>> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => self.filled += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(head) = answer_head(&self.buffer[..self.filled]) else { return Ok(None) };
        let head = head.map_err(io::Error::other)?;
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        Ok((self.filled >= head.answer_bytes).then_some(head.answer_bytes))
    }
}
