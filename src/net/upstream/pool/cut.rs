//! Who has to leave an endpoint before it has answered.

use super::Pool;

/// How often a pool was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    repeatable: u64,
    all: u64,
    /// Of what lasts: tunnels.
    lasting: u64,
}

impl Cuts {
    /// Whoever holds this does not hear of cuts that concern what may not be sent again.
    #[must_use]
    pub fn deaf(self) -> Self {
        Self { all: u64::MAX, ..self }
    }
}

impl Pool {
    /// The verdict is down: wakes the requests that wait for this endpoint, `all` of them or those
    /// only that may be sent again.
    pub fn cut_waiting(&self, all: bool) {
        let Cuts { repeatable, all: before, lasting } = self.cuts.get();
        self.cuts.set(Cuts { repeatable: repeatable + 1, all: before + u64::from(all), lasting });
        self.cut.notify_waiters();
    }

    /// The endpoint is drained: idle connections are closed, and those in use are not kept afterwards,
    /// until somebody comes again.
    pub fn leave(&self) {
        self.is_left.set(true);
        self.close_idle();
    }

    /// The endpoint is drained, and the time of what lasts is up: tunnels end, and answers on their
    /// way. Requests that wait for an answer leave if they may be sent again.
    pub fn end_lasting(&self) {
        self.cuts.update(|cuts| Cuts { lasting: cuts.lasting + 1, ..cuts });
        self.lasting.end();
        self.cut_waiting(false);
    }

    /// How often it was cut; to be read before a try begins.
    #[must_use]
    pub fn cuts(&self) -> Cuts {
        self.cuts.get()
    }

    /// Whether it has been cut since `since`, for a request that is `repeatable` or not.
    #[must_use]
    pub fn is_cut(&self, since: Cuts, repeatable: bool) -> bool {
        let now = self.cuts.get();
        now.all > since.all || repeatable && now.repeatable > since.repeatable
    }

    /// Ends when a tunnel that was begun at `since` has to; whether that is because the endpoint is
    /// drained, and not because it is silent.
    pub async fn until_tunnel_ends(&self, since: Cuts) -> bool {
        loop {
            let woken = self.cut.notified();
            if self.is_cut(since, false) {
                return false;
            }
            if self.cuts.get().lasting > since.lasting {
                return true;
            }
            woken.await;
        }
    }

    /// Ends when that is so.
    pub async fn until_cut(&self, since: Cuts, repeatable: bool) {
        loop {
            let woken = self.cut.notified();
            if self.is_cut(since, repeatable) {
                return;
            }
            woken.await;
        }
    }
}
