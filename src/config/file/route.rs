//! Routes, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::action::{Fallback, HeaderChanges, Mirror, Redirect, Respond, Rewrite, Share};
use super::located::{Entries, Located, LocatedTable, TableShape};
use super::matching::ValueTest;
use super::observe::{Rate, Slo};
use super::scalar::{DeadlineText, DurationText, ServerErrorsText, SizeText, WholeNumber};

/// A route: which requests it matches (without host and path, all of them) and its action, one of
/// `pool`, `pools`, `redirect` and `respond`.
///
/// Of the routes that match, the one with the more exact host wins: an exact host, then the longest
/// wildcard. Inside a host an exact path wins over the longest `path`, that over `path_regex` in
/// the order of the file, and the `path` `/`, the prefix of all paths, comes last. Of routes for
/// the same host and path the one with more of `methods`, `headers` and `query` wins, then the
/// earlier one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// The route's name, unique. Default: its host and path.
    pub(in crate::config) name: Option<Located<String>>,
    /// The host, without a port; `*.example.com` matches every name below `example.com`. Default:
    /// any.
    pub(in crate::config) host: Option<Located<String>>,
    /// A prefix of the path, in whole segments. Default: `/`.
    pub(in crate::config) path: Option<Located<String>>,
    /// The exact path, without a query.
    pub(in crate::config) path_exact: Option<Located<String>>,
    /// A regular expression that the whole path must match.
    pub(in crate::config) path_regex: Option<Located<String>>,
    /// The methods; `GET` does not include `HEAD`. Default: any.
    pub(in crate::config) methods: Option<Located<Vec<Located<String>>>>,
    /// Tests of header fields, by name; all of them must hold.
    pub(in crate::config) headers: Option<Located<Entries<Located<ValueTest>>>>,
    /// Tests of query parameters, by name; all of them must hold.
    pub(in crate::config) query: Option<Located<Entries<Located<ValueTest>>>>,
    /// The name of the pool that serves the requests.
    pub(in crate::config) pool: Option<Located<String>>,
    /// Several pools and their shares. A retried request stays in its pool.
    pub(in crate::config) pools: Option<Located<Vec<LocatedTable<Share>>>>,
    /// A redirect for the client.
    pub(in crate::config) redirect: Option<LocatedTable<Redirect>>,
    /// A fixed response for the client.
    pub(in crate::config) respond: Option<LocatedTable<Respond>>,
    /// Changes to the host and path of requests to endpoints.
    pub(in crate::config) rewrite: Option<LocatedTable<Rewrite>>,
    /// Changes to the header fields of requests to endpoints.
    pub(in crate::config) request_headers: Option<LocatedTable<HeaderChanges>>,
    /// Changes to the header fields of all responses to clients, including local replies.
    pub(in crate::config) response_headers: Option<LocatedTable<HeaderChanges>>,
    /// The value of `strict-transport-security` in responses over TLS. Default: none is added.
    pub(in crate::config) hsts: Option<Located<String>>,
    /// A pool that gets copies of requests.
    pub(in crate::config) mirror: Option<LocatedTable<Mirror>>,
    /// The response when the pool has no endpoint left to try. Default: an error.
    pub(in crate::config) fallback: Option<LocatedTable<Fallback>>,
    /// When and how often a request is retried.
    pub(in crate::config) retry: Option<LocatedTable<Retry>>,
    /// Time limits for the steps of a request.
    pub(in crate::config) timeouts: Option<LocatedTable<Timeouts>>,
    /// Protocols that clients may upgrade to (RFC 9110 7.8): `websocket`, or none. Default:
    /// `["websocket"]`.
    pub(in crate::config) upgrade: Option<Vec<Located<String>>>,
    /// A steering policy for the requests of this route, in place of the pool's. Default: the
    /// policy of the pool.
    #[schemars(extend("enum" = ["nearest", "failover", "weighted", "latency", "spread"]))]
    pub(in crate::config) steer: Option<Located<String>>,
    /// The objectives of the route.
    pub(in crate::config) slo: Option<LocatedTable<Slo>>,
    /// Limits on the requests of this route.
    pub(in crate::config) limits: Option<LocatedTable<RouteLimits>>,
}

/// When and how often a request is retried.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// Attempts in total, including the first; 1 switches retries off. Default: 3.
    pub(in crate::config) attempts: Option<Located<WholeNumber>>,
    /// Largest request body that is held for a retry. Default: 64 KiB.
    pub(in crate::config) buffer: Option<Located<SizeText>>,
    /// Retries, as a percentage of the requests of the last ten seconds. Default: 20.
    pub(in crate::config) budget_percent: Option<Located<WholeNumber>>,
    /// Retries per second that are allowed at any rate of traffic. Default: 10.
    pub(in crate::config) budget_floor: Option<Located<WholeNumber>>,
    /// Server errors after which a request is sent to another endpoint, or `none`. A non-idempotent
    /// request that may have been executed is never sent again. Default: `500,502-504`.
    pub(in crate::config) statuses: Option<Located<ServerErrorsText>>,
    /// Send a request to a second endpoint as well when the first has not answered within the
    /// pool's stall bound; the first good response wins. Only for requests without a body. Default:
    /// true.
    pub(in crate::config) hedge: Option<Located<bool>>,
    /// Hedges, as a percentage of the requests of the last ten seconds. `budget_floor` of them per
    /// second are allowed at any rate of traffic. The retry budget pays for hedges as well.
    /// Default: 5.
    pub(in crate::config) hedge_percent: Option<Located<WholeNumber>>,
    /// Retry requests with an `Idempotency-Key` whatever their method. Only for services that
    /// honour these keys. Default: false.
    pub(in crate::config) idempotency_key: Option<Located<bool>>,
}

/// Time limits for the steps of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Timeouts {
    /// Time to open a connection to an endpoint. Default: 1s.
    pub(in crate::config) connect: Option<Located<DurationText>>,
    /// Time from the request's last byte to the response head, for one attempt. Default: 30s.
    pub(in crate::config) response: Option<Located<DurationText>>,
    /// Time between two pieces of a body, in either direction. Default: 60s.
    pub(in crate::config) idle: Option<Located<DurationText>>,
    /// Time from the request's arrival to the response head, over all attempts. Default:
    /// `unlimited`.
    pub(in crate::config) total: Option<Located<DeadlineText>>,
    /// How long an upgraded connection may be idle. Default: 1h.
    pub(in crate::config) tunnel: Option<Located<DurationText>>,
}

/// Limits on the requests of one route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RouteLimits {
    /// Largest request body. Default: unlimited.
    pub(in crate::config) body: Option<Located<SizeText>>,
    /// The rate of requests. Default: unlimited.
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
