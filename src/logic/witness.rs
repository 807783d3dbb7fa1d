//! What one try says for or against its endpoint: one word at most, whatever else it meets.

use std::cell::Cell;

use super::live::Live;
use super::outcome::{Failure, Reason};
use super::statuses;

/// The word of one try, which it has until it is said.
#[derive(Debug, Default)]
pub struct Witness {
    is_said: Cell<bool>,
}

impl Witness {
    /// A response head with `status` came. `true` if control must be told of it.
    #[must_use]
    pub fn head(&self, status: u16, live: &Live, now_us: u64) -> bool {
        if statuses::accuses(status) {
            return self.met(Failure::http(Reason::Status(status)), live);
        }
        if statuses::SERVER_ERRORS.contains(&status) {
            self.withdraw();
        } else if !self.is_said.get() {
            live.good(now_us);
        }
        false
    }

    /// The whole answer has passed.
    pub fn answered(&self, live: &Live) {
        if !self.is_said.replace(true) {
            live.answered();
        }
    }

    /// The try met `failure`. `true` if control must be told: of what an endpoint says on a
    /// connection that works it is told once until it looks, of everything else always. A stall
    /// is a reason to look, and nothing that counts.
    #[must_use]
    pub fn met(&self, failure: Failure, live: &Live) -> bool {
        if failure.reason == Reason::Stall {
            return true;
        }
        let is_news = !self.is_said.replace(true) && live.erred();
        is_news || !failure.is_answer()
    }

    /// The rest says nothing of the endpoint: it is the client's doing, or speaks of the request.
    pub fn withdraw(&self) {
        self.is_said.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::live::Tries;

    fn tries(good: u64, bad: u64) -> Tries {
        Tries { good, bad }
    }

    #[test]
    fn a_good_answer_counts_when_it_is_whole() {
        let (live, witness) = (Live::default(), Witness::default());
        assert!(!witness.head(200, &live, 7));
        assert_eq!((live.last_good_us(), live.look()), (7, tries(0, 0)));
        witness.answered(&live);
        witness.answered(&live);
        assert_eq!(live.look(), tries(1, 0));
    }

    #[test]
    fn a_failure_counts_once_and_control_hears_of_answers_once() {
        let live = Live::default();
        let failing = [Reason::Status(503), Reason::Cut, Reason::Malformed, Reason::Slow];
        for (index, reason) in failing.into_iter().enumerate() {
            let witness = Witness::default();
            assert_eq!(witness.met(Failure::http(reason), &live), index == 0, "{reason:?}");
            assert!(!witness.met(Failure::http(Reason::Cut), &live));
            witness.answered(&live);
        }
        assert_eq!(live.look(), tries(0, 4));
        assert!(Witness::default().head(500, &live, 1), "control has looked");
    }

    #[test]
    fn what_is_gone_is_always_told_and_a_stall_never_counts() {
        let live = Live::default();
        for reason in [Reason::Refused, Reason::Timeout, Reason::Reset, Reason::Closed] {
            assert!(Witness::default().met(Failure::http(reason), &live), "{reason:?}");
        }
        let witness = Witness::default();
        assert!(witness.met(Failure::http(Reason::Stall), &live));
        assert_eq!(live.look(), tries(0, 4));
        witness.answered(&live);
        assert_eq!(live.look(), tries(1, 4), "it was answered after all");
    }

    #[test]
    fn an_answer_after_a_slow_wait_and_one_about_the_request_are_neither() {
        let (live, slow) = (Live::default(), Witness::default());
        assert!(slow.met(Failure::http(Reason::Slow), &live));
        assert!(!slow.head(200, &live, 7));
        slow.answered(&live);
        let unknown = Witness::default();
        assert!(!unknown.head(501, &live, 7));
        unknown.answered(&live);
        assert_eq!((live.last_good_us(), live.look()), (0, tries(0, 1)));
    }
}
