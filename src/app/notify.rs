//! What the service manager is told (sd_notify(3)), if there is one that wants to know.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sd_notify::NotifyState;

/// Messages that wait for the service manager, at most.
const WAITING: usize = 16;

/// What is told.
#[derive(Clone, Copy, Debug)]
enum Word {
    Ready { status: &'static str, has_taken_over: bool },
    Reloading,
    Stopping,
    Status(&'static str),
}

/// A way to the service manager that never waits for it.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<SyncSender<Word>>);

impl Notifier {
    /// Starts the thread that tells, if there is somebody to be told.
    #[must_use]
    pub fn start() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (sender, words) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        Self(thread.spawn(move || tell_all(&words)).ok().map(|_| sender))
    }

    /// Serving.
    pub fn ready(&self, has_taken_over: bool) {
        self.say(Word::Ready { status: "serving", has_taken_over });
    }

    /// The configuration is read again.
    pub fn reloading(&self) {
        self.say(Word::Reloading);
    }

    /// What was read is obeyed, or not.
    pub fn reloaded(&self, is_obeyed: bool) {
        let refused = "serving; the configuration file is refused, the one before stays";
        let status = if is_obeyed { "serving" } else { refused };
        self.say(Word::Ready { status, has_taken_over: false });
    }

    /// On the way out.
    pub fn stopping(&self) {
        self.say(Word::Stopping);
    }

    /// What is to be seen in the status of the service.
    pub fn status(&self, text: &'static str) {
        self.say(Word::Status(text));
    }

    fn say(&self, word: Word) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(word);
        }
    }
}

fn tell_all(words: &Receiver<Word>) {
    for word in words {
        match word {
            Word::Ready { status, has_taken_over: false } => {
                tell(&[NotifyState::Ready, NotifyState::Status(status)]);
            }
            Word::Ready { status, has_taken_over: true } => tell(&[
                NotifyState::MainPid(std::process::id()),
                NotifyState::Ready,
                NotifyState::Status(status),
            ]),
            Word::Reloading => {
                let Ok(now) = NotifyState::monotonic_usec_now() else { continue };
                tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]);
            }
            Word::Stopping => tell(&[NotifyState::Stopping, NotifyState::Status("draining")]),
            Word::Status(status) => tell(&[NotifyState::Status(status)]),
        }
    }
}

/// Another process is the service's main one from now on. Waits until that is told: when the old one
/// ends, the service manager must know.
pub fn main_process(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
