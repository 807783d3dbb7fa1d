//! The endpoint processes of the demo, which fail and recover by zone.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::net::listener::PortReservation;

use super::DemoFault;

/// Another demo that starts has all its ports open within this time.
const START_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval at which a held start lock is tried again.
const START_LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Held from the choice of the ports until all of them are open, so that two demos that start at
/// once choose different ones. An abstract Unix socket leaves no file behind and ends with its
/// process.
#[must_use = "the lock is released when it is dropped"]
pub(super) struct StartLock {
    _socket: UnixListener,
}

impl StartLock {
    /// Waits until no other demo is starting.
    ///
    /// # Errors
    /// If another demo holds the lock for longer than a minute, or the socket cannot be bound.
    pub(super) fn acquire() -> io::Result<Self> {
        let name = unix::SocketAddr::from_abstract_name("gapless-demo-start")?;
        let deadline = Instant::now() + START_LOCK_TIMEOUT;
        loop {
            match UnixListener::bind_addr(&name) {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(START_LOCK_INTERVAL),
            }
        }
    }
}

/// All endpoints of the demo.
pub(super) struct EndpointFleet {
    members: Vec<EndpointProcess>,
}

struct EndpointProcess {
    zone: String,
    address: SocketAddr,
    process: Child,
    stdin: Option<ChildStdin>,
    /// Keeps the port while the process is dead.
    _reservation: PortReservation,
}

/// The interval in which a fault began.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultOnset {
    pub(super) earliest: Instant,
    pub(super) latest: Instant,
}

impl EndpointFleet {
    /// Starts one process for each address.
    pub(super) fn start(places: Vec<(String, SocketAddr)>) -> io::Result<Self> {
        let start = |(zone, address)| {
            let reservation = PortReservation::bind(address)?;
            let (process, stdin) = spawn(address)?;
            Ok(EndpointProcess { zone, address, process, stdin, _reservation: reservation })
        };
        Ok(Self { members: places.into_iter().map(start).collect::<io::Result<_>>()? })
    }

    /// The zone of an address.
    pub(super) fn zone_of(&self, address: &str) -> Option<&str> {
        let found = self.members.iter().find(|member| member.address.to_string() == address);
        found.map(|member| member.zone.as_str())
    }

    /// Fails every endpoint of `zone`; returns the times of the first and the last failure.
    pub(super) fn fail(&mut self, zone: &str, fault: DemoFault) -> io::Result<FaultOnset> {
        let earliest = Instant::now();
        for member in self.members.iter_mut().filter(|member| member.zone == zone) {
            match fault {
                DemoFault::Refused => member.signal(Signal::KILL)?,
                DemoFault::Hang => member.signal(Signal::STOP)?,
                DemoFault::Reset => member.send_command("reset")?,
                DemoFault::BadStatus => member.send_command("bad-status")?,
            }
        }
        Ok(FaultOnset { earliest, latest: Instant::now() })
    }

    /// Restores every endpoint of `zone`; returns the time when all are restored.
    pub(super) fn restore(&mut self, zone: &str, fault: DemoFault) -> io::Result<Instant> {
        for member in self.members.iter_mut().filter(|member| member.zone == zone) {
            match fault {
                DemoFault::Refused => {
                    member.process.wait()?;
                    (member.process, member.stdin) = spawn(member.address)?;
                }
                DemoFault::Hang => member.signal(Signal::CONT)?,
                DemoFault::Reset | DemoFault::BadStatus => member.send_command("well")?,
            }
        }
        Ok(Instant::now())
    }
}

impl EndpointProcess {
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        Ok(kill_process(pid, signal)?)
    }

    fn send_command(&mut self, word: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(stdin, "{word}")?;
        stdin.flush()
    }
}

impl Drop for EndpointFleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

/// Starts one endpoint and waits until it listens.
fn spawn(address: SocketAddr) -> io::Result<(Child, Option<ChildStdin>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["demo-endpoint", &address.to_string()]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let stdin = process.stdin.take();
    let output = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if line.trim().parse::<SocketAddr>().is_err() {
        let _ = process.kill();
        let _ = process.wait();
        return Err(io::Error::other(format!("the endpoint {address} does not start")));
    }
    Ok((process, stdin))
}

/// The configuration with every occupied address replaced by a free one.
pub(super) fn with_free_ports(text: &str) -> io::Result<String> {
    let mut out = String::with_capacity(text.len());
    // Listeners stay open until all ports are chosen, so that no port is chosen twice.
    let mut reserved_listeners = Vec::new();
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push('"');
        }
        match part.parse::<SocketAddr>() {
            Ok(wanted) if index % 2 == 1 => {
                let listener = TcpListener::bind(wanted)
                    .or_else(|_| TcpListener::bind(SocketAddr::new(wanted.ip(), 0)))?;
                out.push_str(&listener.local_addr()?.to_string());
                reserved_listeners.push(listener);
            }
            _ => out.push_str(part),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_replaced_and_free_ports_kept() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("address").to_string();
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let free_address = free.local_addr().expect("address").to_string();
        drop(free);
        let text =
            format!("address = \"{address}\" # \"x\"\nendpoints = [\"{free_address}\", \"a/b\"]\n");
        let changed = with_free_ports(&text).expect("ports");
        assert!(!changed.contains(&address), "{changed}");
        assert!(changed.contains(&free_address) && changed.contains("\"a/b\"]\n"), "{changed}");
    }
}
