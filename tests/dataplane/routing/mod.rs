//! Routes over real sockets: matching, rewrites, refusals.

mod fallback;
mod fixed_responses;
mod matching;
mod mirror;
mod path_normalisation;
mod rewrites;

use std::fmt::Write;

use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;

/// A proxy with a pool of one endpoint for each name; the first has the last route.
struct RoutingFixture {
    endpoints: Vec<TestEndpoint>,
    gapless: Gapless,
}

/// Further pools of one endpoint each, with settings that give no evidence within a test.
fn single_endpoint_pools(endpoints: &[TestEndpoint], names: &[&str]) -> String {
    let mut text = String::new();
    for (endpoint, name) in endpoints.iter().zip(names) {
        let address = endpoint.address();
        writeln!(text, "[pool.{name}]\nprobe = {{ http = \"/healthz\" }}").expect("text");
        writeln!(text, "stall = {{ floor = \"20s\", ceiling = \"30s\" }}").expect("text");
        writeln!(text, "detect = {{ down_after = 1000 }}").expect("text");
        writeln!(text, "[[pool.{name}.zone]]\nname = \"here/a\"").expect("text");
        writeln!(text, "endpoints = [\"{address}\"]").expect("text");
    }
    text
}

impl RoutingFixture {
    /// The pool `web` has the last route, with these lines in it; `others` are further pools, and
    /// `tables` come before the route.
    #[track_caller]
    fn new(others: &[&str], tables: &str, route: &str) -> Self {
        Self::with_config(ConfigBuilder::new(), others, tables, route)
    }

    #[track_caller]
    fn with_config(config: ConfigBuilder, others: &[&str], tables: &str, route: &str) -> Self {
        let web = TestEndpoint::start("web");
        let mut endpoints: Vec<_> = others.iter().map(|name| TestEndpoint::start(name)).collect();
        let config = config
            .tables(&single_endpoint_pools(&endpoints, others))
            .tables(tables)
            .route(route)
            .zone("here/a", &[web.address()]);
        let gapless = Gapless::start_ready(&config);
        endpoints.insert(0, web);
        Self { endpoints, gapless }
    }

    fn web(&self) -> &TestEndpoint {
        &self.endpoints[0]
    }

    /// The first of the other endpoints.
    fn other(&self) -> &TestEndpoint {
        &self.endpoints[1]
    }

    /// Sends these lines and a blank one on a new connection.
    #[track_caller]
    fn send_lines(&self, lines: &[&str]) -> TestResponse {
        let mut client = TestClient::open(self.gapless.address);
        client.send(lines.join("\r\n") + "\r\n\r\n").expect("sent");
        let method = lines[0].split(' ').next().unwrap_or_default();
        client.read_response(method).expect("an answer")
    }

    /// A GET of `target` at `host`, with further lines.
    #[track_caller]
    fn get(&self, host: &str, target: &str, lines: &[&str]) -> TestResponse {
        let (start, host) = (format!("GET {target} HTTP/1.1"), format!("host: {host}"));
        self.send_lines(&[&[start.as_str(), host.as_str()], lines].concat())
    }

    /// The target of the only request at `web` since the last call.
    #[track_caller]
    fn forwarded_target(&self, target: &str) -> String {
        let before = self.web().requests().len();
        let answer = self.get("a.example", target, &[]);
        assert_eq!(answer.status, 200, "{target}: {:?}", answer.status_and_reason());
        let seen = self.web().requests();
        assert_eq!(seen.len(), before + 1, "{target}");
        seen[before].head.start_line_word(1).to_owned()
    }
}
