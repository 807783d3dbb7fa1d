//! Which requests go where, and how.

use schemars::JsonSchema;
use serde::Deserialize;

use super::located::{Located, Shape, Table};
use super::observe::Rate;
use super::scalar::{DurationText, ErrorText, SizeText, Whole};

/// Which requests go to which pool; with neither host nor path, all of them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// The route's name, unique. Default: made of host and path.
    pub(in crate::config) name: Option<Located<String>>,
    /// The exact host, without a port. Default: any.
    pub(in crate::config) host: Option<Located<String>>,
    /// The beginning of the path. Default: `/`.
    pub(in crate::config) path: Option<Located<String>>,
    /// The name of the pool that serves it.
    #[schemars(required)]
    pub(in crate::config) pool: Option<Located<String>>,
    /// When and how often a request is sent again.
    pub(in crate::config) retry: Option<Table<Retry>>,
    /// How long each step of a request may take.
    pub(in crate::config) timeouts: Option<Table<Timeouts>>,
    /// Protocols that clients may go on in (RFC 9110 7.8): `websocket`, or none. Default:
    /// `["websocket"]`.
    pub(in crate::config) upgrade: Option<Vec<Located<String>>>,
    /// Bounds on requests.
    pub(in crate::config) limits: Option<Table<RouteLimits>>,
}

/// When and how often a request is sent again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// Tries in all, the first included; 1 switches sending again off. Default: 3.
    pub(in crate::config) attempts: Option<Located<Whole>>,
    /// Largest request body that is held for a second try. Default: 64 KiB.
    pub(in crate::config) buffer: Option<Located<SizeText>>,
    /// Resends, as a percentage of the requests of the last ten seconds. Default: 20.
    pub(in crate::config) budget_percent: Option<Located<Whole>>,
    /// Resends per second that are allowed whatever the traffic. Default: 10.
    pub(in crate::config) budget_floor: Option<Located<Whole>>,
    /// Server errors for which a request is sent to another endpoint, or `none`. What may have
    /// been executed and is not idempotent never is. Default: `500,502-504`.
    pub(in crate::config) statuses: Option<Located<ErrorText>>,
}

/// How long each step of a request may take.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    /// To open a connection to an endpoint. Default: 1s.
    pub(in crate::config) connect: Option<Located<DurationText>>,
    /// From the request's last byte to the response head, for one try. Default: 30s.
    pub(in crate::config) response: Option<Located<DurationText>>,
    /// Between two pieces of a body, in either direction. Default: 60s.
    pub(in crate::config) idle: Option<Located<DurationText>>,
    /// How long nothing may move in an upgraded connection. Default: 1h.
    pub(in crate::config) tunnel: Option<Located<DurationText>>,
}

/// Bounds on requests of one route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RouteLimits {
    /// Largest request body. Default: unlimited.
    pub(in crate::config) body: Option<Located<SizeText>>,
    /// How many requests may come. Default: any number.
    pub(in crate::config) rate: Option<Table<Rate>>,
}

impl Shape for Route {
    const EXPECTED: &str = "a table such as { pool = \"web\" }";
}

impl Shape for Retry {
    const EXPECTED: &str = "a table such as { attempts = 3 }";
}

impl Shape for Timeouts {
    const EXPECTED: &str = "a table such as { connect = \"1s\" }";
}

impl Shape for RouteLimits {
    const EXPECTED: &str = "a table such as { body = \"10MiB\" }";
}
