//! Operators' orders, as they are asked for, shown and kept. What they mean is `logic::operator`'s.

pub mod keeper;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::units;
use crate::logic::director::{Granted, Verb, What, Wish};
use crate::logic::operator::{Act, DEADLINE, LONGEST, NOTE_BYTES, Order};

use super::api::Clock;
use super::observe::millis;

/// What an endpoint may weigh, as in the file.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1_000;

/// An order as it is asked for: texts as on the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `drain`, `weight`, `evacuate` or `restore`.
    pub order: String,
    /// An endpoint, a zone or a region.
    pub of: String,
    /// In this pool only; otherwise in every pool that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Of `weight`: how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The share goes to nothing over this time: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// After that, what lasts may stay for so long: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// It is over by itself after this time: `1h`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whatever is left afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Asked {
    /// What is asked for.
    ///
    /// # Errors
    /// What cannot be read, and how it is written.
    pub fn wish(&self, now: Instant) -> Result<Wish, String> {
        let what = What::parse(&self.of).ok_or_else(|| {
            format!(
                "`{}` is no endpoint, zone or region: write `10.0.1.11:9000`, `region/zone` or \
                 `region`",
                self.of
            )
        })?;
        let verb = self.verb(&what)?;
        let length = self.length.as_deref().map(time).transpose()?;
        if let Some(long) = self.note.as_ref().filter(|note| note.len() > NOTE_BYTES) {
            return Err(format!("a note has {NOTE_BYTES} bytes at most, not {}", long.len()));
        }
        Ok(Wish {
            what,
            pool: self.pool.as_deref().map(Arc::from),
            verb,
            until: length.and_then(|length| now.checked_add(length)),
            note: self.note.as_deref().map(Arc::from),
            is_forced: self.force,
        })
    }

    fn verb(&self, what: &What) -> Result<Verb, String> {
        let is_endpoint = matches!(what, What::Endpoint(_));
        let is_drain = matches!(self.order.as_str(), "drain" | "evacuate");
        if !is_drain && (self.over.is_some() || self.deadline.is_some()) {
            return Err("only `drain` and `evacuate` have `over` and `deadline`".to_owned());
        }
        if self.order != "weight" && self.weight.is_some() {
            return Err("only the order `weight` has a `weight`".to_owned());
        }
        let of = &self.of;
        match self.order.as_str() {
            "drain" if !is_endpoint => Err(format!(
                "`{of}` is no endpoint; a zone or a region is evacuated: `evacuate {of}`"
            )),
            "evacuate" if is_endpoint => {
                Err(format!("`{of}` is an endpoint, which is drained: `drain {of}`"))
            }
            "drain" | "evacuate" => {
                let bounded = |text: &Option<String>, default| {
                    let time = text.as_deref().map(time).transpose()?.unwrap_or(default);
                    let is_long = time > LONGEST;
                    if is_long {
                        Err("a day is the longest time for that".to_owned())
                    } else {
                        Ok(time)
                    }
                };
                let over = bounded(&self.over, Duration::ZERO)?;
                let deadline = bounded(&self.deadline, DEADLINE)?;
                Ok(Verb::Give(Act::Drain { over, deadline }))
            }
            "weight" if !is_endpoint => Err(format!("`{of}` is no endpoint: only these weigh")),
            "weight" => match self.weight {
                Some(weight) if WEIGHTS.contains(&weight) => Ok(Verb::Give(Act::Weight(weight))),
                Some(0) => Err(format!("what weighs nothing is drained: `drain {of}`")),
                _ => Err("a weight is a number from 1 to 1000".to_owned()),
            },
            "restore" => Ok(Verb::Restore),
            other => Err(format!(
                "`{other}` is no order: write `drain`, `weight`, `evacuate` or `restore`"
            )),
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    units::age(text).ok_or_else(|| format!("`{text}` is no time: write `30s`, `1h` or `2d`"))
}

/// One order, as `/api/v1/orders` has it.
#[derive(Clone, Debug, Serialize)]
pub struct OrderJson {
    id: u64,
    order: &'static str,
    of: String,
    pool: Option<String>,
    weight: Option<u32>,
    over_ms: Option<f64>,
    deadline_ms: Option<f64>,
    /// What is left of the share, in 0..1.
    share_left: Option<f64>,
    /// When what lasts is ended.
    ends_lasting_at: Option<String>,
    since: String,
    for_ms: f64,
    until: Option<String>,
    over_in_ms: Option<f64>,
    source: &'static str,
    note: Option<String>,
}

impl OrderJson {
    /// The order as of `now`.
    #[must_use]
    pub fn new(order: &Order, clock: &Clock, now: Instant) -> Self {
        let drain = match order.act {
            Act::Drain { over, deadline } => Some((over, deadline)),
            Act::Weight(_) | Act::Serve => None,
        };
        let weight = match order.act {
            Act::Weight(weight) => Some(weight),
            Act::Drain { .. } | Act::Serve => None,
        };
        let end = drain.map(|(over, deadline)| order.since + over + deadline);
        Self {
            id: order.id,
            order: order.act.as_str(),
            of: order.what.to_string(),
            pool: order.pool.as_deref().map(str::to_owned),
            weight,
            over_ms: drain.map(|(over, _)| millis(over)),
            deadline_ms: drain.map(|(_, deadline)| millis(deadline)),
            share_left: drain.map(|_| f64::from(order.share(now)) / 1e3),
            ends_lasting_at: end.map(|end| clock.text(end)),
            since: clock.text(order.since),
            for_ms: millis(now.saturating_duration_since(order.since)),
            until: order.until.map(|until| clock.text(until)),
            over_in_ms: order.until.map(|until| millis(until.saturating_duration_since(now))),
            source: order.by.as_str(),
            note: order.note.as_deref().map(str::to_owned),
        }
    }
}

/// What came of asking.
#[derive(Debug, Serialize)]
pub struct GrantedJson {
    /// The order that was given.
    pub order: Option<OrderJson>,
    /// Those that were taken back.
    pub lifted: Vec<OrderJson>,
    /// Those by which something of it is drained all the same.
    pub still_drained_by: Vec<OrderJson>,
    /// Whether it outlives the process; null where there is no `state_dir`.
    pub durable: Option<bool>,
}

impl GrantedJson {
    /// What was granted as of `now`, and whether it is on the disk.
    #[must_use]
    pub fn new(granted: &Granted, durable: Option<bool>, clock: &Clock, now: Instant) -> Self {
        let all =
            |orders: &[Order]| orders.iter().map(|one| OrderJson::new(one, clock, now)).collect();
        Self {
            order: granted.order.as_ref().map(|order| OrderJson::new(order, clock, now)),
            lifted: all(&granted.lifted),
            still_drained_by: all(&granted.still),
            durable,
        }
    }
}

/// The same for people.
#[must_use]
pub fn told(granted: &Granted, durable: Option<bool>, clock: &Clock, now: Instant) -> String {
    let mut page = String::new();
    for order in &granted.lifted {
        let _ = writeln!(page, "lifted: {}", line(order, clock, now));
    }
    if let Some(order) = &granted.order {
        let _ = writeln!(page, "given: {}", line(order, clock, now));
    }
    for order in &granted.still {
        let _ = writeln!(page, "still drained, in part: {}", line(order, clock, now));
    }
    if page.is_empty() {
        return "nothing to restore: no order holds for it\n".to_owned();
    }
    page.push_str(match durable {
        Some(true) => "",
        Some(false) => "it could NOT be written down, and ends with this process: see the log\n",
        None => "there is no `state_dir`: it ends with this process (but not with an upgrade)\n",
    });
    page
}

/// One order in one line.
#[must_use]
pub fn line(order: &Order, clock: &Clock, now: Instant) -> String {
    let mut line = format!("{:>3}  {order}", order.id);
    if let Act::Drain { over, deadline } = order.act {
        let left = order.share(now);
        let end = order.since + over + deadline;
        if left > 0 {
            let _ = write!(line, ", {:.0} % of its share left", f64::from(left) / 10.0);
        } else if now < end {
            let rest = end.saturating_duration_since(now).as_secs_f64();
            let _ = write!(line, ", what lasts there ends in {rest:.0} s");
        }
    }
    let _ = write!(line, "; since {}", seconds(&clock.text(order.since)));
    match order.until {
        Some(until) => {
            let _ = write!(line, " until {}", seconds(&clock.text(until)));
        }
        None => line.push_str(" until it is restored"),
    }
    let _ = write!(line, ", by {}", order.by.as_str());
    if let Some(note) = &order.note {
        let _ = write!(line, ": {note}");
    }
    line
}

/// A time of day without its fraction.
fn seconds(text: &str) -> String {
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(order: &str, of: &str) -> Asked {
        Asked { order: order.to_owned(), of: of.to_owned(), ..Asked::default() }
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused_with_a_mend() {
        let now = Instant::now();
        let slow = Asked {
            over: Some("30s".to_owned()),
            length: Some("1h".to_owned()),
            ..asked("evacuate", "us-south/us-south-1")
        };
        let wish = slow.wish(now).expect("a wish");
        let over = Duration::from_secs(30);
        assert_eq!(wish.verb, Verb::Give(Act::Drain { over, deadline: DEADLINE }));
        assert_eq!(wish.until, Some(now + Duration::from_hours(1)));
        let heavy = Asked { weight: Some(7), ..asked("weight", "10.0.0.1:80") };
        assert_eq!(heavy.wish(now).expect("a wish").verb, Verb::Give(Act::Weight(7)));
        assert_eq!(asked("restore", "us-south").wish(now).expect("a wish").verb, Verb::Restore);
        let refused = |asked: &Asked| asked.wish(now).expect_err("senseless");
        assert!(refused(&asked("drain", "us-south")).contains("evacuate us-south"));
        assert!(refused(&asked("evacuate", "10.0.0.1:80")).contains("drain 10.0.0.1:80"));
        assert!(refused(&asked("dance", "us-south")).contains("no order"));
        assert!(refused(&asked("restore", "a b")).contains("region/zone"));
        assert!(refused(&asked("weight", "10.0.0.1:80")).contains("1 to 1000"));
        let nothing = Asked { weight: Some(0), ..asked("weight", "10.0.0.1:80") };
        assert!(refused(&nothing).contains("drain"));
        let odd = Asked { over: Some("30s".to_owned()), ..asked("restore", "us-south") };
        assert!(refused(&odd).contains("over"));
        let long = Asked { over: Some("2d".to_owned()), ..asked("evacuate", "us-south") };
        assert!(refused(&long).contains("a day"));
    }
}
