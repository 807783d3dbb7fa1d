//! Session affinity and consistent hashing through the real proxy.

mod config_errors;
mod consistent_hash;
mod cookie;

use std::net::SocketAddr;

use crate::support::client::{TestClient, TestResponse};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;

/// Endpoints of one pool.
struct AffinityFixture {
    endpoints: Vec<TestEndpoint>,
}

impl AffinityFixture {
    fn new(count: usize) -> Self {
        let name = |n: usize| TestEndpoint::start(&format!("e{n}"));
        Self { endpoints: (0..count).map(name).collect() }
    }

    /// All of them in one zone, with these lines of the pool.
    fn config(&self, pool: &str) -> ConfigBuilder {
        let addresses: Vec<SocketAddr> = self.endpoints.iter().map(TestEndpoint::address).collect();
        let fast_detection = "detect = { interval = \"500ms\", timeout = \"500ms\", fast_interval = \"50ms\", \
                     down_interval = \"500ms\" }\nrecover = { hold_down = \"1ms\", ramp = \"1ms\" }";
        ConfigBuilder::new().pool(fast_detection).pool(pool).zone("here/a", &addresses)
    }

    fn endpoint_named(&self, name: &str) -> &TestEndpoint {
        let number: usize = name.trim_start_matches('e').parse().expect("a number");
        &self.endpoints[number]
    }
}

/// Sends a GET with these header lines.
fn get_with_fields(gapless: &Gapless, fields: &str) -> TestResponse {
    let mut client = TestClient::open(gapless.address);
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).expect("sent");
    client.read_response("GET").expect("an answer")
}

/// Sends a GET with this cookie.
fn get_with_cookie(gapless: &Gapless, cookie: &str) -> TestResponse {
    get_with_fields(gapless, &format!("cookie: theme=dark; {cookie}; lang=en\r\n"))
}
