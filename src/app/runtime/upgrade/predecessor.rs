//! The new process's part: says when it is ready, and takes over.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::app::control::discovery::name_cache;
use crate::app::control::orders::order_store::StoredOrder;
use crate::logic::director::HealthExport;
use crate::logic::discovery::CachedLookup;
use crate::logic::steering::affinity::CookieSecrets;
use crate::net::handover_socket::HandoverSocket;
use crate::net::listener::{self, InheritedListeners};

use super::handover_message::HandoverMessage;
use super::{PROTOCOL_VERSION, PredecessorMessage, SuccessorMessage, TAKEOVER_ENV};

/// How long the old process may take for its next word. It has ended us by then if it lives.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The process that is taken over from.
#[derive(Debug)]
pub struct Predecessor {
    handover: HandoverSocket,
    pub health_export: HealthExport,
    /// What names led to.
    pub remembered_names: Vec<CachedLookup>,
    /// Upgrades, this one included.
    pub upgrades: u64,
    /// What operators had ordered.
    pub orders: Vec<StoredOrder>,
    /// What it sealed cookies by.
    pub cookie_secret: Option<CookieSecrets>,
}

impl Predecessor {
    /// Meets the process that has started this one to take over from it, if that is so, and takes
    /// its sockets. To be called with a valid configuration.
    ///
    /// # Errors
    /// If it is gone, or cannot be understood.
    pub fn connect() -> io::Result<Option<(Self, InheritedListeners)>> {
        if std::env::var_os(TAKEOVER_ENV).is_none() {
            return Ok(None);
        }
        let mut handover = HandoverSocket::from_stdin(Instant::now() + MESSAGE_TIMEOUT)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        send(&mut handover, &SuccessorMessage::Hello { protocol: PROTOCOL_VERSION, version })?;
        let message: HandoverMessage = serde_json::from_slice(&handover.receive()?)?;
        let sockets = handover.receive_descriptors(message.sockets.len())?;
        let mut inherited = InheritedListeners::default();
        for (socket_message, socket) in message.sockets.iter().zip(sockets) {
            let (side, label) = (socket_message.side(), socket_message.label.clone());
            inherited.add(listener::adopt_listener(
                socket.into(),
                Some(socket_message.name),
                side,
                label,
            )?);
        }
        let health_export = message.health_export(Instant::now());
        let names = name_cache::from_stored_answers(&message.names);
        let (upgrades, secret) = (message.upgrades + 1, message.cookie_secret());
        let orders = message.orders;
        Ok(Some((
            Self {
                handover,
                health_export,
                remembered_names: names,
                upgrades,
                orders,
                cookie_secret: secret,
            },
            inherited,
        )))
    }

    /// This process could serve: waits until it is to. If the old one has died meanwhile, it is.
    ///
    /// # Errors
    /// If the old one neither answers nor dies.
    pub fn report_settled(&mut self) -> io::Result<()> {
        self.handover.set_deadline(Instant::now() + MESSAGE_TIMEOUT);
        let result = send(&mut self.handover, &SuccessorMessage::Settled)
            .and_then(|()| self.handover.receive())
            .and_then(|message| Ok(serde_json::from_slice::<PredecessorMessage>(&message)?));
        match result {
            Ok(PredecessorMessage::Go) => Ok(()),
            Err(error) => ignore_disconnect(error),
        }
    }

    /// This process serves. The old one leaves then.
    ///
    /// # Errors
    /// As [`Predecessor::settled`].
    pub fn report_accepting(mut self) -> io::Result<()> {
        send(&mut self.handover, &SuccessorMessage::Accepting).or_else(ignore_disconnect)
    }
}

fn send(handover: &mut HandoverSocket, what: &SuccessorMessage) -> io::Result<()> {
    handover.send(&serde_json::to_vec(what)?)
}

/// Whose predecessor dies has its sockets, and is the only one who does.
fn ignore_disconnect(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            tracing::warn!("the old process has died while it was taken over from");
            Ok(())
        }
        _ => Err(error),
    }
}
