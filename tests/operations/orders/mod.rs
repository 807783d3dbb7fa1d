//! What an operator orders of the real program: drained, weighed, evacuated, restored.

mod durable;
mod evacuation;
mod said;

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, until};

/// Shares come back at once, and probes are soon.
const QUICK: &str = "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }\n\
                     recover = { hold_down = \"0s\", ramp = \"200ms\" }";

/// Two zones of two; all traffic goes to the first while it may.
struct World {
    near: Vec<Endpoint>,
    far: Vec<Endpoint>,
}

impl World {
    fn new() -> Self {
        let start = |zone: &'static str| -> Vec<Endpoint> {
            (0..2).map(|n| Endpoint::start(&format!("{zone}{n}"))).collect()
        };
        Self { near: start("near"), far: start("far") }
    }

    fn config(&self) -> Config {
        let addresses =
            |zone: &[Endpoint]| -> Vec<SocketAddr> { zone.iter().map(Endpoint::address).collect() };
        Config::new()
            .pool(QUICK)
            .zone("here/a", &addresses(&self.near))
            .zone("here/b", &addresses(&self.far))
    }

    fn near(&self, index: usize) -> String {
        self.near[index].address().to_string()
    }

    /// Requests that endpoints of the first zone have seen.
    fn seen_near(&self) -> usize {
        self.near.iter().map(|endpoint| endpoint.seen().len()).sum()
    }
}

/// The program as an operator's shell runs it.
fn gapless(instance: &Gapless, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--admin", &instance.admin.to_string()]);
    command.output().expect("the program runs")
}

/// The same, when it must go well: what it prints.
#[track_caller]
fn orders(instance: &Gapless, arguments: &[&str]) -> String {
    let output = gapless(instance, arguments);
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {why}");
    said
}

/// The same, when it must not: why.
#[track_caller]
fn refused(instance: &Gapless, arguments: &[&str], code: i32) -> String {
    let output = gapless(instance, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn in_force(instance: &Gapless) -> Vec<Value> {
    instance.api("/api/v1/orders")["orders"].as_array().expect("a list").clone()
}

#[track_caller]
fn wait_standing(instance: &Gapless, endpoint: &Endpoint, standing: &str) {
    until(standing, SOON, || {
        (instance.endpoint(endpoint.address())["standing"] == standing).then_some(())
    });
}
