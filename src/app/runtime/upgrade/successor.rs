//! The old process's part: starts the new one, and finds out whether it serves.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::app::control::discovery::name_cache::StoredAnswer;
use crate::app::control::orders::order_store::StoredOrder;
use crate::app::runtime::service_manager;
use crate::logic::director::HealthExport;
use crate::logic::steering::affinity::CookieSecrets;
use crate::net::handover_socket::{HandoverShutdown, HandoverSocket};
use crate::net::listener::InheritedListener;

use super::handover_message::HandoverMessage;
use super::{Executable, PROTOCOL_VERSION, PredecessorMessage, SuccessorMessage, TAKEOVER_ENV};

/// Between the word to go and that connections are accepted. Nothing is left to be done by then.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that has closed its end is given this long to end by itself: how it does says why.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a process that takes over gets.
#[derive(Debug)]
pub struct HandoverState {
    pub sockets: Vec<InheritedListener>,
    pub health_export: HealthExport,
    /// What names lead to.
    pub names: Vec<StoredAnswer>,
    /// Upgrades before this one.
    pub upgrades: u64,
    /// What operators have ordered.
    pub orders: Vec<StoredOrder>,
    /// What cookies are sealed by.
    pub cookie_secret: Option<CookieSecrets>,
}

/// What control hears of an upgrade.
#[derive(Debug)]
pub enum UpgradeEvent {
    /// The new process has a valid configuration, and is to get everything as it is now.
    StateRequested(SyncSender<io::Result<HandoverState>>),
    /// The new process, of this identity, accepts connections; or why it does not and never will.
    Ended(Result<u32, String>),
}

/// A process that is to take over, on its way.
#[derive(Debug)]
pub struct Successor {
    breaker: HandoverShutdown,
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
        timeout: Duration,
        events: UnboundedSender<UpgradeEvent>,
    ) -> io::Result<Self> {
        let (handover, theirs) = HandoverSocket::pair(Instant::now() + timeout)?;
        let breaker = handover.shutdown_handle()?;
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let Executable { path, arguments } = executable;
            let mut command = Command::new(&path);
            command.args(arguments).env(TAKEOVER_ENV, "1").stdin(Stdio::from(theirs));
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
                    let _ = events.send(UpgradeEvent::Ended(Err(why)));
                    return;
                }
            };
            supervise(child, handover, timeout, &events);
        })?;
        Ok(Self { breaker, thread })
    }

    /// Ends it, whatever it has come to.
    pub fn cancel(self) {
        self.breaker.shutdown();
        let _ = self.thread.join();
    }
}

fn supervise(
    mut child: Child,
    mut handover: HandoverSocket,
    timeout: Duration,
    events: &UnboundedSender<UpgradeEvent>,
) {
    let pid = child.id();
    let result = run_protocol(&mut handover, Instant::now() + timeout, events);
    if let Err(error) = &result {
        let why = failure_text(error, &mut child, timeout);
        let _ = events.send(UpgradeEvent::Ended(Err(why)));
        return;
    }
    // Before control hears of it: the service manager must not see its main process end.
    service_manager::notify_main_process(pid);
    if events.send(UpgradeEvent::Ended(Ok(pid))).is_err() {
        service_manager::notify_main_process(std::process::id());
        terminate(&mut child);
    }
}

/// See the picture at the top of [`super`].
fn run_protocol(
    handover: &mut HandoverSocket,
    deadline: Instant,
    events: &UnboundedSender<UpgradeEvent>,
) -> io::Result<()> {
    match receive(handover)? {
        SuccessorMessage::Hello { protocol: PROTOCOL_VERSION, version } => {
            tracing::info!(version, "the new process has read its configuration");
        }
        SuccessorMessage::Hello { version, .. } => {
            let why = format!("it is version {version}, which takes over in another way: restart");
            return Err(io::Error::other(why));
        }
        said => return Err(unexpected_message(&said)),
    }
    let (ask, answer) = sync_channel(1);
    let gone = || io::Error::other("this process is stopping");
    events.send(UpgradeEvent::StateRequested(ask)).map_err(|_| gone())?;
    let remaining = deadline.saturating_duration_since(Instant::now());
    let handover_state = answer.recv_timeout(remaining).map_err(|error| match error {
        RecvTimeoutError::Timeout => ErrorKind::TimedOut.into(),
        RecvTimeoutError::Disconnected => gone(),
    })??;
    let message = HandoverMessage::new(&handover_state, Instant::now())
        .with_cookie_secret(handover_state.cookie_secret.as_ref());
    let sockets = handover_state.sockets;
    handover.send(&serde_json::to_vec(&message)?)?;
    let descriptors: Vec<_> = sockets.iter().map(|given| given.listener.as_fd()).collect();
    handover.send_descriptors(&descriptors)?;
    match receive(handover)? {
        SuccessorMessage::Settled => {}
        said => return Err(unexpected_message(&said)),
    }
    handover.set_deadline(Instant::now() + ACCEPT_TIMEOUT);
    handover.send(&serde_json::to_vec(&PredecessorMessage::Go)?)?;
    match receive(handover)? {
        SuccessorMessage::Accepting => Ok(()),
        said => Err(unexpected_message(&said)),
    }
}

fn receive(handover: &mut HandoverSocket) -> io::Result<SuccessorMessage> {
    let message = handover.receive()?;
    serde_json::from_slice(&message).map_err(|_| io::Error::other("it is no gapless"))
}

fn unexpected_message(message: &SuccessorMessage) -> io::Error {
    io::Error::other(format!("it says {message:?} out of turn"))
}

/// Ends a process that does not take over, and says why it does not.
fn failure_text(error: &io::Error, child: &mut Child, timeout: Duration) -> String {
    let is_gone = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe);
    let status = if is_gone { exit_status(child) } else { None };
    terminate(child);
    match (error.kind(), status) {
        (_, Some(status)) => format!("the new process ended before it was ready ({status})"),
        (ErrorKind::TimedOut, _) => format!("the new process is not ready after {timeout:?}"),
        _ => format!("the new process does not take over: {error}"),
    }
}

/// How it ended by itself, if it does.
fn exit_status(child: &mut Child) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + EXIT_TIMEOUT;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(5)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}

fn terminate(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
