//! The new process's part: says when it is ready, and takes over.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::app::discovery::memory;
use crate::app::orders::keeper::Kept;
use crate::logic::affinity::Secrets;
use crate::logic::director::Legacy;
use crate::logic::discovery::Remembered;
use crate::net::handover::Handover;
use crate::net::listener::{self, Stock};

use super::letter::Letter;
use super::{FromNew, FromOld, MARK, PROTOCOL};

/// How long the old process may take for its next word. It has ended us by then if it lives.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is taken over from.
#[derive(Debug)]
pub struct Predecessor {
    handover: Handover,
    /// What it knew.
    pub legacy: Legacy,
    /// What names led to.
    pub names: Vec<Remembered>,
    /// Upgrades, this one included.
    pub upgrades: u64,
    /// What operators had ordered.
    pub orders: Vec<Kept>,
    /// What it sealed cookies by.
    pub secret: Option<Secrets>,
}

impl Predecessor {
    /// Meets the process that has started this one to take over from it, if that is so, and takes
    /// its sockets. To be called with a valid configuration.
    ///
    /// # Errors
    /// If it is gone, or cannot be understood.
    pub fn meet() -> io::Result<Option<(Self, Stock)>> {
        if std::env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let mut handover = Handover::on_stdin(Instant::now() + PATIENCE)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        say(&mut handover, &FromNew::Hello { protocol: PROTOCOL, version })?;
        let letter: Letter = serde_json::from_slice(&handover.receive()?)?;
        let sockets = handover.receive_descriptors(letter.sockets.len())?;
        let mut stock = Stock::default();
        for (note, socket) in letter.sockets.iter().zip(sockets) {
            let (side, label) = (note.side(), note.label.clone());
            stock.put(listener::adopt(socket.into(), Some(note.name), side, label)?);
        }
        let legacy = letter.legacy(Instant::now());
        let names = memory::answers(&letter.names);
        let (upgrades, secret) = (letter.upgrades + 1, letter.secret());
        let orders = letter.orders;
        Ok(Some((Self { handover, legacy, names, upgrades, orders, secret }, stock)))
    }

    /// This process could serve: waits until it is to. If the old one has died meanwhile, it is.
    ///
    /// # Errors
    /// If the old one neither answers nor dies.
    pub fn settled(&mut self) -> io::Result<()> {
        self.handover.until(Instant::now() + PATIENCE);
        let result = say(&mut self.handover, &FromNew::Settled)
            .and_then(|()| self.handover.receive())
            .and_then(|letter| Ok(serde_json::from_slice::<FromOld>(&letter)?));
        match result {
            Ok(FromOld::Go) => Ok(()),
            Err(error) => survive(error),
        }
    }

    /// This process serves. The old one leaves then.
    ///
    /// # Errors
    /// As [`Predecessor::settled`].
    pub fn accepting(mut self) -> io::Result<()> {
        say(&mut self.handover, &FromNew::Accepting).or_else(survive)
    }
}

fn say(handover: &mut Handover, what: &FromNew) -> io::Result<()> {
    handover.send(&serde_json::to_vec(what)?)
}

/// Whose predecessor dies has its sockets, and is the only one who does.
fn survive(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            tracing::warn!("the old process has died while it was taken over from");
            Ok(())
        }
        _ => Err(error),
    }
}
