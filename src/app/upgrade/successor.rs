//! The old process's part: starts the new one, and finds out whether it serves.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::app::discovery::memory::AnswerNote;
use crate::app::notify;
use crate::app::orders::keeper::Kept;
use crate::logic::affinity::Secrets;
use crate::logic::director::Legacy;
use crate::net::handover::{Breaker, Handover};
use crate::net::listener::Given;

use super::letter::Letter;
use super::{Executable, FromNew, FromOld, MARK, PROTOCOL};

/// Between the word to go and that connections are accepted. Nothing is left to be done by then.
const GO_WITHIN: Duration = Duration::from_secs(10);

/// A process that has closed its end is given this long to end by itself: how it does says why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a process that takes over gets.
#[derive(Debug)]
pub struct Estate {
    /// Every listening socket.
    pub sockets: Vec<Given>,
    /// What is known.
    pub legacy: Legacy,
    /// What names lead to.
    pub names: Vec<AnswerNote>,
    /// Upgrades before this one.
    pub upgrades: u64,
    /// What operators have ordered.
    pub orders: Vec<Kept>,
    /// What cookies are sealed by.
    pub secret: Option<Secrets>,
}

/// What control hears of an upgrade.
#[derive(Debug)]
pub enum Step {
    /// The new process has a valid configuration, and is to get everything as it is now.
    Asks(SyncSender<io::Result<Estate>>),
    /// The new process, of this identity, accepts connections; or why it does not and never will.
    Ended(Result<u32, String>),
}

/// A process that is to take over, on its way.
#[derive(Debug)]
pub struct Successor {
    breaker: Breaker,
    thread: JoinHandle<()>,
}

impl Successor {
    /// Starts `executable`. It must be ready `within` that time. All further happens on a thread of
    /// its own, and ends with [`Step::Ended`].
    ///
    /// # Errors
    /// If there are no descriptors or threads left.
    pub fn start(
        executable: Executable,
        within: Duration,
        steps: UnboundedSender<Step>,
    ) -> io::Result<Self> {
        let (handover, theirs) = Handover::pair(Instant::now() + within)?;
        let breaker = handover.breaker()?;
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let Executable { path, arguments } = executable;
            let mut command = Command::new(&path);
            command.args(arguments).env(MARK, "1").stdin(Stdio::from(theirs));
            // The next one gets these sockets from us.
            for passed in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD"] {
                command.env_remove(passed);
            }
            let started = command.spawn();
            // With it goes our handle to the other end: when the child's is gone too, we hear of it.
            drop(command);
            let child = match started {
                Ok(child) => child,
                Err(error) => {
                    let why = format!("{} cannot be started: {error}", path.display());
                    let _ = steps.send(Step::Ended(Err(why)));
                    return;
                }
            };
            accompany(child, handover, within, &steps);
        })?;
        Ok(Self { breaker, thread })
    }

    /// Ends it, whatever it has come to.
    pub fn abandon(self) {
        self.breaker.break_off();
        let _ = self.thread.join();
    }
}

fn accompany(
    mut child: Child,
    mut handover: Handover,
    within: Duration,
    steps: &UnboundedSender<Step>,
) {
    let pid = child.id();
    let result = converse(&mut handover, Instant::now() + within, steps);
    if let Err(error) = &result {
        let why = failure(error, &mut child, within);
        let _ = steps.send(Step::Ended(Err(why)));
        return;
    }
    // Before control hears of it: the service manager must not see its main process end.
    notify::main_process(pid);
    if steps.send(Step::Ended(Ok(pid))).is_err() {
        notify::main_process(std::process::id());
        end(&mut child);
    }
}

/// See the picture at the top of [`super`].
fn converse(
    handover: &mut Handover,
    deadline: Instant,
    steps: &UnboundedSender<Step>,
) -> io::Result<()> {
    match hear(handover)? {
        FromNew::Hello { protocol: PROTOCOL, version } => {
            tracing::info!(version, "the new process has read its configuration");
        }
        FromNew::Hello { version, .. } => {
            let why = format!("it is version {version}, which takes over in another way: restart");
            return Err(io::Error::other(why));
        }
        said => return Err(unexpected(&said)),
    }
    let (ask, answer) = sync_channel(1);
    let gone = || io::Error::other("this process is stopping");
    steps.send(Step::Asks(ask)).map_err(|_| gone())?;
    let left = deadline.saturating_duration_since(Instant::now());
    let estate = answer.recv_timeout(left).map_err(|error| match error {
        RecvTimeoutError::Timeout => ErrorKind::TimedOut.into(),
        RecvTimeoutError::Disconnected => gone(),
    })??;
    let letter = Letter::new(&estate, Instant::now()).with_secret(estate.secret.as_ref());
    let sockets = estate.sockets;
    handover.send(&serde_json::to_vec(&letter)?)?;
    let descriptors: Vec<_> = sockets.iter().map(|given| given.listener.as_fd()).collect();
    handover.send_descriptors(&descriptors)?;
    match hear(handover)? {
        FromNew::Settled => {}
        said => return Err(unexpected(&said)),
    }
    handover.until(Instant::now() + GO_WITHIN);
    handover.send(&serde_json::to_vec(&FromOld::Go)?)?;
    match hear(handover)? {
        FromNew::Accepting => Ok(()),
        said => Err(unexpected(&said)),
    }
}

fn hear(handover: &mut Handover) -> io::Result<FromNew> {
    let letter = handover.receive()?;
    serde_json::from_slice(&letter).map_err(|_| io::Error::other("it is no gapless"))
}

fn unexpected(said: &FromNew) -> io::Error {
    io::Error::other(format!("it says {said:?} out of turn"))
}

/// Ends a process that does not take over, and says why it does not.
fn failure(error: &io::Error, child: &mut Child, within: Duration) -> String {
    let is_gone = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe);
    let status = if is_gone { ended(child) } else { None };
    end(child);
    match (error.kind(), status) {
        (_, Some(status)) => format!("the new process ended before it was ready ({status})"),
        (ErrorKind::TimedOut, _) => format!("the new process is not ready after {within:?}"),
        _ => format!("the new process does not take over: {error}"),
    }
}

/// How it ended by itself, if it does.
fn ended(child: &mut Child) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + LAST_WORDS;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(5)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
