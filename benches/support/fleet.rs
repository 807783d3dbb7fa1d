//! The processes of the endpoints: start, failure, recovery and end.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::endpoint::{ACKNOWLEDGEMENT, ENDPOINT_COMMAND, EndpointSettings};
use crate::fault_class::{EndpointFault, FaultMechanism};
use crate::packet_drops;

/// An injected failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    /// Time just before the injection. The fault took effect between this and `at + took`.
    pub(crate) at: Instant,
    /// Time until the fault was confirmed (for a signal: until it was sent).
    pub(crate) duration: Duration,
}

/// All endpoints; their processes end when the fleet is dropped.
#[derive(Debug)]
pub(crate) struct BenchFleet {
    members: Vec<FleetMember>,
    settings: EndpointSettings,
}

#[derive(Debug)]
struct FleetMember {
    address: SocketAddr,
    process: Child,
    commands: ChildStdin,
    acknowledgements: BufReader<ChildStdout>,
    /// Whether its packets are dropped.
    is_blackholed: bool,
}

impl BenchFleet {
    /// Starts one process for each address, and waits until all of them listen.
    pub(crate) fn start(
        addresses: impl Iterator<Item = SocketAddr>,
        settings: EndpointSettings,
    ) -> io::Result<Self> {
        let mut fleet = Self { members: Vec::new(), settings };
        for address in addresses {
            fleet.members.push(FleetMember::start(address, &fleet.settings)?);
        }
        Ok(fleet)
    }

    /// Makes an endpoint fail.
    pub(crate) fn fail(
        &mut self,
        endpoint: usize,
        mechanism: FaultMechanism,
    ) -> io::Result<Injection> {
        let member = &mut self.members[endpoint];
        let started = Instant::now();
        match mechanism {
            FaultMechanism::Kill => member.signal(Signal::KILL)?,
            FaultMechanism::Stop => member.signal(Signal::STOP)?,
            FaultMechanism::DropPackets => {
                packet_drops::drop_packets(member.address.ip())?;
                member.is_blackholed = true;
            }
            FaultMechanism::LosePackets => packet_drops::lose_packets(member.address.ip())?,
            FaultMechanism::Misbehave(fault) => member.send_fault(fault)?,
        }
        Ok(Injection { at: started, duration: started.elapsed() })
    }

    /// Ends the failure; returns the time.
    pub(crate) fn heal(
        &mut self,
        endpoint: usize,
        mechanism: FaultMechanism,
    ) -> io::Result<Instant> {
        let member = &mut self.members[endpoint];
        match mechanism {
            FaultMechanism::Kill => {
                member.process.wait()?;
                *member = FleetMember::start(member.address, &self.settings)?;
            }
            FaultMechanism::Stop => member.signal(Signal::CONT)?,
            FaultMechanism::DropPackets => {
                packet_drops::allow_packets(member.address.ip())?;
                member.is_blackholed = false;
            }
            FaultMechanism::LosePackets => packet_drops::keep_packets(member.address.ip())?,
            FaultMechanism::Misbehave(_) => member.send_fault(EndpointFault::None)?,
        }
        Ok(Instant::now())
    }
}

impl FleetMember {
    fn start(address: SocketAddr, settings: &EndpointSettings) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([ENDPOINT_COMMAND, &address.to_string(), &serde_json::to_string(settings)?]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let broken_pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let commands = process.stdin.take().ok_or_else(broken_pipe)?;
        let acknowledgements = BufReader::new(process.stdout.take().ok_or_else(broken_pipe)?);
        let mut member =
            Self { address, process, commands, acknowledgements, is_blackholed: false };
        member.await_acknowledgement()?;
        Ok(member)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    fn send_fault(&mut self, fault: EndpointFault) -> io::Result<()> {
        self.commands.write_all(format!("{}\n", fault.command()).as_bytes())?;
        self.await_acknowledgement()
    }

    fn await_acknowledgement(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.acknowledgements.read_line(&mut line)?;
        if line.trim() == ACKNOWLEDGEMENT {
            return Ok(());
        }
        Err(io::Error::other(format!("the endpoint {} does not obey", self.address)))
    }
}

impl Drop for FleetMember {
    fn drop(&mut self) {
        // The calls fail only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.is_blackholed {
            let _ = packet_drops::allow_packets(self.address.ip());
        }
    }
}
