//! The endpoints' processes, seen from the bench: started, made to fail, healed, ended.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::class::{Fault, Means};
use crate::endpoint::{DONE, Setting, WORD};
use crate::namespace;

/// A failure that was brought about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    /// Just before. The fault came into force after this, and before `at + took`.
    pub(crate) at: Instant,
    /// Until it was known to be in force (for a signal: until it was sent).
    pub(crate) took: Duration,
}

/// All endpoints; their processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    setting: Setting,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    process: Child,
    orders: ChildStdin,
    acknowledgements: BufReader<ChildStdout>,
    /// Its packets are dropped.
    is_cut_off: bool,
}

impl Fleet {
    /// Starts one process for each address, and waits until all of them listen.
    pub(crate) fn start(
        addresses: impl Iterator<Item = SocketAddr>,
        setting: Setting,
    ) -> io::Result<Self> {
        let mut fleet = Self { members: Vec::new(), setting };
        for address in addresses {
            fleet.members.push(Member::start(address, &fleet.setting)?);
        }
        Ok(fleet)
    }

    /// Makes an endpoint fail.
    pub(crate) fn fail(&mut self, endpoint: usize, means: Means) -> io::Result<Injection> {
        let member = &mut self.members[endpoint];
        let at = Instant::now();
        match means {
            Means::Kill => member.signal(Signal::KILL)?,
            Means::Stop => member.signal(Signal::STOP)?,
            Means::Drop => {
                namespace::drop_packets(member.address.ip())?;
                member.is_cut_off = true;
            }
            Means::Order(fault) => member.order(fault)?,
        }
        Ok(Injection { at, took: at.elapsed() })
    }

    /// Puts an end to it; when that was.
    pub(crate) fn heal(&mut self, endpoint: usize, means: Means) -> io::Result<Instant> {
        let member = &mut self.members[endpoint];
        match means {
            Means::Kill => {
                member.process.wait()?;
                *member = Member::start(member.address, &self.setting)?;
            }
            Means::Stop => member.signal(Signal::CONT)?,
            Means::Drop => {
                namespace::pass_packets(member.address.ip())?;
                member.is_cut_off = false;
            }
            Means::Order(_) => member.order(Fault::None)?,
        }
        Ok(Instant::now())
    }
}

impl Member {
    fn start(address: SocketAddr, setting: &Setting) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([WORD, &address.to_string(), &serde_json::to_string(setting)?]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lost = || io::Error::from(io::ErrorKind::BrokenPipe);
        let orders = process.stdin.take().ok_or_else(lost)?;
        let acknowledgements = BufReader::new(process.stdout.take().ok_or_else(lost)?);
        let mut member = Self { address, process, orders, acknowledgements, is_cut_off: false };
        member.await_done()?;
        Ok(member)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    fn order(&mut self, fault: Fault) -> io::Result<()> {
        self.orders.write_all(format!("{}\n", fault.word()).as_bytes())?;
        self.await_done()
    }

    fn await_done(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.acknowledgements.read_line(&mut line)?;
        if line.trim() == DONE {
            return Ok(());
        }
        Err(io::Error::other(format!("the endpoint {} does not obey", self.address)))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // What fails here has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if self.is_cut_off {
            let _ = namespace::pass_packets(self.address.ip());
        }
    }
}
