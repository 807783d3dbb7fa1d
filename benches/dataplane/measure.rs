//! Runs a case: rounds of A B C, A B C, and what each round cost.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::case::{Arm, CONNECTIONS, Case};
use crate::parse::{WrkReport, wrk_report};
use crate::peer::{Installed, Server, start_endpoint, start_proxy};
use crate::process::bound_command;
use crate::{LOAD_CORE, PROXY_CORE, cpu};

/// Load before each measured window, to fill pools and caches.
const WARM_UP_SECONDS: u64 = 1;

/// What does not change from case to case.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    /// Rounds of every arm.
    pub(crate) rounds: u32,
    /// Length of a measured window.
    pub(crate) seconds: u64,
    /// The proxies that are there.
    pub(crate) installed: &'a [Installed],
    /// The endpoint's program.
    pub(crate) nginx: &'a Path,
    /// `wrk.lua`, on disk.
    pub(crate) script: &'a Path,
    /// Configurations and logs.
    pub(crate) dir: &'a Path,
}

/// One measured window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// User and system time of the proxy's process tree, per request.
    pub(crate) cpu_us_per_request: f64,
    /// Completed requests.
    pub(crate) requests_per_second: f64,
    /// Closed loop, as wrk corrects it.
    pub(crate) p50_us: f64,
    /// Closed loop, as wrk corrects it.
    pub(crate) p99_us: f64,
    /// Closed loop, as wrk corrects it.
    pub(crate) p999_us: f64,
    /// The core of wrk and the endpoint; near 100, they and not the proxy bound the throughput.
    pub(crate) load_core_busy_percent: f64,
    /// The proxy's core, whoever used it.
    pub(crate) proxy_core_busy_percent: f64,
    /// Completed requests, whatever their status.
    pub(crate) requests: u64,
    /// Failed connects, reads and writes, statuses above 399, timeouts; the warm-up's too.
    pub(crate) errors: u64,
}

/// All rounds of one arm.
#[derive(Debug)]
pub(crate) struct ArmRounds {
    /// The arm's label.
    pub(crate) label: &'static str,
    /// Whether it is gapless.
    pub(crate) is_gapless: bool,
    /// One for each round that could be measured.
    pub(crate) samples: Vec<Sample>,
    /// Why a round could not be measured, or must not be trusted.
    pub(crate) problems: Vec<String>,
}

impl Bench<'_> {
    /// Measures a case, proxies interleaved. Proxies start afresh in each round, so that the range
    /// covers what differs from process to process.
    pub(crate) fn run(&self, case: &Case) -> io::Result<Vec<ArmRounds>> {
        let endpoint = start_endpoint(self.nginx, self.dir)?;
        let mut measured = Vec::new();
        for arm in case.arms {
            if let Some(installed) = self.installed.iter().find(|found| found.peer == arm.peer) {
                let is_gapless = arm.peer.is_gapless();
                let (samples, problems) = (Vec::new(), Vec::new());
                let rounds = ArmRounds { label: arm.label, is_gapless, samples, problems };
                measured.push((arm, installed, rounds));
            }
        }
        for round in 1..=self.rounds {
            for (arm, installed, rounds) in &mut measured {
                eprintln!("{} round {round} of {}: {}", case.name, self.rounds, arm.label);
                match self.measure(case, arm, installed, &endpoint) {
                    Ok(sample) => {
                        if sample.errors > 0 {
                            let problem = format!("round {round}: {} errors", sample.errors);
                            rounds.problems.push(problem);
                        }
                        rounds.samples.push(sample);
                    }
                    Err(error) => rounds.problems.push(format!("round {round}: {error}")),
                }
            }
        }
        Ok(measured.into_iter().map(|(_, _, rounds)| rounds).collect())
    }

    fn measure(
        &self,
        case: &Case,
        arm: &Arm,
        installed: &Installed,
        endpoint: &Server,
    ) -> io::Result<Sample> {
        let proxy = start_proxy(installed, arm, endpoint.port, self.dir)?;
        let warm_up = self.load(case, proxy.port, WARM_UP_SECONDS)?;

        let load_core = cpu::core(LOAD_CORE)?;
        let proxy_core = cpu::core(PROXY_CORE)?;
        let before_ns = cpu::tree_ns(proxy.process.pid())?;
        let report = self.load(case, proxy.port, self.seconds)?;
        let spent_ns = cpu::tree_ns(proxy.process.pid())?.saturating_sub(before_ns);
        let load_core_busy_percent = cpu::core(LOAD_CORE)?.busy_percent_since(load_core);
        let proxy_core_busy_percent = cpu::core(PROXY_CORE)?.busy_percent_since(proxy_core);

        if report.requests == 0 {
            return Err(io::Error::other("no request was completed"));
        }
        // A refusal or a redirect is short, and would be a cheap way to look fast.
        if report.response_bytes / report.requests < case.response_bytes {
            let errors = report.errors;
            let problem = format!("responses are shorter than the endpoint's; {errors} errors");
            return Err(io::Error::other(problem));
        }
        Ok(Sample {
            cpu_us_per_request: spent_ns as f64 / 1e3 / report.requests as f64,
            requests_per_second: report.requests as f64 * 1e6 / report.duration_us as f64,
            p50_us: report.p50_us as f64,
            p99_us: report.p99_us as f64,
            p999_us: report.p999_us as f64,
            load_core_busy_percent,
            proxy_core_busy_percent,
            requests: report.requests,
            errors: report.errors + warm_up.errors,
        })
    }

    fn load(&self, case: &Case, port: u16, seconds: u64) -> io::Result<WrkReport> {
        let mut command = bound_command("wrk", Some(LOAD_CORE));
        command
            .args(["--threads", "1", "--connections", &CONNECTIONS.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(self.script)
            .arg(format!("http://127.0.0.1:{port}{}", case.path))
            .args(["--", case.method, &case.request_bytes.to_string()])
            .arg(if case.reconnects { "close" } else { "keep" });
        let output = command.output()?;
        wrk_report(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("wrk failed: {}", said.trim()))
        })
    }
}
