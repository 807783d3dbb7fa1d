//! An open loop at a fixed rate over kept connections. Latency counts from when a request was due,
//! so that it includes the wait for the proxy, for a free connection and for this loop.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use crate::case::CONNECTIONS;
use crate::client::{get_request, micros};
use crate::parse::{LoadReport, Percentiles, parse_response_head};

/// Requests without a response this long after the last one was due have failed.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Size limit of a response.
const MAX_RESPONSE_BYTES: usize = 4096;
/// The timer slack of this thread in nanoseconds; the default of the kernel is 50 µs.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// A connection with the received part of its response.
struct OpenLoopConnection {
    stream: TcpStream,
    due: Instant,
    is_waiting: bool,
    buffer: [u8; MAX_RESPONSE_BYTES],
    filled_bytes: usize,
}

/// The state of the loop.
struct FixedRateRun {
    request: Box<[u8]>,
    connections: Vec<OpenLoopConnection>,
    /// Indices of idle connections, the longest idle first.
    idle: VecDeque<usize>,
    latencies_us: Vec<u64>,
    response_bytes: u64,
}

/// Requests `path` from `port` at `per_second` for `duration`.
pub(crate) fn run(port: u16, path: &str, per_second: f64, seconds: u64) -> io::Result<LoadReport> {
    set_current_timer_slack(Some(TIMER_SLACK_NS))?;
    let total = (per_second * seconds as f64) as u64;
    let mut run = FixedRateRun::new(port, get_request(path, "keep-alive").as_bytes(), total)?;
    let started = Instant::now();
    let due = |number: u64| started + Duration::from_secs_f64(number as f64 / per_second);
    let deadline = due(total) + RESPONSE_TIMEOUT;
    let mut sent = 0;
    loop {
        let now = Instant::now();
        while sent < total && due(sent) <= now && run.send(due(sent))? {
            sent += 1;
        }
        let completed = run.latencies_us.len() as u64;
        if completed == total || now >= deadline {
            break;
        }
        // Without an idle connection the loop waits for a response.
        let is_next_sendable = sent < total && !run.idle.is_empty();
        let until = if is_next_sendable { due(sent) } else { deadline };
        run.wait_for_responses(until)?;
    }
    let requests = run.latencies_us.len() as u64;
    Ok(LoadReport {
        requests,
        duration_us: micros(started.elapsed()),
        response_bytes: run.response_bytes,
        errors: total - requests,
        latency: Percentiles::from_latencies(run.latencies_us),
    })
}

impl FixedRateRun {
    fn new(port: u16, request: &[u8], total: u64) -> io::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let (due, buffer) = (Instant::now(), [0; MAX_RESPONSE_BYTES]);
            connections.push(OpenLoopConnection {
                stream,
                due,
                is_waiting: false,
                buffer,
                filled_bytes: 0,
            });
        }
        Ok(Self {
            request: request.into(),
            idle: (0..connections.len()).collect(),
            connections,
            latencies_us: Vec::with_capacity(usize::try_from(total).unwrap_or(0)),
            response_bytes: 0,
        })
    }

    /// Sends a request on the connection that has been idle the longest; `false` if none is idle.
    fn send(&mut self, due: Instant) -> io::Result<bool> {
        let Some(index) = self.idle.pop_front() else { return Ok(false) };
        let connection = &mut self.connections[index];
        // A request always fits into an empty socket buffer.
        connection.stream.write_all(&self.request)?;
        (connection.due, connection.is_waiting, connection.filled_bytes) = (due, true, 0);
        Ok(true)
    }

    /// Waits for responses until the given time, and reads the available ones.
    fn wait_for_responses(&mut self, until: Instant) -> io::Result<()> {
        let remaining = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).map_err(io::Error::other)?;
        let waiting: Vec<usize> = (0..self.connections.len())
            .filter(|&index| self.connections[index].is_waiting)
            .collect();
        let mut polled: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|&index| PollFd::new(&self.connections[index].stream, PollFlags::IN))
            .collect();
        poll(&mut polled, Some(&timeout))?;
        let is_ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        for (index, _) in waiting.into_iter().zip(is_ready).filter(|&(_, is_ready)| is_ready) {
            if let Some(response_bytes) = self.connections[index].read_response()? {
                let connection = &mut self.connections[index];
                connection.is_waiting = false;
                self.latencies_us.push(micros(connection.due.elapsed()));
                self.response_bytes += response_bytes as u64;
                self.idle.push_back(index);
            }
        }
        Ok(())
    }
}

impl OpenLoopConnection {
    /// Reads the available bytes; returns the length of the response once it is complete.
    fn read_response(&mut self) -> io::Result<Option<usize>> {
        match self.stream.read(&mut self.buffer[self.filled_bytes..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => self.filled_bytes += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(head) = parse_response_head(&self.buffer[..self.filled_bytes]) else {
            return Ok(None);
        };
        let head = head.map_err(io::Error::other)?;
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        Ok((self.filled_bytes >= head.response_bytes).then_some(head.response_bytes))
    }
}
