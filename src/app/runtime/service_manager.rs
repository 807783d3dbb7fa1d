//! Notifies the service manager of state changes (sd_notify(3)), if `NOTIFY_SOCKET` is set.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sd_notify::NotifyState;

/// Limit of queued messages; further ones are dropped.
const MAX_QUEUED: usize = 16;

#[derive(Clone, Copy, Debug)]
enum NotifyMessage {
    Ready { status: &'static str, has_taken_over: bool },
    Reloading,
    Stopping,
    Status(&'static str),
}

/// Queue to the notifier thread, so that callers never block on the service manager.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<SyncSender<NotifyMessage>>);

impl Notifier {
    /// Starts the notifier thread if `NOTIFY_SOCKET` is set.
    pub fn start() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (sender, messages) = sync_channel(MAX_QUEUED);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        Self(thread.spawn(move || run_notifier(&messages)).ok().map(|_| sender))
    }

    pub fn notify_ready(&self, has_taken_over: bool) {
        self.send(NotifyMessage::Ready { status: "serving", has_taken_over });
    }

    /// Reports that the configuration is being reloaded.
    pub fn notify_reloading(&self) {
        self.send(NotifyMessage::Reloading);
    }

    /// Reports that a reload was applied or refused.
    pub fn notify_reloaded(&self, is_applied: bool) {
        let refused = "serving; the new configuration was refused, the old one stays";
        let status = if is_applied { "serving" } else { refused };
        self.send(NotifyMessage::Ready { status, has_taken_over: false });
    }

    pub fn notify_stopping(&self) {
        self.send(NotifyMessage::Stopping);
    }

    /// Sets the status text of the service.
    pub fn notify_status(&self, text: &'static str) {
        self.send(NotifyMessage::Status(text));
    }

    fn send(&self, message: NotifyMessage) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(message);
        }
    }
}

fn run_notifier(messages: &Receiver<NotifyMessage>) {
    for message in messages {
        match message {
            NotifyMessage::Ready { status, has_taken_over: false } => {
                notify_manager(&[NotifyState::Ready, NotifyState::Status(status)]);
            }
            NotifyMessage::Ready { status, has_taken_over: true } => notify_manager(&[
                NotifyState::MainPid(std::process::id()),
                NotifyState::Ready,
                NotifyState::Status(status),
            ]),
            NotifyMessage::Reloading => {
                let Ok(now) = NotifyState::monotonic_usec_now() else { continue };
                notify_manager(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]);
            }
            NotifyMessage::Stopping => {
                notify_manager(&[NotifyState::Stopping, NotifyState::Status("draining")]);
            }
            NotifyMessage::Status(status) => notify_manager(&[NotifyState::Status(status)]),
        }
    }
}

/// Makes `pid` the service's main process. Blocks until the message is sent: the service manager
/// must have it before the old process ends.
pub fn notify_main_process(pid: u32) {
    notify_manager(&[NotifyState::MainPid(pid)]);
}

fn notify_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}
