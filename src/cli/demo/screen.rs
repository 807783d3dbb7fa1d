//! What the demo shows while it runs.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::ask;

use super::Options;
use super::fleet::Fleet;
use super::load::{Load, Sample};
use super::report::Report;

/// Time from line to line.
const STEP: Duration = Duration::from_millis(500);

/// Time between two looks at the verdicts.
const LOOK: Duration = Duration::from_millis(50);

/// The longest bar of a zone.
const BAR_CELLS: usize = 20;

/// The terminal, or standard error where standard output is for JSON.
pub(super) struct Screen {
    out: Box<dyn Write>,
    color: bool,
    began: Instant,
    shown: usize,
    states: HashMap<String, String>,
}

impl Screen {
    pub(super) fn new(json: bool, color: bool) -> Self {
        let out: Box<dyn Write> =
            if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Self { out, color, began: Instant::now(), shown: 0, states: HashMap::new() }
    }

    pub(super) fn configuration(&mut self, path: &Path, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", self.dim(&format!("── {} ──", path.display())))?;
        for line in text.lines() {
            writeln!(self.out, "{}", self.dim(line))?;
        }
        writeln!(self.out)
    }

    pub(super) fn begins(
        &mut self,
        proxy: SocketAddr,
        admin: SocketAddr,
        options: Options,
    ) -> io::Result<()> {
        self.began = Instant::now();
        writeln!(
            self.out,
            "proxy http://{proxy}   admin http://{admin}   {} requests/s, one in five a POST\n",
            options.rate
        )
    }

    /// Shows what happens for `duration`.
    pub(super) fn watch(
        &mut self,
        duration: Duration,
        load: &Load,
        fleet: &Fleet,
        admin: SocketAddr,
    ) -> io::Result<()> {
        let end = Instant::now() + duration;
        let mut next_line = Instant::now() + STEP;
        while Instant::now() < end {
            std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            self.verdicts(admin)?;
            if Instant::now() >= next_line {
                next_line += STEP;
                self.traffic(load, fleet)?;
            }
        }
        Ok(())
    }

    /// One line about what was done.
    pub(super) fn moment(&mut self, text: &str) -> io::Result<()> {
        let line = format!("{} ▶ {text}", self.time());
        writeln!(self.out, "{}", self.bold(&line))
    }

    /// Says which endpoints have changed their state since the last look.
    fn verdicts(&mut self, admin: SocketAddr) -> io::Result<()> {
        let Ok(answer) = ask::get(admin, "/api/v1/endpoints") else { return Ok(()) };
        let status: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        for endpoint in status["endpoints"].as_array().into_iter().flatten() {
            let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
            let (address, state) = (text("address"), text("state"));
            let before = self.states.insert(address.clone(), state.clone());
            if before.is_some_and(|before| before != state) {
                let reason =
                    endpoint["reason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
                writeln!(self.out, "{}   {} {address} {state}{reason}", self.time(), text("zone"))?;
            }
        }
        self.out.flush()
    }

    /// One line about the requests since the last.
    fn traffic(&mut self, load: &Load, fleet: &Fleet) -> io::Result<()> {
        let fresh = load.samples(self.shown);
        self.shown += fresh.len();
        let mut by_zone: Vec<(&str, usize)> = Vec::new();
        for zone in fresh.iter().filter_map(|sample| fleet.zone_of(sample.endpoint.as_deref()?)) {
            match by_zone.iter_mut().find(|(name, _)| *name == zone) {
                Some((_, count)) => *count += 1,
                None => by_zone.push((zone, 1)),
            }
        }
        by_zone.sort_unstable();
        let total = fresh.len().max(1);
        let bars: Vec<String> = by_zone
            .iter()
            .map(|(zone, count)| {
                let bar = "█".repeat((count * BAR_CELLS).div_ceil(total));
                format!("{} {} {count}", short(zone), self.green(&bar))
            })
            .collect();
        let count = |of: fn(&Sample) -> bool| fresh.iter().filter(|sample| of(sample)).count();
        let failed = count(|sample| !sample.is_good);
        let rescued = count(|sample| sample.is_good && sample.is_resent);
        let mut notes = String::new();
        if rescued > 0 {
            notes.push_str(&format!("  rescued {rescued}"));
        }
        if failed > 0 {
            notes.push_str(&self.red(&format!("  failed {failed}")));
        }
        writeln!(self.out, "{} │ {}{notes}", self.time(), bars.join("   "))?;
        self.out.flush()
    }

    pub(super) fn table(&mut self, report: &Report) -> io::Result<()> {
        writeln!(self.out, "\n{}", report.text())
    }

    pub(super) fn keeps(
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

    fn time(&self) -> String {
        format!("{:6.2}s", self.began.elapsed().as_secs_f64())
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
fn short(zone: &str) -> &str {
    zone.split_once('/').map_or(zone, |(_, zone)| zone)
}
