//! Drills against the real program: a zone seems to fail for a share of the requests, and for nobody
//! else.

mod ends;
mod faults;
mod guards;
mod orders;

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::{BINARY, Gapless};
use crate::support::until;

/// Looking, warming, and what a busy machine adds to that.
const BEGUN: Duration = Duration::from_secs(20);

/// The prediction is made by what was not optimised, and at the lowest priority.
const OVER: Duration = Duration::from_secs(120);

/// Two zones; all traffic goes to the first while it is well.
struct World {
    near: Vec<Endpoint>,
    far: Vec<Endpoint>,
    gapless: Gapless,
}

impl World {
    fn new() -> Self {
        Self::of(2, 2)
    }

    fn of(near: usize, far: usize) -> Self {
        Self::with(near, far, "")
    }

    fn with(near: usize, far: usize, pool: &str) -> Self {
        let start = |zone: &'static str, count: usize| -> Vec<Endpoint> {
            (0..count).map(|n| Endpoint::start(&format!("{zone}{n}"))).collect()
        };
        let (near, far) = (start("near", near), start("far", far));
        let addresses =
            |zone: &[Endpoint]| -> Vec<SocketAddr> { zone.iter().map(Endpoint::address).collect() };
        let config = Config::new()
            .pool(pool)
            .zone("here/a", &addresses(&near))
            .zone("here/b", &addresses(&far));
        let gapless = Gapless::start_ready(&config);
        Self { near, far, gapless }
    }

    /// `gapless drill`, as an operator's shell runs it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["drill", "--admin", &self.gapless.admin.to_string()]).args(arguments);
        command
    }

    fn drill(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Begins one in the background.
    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(&["start", "--lose", "here/a"]);
        command.args(arguments).stdout(Stdio::null()).spawn().expect("the program starts")
    }

    /// The last drill.
    fn last(&self) -> Option<Value> {
        let mut all = self.gapless.api("/api/v1/drills");
        let id = all["drills"].as_array_mut()?.last()?["id"].as_u64()?;
        Some(self.gapless.api(&format!("/api/v1/drills/{id}")))
    }

    /// Waits until the last one has come so far.
    #[track_caller]
    fn reaches(&self, stage: &str) -> Value {
        let timeout = if stage == "over" { OVER } else { BEGUN };
        until(stage, timeout, || self.last().filter(|drill| drill["stage"] == stage))
    }

    /// Requests that endpoints of the first zone have seen.
    fn seen_near(&self) -> usize {
        self.near.iter().map(|endpoint| endpoint.seen().len()).sum()
    }

    /// Nothing is held against anybody.
    #[track_caller]
    fn is_untouched(&self) {
        for endpoint in self.near.iter().chain(&self.far) {
            assert_eq!(self.gapless.state(endpoint.address()), "up");
        }
        assert!(self.gapless.incidents("endpoints").is_empty());
        assert!(self.gapless.incidents("zones").is_empty());
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}
