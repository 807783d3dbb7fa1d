//! The endpoints of a pool whose shares grow, and when the shares are computed again.

use std::time::{Duration, Instant};

use crate::logic::health::recovery::ramp_update_interval;
use crate::logic::model::id::EndpointId;

#[derive(Debug, Default)]
pub(crate) struct RampingMembers {
    members: Vec<EndpointId>,
    due: Option<Instant>,
}

impl RampingMembers {
    pub(crate) fn push(&mut self, id: EndpointId) {
        self.members.push(id);
    }

    /// Adds an endpoint that may be there already.
    pub(crate) fn insert(&mut self, id: EndpointId) {
        if !self.members.contains(&id) {
            self.members.push(id);
        }
    }

    /// Removes all endpoints for an update, which is no longer due.
    pub(crate) fn take(&mut self) -> Vec<EndpointId> {
        self.due = None;
        std::mem::take(&mut self.members)
    }

    pub(crate) fn retain(&mut self, is_kept: impl Fn(EndpointId) -> bool) {
        self.members.retain(|&id| is_kept(id));
    }

    /// Plans the next update of ramps of this length, if none is planned; returns its time.
    pub(crate) fn schedule(&mut self, length: Duration, now: Instant) -> Option<Instant> {
        if self.due.is_some() {
            return None;
        }
        self.due = Some(now + ramp_update_interval(length));
        self.due
    }

    /// Drops the plan; returns whether there was one.
    pub(crate) fn unschedule(&mut self) -> bool {
        self.due.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_update_is_planned_at_a_time() {
        let (mut ramping, now) = (RampingMembers::default(), Instant::now());
        let length = Duration::from_secs(10);
        let id = EndpointId::new(1, 0);
        ramping.insert(id);
        ramping.insert(id);
        assert_eq!(ramping.schedule(length, now), Some(now + length / 100));
        assert_eq!(ramping.schedule(length, now), None);
        assert_eq!(ramping.take(), [id]);
        assert!(ramping.schedule(length, now).is_some() && ramping.unschedule());
    }
}
