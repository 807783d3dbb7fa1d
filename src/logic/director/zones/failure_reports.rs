//! Transitions of endpoints that fell with their zone and have yet to be reported.
//!
//! A large zone has many: they are reported after the publication, because its traffic moves first.

use std::time::Instant;

use crate::logic::health::endpoint_health::{Health, HealthTransition};
use crate::logic::model::id::EndpointId;

#[derive(Debug, Default)]
pub(crate) struct ZoneFailureReports {
    pending: Vec<ZoneFailure>,
}

/// The transitions of one fall.
#[derive(Debug)]
pub(crate) struct ZoneFailure {
    transitions: Vec<EndpointTransition>,
    at: Instant,
}

/// An endpoint's transition, and the verdict after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EndpointTransition {
    id: EndpointId,
    transition: HealthTransition,
    verdict: Health,
}

impl ZoneFailureReports {
    pub(crate) fn push(&mut self, failure: ZoneFailure) {
        self.pending.push(failure);
    }

    /// Removes all falls, oldest first.
    pub(crate) fn take(&mut self) -> Vec<ZoneFailure> {
        std::mem::take(&mut self.pending)
    }
}

impl ZoneFailure {
    pub(crate) fn new(transitions: Vec<EndpointTransition>, at: Instant) -> Self {
        Self { transitions, at }
    }

    /// When the zone fell.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn into_transitions(self) -> Vec<EndpointTransition> {
        self.transitions
    }
}

impl EndpointTransition {
    pub(crate) fn new(id: EndpointId, transition: HealthTransition, verdict: Health) -> Self {
        Self { id, transition, verdict }
    }

    pub(crate) fn id(self) -> EndpointId {
        self.id
    }

    pub(crate) fn transition(self) -> HealthTransition {
        self.transition
    }

    pub(crate) fn verdict(self) -> Health {
        self.verdict
    }
}
