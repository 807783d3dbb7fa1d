//! Clients: their load, and the results of their requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logic::health::latency_baseline::LatencyBaseline;
use crate::logic::model::snapshot::{PoolView, Tier};
use crate::logic::request::attribution::{FailingRequests, RequestKey};
use crate::logic::request::pool_latency::PoolLatency;
use crate::logic::request::request_plan::{BodyLength, RequestPlan, RequestTraits};
use crate::logic::request::retry;
use crate::logic::request::retry::RetryBudget;

use super::requests::{RequestContent, RequestFault, RequestStep, SimulatedRequest};
use super::{ScheduledEvent, Simulation};

/// Requests that a pool's latency bounds are learnt from before clients start.
const WARMUP_SAMPLES: u32 = 2_048;

/// The number of URLs that work.
const URLS: u64 = 100;

/// The key of requests that fail everywhere.
const FAULTY_KEY: RequestKey = RequestKey::from_value(u64::MAX);

/// The load of one pool: an open loop, whose rate does not depend on responses.
#[derive(Clone, Debug)]
pub struct OfferedLoad {
    pub pool: Arc<str>,
    /// Requests a second over the whole pool.
    pub rate_rps: f64,
    /// The distribution of gaps between requests.
    pub spacing: ArrivalSpacing,
    /// The share, in 0..1, of requests that must not run twice (POST).
    pub post_share: f64,
    /// Requests that fail at every endpoint.
    pub faulty: Option<FaultyRequests>,
}

/// Requests for one URL that fails everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultyRequests {
    /// Their share of the load, in 0..1.
    pub share: f64,
    pub fault: RequestFault,
}

/// The distribution of gaps between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivalSpacing {
    /// All gaps are equal.
    Even,
    /// Exponential gaps, as many independent clients produce them.
    Exponential,
}

/// The results of all requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimulatedRequestCounts {
    /// Requests that clients sent.
    pub sent: u64,
    /// Requests with a good response, rescued ones included.
    pub answered: u64,
    /// Requests answered with an endpoint's 5xx.
    pub error_responses: u64,
    /// Requests answered well after an attempt at another endpoint had failed.
    pub rescued: u64,
    /// Rescued requests that took longer than the pool's `late_after`.
    pub late: u64,
    /// Failed requests that are idempotent.
    pub failed_get: u64,
    /// Failed requests that are not idempotent.
    pub failed_post: u64,
    /// Attempts after the first of each request, hedges included.
    pub resent_attempts: u64,
    /// Attempts that started beside a stalled one.
    pub hedges: u64,
    /// Trial attempts at endpoints that are to be proven.
    pub trials: u64,
    /// Requests that are not idempotent and were sent again after an endpoint had received them.
    /// [`RequestPlan`] rules that there are none.
    pub repeated_post: u64,
}

/// All clients and their pending requests.
#[derive(Debug, Default)]
pub(super) struct SimulatedClients {
    pub(super) streams: Vec<LoadStream>,
    pub(super) requests: BTreeMap<u64, SimulatedRequest>,
    next_request: u64,
    pub(super) counts: SimulatedRequestCounts,
}

/// The clients of one load, and the state that each worker keeps for their pool.
#[derive(Debug)]
pub(super) struct LoadStream {
    pub(super) load: OfferedLoad,
    ends_at: Option<Instant>,
    decayed_at: Instant,
    pub(super) workers: Vec<SimulatedWorker>,
}

/// The state that one worker keeps for a pool.
#[derive(Clone, Debug)]
pub(super) struct SimulatedWorker {
    pub(super) budget: RetryBudget,
    pub(super) latency: PoolLatency,
    pub(super) failing: FailingRequests,
}

impl Simulation {
    /// Starts clients now. The pool's latency bounds are warmed up, as on a worker that has served
    /// for a while.
    pub fn add_load(&mut self, offer: OfferedLoad) {
        let pool = self.snapshot.pools.iter().find(|view| view.spec.name == offer.pool);
        let Some(pool) = pool.map(Arc::clone) else { return };
        let now_us = self.elapsed_us(self.now);
        for baseline in latency_baselines(&pool) {
            for _ in 0..WARMUP_SAMPLES {
                let service = self.settings.latency.sample(&mut self.rng);
                baseline.record(self.settings.round_trip + service, now_us);
            }
        }
        let worker_count = self.settings.workers.max(1);
        let worker = SimulatedWorker {
            budget: RetryBudget::new(&self.settings.retry, worker_count, self.now),
            latency: PoolLatency::new(&pool.spec),
            failing: FailingRequests::new(self.now),
        };
        let stream = self.clients.streams.len();
        let first_gap = arrival_gap(&offer, self.rng.f64());
        self.clients.streams.push(LoadStream {
            load: offer,
            ends_at: None,
            decayed_at: self.now,
            workers: vec![worker; worker_count],
        });
        if let Some(first_gap) = first_gap {
            self.schedule_event(
                self.now + first_gap,
                ScheduledEvent::Client(RequestStep::Arrives { stream }),
            );
        }
    }

    /// Stops new requests. Pending ones continue.
    pub fn stop_load(&mut self) {
        let now = self.now;
        self.clients.streams.iter_mut().for_each(|stream| stream.ends_at = Some(now));
    }

    /// The results of all requests so far.
    pub fn request_counts(&self) -> SimulatedRequestCounts {
        self.clients.counts
    }

    pub(super) fn on_request_arrival(&mut self, index: usize) {
        let (random, post) = (self.rng.f64(), self.rng.f64());
        let worker = match self.settings.workers {
            0 | 1 => 0,
            workers => self.rng.usize(..workers),
        };
        let (now, spec) = (self.now, self.settings.retry);
        let stream = &mut self.clients.streams[index];
        if stream.ends_at.is_some() {
            return;
        }
        if now.saturating_duration_since(stream.decayed_at) >= retry::DECAY_INTERVAL {
            stream.decayed_at = now;
            stream.workers.iter_mut().for_each(|worker| worker.decay(now));
        }
        stream.workers[worker].budget.deposit(&spec);
        let is_idempotent = post >= stream.load.post_share;
        if let Some(gap) = arrival_gap(&stream.load, random) {
            self.schedule_event(
                now + gap,
                ScheduledEvent::Client(RequestStep::Arrives { stream: index }),
            );
        }
        let id = self.clients.next_request;
        self.clients.next_request += 1;
        self.clients.counts.sent += 1;
        let traits = RequestTraits { is_idempotent, body: BodyLength::Absent, is_upgrade: false };
        let plan = RequestPlan::new(traits, &spec);
        let content = self.draw_content(index, id);
        self.send_request(id, SimulatedRequest::new((index, worker), now, plan, content));
    }
}

impl Simulation {
    /// Draws the content of a request.
    fn draw_content(&mut self, stream: usize, id: u64) -> RequestContent {
        let faulty = self.clients.streams[stream].load.faulty;
        match faulty {
            Some(FaultyRequests { share, fault }) if self.rng.f64() < share => {
                RequestContent { key: FAULTY_KEY, fault: Some(fault) }
            }
            _ => RequestContent { key: RequestKey::from_value(id % URLS), fault: None },
        }
    }
}

/// The latency baseline of each region with an endpoint that takes traffic.
fn latency_baselines(pool: &PoolView) -> Vec<&LatencyBaseline> {
    let mut baselines: Vec<&LatencyBaseline> = Vec::new();
    for target in pool.primary.tiers.iter().flat_map(Tier::targets) {
        let baseline = &**target.zone_stats.latency();
        if !baselines.iter().any(|known| std::ptr::eq(*known, baseline)) {
            baselines.push(baseline);
        }
    }
    baselines
}

impl SimulatedWorker {
    fn decay(&mut self, now: Instant) {
        self.budget.decay(now);
        self.failing.remove_expired(now);
        self.latency.remove_expired(now);
    }
}

/// The time to the next request; `None` if the rate is zero.
fn arrival_gap(load: &OfferedLoad, random: f64) -> Option<Duration> {
    let mean_seconds = 1.0 / load.rate_rps;
    let seconds = match load.spacing {
        ArrivalSpacing::Even => mean_seconds,
        ArrivalSpacing::Exponential => -mean_seconds * (1.0 - random).ln(),
    };
    Duration::try_from_secs_f64(seconds).ok()
}
