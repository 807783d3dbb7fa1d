//! From what is free to a line that is open.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::logic::outcome::{Failure, Layer, Reason};

use super::super::connection::{Connection, TryError};
use super::super::dial::{Caller, Stage};
use super::super::exchange::Line;
use super::super::lines::Opening;
use super::super::multiplex::{self, Room};
use super::super::queue::Slot;
use super::{Free, Pool};

/// Openings that one request waits for, at most.
const OPENINGS: usize = 16;

impl Pool {
    /// Opens a connection, which holds its `slot`, on behalf of `caller`. The caller bounds the time.
    ///
    /// # Errors
    /// [`TryError::Endpoint`] with nothing reached, or [`TryError::Local`].
    pub async fn open(
        self: &Rc<Self>,
        mut slot: Slot,
        caller: Caller,
        stage: &Stage,
    ) -> Result<Line, TryError> {
        slot.hold(self.descriptors.endpoint().ok_or_else(no_descriptor)?);
        let (dial, generation) = (Rc::clone(&self.dial.borrow()), self.generation.get());
        let client = dial.speech().proxy_protocol.map(|_| caller.address);
        let stream = dial.open(self.target.address, caller, stage).await?;
        let is_h2 = dial.speaks_h2(&stream)?;
        if generation == self.generation.get() {
            self.lines.chose_h1(!is_h2);
        }
        if !is_h2 {
            return Ok(Line::H1(Connection::new(stream, generation, client, slot)));
        }
        stage.at(Layer::Http);
        let opened = multiplex::begin(stream, self.head_bytes_at_most.get()).await?;
        let line = opened.drive(self, client, &self.queue, slot);
        let Room::Seat(seat) = line.take() else {
            return Err(TryError::never_reached(Failure::http(Reason::Closed)));
        };
        if generation == self.generation.get() {
            self.lines.add(line);
        } else {
            line.retire();
        }
        Ok(Line::H2(seat))
    }

    /// From what is `free` to a line that is open, within `timeout` where a connection is opened for
    /// others as well; the caller bounds the rest of the time.
    ///
    /// # Errors
    /// As [`Pool::open`], or [`TryError::Full`] if others were faster.
    pub async fn reach(
        self: &Rc<Self>,
        mut free: Free,
        caller: Caller,
        stage: &Stage,
        timeout: Duration,
    ) -> Result<Line, TryError> {
        for _ in 0..OPENINGS {
            let opening = match free {
                Free::Open(connection) => return Ok(Line::H1(connection)),
                Free::Seat(seat) => return Ok(Line::H2(seat)),
                Free::Room(slot) if self.is_private() => {
                    if let Some(line) = self.own(caller.address) {
                        return Ok(line);
                    }
                    return self.open(slot, caller, stage).await;
                }
                Free::Room(slot) if !self.shares() => return self.open(slot, caller, stage).await,
                // While this one made ready, another may have begun.
                Free::Room(slot) => match self.lines.join() {
                    Some(opening) => opening,
                    None => self.open_for_all(slot, caller, stage, timeout),
                },
                Free::Opening(opening) => opening,
            };
            opening.wait().await?;
            free = self.take_free().map_err(TryError::Full)?;
        }
        // Each time others were faster, or the connection had gone already.
        Err(TryError::never_reached(Failure::http(Reason::Closed)))
    }

    /// Opens a connection on a task of its own: whoever asked for it first may be the first to leave.
    fn open_for_all(
        self: &Rc<Self>,
        slot: Slot,
        caller: Caller,
        stage: &Stage,
        timeout: Duration,
    ) -> Rc<Opening> {
        let opening = self.lines.begin();
        let (home, ours, stage) = (Rc::clone(self), Rc::clone(&opening), stage.clone());
        tokio::task::spawn_local(async move {
            let opened = home.open(slot, caller, &stage);
            let result = match tokio::time::timeout(timeout, opened).await {
                Ok(Ok(Line::H1(connection))) => {
                    home.check_in(connection);
                    Ok(())
                }
                // The seat is given back: those who wait take theirs.
                Ok(Ok(Line::H2(seat))) => {
                    drop(seat);
                    Ok(())
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(TryError::never_reached(stage.timeout())),
            };
            ours.end(&result);
        });
        opening
    }

    /// A connection that belongs to the client at `address`, if there is one.
    fn own(&self, address: SocketAddr) -> Option<Line> {
        if let Some(seat) = self.lines.seat(Some(address)) {
            return Some(Line::H2(seat));
        }
        self.check_out(Some(address)).map(Line::H1)
    }
}

/// As the kernel says it, which has some left for others.
fn no_descriptor() -> TryError {
    TryError::Local(io::Error::from(Errno::MFILE))
}
