//! The old process's side of an upgrade: starts the new process and supervises the handover.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::app::runtime::service_manager;
use crate::net::handover_socket::{HandoverShutdown, HandoverSocket};

use super::executable::Executable;
use super::handover_message::{
    HandoverMessage, HandoverState, PROTOCOL_VERSION, PredecessorMessage, SuccessorMessage,
    TAKEOVER_ENV,
};

/// Limit from `go` until the new process accepts; its workers only have to start by then.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that has closed its end may take this long to exit: its exit status explains the
/// failure.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Progress of an upgrade, reported to control.
#[derive(Debug)]
pub enum UpgradeEvent {
    /// The new process has a valid configuration and needs the current state.
    StateRequested(SyncSender<io::Result<HandoverState>>),
    /// The process identifier of the new process, which accepts connections; or why the upgrade
    /// failed.
    Ended(Result<u32, String>),
}

/// The new process of an upgrade in progress, with the thread that supervises it.
#[derive(Debug)]
pub struct Successor {
    shutdown: HandoverShutdown,
    thread: JoinHandle<()>,
}

impl Successor {
    /// Starts `executable`, which must be ready within `timeout`. A thread supervises the handover
    /// and finally sends [`UpgradeEvent::Ended`].
    ///
    /// # Errors
    /// If no descriptors or threads are left.
    pub fn start(
        executable: Executable,
        timeout: Duration,
        events: UnboundedSender<UpgradeEvent>,
    ) -> io::Result<Self> {
        let (handover, theirs) = HandoverSocket::pair(Instant::now() + timeout)?;
        let shutdown = handover.shutdown_handle()?;
        let thread = thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let Executable { path, arguments } = executable;
            let mut command = Command::new(&path);
            command.args(arguments).env(TAKEOVER_ENV, "1").stdin(Stdio::from(theirs));
            // The successor gets these sockets in the handover.
            for passed in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD"] {
                command.env_remove(passed);
            }
            let started = command.spawn();
            // Drops our handle to the child's end, so that the socket closes when the child exits.
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
        Ok(Self { shutdown, thread })
    }

    /// Kills the new process at any stage of the handover.
    pub fn cancel(self) {
        self.shutdown.shutdown();
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
    // Before control learns of it and exits: the service manager must not see its main process end.
    service_manager::notify_main_process(pid);
    if events.send(UpgradeEvent::Ended(Ok(pid))).is_err() {
        service_manager::notify_main_process(std::process::id());
        terminate(&mut child);
    }
}

/// See the diagram in the documentation of [`super`].
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
            let why = format!("version {version} has another handover protocol: restart instead");
            return Err(io::Error::other(why));
        }
        other => return Err(unexpected_message(&other)),
    }
    let (ask, answer) = sync_channel(1);
    let stopping = || io::Error::other("this process is stopping");
    events.send(UpgradeEvent::StateRequested(ask)).map_err(|_| stopping())?;
    let remaining = deadline.saturating_duration_since(Instant::now());
    let handover_state = answer.recv_timeout(remaining).map_err(|error| match error {
        RecvTimeoutError::Timeout => ErrorKind::TimedOut.into(),
        RecvTimeoutError::Disconnected => stopping(),
    })??;
    let message = HandoverMessage::new(&handover_state, Instant::now())
        .with_cookie_secret(handover_state.cookie_secret.as_ref());
    let sockets = handover_state.sockets;
    handover.send(&serde_json::to_vec(&message)?)?;
    let descriptors: Vec<_> = sockets.iter().map(|given| given.listener.as_fd()).collect();
    handover.send_descriptors(&descriptors)?;
    match receive(handover)? {
        SuccessorMessage::Settled => {}
        other => return Err(unexpected_message(&other)),
    }
    handover.set_deadline(Instant::now() + ACCEPT_TIMEOUT);
    handover.send(&serde_json::to_vec(&PredecessorMessage::Go)?)?;
    match receive(handover)? {
        SuccessorMessage::Accepting => Ok(()),
        other => Err(unexpected_message(&other)),
    }
}

fn receive(handover: &mut HandoverSocket) -> io::Result<SuccessorMessage> {
    let message = handover.receive()?;
    serde_json::from_slice(&message)
        .map_err(|_| io::Error::other("it does not speak the handover protocol"))
}

fn unexpected_message(message: &SuccessorMessage) -> io::Error {
    io::Error::other(format!("unexpected message {message:?}"))
}

/// Kills a process that does not take over. Returns the reason for the log.
fn failure_text(error: &io::Error, child: &mut Child, timeout: Duration) -> String {
    let has_exited = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe);
    let status = if has_exited { exit_status(child) } else { None };
    terminate(child);
    match (error.kind(), status) {
        (_, Some(status)) => format!("the new process ended before it was ready ({status})"),
        (ErrorKind::TimedOut, _) => format!("the new process is not ready after {timeout:?}"),
        _ => format!("the new process does not take over: {error}"),
    }
}

/// The exit status, if the process exits by itself within [`EXIT_TIMEOUT`].
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
