//! Which requests go where, and how.

use schemars::JsonSchema;
use serde::Deserialize;

use super::action::{Fallback, HeaderChanges, Mirror, Redirect, Respond, Rewrite, Share};
use super::located::{Entries, Located, LocatedTable, TableShape};
use super::matching::ValueTest;
use super::observe::{Rate, Slo};
use super::scalar::{DeadlineText, DurationText, ServerErrorsText, SizeText, WholeNumber};

/// Which requests go where; with neither host nor path, all of them. What answers is one of `pool`,
/// `pools`, `redirect` and `respond`.
///
/// Of the routes that match, the one with the more exact host wins: an exact one, then the longest
/// wildcard. Inside a host an exact path wins over the longest `path`, that over `path_regex` in the
/// order of the file, and the `path` that all paths begin with, `/`, comes last. Of routes for the
/// same host and path the one with more of `methods`, `headers` and `query` is asked first, then the
/// earlier one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// The route's name, unique. Default: made of host and path.
    pub(in crate::config) name: Option<Located<String>>,
    /// The host, without a port; `*.example.com` is every name below that one. Default: any.
    pub(in crate::config) host: Option<Located<String>>,
    /// The beginning of the path, by whole segments. Default: `/`.
    pub(in crate::config) path: Option<Located<String>>,
    /// All of the path.
    pub(in crate::config) path_exact: Option<Located<String>>,
    /// A regular expression that all of the path must match.
    pub(in crate::config) path_regex: Option<Located<String>>,
    /// The methods that it is for; `HEAD` is not `GET`. Default: any.
    pub(in crate::config) methods: Option<Located<Vec<Located<String>>>>,
    /// What headers must be, by name; all of it must hold.
    pub(in crate::config) headers: Option<Located<Entries<Located<ValueTest>>>>,
    /// What parameters in the query must be, by name; all of it must hold.
    pub(in crate::config) query: Option<Located<Entries<Located<ValueTest>>>>,
    /// The name of the pool that serves it.
    pub(in crate::config) pool: Option<Located<String>>,
    /// Several pools and their parts. A request that is sent again stays in its pool.
    pub(in crate::config) pools: Option<Located<Vec<LocatedTable<Share>>>>,
    /// The client is sent elsewhere.
    pub(in crate::config) redirect: Option<LocatedTable<Redirect>>,
    /// A fixed answer.
    pub(in crate::config) respond: Option<LocatedTable<Respond>>,
    /// How endpoints are asked for something else than the client asked for.
    pub(in crate::config) rewrite: Option<LocatedTable<Rewrite>>,
    /// What is done to a request's header fields on its way to an endpoint.
    pub(in crate::config) request_headers: Option<LocatedTable<HeaderChanges>>,
    /// What is done to a response's header fields on its way to the client, whoever it comes from.
    pub(in crate::config) response_headers: Option<LocatedTable<HeaderChanges>>,
    /// The value of `strict-transport-security` in responses over TLS. Default: none is added.
    pub(in crate::config) hsts: Option<Located<String>>,
    /// A pool that gets copies of requests.
    pub(in crate::config) mirror: Option<LocatedTable<Mirror>>,
    /// What is left when the pool has nothing left to try. Default: an error.
    pub(in crate::config) fallback: Option<LocatedTable<Fallback>>,
    /// When and how often a request is sent again.
    pub(in crate::config) retry: Option<LocatedTable<Retry>>,
    /// How long each step of a request may take.
    pub(in crate::config) timeouts: Option<LocatedTable<Timeouts>>,
    /// Protocols that clients may go on in (RFC 9110 7.8): `websocket`, or none. Default:
    /// `["websocket"]`.
    pub(in crate::config) upgrade: Option<Vec<Located<String>>>,
    /// How its requests are led, instead of as the pool's `steer` has it: a policy. Default: as the pool
    /// has it.
    pub(in crate::config) steer: Option<Located<String>>,
    /// What is promised of the route.
    pub(in crate::config) slo: Option<LocatedTable<Slo>>,
    /// Bounds on requests.
    pub(in crate::config) limits: Option<LocatedTable<RouteLimits>>,
}

/// When and how often a request is sent again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// Tries in all, the first included; 1 switches sending again off. Default: 3.
    pub(in crate::config) attempts: Option<Located<WholeNumber>>,
    /// Largest request body that is held for a second try. Default: 64 KiB.
    pub(in crate::config) buffer: Option<Located<SizeText>>,
    /// Resends, as a percentage of the requests of the last ten seconds. Default: 20.
    pub(in crate::config) budget_percent: Option<Located<WholeNumber>>,
    /// Resends per second that are allowed whatever the traffic. Default: 10.
    pub(in crate::config) budget_floor: Option<Located<WholeNumber>>,
    /// Server errors for which a request is sent to another endpoint, or `none`. What may have
    /// been executed and is not idempotent never is. Default: `500,502-504`.
    pub(in crate::config) statuses: Option<Located<ServerErrorsText>>,
    /// Ask a second endpoint as well when the first keeps a request waiting for longer than the
    /// pool's stall bound; the first good answer wins. For requests without a body. Default: true.
    pub(in crate::config) hedge: Option<Located<bool>>,
    /// Send what has an `Idempotency-Key` again whatever its method: only for services that keep
    /// these keys. Default: false.
    pub(in crate::config) idempotency_key: Option<Located<bool>>,
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
    /// From the request's arrival to the response head, over all tries. Default: `unlimited`.
    pub(in crate::config) total: Option<Located<DeadlineText>>,
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
    pub(in crate::config) rate: Option<LocatedTable<Rate>>,
}

impl TableShape for Route {
    const EXPECTED: &str = "a table such as { pool = \"web\" }";
}

impl TableShape for Retry {
    const EXPECTED: &str = "a table such as { attempts = 3 }";
}

impl TableShape for Timeouts {
    const EXPECTED: &str = "a table such as { connect = \"1s\" }";
}

impl TableShape for RouteLimits {
    const EXPECTED: &str = "a table such as { body = \"10MiB\" }";
}
