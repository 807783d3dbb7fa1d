//! What a drill does to one try: the failure happens here, in the connector, and the endpoint sees
//! nothing of it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::Method;
use tokio::time::{Sleep, sleep};

use crate::app::worker::Worker;
use crate::logic::drill::Meets;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::Reached;
use crate::net::h1::ResponseHead;
use crate::net::upstream::{Act, Cuts, Exchange, Free, Outgoing, Pool, Staging, TryError};

use super::attempt::{Ask, Ended};
use super::choose::Way;

/// What a drill does to an exchange.
#[derive(Debug)]
pub(super) enum Part {
    /// Nothing: there is none, or it spares this one.
    None,
    /// It leads nowhere.
    Staged,
    /// Its answer is held back.
    Late(Box<Late>),
}

/// An answer that is held back.
#[derive(Debug)]
pub(super) struct Late {
    wait: Pin<Box<Sleep>>,
    head: Option<ResponseHead>,
}

/// Has a try meet what the drill says, if it says anything now. A way that is taken away is given back
/// as one that leads nowhere; `cuts` are made deaf where the endpoint really runs what must not run
/// twice, since a drill's verdict must not end that.
#[cold]
pub(super) fn stage(
    worker: &Worker,
    staging: &Staging,
    ask: &Ask<'_>,
    home: &Rc<Pool>,
    (way, cuts): (Way, &mut Cuts),
) -> Result<(Way, Part), Ended> {
    if staging.is_meant && !ask.idempotent {
        // Whatever of this kind runs there really, runs to its end.
        *cuts = cuts.deaf();
    }
    let Some(fault) = staging.fault.get().filter(|_| !staging.is_over.get()) else {
        return Ok((way, Part::None));
    };
    let is_plain_get = ask.request.method() == Method::GET && ask.admitted.framing.is_none();
    let chance = worker.chance(fastrand::Rng::f64);
    let meets = fault.meets(ask.idempotent, is_plain_get && !ask.switches, chance);
    let act = match meets {
        Meets::Endpoint => return Ok((way, Part::None)),
        Meets::Late(delay) => {
            staging.tallies.met();
            let late = Late { wait: Box::pin(sleep(delay)), head: None };
            return Ok((way, Part::Late(Box::new(late))));
        }
        Meets::Refused => {
            staging.tallies.met();
            spare(home, way);
            let failure = Failure::connect(Reason::Refused);
            return Err(Ended::Failed { failure, reached: Reached::Nothing });
        }
        Meets::Reset => Act::Reset,
        Meets::Silence => Act::Silence,
        Meets::Status(status) => Act::status(status),
        Meets::Cut => Act::cut(),
    };
    staging.tallies.met();
    spare(home, way);
    *cuts = home.cuts();
    Ok((Way::Free(Free::Open(home.stage(act))), Part::Staged))
}

/// An open connection to the endpoint is not closed because of a drill.
fn spare(home: &Rc<Pool>, way: Way) {
    if let Way::Free(Free::Open(connection)) = way {
        home.check_in(connection);
    }
}

impl Part {
    /// How much of the request an endpoint may have seen. While the drill is on, as much as if it were
    /// none; once it is over, what led nowhere can go anywhere.
    pub(super) fn reached(&self, exchange: &Exchange, home: &Pool) -> Reached {
        match self {
            Self::Staged if home.is_over() => Reached::Nothing,
            _ => exchange.reached(),
        }
    }
}

impl Late {
    /// The head of the answer, not before its time, unless the drill is over.
    pub(super) fn poll_head(
        &mut self,
        exchange: &mut Exchange,
        outgoing: &mut Outgoing,
        home: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, TryError>> {
        if self.head.is_none() {
            self.head = Some(ready!(exchange.poll_head(outgoing, cx))?);
        }
        if !home.is_over() {
            ready!(self.wait.as_mut().poll(cx));
        }
        self.head.take().map_or(Poll::Pending, |head| Poll::Ready(Ok(head)))
    }
}
