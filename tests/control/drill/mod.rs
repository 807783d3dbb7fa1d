//! Drills against the real program: a zone seems to fail for a share of the requests and for no
//! other request.

mod admin_api;
mod faults;
mod orders;
mod termination;

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::poll_until;

/// Time for sampling and warm-up on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for a prediction in an unoptimised build at the lowest priority.
const FINISH_TIMEOUT: Duration = Duration::from_secs(120);

/// Two zones; all traffic goes to the first while it is healthy.
struct DrillFixture {
    near: Vec<TestEndpoint>,
    far: Vec<TestEndpoint>,
    gapless: Gapless,
}

impl DrillFixture {
    fn new() -> Self {
        Self::with_endpoint_counts(2, 2)
    }

    fn with_endpoint_counts(near: usize, far: usize) -> Self {
        Self::with_pool(near, far, "")
    }

    fn with_pool(near: usize, far: usize, pool: &str) -> Self {
        let start = |zone: &'static str, count: usize| -> Vec<TestEndpoint> {
            (0..count).map(|n| TestEndpoint::start(&format!("{zone}{n}"))).collect()
        };
        let (near, far) = (start("near", near), start("far", far));
        let addresses = |zone: &[TestEndpoint]| -> Vec<SocketAddr> {
            zone.iter().map(TestEndpoint::address).collect()
        };
        let config = ConfigBuilder::new()
            .pool(pool)
            .zone("here/a", &addresses(&near))
            .zone("here/b", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    /// Runs `gapless drill`.
    fn drill_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["drill", "--admin", &self.gapless.admin.to_string()]).args(arguments);
        command
    }

    fn run_drill(&self, arguments: &[&str]) -> Output {
        self.drill_command(arguments).output().expect("the program runs")
    }

    /// Starts a drill in the background.
    fn spawn_drill(&self, arguments: &[&str]) -> Child {
        let mut command = self.drill_command(&["start", "--lose", "here/a"]);
        command.args(arguments).stdout(Stdio::null()).spawn().expect("the program starts")
    }

    fn last_drill(&self) -> Option<Value> {
        let mut all = self.gapless.api_json("/api/v1/drills");
        let id = all["drills"].as_array_mut()?.last()?["id"].as_u64()?;
        Some(self.gapless.api_json(&format!("/api/v1/drills/{id}")))
    }

    /// Waits until the last drill has reached this stage.
    #[track_caller]
    fn wait_for_stage(&self, stage: &str) -> Value {
        let timeout = if stage == "over" { FINISH_TIMEOUT } else { START_TIMEOUT };
        poll_until(stage, timeout, || self.last_drill().filter(|drill| drill["stage"] == stage))
    }

    /// Requests that endpoints of the first zone received.
    fn near_request_count(&self) -> usize {
        self.near.iter().map(|endpoint| endpoint.requests().len()).sum()
    }

    /// Asserts that no endpoint has evidence against it.
    #[track_caller]
    fn assert_all_healthy(&self) {
        for endpoint in self.near.iter().chain(&self.far) {
            assert_eq!(self.gapless.endpoint_state(endpoint.address()), "up");
        }
        assert!(self.gapless.incidents("endpoints").is_empty());
        assert!(self.gapless.incidents("zones").is_empty());
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}
