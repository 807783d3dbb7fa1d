//! The progress output of the demo.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::admin_client::AdminClient;

use super::DemoOptions;
use super::fleet::EndpointFleet;
use super::load_generator::{LoadGenerator, RequestSample};
use super::report::DemoReport;

/// Time between two lines about traffic.
const LINE_INTERVAL: Duration = Duration::from_millis(500);

/// Time between two polls of the verdicts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The longest bar of a zone, in characters.
const BAR_WIDTH: usize = 20;

/// The terminal, or standard error if standard output is for JSON.
pub(super) struct DemoScreen {
    out: Box<dyn Write>,
    color: bool,
    started_at: Instant,
    shown_samples: usize,
    states: HashMap<String, String>,
}

impl DemoScreen {
    pub(super) fn new(json: bool, color: bool) -> Self {
        let out: Box<dyn Write> =
            if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Self { out, color, started_at: Instant::now(), shown_samples: 0, states: HashMap::new() }
    }

    pub(super) fn configuration(&mut self, path: &Path, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", self.dim(&format!("── {} ──", path.display())))?;
        for line in text.lines() {
            writeln!(self.out, "{}", self.dim(line))?;
        }
        writeln!(self.out)
    }

    pub(super) fn write_start(
        &mut self,
        proxy: SocketAddr,
        admin: SocketAddr,
        options: DemoOptions,
    ) -> io::Result<()> {
        self.started_at = Instant::now();
        writeln!(
            self.out,
            "proxy http://{proxy}   admin http://{admin}   {} requests/s, one in five a POST\n",
            options.rate
        )
    }

    /// Shows traffic and verdicts for `duration`.
    pub(super) fn show_for(
        &mut self,
        duration: Duration,
        load: &LoadGenerator,
        fleet: &EndpointFleet,
        admin: SocketAddr,
    ) -> io::Result<()> {
        let end = Instant::now() + duration;
        let mut next_line = Instant::now() + LINE_INTERVAL;
        while Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
            self.write_verdict_changes(admin)?;
            if Instant::now() >= next_line {
                next_line += LINE_INTERVAL;
                self.write_traffic(load, fleet)?;
            }
        }
        Ok(())
    }

    /// Writes a line about an event.
    pub(super) fn write_event(&mut self, text: &str) -> io::Result<()> {
        let line = format!("{} ▶ {text}", self.elapsed_text());
        writeln!(self.out, "{}", self.bold(&line))
    }

    /// Writes the endpoints whose state has changed since the last poll.
    fn write_verdict_changes(&mut self, admin: SocketAddr) -> io::Result<()> {
        let Ok(answer) = AdminClient::from(admin).get("/api/v1/endpoints") else { return Ok(()) };
        let status: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        for endpoint in status["endpoints"].as_array().into_iter().flatten() {
            let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
            let (address, state) = (text("address"), text("state"));
            let previous = self.states.insert(address.clone(), state.clone());
            if previous.is_some_and(|before| before != state) {
                let reason =
                    endpoint["reason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
                writeln!(
                    self.out,
                    "{}   {} {address} {state}{reason}",
                    self.elapsed_text(),
                    text("zone")
                )?;
            }
        }
        self.out.flush()
    }

    /// Writes a line about the requests since the previous line.
    fn write_traffic(&mut self, load: &LoadGenerator, fleet: &EndpointFleet) -> io::Result<()> {
        let new_samples = load.samples(self.shown_samples);
        self.shown_samples += new_samples.len();
        let mut by_zone: Vec<(&str, usize)> = Vec::new();
        for zone in
            new_samples.iter().filter_map(|sample| fleet.zone_of(sample.endpoint.as_deref()?))
        {
            match by_zone.iter_mut().find(|(name, _)| *name == zone) {
                Some((_, count)) => *count += 1,
                None => by_zone.push((zone, 1)),
            }
        }
        by_zone.sort_unstable();
        let total = new_samples.len().max(1);
        let bars: Vec<String> = by_zone
            .iter()
            .map(|(zone, count)| {
                let bar = "█".repeat((count * BAR_WIDTH).div_ceil(total));
                format!("{} {} {count}", zone_name(zone), self.green(&bar))
            })
            .collect();
        let count =
            |of: fn(&RequestSample) -> bool| new_samples.iter().filter(|sample| of(sample)).count();
        let failed = count(|sample| !sample.is_success);
        let rescued = count(|sample| sample.is_success && sample.is_retried);
        let mut notes = String::new();
        if rescued > 0 {
            notes.push_str(&format!("  rescued {rescued}"));
        }
        if failed > 0 {
            notes.push_str(&self.red(&format!("  failed {failed}")));
        }
        writeln!(self.out, "{} │ {}{notes}", self.elapsed_text(), bars.join("   "))?;
        self.out.flush()
    }

    pub(super) fn write_report(&mut self, report: &DemoReport) -> io::Result<()> {
        writeln!(self.out, "\n{}", report.text())
    }

    pub(super) fn write_keep_running(
        &mut self,
        proxy: SocketAddr,
        admin: SocketAddr,
        path: &Path,
    ) -> io::Result<()> {
        writeln!(
            self.out,
            "Still running, until Ctrl-C:\n  curl -i http://{proxy}/\n  curl http://{admin}/api/v1/endpoints\n  \
             edit {} and watch it reload",
            path.display()
        )?;
        self.out.flush()
    }

    fn elapsed_text(&self) -> String {
        format!("{:6.2}s", self.started_at.elapsed().as_secs_f64())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }
}

/// The zone without its region.
fn zone_name(zone: &str) -> &str {
    zone.split_once('/').map_or(zone, |(_, zone)| zone)
}
