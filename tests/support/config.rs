//! Configurations for the tests: port 0 everywhere, one route, one pool.

use std::fmt::Write;
use std::net::SocketAddr;

/// A configuration builder.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigBuilder {
    keys: String,
    tables: String,
    route: String,
    pool: String,
    zones: Vec<(String, String)>,
    listen: Vec<SocketAddr>,
}

impl ConfigBuilder {
    /// One worker, exposed endpoints, and probes that ask `/healthz`.
    pub(crate) fn new() -> Self {
        Self::default().keys("workers = 1").tables("[headers]\nexpose = true")
    }

    /// Adds lines at the top level.
    pub(crate) fn keys(mut self, lines: &str) -> Self {
        writeln!(self.keys, "{lines}").expect("text");
        self
    }

    pub(crate) fn tables(mut self, lines: &str) -> Self {
        writeln!(self.tables, "{lines}").expect("text");
        self
    }

    /// Adds lines to the route.
    pub(crate) fn route(mut self, lines: &str) -> Self {
        writeln!(self.route, "{lines}").expect("text");
        self
    }

    /// Adds lines to the pool; the first is usually its probe.
    pub(crate) fn pool(mut self, lines: &str) -> Self {
        writeln!(self.pool, "{lines}").expect("text");
        self
    }

    pub(crate) fn zone(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let list: Vec<String> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
        self.zone_with_entries(name, &list.join(", "))
    }

    /// Adds a zone with its endpoints as TOML text.
    pub(crate) fn zone_with_entries(mut self, name: &str, endpoints: &str) -> Self {
        self.zones.push((name.to_owned(), endpoints.to_owned()));
        self
    }

    /// Adds a listener besides the one on port 0.
    pub(crate) fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    pub(crate) fn text(&self) -> String {
        let Self { keys, tables, route, pool, zones, listen } = self;
        let mut text = format!("{keys}\n[admin]\naddress = \"127.0.0.1:0\"\n{tables}\n");
        text.push_str("[[listen]]\naddress = \"127.0.0.1:0\"\n");
        for address in listen {
            writeln!(text, "[[listen]]\naddress = \"{address}\"").expect("text");
        }
        let probe = if pool.contains("probe =") { "" } else { "probe = { http = \"/healthz\" }" };
        writeln!(text, "[[route]]\npool = \"web\"\n{route}\n[pool.web]\n{probe}\n{pool}")
            .expect("text");
        for (name, endpoints) in zones {
            writeln!(text, "[[pool.web.zone]]\nname = \"{name}\"").expect("text");
            writeln!(text, "endpoints = [{endpoints}]").expect("text");
        }
        text
    }
}
