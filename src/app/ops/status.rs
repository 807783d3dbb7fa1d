//! `/api/v1/status`: process, traffic shares, health and orders on one page.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;

use crate::logic::director::{self, EndpointStatus, ZoneVerdict};
use crate::logic::health::endpoint_health::Health;

use crate::app::control::admin_state::{AdminState, LifecyclePhase};
use crate::app::control::orders::{OrderJson, order_line};

#[derive(Debug, Serialize)]
pub struct StatusJson {
    version: &'static str,
    pid: u32,
    stopping: bool,
    /// Whether the configuration in the file was refused.
    config_refused: bool,
    drill: Option<u64>,
    pools: Vec<PoolStatusJson>,
    orders: Vec<OrderJson>,
    orders_durable: Option<bool>,
    #[serde(skip)]
    order_lines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PoolStatusJson {
    name: String,
    /// `ok`, `panic`, `drained` or `diverges`.
    state: &'static str,
    endpoints: usize,
    serving: usize,
    down: usize,
    drained: usize,
    zones: Vec<ZoneStatusJson>,
}

#[derive(Debug, Serialize)]
struct ZoneStatusJson {
    name: String,
    /// `up`, `down` or `drained`.
    state: &'static str,
    /// Share of the pool's traffic, in 0..1.
    share: f64,
    in_flight: u32,
    endpoints: Vec<EndpointStatusJson>,
}

#[derive(Debug, Serialize)]
struct EndpointStatusJson {
    address: String,
    state: &'static str,
    standing: &'static str,
    reason: Option<String>,
    weight: u32,
    /// Share of the pool's traffic, in 0..1.
    share: f64,
    in_flight: u32,
}

impl EndpointStatusJson {
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
            standing: status.eligibility.as_str(),
            reason,
            weight: status.weight,
            share,
            in_flight: status.in_flight,
        }
    }
}

impl StatusJson {
    /// The status as of `now`.
    pub fn from_admin_state(admin_state: &AdminState, now: Instant) -> Self {
        let director = admin_state.director();
        let shares = director.traffic_shares();
        let mut by_zone: HashMap<(String, String), Vec<EndpointStatusJson>> = HashMap::new();
        for status in director.endpoints() {
            let subject = &status.subject;
            let share = shares.get(&subject.endpoint).copied().unwrap_or_default();
            let key = (subject.pool.to_string(), subject.locality.to_string());
            by_zone.entry(key).or_default().push(EndpointStatusJson::new(&status, share));
        }
        let zones = director.zones(now);
        let pools = director.pools().into_iter().map(|pool| {
            let of_pool = zones.iter().filter(|zone| zone.pool == pool.name);
            let zone = |zone: &director::ZoneStatus| {
                let key = (zone.pool.to_string(), zone.place.to_string());
                let endpoints = by_zone.remove(&key).unwrap_or_default();
                let all_drained = endpoints.iter().all(|one| one.standing == "drained");
                let is_up = zone.verdict == ZoneVerdict::Up;
                ZoneStatusJson {
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
            PoolStatusJson {
                state: match () {
                    () if pool.is_in_panic => "panic",
                    () if pool.drained == pool.endpoints => "drained",
                    () if pool.is_diverging => "diverges",
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
            stopping: admin_state.phase.get() == LifecyclePhase::Stopping,
            config_refused: admin_state.config.borrow().refused.is_some(),
            drill: admin_state.drills.borrow().running().map(|run| run.id.get()),
            pools,
            orders: orders.iter().map(|one| OrderJson::new(one, &admin_state.clock, now)).collect(),
            orders_durable: admin_state.order_store.is_durable(),
            order_lines: orders
                .iter()
                .map(|one| order_line(one, &admin_state.clock, now))
                .collect(),
        }
    }

    /// The status as plain text.
    pub fn render_text(&self) -> String {
        let mut page = format!("gapless {} (pid {})", self.version, self.pid);
        for (is, what) in [
            (self.stopping, "stopping"),
            (self.config_refused, "the configuration in the file is refused: see /api/v1/config"),
            (self.drill.is_some(), "a drill runs"),
            (self.orders_durable == Some(false), "orders cannot be written to disk"),
        ] {
            if is {
                let _ = write!(page, "; {what}");
            }
        }
        page.push('\n');
        for pool in &self.pools {
            let PoolStatusJson { name, state, endpoints, serving, down, drained, .. } = pool;
            let _ = write!(page, "\npool {name}: {state}; {serving} of {endpoints} serve");
            for (count, what) in [(down, "down"), (drained, "drained")] {
                if *count > 0 {
                    let _ = write!(page, ", {count} {what}");
                }
            }
            page.push('\n');
            for zone in &pool.zones {
                let share = percent_text(zone.share);
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
                        percent_text(one.share),
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

fn percent_text(share: f64) -> String {
    format!("{:.1} %", share * 1e2)
}
