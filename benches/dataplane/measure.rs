//! Runs a case in interleaved rounds (A B C, A B C) and measures the cost of each round.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use serde::Serialize;

use crate::case::{BenchCase, CAPACITY_FRACTION, EndpointProtocol, LoadProfile, ProxySetup};
use crate::client::{self, BenchClient};
use crate::load_core::run_on_load_core;
use crate::parse::{LoadReport, Percentiles};
use crate::peer::{BenchServer, InstalledProxy, start_endpoint, start_proxy};
use crate::{LOAD_CORE, PROXY_CORE, cpu, fixed_rate, h2c, load_tools, memory};

/// Load before each measured window, to fill pools and caches.
const WARM_UP_SECONDS: u64 = 1;

/// The parameters that all cases share.
#[derive(Debug)]
pub(crate) struct DataplaneBench<'a> {
    /// The number of rounds of every arm.
    pub(crate) rounds: u32,
    /// The length of a measured window, in seconds.
    pub(crate) seconds: u64,
    /// Whether load precedes the window.
    pub(crate) should_warm_up: bool,
    /// The assumed HTTP/2 rate of the warm-up, from which the number of requests is computed.
    pub(crate) initial_h2_rate: f64,
    /// Connections of cases with idle connections.
    pub(crate) idle_connections: u32,
    /// The installed proxies.
    pub(crate) installed: &'a [InstalledProxy],
    pub(crate) nginx: &'a Path,
    /// `wrk.lua`, on disk.
    pub(crate) script: &'a Path,
    /// The TLS settings of clients.
    pub(crate) tls: &'a Arc<ClientConfig>,
    pub(crate) dir: &'a Path,
}

/// One measured window, or one set of idle connections.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RoundSample {
    /// The cost of the proxy.
    #[serde(flatten)]
    pub(crate) cost: ProxyCost,
    /// The figures of the clients, for cases with a window.
    #[serde(flatten)]
    pub(crate) traffic: Option<TrafficFigures>,
    /// Completed requests, whatever their status.
    pub(crate) requests: u64,
    /// Failed connects, reads and writes, statuses above 399, and timeouts, including those of the
    /// warm-up.
    pub(crate) errors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProxyCost {
    /// User and system time of the proxy's process tree, per request.
    CpuUsPerRequest(f64),
    /// Memory of the proxy's process tree, per connection.
    BytesPerConnection(f64),
}

impl ProxyCost {
    pub(crate) fn value(self) -> f64 {
        let (Self::CpuUsPerRequest(value) | Self::BytesPerConnection(value)) = self;
        value
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrafficFigures {
    pub(crate) requests_per_second: f64,
    /// Latency: in a closed loop as corrected by wrk, in an open loop from when a request was due.
    #[serde(flatten)]
    pub(crate) latency: Option<Percentiles>,
    /// Use of the core of load and endpoint; near 100, they limit the throughput, not the proxy.
    pub(crate) load_core_busy_percent: f64,
    /// Use of the proxy's core by all processes.
    pub(crate) proxy_core_busy_percent: f64,
}

/// All rounds of one arm: one proxy in one set-up.
#[derive(Debug)]
pub(crate) struct ArmRounds {
    /// The name in the table.
    pub(crate) label: String,
    /// The name of the program, which may have several set-ups.
    pub(crate) program: String,
    /// Whether it is gapless.
    pub(crate) is_gapless: bool,
    /// The measurements of successful rounds.
    pub(crate) samples: Vec<RoundSample>,
    /// The reasons why a round failed or is not reliable.
    pub(crate) problems: Vec<String>,
}

/// All rounds of all arms.
#[derive(Debug)]
pub(crate) struct CaseRounds {
    /// The arms, in the order of measurement.
    pub(crate) arms: Vec<ArmRounds>,
    /// The fixed rate of all arms, in an open loop.
    pub(crate) fixed_rate: Option<f64>,
}

/// The endpoint behind the proxies.
#[derive(Debug)]
enum BenchEndpoint {
    Nginx(BenchServer),
    H2c(h2c::H2cEndpoint),
}

impl BenchEndpoint {
    fn port(&self) -> u16 {
        match self {
            Self::Nginx(server) => server.port,
            Self::H2c(endpoint) => endpoint.port,
        }
    }
}

/// One proxy in one set-up under one case.
#[derive(Clone, Copy, Debug)]
struct BenchArm<'a> {
    case: &'a BenchCase,
    installed: &'a InstalledProxy,
    set_up: &'static ProxySetup,
}

impl DataplaneBench<'_> {
    /// Measures a case with interleaved proxies. Proxies are restarted in each round, so that the
    /// range covers differences between processes.
    pub(crate) fn run(&self, case: &BenchCase) -> io::Result<CaseRounds> {
        let endpoint = match case.upstream {
            EndpointProtocol::Http1 => BenchEndpoint::Nginx(start_endpoint(self.nginx, self.dir)?),
            EndpointProtocol::H2c => BenchEndpoint::H2c(h2c::H2cEndpoint::start()?),
        };
        let mut measured = Vec::new();
        for installed in
            self.installed.iter().filter(|installed| installed.peer.is_measured_in(case))
        {
            for set_up in case.set_ups() {
                let rounds = ArmRounds {
                    label: format!("{}{}", installed.label, set_up.label_suffix),
                    program: installed.label.clone(),
                    is_gapless: installed.peer.is_gapless(),
                    samples: Vec::new(),
                    problems: Vec::new(),
                };
                measured.push((BenchArm { case, installed, set_up }, rounds));
            }
        }
        let mut fixed_rate = None;
        if case.load == LoadProfile::FixedRate {
            let mut min_capacity = f64::INFINITY;
            for (arm, rounds) in &mut measured {
                eprintln!("{}: capacity of {}", case.name, rounds.label);
                match self.measure_capacity(*arm, endpoint.port()) {
                    Ok(capacity) => min_capacity = min_capacity.min(capacity),
                    Err(error) => rounds.problems.push(format!("capacity: {error}")),
                }
            }
            fixed_rate = Some(CAPACITY_FRACTION * min_capacity).filter(|rate| rate.is_finite());
        }
        for round in 1..=self.rounds {
            for (arm, rounds) in &mut measured {
                eprintln!("{} round {round} of {}: {}", case.name, self.rounds, rounds.label);
                match self.measure(*arm, endpoint.port(), fixed_rate) {
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
        let arms = measured.into_iter().map(|(_, rounds)| rounds).collect();
        Ok(CaseRounds { arms, fixed_rate })
    }

    /// The throughput of a proxy in a closed loop.
    fn measure_capacity(&self, arm: BenchArm<'_>, endpoint_port: u16) -> io::Result<f64> {
        let BenchArm { case, installed, set_up } = arm;
        let proxy = start_proxy(installed, set_up, case, endpoint_port, self.dir)?;
        let report = load_tools::wrk(self.script, case, proxy.port, false, self.seconds)?;
        Ok(report.requests_per_second())
    }

    fn measure(
        &self,
        arm: BenchArm<'_>,
        endpoint_port: u16,
        fixed_rate: Option<f64>,
    ) -> io::Result<RoundSample> {
        let BenchArm { case, installed, set_up } = arm;
        let proxy = start_proxy(installed, set_up, case, endpoint_port, self.dir)?;
        if case.is_over_tls {
            // Only TLS 1.3 is accepted, and the certificate is verified.
            client::hold_idle(&self.build_client(case, &proxy, "close"), 1, || Ok(()))?;
        }
        if case.load == LoadProfile::Idle {
            self.measure_idle(case, &proxy)
        } else {
            self.measure_traffic(case, &proxy, fixed_rate)
        }
    }

    fn measure_traffic(
        &self,
        case: &BenchCase,
        proxy: &BenchServer,
        fixed_rate: Option<f64>,
    ) -> io::Result<RoundSample> {
        let mut rate = fixed_rate.unwrap_or(self.initial_h2_rate);
        let mut errors = 0;
        if self.should_warm_up {
            let warm_up = self.run_load(case, proxy, rate, WARM_UP_SECONDS)?;
            errors += warm_up.errors;
            rate = fixed_rate.unwrap_or_else(|| warm_up.requests_per_second());
        }

        let load_core = cpu::read_core_ticks(LOAD_CORE)?;
        let proxy_core = cpu::read_core_ticks(PROXY_CORE)?;
        let before_ns = cpu::process_tree_cpu_ns(proxy.process.pid())?;
        let report = self.run_load(case, proxy, rate, self.seconds)?;
        let cpu_spent_ns = cpu::process_tree_cpu_ns(proxy.process.pid())?.saturating_sub(before_ns);
        let load_core_busy_percent = cpu::read_core_ticks(LOAD_CORE)?.busy_percent_since(load_core);
        let proxy_core_busy_percent =
            cpu::read_core_ticks(PROXY_CORE)?.busy_percent_since(proxy_core);

        errors += report.errors;
        if report.requests == 0 {
            return Err(io::Error::other(format!("no request was completed; {errors} errors")));
        }
        // An error or a redirect is short and would make a proxy look fast.
        if report.response_bytes / report.requests < case.response_bytes {
            let problem = format!("responses are shorter than the endpoint's; {errors} errors");
            return Err(io::Error::other(problem));
        }
        Ok(RoundSample {
            cost: ProxyCost::CpuUsPerRequest(cpu_spent_ns as f64 / 1e3 / report.requests as f64),
            traffic: Some(TrafficFigures {
                requests_per_second: report.requests_per_second(),
                latency: report.latency,
                load_core_busy_percent,
                proxy_core_busy_percent,
            }),
            requests: report.requests,
            errors,
        })
    }

    /// `rate` applies to loads in an open loop.
    fn run_load(
        &self,
        case: &BenchCase,
        proxy: &BenchServer,
        rate: f64,
        seconds: u64,
    ) -> io::Result<LoadReport> {
        let port = if case.is_over_tls { proxy.tls_port } else { proxy.port };
        match case.load {
            LoadProfile::Wrk { should_reconnect: reconnects } => {
                load_tools::wrk(self.script, case, port, reconnects, seconds)
            }
            LoadProfile::Idle => load_tools::wrk(self.script, case, port, false, seconds),
            LoadProfile::H2load => load_tools::h2load(case, port, (rate * seconds as f64) as u64),
            LoadProfile::Handshakes => {
                let client = self.build_client(case, proxy, "close");
                run_on_load_core(|| client::run_reconnects(&client, seconds))
            }
            LoadProfile::FixedRate => {
                run_on_load_core(|| fixed_rate::run(port, case.path, rate, seconds))
            }
        }
    }

    fn measure_idle(&self, case: &BenchCase, proxy: &BenchServer) -> io::Result<RoundSample> {
        let pid = proxy.process.pid();
        let warm_up = self.run_load(case, proxy, self.initial_h2_rate, WARM_UP_SECONDS)?;
        let before = memory::settled_tree_bytes(pid)?;
        let client = self.build_client(case, proxy, "keep-alive");
        let count = self.idle_connections;
        let after = run_on_load_core(|| {
            client::hold_idle(&client, count as usize, || memory::settled_tree_bytes(pid))
        })?;
        let growth_bytes = after.saturating_sub(before) as f64;
        Ok(RoundSample {
            cost: ProxyCost::BytesPerConnection(growth_bytes / f64::from(count)),
            traffic: None,
            requests: u64::from(count),
            errors: warm_up.errors,
        })
    }

    fn build_client(&self, case: &BenchCase, proxy: &BenchServer, connection: &str) -> BenchClient {
        let request = client::get_request(case.path, connection);
        if case.is_over_tls {
            BenchClient { port: proxy.tls_port, tls: Some(Arc::clone(self.tls)), request }
        } else {
            BenchClient { port: proxy.port, tls: None, request }
        }
    }
}
