//! The wait for a response head.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use crate::app::worker::PoolLocal;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::Reached;
use crate::net::h1::ResponseHead;
use crate::net::upstream::{ClientFault, Cuts, Exchange, Outgoing};

use super::attempt::{Ask, Begun, Ended};
use super::drill::Part;
use super::patience::{Patience, Ring};
use super::visit::Visit;

/// What a wait for a response head may end with before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Somebody else may be asked meanwhile.
    Stalled,
    /// It is as good as failed, which is all that is to be found out.
    Slow,
    /// Nothing.
    Timeout,
}

/// Waits for a response head. A wait beyond the pool's bounds is reported as evidence, and may go
/// on: then only the verdict or a timeout ends it.
pub(super) struct Waiting {
    pub(super) exchange: Exchange,
    pub(super) cuts: Cuts,
    pub(super) patience: Patience,
    pub(super) is_repeatable: bool,
    /// What a drill does to it.
    pub(super) part: Part,
}

impl Waiting {
    /// The head, or `None` if `until` says that this is the time to do something else as well; the
    /// wait can then go on. Interim heads before it go to whoever asks.
    pub(super) async fn head(
        &mut self,
        ask: Option<&Ask<'_>>,
        outgoing: &mut Outgoing,
        visit: &Visit,
        until: Until,
    ) -> Result<Option<ResponseHead>, Ended> {
        let Self { exchange, cuts, patience, is_repeatable, part } = self;
        let mut bell = visit.clock().bell(patience.due());
        poll_fn(|cx| {
            let head = match part {
                Part::Late(late) => late.poll_head(exchange, outgoing, visit.home(), cx),
                Part::None | Part::Staged => exchange.poll_head(outgoing, cx),
            };
            let interim = exchange.take_interim();
            if let Some((ask, early)) = ask.and_then(|ask| Some((ask, ask.early?)))
                && !interim.is_empty()
            {
                early.pass(interim, ask);
            }
            if let Poll::Ready(head) = head {
                return Poll::Ready(head.map(Some).map_err(Ended::from));
            }
            // Who cuts has everybody who waits for a bell look.
            if visit.home().is_cut(*cuts, *is_repeatable) {
                let reached = part.reached(exchange, visit.home());
                return Poll::Ready(Err(Ended::Cut { reached }));
            }
            if patience.waiting_since().is_none()
                && exchange.is_sent()
                && let Some(ring) = patience.sent(Instant::now())
            {
                bell.reset(ring);
            }
            while bell.poll(cx).is_ready() {
                let moved = outgoing.read_bytes() + exchange.written_bytes();
                let ring = patience.ring(Instant::now(), moved, exchange.waits_for_client());
                match after(ring, exchange.reached(), visit, until) {
                    Poll::Ready(end) => return Poll::Ready(end),
                    Poll::Pending => bell.reset(patience.due()),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Somebody else has answered: all that this one still does is to say how its endpoint does. At
    /// the slow bound it is withdrawn.
    pub(super) fn bear_witness(mut self: Box<Self>, visit: Visit) {
        if self.patience.was_slow() {
            return;
        }
        tokio::task::spawn_local(async move {
            let _ = self.head(None, &mut Outgoing::empty(), &visit, Until::Slow).await;
        });
    }

    /// The head is there.
    pub(super) fn begun(self, head: ResponseHead, local: &PoolLocal, visit: &Visit) -> Begun {
        let Self { exchange, cuts, patience, .. } = self;
        let now = Instant::now();
        // How long a client takes to send its body says nothing about the endpoint.
        if let Some(since) = patience.waiting_since() {
            local.latency.borrow_mut().record(now.saturating_duration_since(since));
        }
        visit.head(head.status.as_u16(), now);
        Begun { head, exchange, cuts }
    }
}

/// What a ring of the clock means for a try.
fn after(
    ring: Ring,
    reached: Reached,
    visit: &Visit,
    until: Until,
) -> Poll<Result<Option<ResponseHead>, Ended>> {
    match ring {
        Ring::Again(_) => Poll::Pending,
        Ring::Stalled(_) => {
            visit.met(Failure::http(Reason::Stall));
            if until == Until::Stalled { Poll::Ready(Ok(None)) } else { Poll::Pending }
        }
        Ring::Slow(_) => {
            let failure = Failure::http(Reason::Slow);
            visit.met(failure);
            if until == Until::Slow {
                Poll::Ready(Err(Ended::Failed { failure, reached }))
            } else {
                Poll::Pending
            }
        }
        Ring::ClientIdle => Poll::Ready(Err(Ended::Client(ClientFault::Idle))),
        Ring::Timeout => {
            Poll::Ready(Err(Ended::Failed { failure: Failure::http(Reason::Timeout), reached }))
        }
    }
}
