//! A request that waits for long is asked of a second endpoint as well: the first good answer wins.
//!
//! It covers silence before any verdict (Dean and Barroso, "The Tail at Scale", 2013), for requests
//! without a body that may be sent again. The budget of resends pays, so that a pool in which everything
//! has become slow is not asked twice for all of it.

use std::rc::Rc;

use crate::app::worker::{PoolLocal, View, Worker};
use crate::logic::retry::{self, Reached, Tried};
use crate::net::h1::ResponseHead;
use crate::net::upstream::Outgoing;

use super::attempt::{Ask, Begun, Connect, Ended, Progress, attempt};
use super::choose::{Next, Way};
use super::trip::{Trip, blame};
use super::visit::Visit;
use super::wait::{Until, Waiting};

/// A try that waits.
pub(super) struct Stalled {
    pub(super) visit: Visit,
    pub(super) zone: usize,
    pub(super) waiting: Box<Waiting>,
}

/// The try that is left, and what came of it.
pub(super) struct Settled {
    pub(super) view: Rc<View>,
    pub(super) visit: Visit,
    pub(super) zone: usize,
    pub(super) result: Result<Begun, Ended>,
}

/// Which of two tries has ended.
enum Lap {
    First(Result<ResponseHead, Ended>),
    Second(Box<Result<Begun, Ended>>),
}

impl Trip<'_> {
    /// Asks a second endpoint, if there is one and the budget pays, and waits until one of both has
    /// answered well or none is left.
    pub(super) async fn hedge(&mut self, view: Rc<View>, ask: &Ask<'_>, first: Stalled) -> Settled {
        let Stalled { visit, zone, mut waiting } = first;
        let Some((view, next)) = self.second(&view, &visit, zone) else {
            let head = finish(&mut waiting, ask, &visit).await;
            let result = head.map(|head| waiting.begun(head, view.pool(self.route).1, &visit));
            return Settled { view, visit, zone, result };
        };
        let Next { visit: other, zone: other_zone, way } = next;
        self.tries += 1;
        let connect = self.connect(&view, &other, &way);
        let local = Rc::clone(view.pool(self.route).1);
        let mut second = Box::pin(run(self.worker, &local, ask, &other, (way, connect)));
        let lap = tokio::select! {
            biased;
            head = finish(&mut waiting, ask, &visit) => Lap::First(head),
            result = &mut second => Lap::Second(Box::new(result)),
        };
        match lap {
            Lap::First(head) => {
                let result = head.map(|head| waiting.begun(head, &local, &visit));
                if self.is_wanted(&result, &visit) {
                    drop(second);
                    return Settled { view, visit, zone, result };
                }
                self.lost(result, ask, &visit);
                let result = second.await;
                Settled { view, visit: other, zone: other_zone, result }
            }
            Lap::Second(result) => {
                let result = *result;
                drop(second);
                if self.is_wanted(&result, &other) {
                    self.first_met.get_or_insert_with(|| Rc::clone(visit.home()));
                    waiting.bear_witness(visit);
                    return Settled { view, visit: other, zone: other_zone, result };
                }
                self.avoid.leave(other.home().target.id, other_zone);
                self.lost(result, ask, &other);
                let head = finish(&mut waiting, ask, &visit).await;
                let result = head.map(|head| waiting.begun(head, &local, &visit));
                Settled { view, visit, zone, result }
            }
        }
    }

    /// Where else to ask while the first endpoint is silent.
    fn second(&mut self, view: &Rc<View>, visit: &Visit, zone: usize) -> Option<(Rc<View>, Next)> {
        let tried = Tried {
            reached: Reached::Something,
            idempotent: true,
            body_held: true,
            is_trial: false,
            sent_tries: self.sent_tries + 1,
            tries: self.tries,
        };
        let again = retry::may_send_again(&tried, &self.route.spec.retry);
        self.avoid.leave(visit.home().target.id, zone);
        let (view, next) = self.other(view, again, false)?;
        self.sent_tries += 1;
        view.pool(self.route).1.meter.hedged();
        Some((view, next))
    }

    /// Whether this ends the race.
    fn is_wanted(&self, result: &Result<Begun, Ended>, visit: &Visit) -> bool {
        let spec = &self.route.spec.retry;
        let status = result.as_ref().ok().map(|begun| begun.head.status.as_u16());
        status.is_some_and(|status| !retry::is_unwanted(status, visit.is_trial(), spec))
    }

    /// One of two has failed; the other goes on.
    fn lost(&mut self, result: Result<Begun, Ended>, ask: &Ask<'_>, visit: &Visit) {
        self.first_met.get_or_insert_with(|| Rc::clone(visit.home()));
        match result {
            Ok(begun) => begun.discard(ask, visit),
            Err(ended) => {
                // Whatever it was, there is still somebody to answer.
                let _ = blame(&ended, visit);
            }
        }
    }
}

/// Tries once, for as long as it takes.
async fn run(
    worker: &Worker,
    local: &PoolLocal,
    ask: &Ask<'_>,
    visit: &Visit,
    way: (Way, Connect),
) -> Result<Begun, Ended> {
    match attempt(worker, local, ask, &mut Outgoing::empty(), visit, way).await? {
        Progress::Begun(begun) => Ok(begun),
        Progress::Stalled(mut waiting) => {
            let head = finish(&mut waiting, ask, visit).await?;
            Ok(waiting.begun(head, local, visit))
        }
    }
}

/// Waits on for as long as it takes.
async fn finish(
    waiting: &mut Waiting,
    ask: &Ask<'_>,
    visit: &Visit,
) -> Result<ResponseHead, Ended> {
    let mut outgoing = Outgoing::empty();
    loop {
        if let Some(head) = waiting.head(Some(ask), &mut outgoing, visit, Until::Timeout).await? {
            return Ok(head);
        }
    }
}
