//! What becomes of a try: what counts against its endpoint, what control hears, and whether the
//! request goes on.

use std::sync::Arc;
use std::time::Instant;

use crate::logic::casualty::{Casualty, Sight};
use crate::logic::director::Input;
use crate::logic::outcome::{Failure, Reason};
use crate::logic::retry::{self, Again, Reached, Tried};

use super::World;
use super::behavior::Answer;
use super::trip::{End, Request, Visit};

/// The status of an answer that is as it should be.
const GOOD: u16 = 200;

impl World {
    /// A try has come to its end.
    pub(super) fn ends(&mut self, id: u64, end: End) {
        let Some((visit, request)) = self.leave(id) else { return };
        match end {
            End::Failed { failure, reached } => {
                self.met(&visit, failure);
                self.go_on(id, request, &visit, reached);
            }
            End::Answered(answer) => {
                self.learn(&request, &visit);
                match answer {
                    Answer::Status(status) if status >= 500 => {
                        self.keep_connection(&visit);
                        self.answered_badly(id, request, &visit, status);
                    }
                    Answer::Good | Answer::Status(_) => {
                        self.keep_connection(&visit);
                        self.head(&visit, GOOD);
                        visit.witness.answered(&visit.target.live);
                        self.answered(&request);
                    }
                    Answer::Cut => {
                        self.head(&visit, GOOD);
                        self.met(&visit, Failure::http(Reason::Cut));
                        self.go_on(id, request, &visit, Reached::Something);
                    }
                }
            }
        }
    }

    /// The endpoint failed.
    pub(super) fn met(&mut self, visit: &Visit, failure: Failure) {
        if visit.witness.met(failure, &visit.target.live) {
            self.report(visit, failure);
        }
    }

    /// The endpoint began to answer.
    fn head(&mut self, visit: &Visit, status: u16) {
        if visit.witness.head(status, &visit.target.live, self.micros(self.now)) {
            self.report(visit, Failure::http(Reason::Status(status)));
        }
    }

    fn report(&mut self, visit: &Visit, failure: Failure) {
        if !visit.is_trial && failure.reason != Reason::Stall {
            visit.target.kin.erred(self.micros(self.now));
        }
        let endpoint = visit.target.id;
        self.tell(Input::Traffic { endpoint, failure, began: visit.began });
    }

    /// How long an answer took, for the pool's bounds.
    fn learn(&mut self, request: &Request, visit: &Visit) {
        let waited = self.now.saturating_duration_since(visit.began);
        self.clients.streams[request.stream].latency.record(waited);
    }

    fn keep_connection(&mut self, visit: &Visit) {
        let now = self.now;
        let pools = &self.snapshot.pools;
        let home = pools.iter().find(|view| view.members.contains(&visit.target.id));
        if let Some(limits) = home.map(|view| view.spec.limits) {
            self.host(visit.target.address).check_in(visit.target.id, &limits, now);
        }
    }

    fn answered(&mut self, request: &Request) {
        self.clients.counts.answered += 1;
        let Some(met) = &request.first_met else { return };
        let is_late = self.is_late(request, self.now);
        met.rescued(is_late);
        let counts = &mut self.clients.counts;
        counts.rescued += 1;
        counts.late += u64::from(is_late);
    }

    fn is_late(&self, request: &Request, now: Instant) -> bool {
        let pool = &self.clients.streams[request.stream].offer.pool;
        let view = self.snapshot.pools.iter().find(|view| view.spec.name == *pool);
        let elapsed = now.saturating_duration_since(request.arrived);
        view.is_some_and(|view| elapsed > view.spec.late_after)
    }

    /// An error page is an answer, which the client gets if nobody else may be asked.
    fn answered_badly(&mut self, id: u64, mut request: Request, visit: &Visit, status: u16) {
        self.head(visit, status);
        visit.witness.answered(&visit.target.live);
        let spec = self.settings.retry;
        if spec.statuses.has(status) {
            request.held_failure = Some(Arc::clone(&visit.target.live));
        }
        request.holds_bad_answer = true;
        if request.idempotent && retry::is_unwanted(status, visit.is_trial, &spec) {
            self.go_on(id, request, visit, Reached::Something);
        } else {
            self.give_up(&request);
        }
    }

    /// A request that got nothing from an endpoint goes to another one, if it may.
    pub(super) fn go_on(&mut self, id: u64, mut request: Request, visit: &Visit, reached: Reached) {
        request.first_met.get_or_insert_with(|| Arc::clone(&visit.target.live));
        request.avoid.leave(visit.target.id, visit.target.zone);
        request.sent_tries += u32::from(reached == Reached::Something && !visit.is_trial);
        let tried = Tried {
            reached,
            idempotent: request.idempotent,
            body_held: true,
            is_trial: visit.is_trial,
            sent_tries: request.sent_tries,
            tries: request.tries,
        };
        let again = retry::may_send_again(&tried, &self.settings.retry);
        let next = if again == Again::No { None } else { self.choose(&request) };
        let budget = &mut self.clients.streams[request.stream].budget;
        match next {
            Some(next) if again == Again::Free || budget.spend() => self.send_to(id, request, next),
            _ => self.give_up(&request),
        }
    }

    /// The client sees the failure: the bad answer, or one of the proxy's own.
    pub(super) fn give_up(&mut self, request: &Request) {
        let counts = &mut self.clients.counts;
        if request.holds_bad_answer {
            counts.answered_badly += 1;
            if let Some(live) = &request.held_failure {
                let casualty = Casualty { sight: Sight::Status, is_repeatable: request.idempotent };
                live.failed(casualty, self.micros(self.now));
            }
            return;
        }
        let failed =
            if request.idempotent { &mut counts.failed_get } else { &mut counts.failed_post };
        *failed += 1;
        if let Some(met) = &request.first_met {
            let casualty = Casualty { sight: Sight::Reset, is_repeatable: request.idempotent };
            met.failed(casualty, self.micros(self.now));
        }
    }
}
