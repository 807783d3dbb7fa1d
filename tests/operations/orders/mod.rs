//! Orders to the real program: drain, weight, evacuate, restore.

mod commands;
mod evacuation;
mod persistence;

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, poll_until};

/// No ramps, and short probe intervals.
const FAST_POOL: &str = "detect = { interval = \"200ms\", timeout = \"100ms\", down_interval = \"100ms\" }\n\
                     recover = { hold_down = \"0s\", ramp = \"200ms\" }";

/// Two zones of two; all traffic goes to the first while it is eligible.
struct TwoZoneFixture {
    near: Vec<TestEndpoint>,
    far: Vec<TestEndpoint>,
}

impl TwoZoneFixture {
    fn new() -> Self {
        let start = |zone: &'static str| -> Vec<TestEndpoint> {
            (0..2).map(|n| TestEndpoint::start(&format!("{zone}{n}"))).collect()
        };
        Self { near: start("near"), far: start("far") }
    }

    fn config(&self) -> ConfigBuilder {
        let addresses = |zone: &[TestEndpoint]| -> Vec<SocketAddr> {
            zone.iter().map(TestEndpoint::address).collect()
        };
        ConfigBuilder::new()
            .pool(FAST_POOL)
            .zone("here/a", &addresses(&self.near))
            .zone("here/b", &addresses(&self.far))
    }

    fn near_address(&self, index: usize) -> String {
        self.near[index].address().to_string()
    }

    /// Requests that endpoints of the first zone received.
    fn near_request_count(&self) -> usize {
        self.near.iter().map(|endpoint| endpoint.requests().len()).sum()
    }
}

/// Runs the program.
fn run_gapless(instance: &Gapless, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--admin", &instance.admin.to_string()]);
    command.output().expect("the program runs")
}

/// Runs a command that must succeed and returns its output.
#[track_caller]
fn run_order(instance: &Gapless, arguments: &[&str]) -> String {
    let output = run_gapless(instance, arguments);
    let (stdout, stderr) = (lossy_text(&output.stdout), lossy_text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    stdout
}

/// Runs a command that must fail and returns its error text.
#[track_caller]
fn run_refused_order(instance: &Gapless, arguments: &[&str], code: i32) -> String {
    let output = run_gapless(instance, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", lossy_text(&output.stdout));
    lossy_text(&output.stderr)
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn active_orders(instance: &Gapless) -> Vec<Value> {
    instance.api_json("/api/v1/orders")["orders"].as_array().expect("a list").clone()
}

#[track_caller]
fn wait_for_standing(instance: &Gapless, endpoint: &TestEndpoint, standing: &str) {
    poll_until(standing, DEFAULT_TIMEOUT, || {
        (instance.endpoint(endpoint.address())["standing"] == standing).then_some(())
    });
}
