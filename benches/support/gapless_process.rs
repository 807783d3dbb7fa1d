//! A process of gapless, and a client of its admin listener.
//!
//! The time of a verdict is the director's monotonic time when it received the evidence. The API
//! converts it to wall-clock time by one reading of both clocks at its start. This module converts
//! it back by its own reading of both clocks.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::namespace::bound_command;
use crate::run_deadline::RunDeadline;
use crate::{layout, layout::FAILING_ZONE};

/// Time for every endpoint to become up.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of one request to the admin listener.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of the log in an error.
const LOG_TAIL_LINES: usize = 5;

/// A running `gapless run`; killed when dropped.
#[derive(Debug)]
pub(crate) struct GaplessProcess {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    log: PathBuf,
    clocks: ClockReading,
}

/// Both clocks, read at the same time.
#[derive(Clone, Copy, Debug)]
struct ClockReading {
    monotonic: Instant,
    wall: SystemTime,
}

impl ClockReading {
    fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn wall_of(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.monotonic) {
            Some(after) => self.wall + after,
            None => self.wall - self.monotonic.duration_since(at),
        }
    }
}

/// An incident of an endpoint or a zone, in this process's time.
#[derive(Clone, Debug)]
pub(crate) struct ReportedIncident {
    pub(crate) pool: String,
    pub(crate) zone: String,
    /// The address of the endpoint; `None` for an incident of a zone.
    pub(crate) endpoint: Option<String>,
    /// The start of the exchange that became the first evidence.
    pub(crate) first_evidence: Instant,
    /// The time of that evidence.
    pub(crate) suspect: Instant,
    /// The time of the verdict.
    pub(crate) verdict: Instant,
    /// The time of the return.
    pub(crate) restored: Option<Instant>,
}

impl ReportedIncident {
    /// Whether the incident covers the endpoint `index`.
    pub(crate) fn has_endpoint(&self, index: usize) -> bool {
        let address = layout::endpoint_address(index).to_string();
        match &self.endpoint {
            Some(endpoint) => *endpoint == address,
            None => {
                self.zone == FAILING_ZONE
                    && self.pool == layout::pool_name(index / layout::POOL_ENDPOINTS)
            }
        }
    }
}

impl GaplessProcess {
    /// Starts `program` with the text that `config` makes of the addresses for clients and for
    /// admin, and waits until all endpoints are up.
    pub(crate) fn start(
        program: &Path,
        config: impl FnOnce(u16, u16) -> String,
        dir: &Path,
        run_deadline: &RunDeadline,
    ) -> io::Result<Self> {
        let [listen, admin] = free_addresses()?;
        let text = config(listen.port(), admin.port());
        let config = dir.join("gapless.toml");
        fs::write(&config, text)?;
        let log = dir.join("gapless.log");
        let output = File::create(&log)?;
        let mut command = bound_command(&program.display().to_string());
        command.arg("run").arg(&config).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let clocks = ClockReading::read();
        let child = command.spawn()?;
        let mut instance = Self { listen, admin, child, log, clocks };
        let is_up = run_deadline.poll_until(READY_TIMEOUT, || {
            if let Some(status) = instance.child.try_wait()? {
                return Err(instance.error_with_log(&format!("ended early ({status})")));
            }
            Ok(instance.is_all_up().unwrap_or(false).then_some(()))
        })?;
        is_up.map(|()| instance).ok_or_else(|| io::Error::other("not every endpoint came up"))
    }

    /// Whether every endpoint is up.
    pub(crate) fn is_all_up(&self) -> io::Result<bool> {
        let state = self.get_json("/api/v1/endpoints")?;
        let endpoints = state["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(!endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint["state"] == "up"))
    }

    /// The median latency of the last probes that passed, over all endpoints.
    pub(crate) fn probe_ms(&self) -> io::Result<Option<f64>> {
        let state = self.get_json("/api/v1/endpoints")?;
        let endpoints = state["endpoints"].as_array().into_iter().flatten();
        let probes = endpoints.filter_map(|endpoint| endpoint["probes"].as_array()?.last());
        let mut latencies: Vec<f64> =
            probes.filter_map(|probe| probe["latency_ms"].as_f64()).collect();
        latencies.sort_by(f64::total_cmp);
        Ok(latencies.get(latencies.len() / 2).copied())
    }

    /// Every verdict so far, on endpoints and on zones.
    pub(crate) fn incidents(&self) -> io::Result<Vec<ReportedIncident>> {
        let state = self.get_json("/api/v1/incidents")?;
        let incidents_of = |scope: &str| state[scope].as_array().cloned().unwrap_or_default();
        let all = incidents_of("endpoints").into_iter().chain(incidents_of("zones"));
        Ok(all.filter_map(|incident| self.parse_incident(&incident)).collect())
    }

    fn parse_incident(&self, incident: &Value) -> Option<ReportedIncident> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let timeline = &incident["timeline"];
        Some(ReportedIncident {
            pool: text(&incident["pool"])?,
            zone: text(&incident["zone"])?,
            endpoint: text(&incident["endpoint"]),
            first_evidence: self.parse_instant(timeline["first_evidence"].as_str()?)?,
            suspect: self.parse_instant(timeline["suspect"].as_str()?)?,
            verdict: self.parse_instant(timeline["verdict"].as_str()?)?,
            restored: timeline["restored"].as_str().and_then(|text| self.parse_instant(text)),
        })
    }

    fn parse_instant(&self, text: &str) -> Option<Instant> {
        let wall = SystemTime::from(text.parse::<Timestamp>().ok()?);
        match wall.duration_since(self.clocks.wall) {
            Ok(after) => self.clocks.monotonic.checked_add(after),
            Err(error) => self.clocks.monotonic.checked_sub(error.duration()),
        }
    }

    /// The adjustment of the wall clock since the start. Verdicts are not affected: both sides use
    /// their first reading.
    pub(crate) fn clock_drift(&self) -> Duration {
        let now = ClockReading::read();
        let expected = self.clocks.wall_of(now.monotonic);
        now.wall.duration_since(expected).unwrap_or_else(|error| error.duration())
    }

    fn get_json(&self, path: &str) -> io::Result<Value> {
        let mut stream = TcpStream::connect_timeout(&self.admin, ADMIN_TIMEOUT)?;
        stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
        let host = self.admin;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let body = response.split_once("\r\n\r\n").map(|(_, body)| body);
        serde_json::from_str(body.unwrap_or_default()).map_err(io::Error::other)
    }

    fn error_with_log(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" | ");
        io::Error::other(format!("gapless {what}; its log ends: {tail}"))
    }
}

impl Drop for GaplessProcess {
    fn drop(&mut self) {
        // The calls fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that are free right now.
fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    // All listeners stay open until the last port is known, so that no two are equal.
    let mut listeners = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(addresses)
}
