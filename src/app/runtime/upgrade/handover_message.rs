//! Messages of the handover protocol, as JSON. Unknown fields are ignored and missing ones have
//! defaults, so that versions before and after this one can be upgraded from and to.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::handover_health::PoolHandover;
use crate::app::control::discovery::name_cache::StoredAnswer;
use crate::app::control::orders::order_store::StoredOrder;
use crate::logic::director::HealthExport;
use crate::logic::steering::affinity::CookieSecrets;
use crate::net::listener::{InheritedListener, ListenerRole};

/// Version of the handover protocol; both processes must have the same.
pub(super) const PROTOCOL_VERSION: u32 = 1;

/// Environment variable of a successor, whose standard input is the handover socket.
pub(super) const TAKEOVER_ENV: &str = "GAPLESS_TAKE_OVER";

/// Messages of the new process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SuccessorMessage {
    /// Its configuration is valid.
    Hello {
        /// See [`PROTOCOL_VERSION`].
        protocol: u32,
        version: String,
    },
    /// Its pools are probed; it could serve.
    Settled,
    /// Its workers accept connections.
    Accepting,
}

/// Messages of the old process after its [`HandoverMessage`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PredecessorMessage {
    /// The new process may accept connections.
    Go,
}

/// Everything that a successor process gets.
#[derive(Debug)]
pub struct HandoverState {
    pub sockets: Vec<InheritedListener>,
    pub health_export: HealthExport,
    /// The last good DNS answers.
    pub names: Vec<StoredAnswer>,
    /// Upgrades before this one.
    pub upgrades: u64,
    pub orders: Vec<StoredOrder>,
    /// The secret that seals affinity cookies.
    pub cookie_secret: Option<CookieSecrets>,
}

/// The state of the old process. The sockets follow as descriptors, in the same order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HandoverMessage {
    pub(super) sockets: Vec<SocketHandover>,
    pub(super) pools: Vec<PoolHandover>,
    /// The last good DNS answers.
    #[serde(default)]
    pub(super) names: Vec<StoredAnswer>,
    /// Upgrades before this one.
    #[serde(default)]
    pub(super) upgrades: u64,
    /// Absent from versions without orders.
    #[serde(default)]
    pub(super) orders: Vec<StoredOrder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<CookieSecretHandover>,
}

/// The cookie secret in the format of its file; hidden in debug output.
#[derive(Serialize, Deserialize)]
struct CookieSecretHandover(String);

impl fmt::Debug for CookieSecretHandover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// Properties of a socket that its descriptor does not show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SocketHandover {
    pub(super) name: SocketAddr,
    /// Whether it is for operators; also true for the status listener.
    pub(super) is_admin: Option<bool>,
    /// Absent from versions without a status listener.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_status: bool,
    #[serde(default)]
    pub(super) label: Option<String>,
}

impl HandoverMessage {
    pub(super) fn new(state: &HandoverState, now: Instant) -> Self {
        let HandoverState { sockets, health_export, names, upgrades, orders, .. } = state;
        let socket = |socket: &InheritedListener| SocketHandover {
            name: socket.configured_address,
            is_admin: socket.role.map(|role| role != ListenerRole::Clients),
            is_status: socket.role == Some(ListenerRole::Status),
            label: socket.label.clone(),
        };
        Self {
            sockets: sockets.iter().map(socket).collect(),
            pools: health_export.pools.iter().map(|pool| PoolHandover::new(pool, now)).collect(),
            names: names.clone(),
            upgrades: *upgrades,
            orders: orders.clone(),
            secret: None,
        }
    }

    /// Adds the secret that seals affinity cookies.
    pub(super) fn with_cookie_secret(self, secret: Option<&CookieSecrets>) -> Self {
        Self { secret: secret.map(|secret| CookieSecretHandover(secret.to_text())), ..self }
    }

    pub(super) fn cookie_secret(&self) -> Option<CookieSecrets> {
        CookieSecrets::parse(&self.secret.as_ref()?.0).ok()
    }

    /// The valid part of the health state. Endpoints without one start as unknown and are probed.
    pub(super) fn health_export(&self, now: Instant) -> HealthExport {
        HealthExport { pools: self.pools.iter().map(|pool| pool.to_pool_export(now)).collect() }
    }
}

impl SocketHandover {
    pub(super) fn role(&self) -> Option<ListenerRole> {
        self.is_admin.map(|is_admin| match (is_admin, self.is_status) {
            (true, true) => ListenerRole::Status,
            (true, false) => ListenerRole::Operator,
            (false, _) => ListenerRole::Clients,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::logic::director::{
        EndpointHealthExport, EvidenceRecord, EvidenceSource, OutlierExport, PoolHealthExport,
        WithheldReason, ZoneHealthExport, ZoneVerdict,
    };
    use crate::logic::health::endpoint_health::Health;
    use crate::logic::health::recovery::{FlapHistory, Ramp};
    use crate::logic::model::id::Locality;
    use crate::logic::model::outcome::{Failure, FailureReason};

    const REFUSED: Failure = Failure::connect(FailureReason::Refused);

    fn endpoint(port: u16, health: Health, now: Instant) -> EndpointHealthExport {
        let ago = |seconds| now - Duration::from_secs(seconds);
        let evidence =
            EvidenceRecord { at: ago(3), source: EvidenceSource::Traffic, failure: REFUSED };
        EndpointHealthExport {
            address: ([127, 0, 0, 1], port).into(),
            health,
            outlier: OutlierExport::Normal,
            since: ago(3),
            last_success: Some(ago(4)),
            held_until: Some(now + Duration::from_secs(5)),
            flaps: FlapHistory { count: 1.5, last_down: Some(ago(3)) },
            ramp: Ramp::Since(ago(2)),
            unproven_since: Some(ago(1)),
            is_degraded: true,
            is_contradicted: true,
            withheld: Some(WithheldReason::Budget),
            cause: Some(evidence),
            evidence: vec![evidence, evidence],
        }
    }

    fn health_export(now: Instant) -> HealthExport {
        let status = Failure::http(FailureReason::Status(502));
        let mut endpoints = vec![
            endpoint(1, Health::Up, now),
            endpoint(2, Health::Suspect { strikes: 2, failure: status }, now),
            endpoint(3, Health::Down { failure: REFUSED }, now),
            endpoint(4, Health::Returning { passes: 1, failure: REFUSED }, now),
        ];
        endpoints[0].outlier = OutlierExport::Doubted { failure: status };
        endpoints[1].outlier = OutlierExport::Ejected { failure: status, until: now };
        let zone = ZoneHealthExport {
            latency_p999: Some(Duration::from_micros(3_000)),
            place: Locality::parse("r/a").expect("a place"),
            verdict: ZoneVerdict::Down {
                failure: REFUSED,
                source: EvidenceSource::Correlation,
                since: now - Duration::from_secs(9),
                held_until: now + Duration::from_secs(1),
            },
            flaps: FlapHistory::default(),
            ramp: Ramp::Full,
            endpoints,
        };
        let pool = PoolHealthExport { name: "web".into(), is_diverging: true, zones: vec![zone] };
        HealthExport { pools: vec![pool] }
    }

    fn json_round_trip(message: &HandoverMessage) -> serde_json::Value {
        serde_json::to_value(message).expect("JSON")
    }

    #[test]
    fn handover_message_is_read_back_equal() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let handover_state = HandoverState {
            sockets: Vec::new(),
            health_export: health_export(now),
            upgrades: 3,
            names: Vec::new(),
            orders: Vec::new(),
            cookie_secret: None,
        };
        let message = json_round_trip(&HandoverMessage::new(&handover_state, now));
        let message: HandoverMessage = serde_json::from_value(message).expect("a message");
        assert_eq!(message.upgrades, 3);
        let later = now + Duration::from_secs(7);
        assert_eq!(message.health_export(later), health_export(later), "times keep their age");
    }

    #[test]
    fn unknown_state_in_handover_is_ignored() {
        let now = Instant::now() + Duration::from_secs(3_600);
        let handover_state = HandoverState {
            sockets: Vec::new(),
            health_export: health_export(now),
            upgrades: 0,
            names: Vec::new(),
            orders: Vec::new(),
            cookie_secret: None,
        };
        let mut message = json_round_trip(&HandoverMessage::new(&handover_state, now));
        message["new"] = 1.into();
        let endpoints = &mut message["pools"][0]["zones"][0]["endpoints"];
        endpoints[0]["state"] = "radiant".into();
        endpoints[2]["failure"] = "quantum decay".into();
        endpoints[3]["mood"] = "good".into();
        let message: HandoverMessage = serde_json::from_value(message).expect("a message");
        let known = &message.health_export(now).pools[0].zones[0].endpoints;
        let ports: Vec<u16> = known.iter().map(|one| one.address.port()).collect();
        assert_eq!(ports, [2, 4]);
    }
}
