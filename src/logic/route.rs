//! Host and path to route, compiled once per configuration.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::rate::RateSpec;
use super::statuses::ServerErrors;

/// One route as declared, with its own timeouts and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Unique; given in the file, or made of host and path.
    pub name: Arc<str>,
    /// Exact host, lower case, without a port; absent matches every host.
    pub host: Option<String>,
    /// Path prefix; begins with `/`.
    pub path: String,
    /// The pool's name.
    pub pool: Arc<str>,
    /// When and how often a request is sent again.
    pub retry: RetrySpec,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Largest request body in bytes; absent means unlimited.
    pub body_bytes: Option<u64>,
    /// How many requests may come; absent means any number.
    pub rate: Option<RateSpec>,
    /// Clients may go on in WebSocket, if the endpoint does.
    pub websocket: bool,
}

/// When and how often a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Tries in all, the first included; 1 switches sending again off.
    pub attempts: u32,
    /// Largest request body that is held for a second try, in bytes.
    pub buffer_bytes: usize,
    /// Resends, as a percentage of the requests of the last ten seconds.
    pub budget_percent: u32,
    /// Resends per second that are allowed whatever the traffic.
    pub budget_floor: u32,
    /// Statuses for which it is sent again, when its endpoint answered with one of them.
    pub statuses: ServerErrors,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 3,
            buffer_bytes: 64 * 1024,
            budget_percent: 20,
            budget_floor: 10,
            statuses: ServerErrors::default(),
        }
    }
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection to an endpoint.
    pub connect: Duration,
    /// From the request's last byte to the response head, for one try.
    pub response: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle: Duration,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            tunnel: Duration::from_hours(1),
        }
    }
}

/// A compiled route: what the request path needs of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// As declared.
    pub spec: RouteSpec,
    /// Index of its pool in the topology.
    pub pool: usize,
}

/// All routes, compiled: one look-up by host, then the longest path prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    routes: Vec<Route>,
    hosts: HashMap<String, Vec<Entry>>,
    any_host: Vec<Entry>,
}

/// Sorted by length, longest first.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    path: String,
    route: usize,
}

impl RouteTable {
    /// Compiles `specs` against the pools' names. A route to a pool that does not exist is left
    /// out: validation has refused it before.
    #[must_use]
    pub fn compile<'a>(specs: &[RouteSpec], pools: impl Iterator<Item = &'a str>) -> Self {
        let pools: HashMap<&str, usize> = pools.enumerate().map(|(i, name)| (name, i)).collect();
        let mut table = Self::default();
        for spec in specs {
            let Some(&pool) = pools.get(&*spec.pool) else { continue };
            let entry = Entry { path: spec.path.clone(), route: table.routes.len() };
            match &spec.host {
                Some(host) => table.hosts.entry(host.clone()).or_default().push(entry),
                None => table.any_host.push(entry),
            }
            table.routes.push(Route { spec: spec.clone(), pool });
        }
        let lists = table.hosts.values_mut().chain([&mut table.any_host]);
        lists.for_each(|list| list.sort_by_key(|entry| Reverse(entry.path.len())));
        table
    }

    /// The route of a request. `host` is lower case and without a port; the longest path prefix
    /// of its own host wins over any prefix of routes for every host.
    ///
    /// A prefix matches whole segments: `/v1` matches `/v1` and `/v1/x`, never `/v1x`.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let own = if self.hosts.is_empty() { None } else { self.hosts.get(host) };
        let lists = own.into_iter().chain([&self.any_host]);
        lists
            .flatten()
            .find(|entry| matches_prefix(path, &entry.path))
            .map(|e| &self.routes[e.route])
    }

    /// Every route, in the order of the file.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

fn matches_prefix(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: Option<&str>, path: &str) -> RouteSpec {
        RouteSpec {
            name: format!("{}{path}", host.unwrap_or("*")).into(),
            host: host.map(str::to_owned),
            path: path.to_owned(),
            pool: "web".into(),
            retry: RetrySpec::default(),
            timeouts: Timeouts::default(),
            body_bytes: None,
            rate: None,
            websocket: true,
        }
    }

    #[test]
    fn own_host_first_then_the_longest_prefix_by_segments() {
        let specs = [
            spec(None, "/"),
            spec(None, "/v1"),
            spec(Some("a.example"), "/"),
            spec(Some("a.example"), "/v1/"),
            spec(Some("b.example"), "/only"),
        ];
        let table = RouteTable::compile(&specs, ["web"].into_iter());
        let found = |host, path| table.find(host, path).map(|r| r.spec.name.to_string());
        assert_eq!(found("x", "/").as_deref(), Some("*/"));
        assert_eq!(found("x", "/v1").as_deref(), Some("*/v1"));
        assert_eq!(found("x", "/v1/a").as_deref(), Some("*/v1"));
        assert_eq!(found("x", "/v1x").as_deref(), Some("*/"));
        assert_eq!(found("a.example", "/v1").as_deref(), Some("a.example/"));
        assert_eq!(found("a.example", "/v1/x").as_deref(), Some("a.example/v1/"));
        assert_eq!(found("b.example", "/only/x").as_deref(), Some("b.example/only"));
        assert_eq!(found("b.example", "/v1/x").as_deref(), Some("*/v1"));
    }

    #[test]
    fn no_route_is_no_route() {
        let table = RouteTable::compile(&[spec(Some("a.example"), "/")], ["web"].into_iter());
        assert!(table.find("b.example", "/").is_none());
        assert!(RouteTable::compile(&[], ["web"].into_iter()).find("a", "/").is_none());
    }
}
