//! Clients that stay with an endpoint, and keys that find theirs, through the real proxy.

mod cookie;
mod keyed;
mod refused;

use std::net::SocketAddr;

use crate::support::client::{Answer, Client};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;

/// Endpoints of one pool.
struct World {
    endpoints: Vec<Endpoint>,
}

impl World {
    fn new(count: usize) -> Self {
        let name = |n: usize| Endpoint::start(&format!("e{n}"));
        Self { endpoints: (0..count).map(name).collect() }
    }

    /// All of them in one zone, with these lines of the pool.
    fn config(&self, pool: &str) -> Config {
        let addresses: Vec<SocketAddr> = self.endpoints.iter().map(Endpoint::address).collect();
        let quick = "detect = { interval = \"500ms\", timeout = \"500ms\", fast_interval = \"50ms\", \
                     down_interval = \"500ms\" }\nrecover = { hold_down = \"1ms\", ramp = \"1ms\" }";
        Config::new().pool(quick).pool(pool).zone("here/a", &addresses)
    }

    fn named(&self, name: &str) -> &Endpoint {
        let number: usize = name.trim_start_matches('e').parse().expect("a number");
        &self.endpoints[number]
    }
}

/// Asks with these lines of header fields.
fn ask(gapless: &Gapless, fields: &str) -> Answer {
    let mut client = Client::open(gapless.address);
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).expect("sent");
    client.answer("GET").expect("an answer")
}

/// Asks as a browser would that has this cookie.
fn ask_with(gapless: &Gapless, cookie: &str) -> Answer {
    ask(gapless, &format!("cookie: theme=dark; {cookie}; lang=en\r\n"))
}
