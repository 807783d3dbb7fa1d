//! The new process's side of an upgrade: receives the state, reports that it is ready, takes over.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::app::control::discovery::name_cache;
use crate::app::control::orders::order_store::StoredOrder;
use crate::logic::director::HealthExport;
use crate::logic::discovery::CachedLookup;
use crate::logic::steering::affinity::CookieSecrets;
use crate::net::handover_socket::HandoverSocket;
use crate::net::listener::{self, InheritedListeners};

use super::handover_message::{
    HandoverMessage, PROTOCOL_VERSION, PredecessorMessage, SuccessorMessage, TAKEOVER_ENV,
};

/// Limit for the next message of the old process, which has its own, shorter limit for this one.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The process that this one takes over from, and the state received from it.
#[derive(Debug)]
pub struct Predecessor {
    handover: HandoverSocket,
    pub health_export: HealthExport,
    /// The last good DNS answers.
    pub remembered_names: Vec<CachedLookup>,
    /// Upgrades since the first process, this one included.
    pub upgrades: u64,
    pub orders: Vec<StoredOrder>,
    /// The secret that seals affinity cookies.
    pub cookie_secret: Option<CookieSecrets>,
}

impl Predecessor {
    /// Receives the sockets and the state of the predecessor; `None` if this process was not
    /// started by an upgrade. Call it once the configuration is valid.
    ///
    /// # Errors
    /// If the predecessor is gone or sends an invalid message.
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
            let (role, label) = (socket_message.role(), socket_message.label.clone());
            inherited.add(listener::adopt_listener(
                socket.into(),
                Some(socket_message.name),
                role,
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

    /// Reports that this process could serve, and waits for the permission. The death of the old
    /// process counts as permission.
    ///
    /// # Errors
    /// If the old process neither answers nor dies.
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

    /// Reports that this process accepts connections, so that the old one leaves.
    ///
    /// # Errors
    /// As [`Predecessor::report_settled`].
    pub fn report_accepting(mut self) -> io::Result<()> {
        send(&mut self.handover, &SuccessorMessage::Accepting).or_else(ignore_disconnect)
    }
}

fn send(handover: &mut HandoverSocket, message: &SuccessorMessage) -> io::Result<()> {
    handover.send(&serde_json::to_vec(message)?)
}

/// After the death of the predecessor this process alone holds the sockets, so it continues.
fn ignore_disconnect(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            tracing::warn!("the old process died during the handover");
            Ok(())
        }
        _ => Err(error),
    }
}
