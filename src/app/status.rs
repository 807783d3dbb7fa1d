//! `/api/v1/status`: what runs, where its traffic goes, and what operators have ordered, on one page.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;

use crate::logic::director::{self, EndpointStatus, ZoneVerdict};
use crate::logic::health::Health;

use super::control::{Board, Phase};
use super::orders::{OrderJson, line};

/// All of it.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    pid: u32,
    stopping: bool,
    /// The configuration as the file has it was refused.
    config_refused: bool,
    drill: Option<u64>,
    pools: Vec<PoolStatus>,
    orders: Vec<OrderJson>,
    orders_durable: Option<bool>,
    #[serde(skip)]
    order_lines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PoolStatus {
    name: String,
    /// `ok`, `panic`, `drained` or `diverges`.
    state: &'static str,
    endpoints: usize,
    serving: usize,
    down: usize,
    drained: usize,
    zones: Vec<ZoneStatus>,
}

#[derive(Debug, Serialize)]
struct ZoneStatus {
    name: String,
    /// `up`, `down` or `drained`.
    state: &'static str,
    /// Of the pool's traffic, in 0..1.
    share: f64,
    in_flight: u32,
    endpoints: Vec<OneStatus>,
}

#[derive(Debug, Serialize)]
struct OneStatus {
    address: String,
    state: &'static str,
    standing: &'static str,
    reason: Option<String>,
    weight: u32,
    /// Of the pool's traffic, in 0..1.
    share: f64,
    in_flight: u32,
}

impl OneStatus {
    fn new(status: &EndpointStatus, share: f64) -> Self {
        let reason = match status.health {
            Health::Suspect { failure, .. }
            | Health::Down { failure }
            | Health::Returning { failure, .. } => Some(failure.to_string()),
            Health::Unknown { .. } | Health::Up => None,
        };
        Self {
            address: status.subject.address.to_string(),
            state: status.health.as_str(),
            standing: status.standing.as_str(),
            reason,
            weight: status.weight,
            share,
            in_flight: status.in_flight,
        }
    }
}

impl Status {
    /// As of `now`.
    #[must_use]
    pub fn of(board: &Board, now: Instant) -> Self {
        let director = board.director.borrow();
        let shares = director.shares();
        let mut by_zone: HashMap<(String, String), Vec<OneStatus>> = HashMap::new();
        for status in director.endpoints() {
            let subject = &status.subject;
            let share = shares.get(&subject.endpoint).copied().unwrap_or_default();
            let key = (subject.pool.to_string(), subject.place.to_string());
            by_zone.entry(key).or_default().push(OneStatus::new(&status, share));
        }
        let zones = director.zones(now);
        let pools = director.pools().into_iter().map(|pool| {
            let of_pool = zones.iter().filter(|zone| zone.pool == pool.name);
            let zone = |zone: &director::ZoneStatus| {
                let key = (zone.pool.to_string(), zone.place.to_string());
                let endpoints = by_zone.remove(&key).unwrap_or_default();
                let all_drained = endpoints.iter().all(|one| one.standing == "drained");
                let is_up = zone.verdict == ZoneVerdict::Up;
                ZoneStatus {
                    name: key.1,
                    state: match (all_drained && !endpoints.is_empty(), is_up) {
                        (true, _) => "drained",
                        (false, true) => "up",
                        (false, false) => "down",
                    },
                    share: zone.share,
                    in_flight: endpoints.iter().map(|one| one.in_flight).sum(),
                    endpoints,
                }
            };
            PoolStatus {
                state: match () {
                    () if pool.panic => "panic",
                    () if pool.drained == pool.endpoints => "drained",
                    () if pool.diverges => "diverges",
                    () => "ok",
                },
                endpoints: pool.endpoints,
                serving: pool.serving,
                down: pool.down,
                drained: pool.drained,
                zones: of_pool.map(zone).collect(),
                name: pool.name.to_string(),
            }
        });
        let pools = pools.collect();
        let orders = director.orders();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            stopping: board.phase.get() == Phase::Stopping,
            config_refused: board.config.borrow().refused.is_some(),
            drill: board.drills.borrow().running().map(|run| run.id),
            pools,
            orders: orders.iter().map(|one| OrderJson::new(one, &board.clock, now)).collect(),
            orders_durable: board.keeper.is_durable(),
            order_lines: orders.iter().map(|one| line(one, &board.clock, now)).collect(),
        }
    }

    /// The same for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = format!("gapless {} (pid {})", self.version, self.pid);
        for (is, what) in [
            (self.stopping, "stopping"),
            (self.config_refused, "the file's configuration is refused: see /api/v1/config"),
            (self.drill.is_some(), "a drill is under way"),
            (self.orders_durable == Some(false), "orders cannot be written down"),
        ] {
            if is {
                let _ = write!(page, "; {what}");
            }
        }
        page.push('\n');
        for pool in &self.pools {
            let PoolStatus { name, state, endpoints, serving, down, drained, .. } = pool;
            let _ = write!(page, "\npool {name}: {state}; {serving} of {endpoints} serve");
            for (count, what) in [(down, "down"), (drained, "drained")] {
                if *count > 0 {
                    let _ = write!(page, ", {count} {what}");
                }
            }
            page.push('\n');
            for zone in &pool.zones {
                let share = percent(zone.share);
                let _ = writeln!(
                    page,
                    "  {:<38} {:<8} {share:>7} {:>6} in flight",
                    zone.name, zone.state, zone.in_flight
                );
                for one in &zone.endpoints {
                    let _ = write!(
                        page,
                        "    {:<36} {:<8} {:>7} {:>6} in flight  weight {}, {}",
                        one.address,
                        one.state,
                        percent(one.share),
                        one.in_flight,
                        one.weight,
                        one.standing
                    );
                    if let Some(reason) = &one.reason {
                        let _ = write!(page, ": {reason}");
                    }
                    page.push('\n');
                }
            }
        }
        page.push_str(if self.order_lines.is_empty() { "\nno orders\n" } else { "\norders\n" });
        for line in &self.order_lines {
            let _ = writeln!(page, "  {line}");
        }
        page
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 1e2)
}
