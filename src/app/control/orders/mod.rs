//! Operators' orders, as they are asked for, shown and kept. What they mean is `logic::operator`'s.

pub mod order_store;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::units;
use crate::logic::director::{AppliedCommand, OperatorAction, OperatorCommand};
use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::operator_orders::{
    DEFAULT_DRAIN_DEADLINE, MAX_DRAIN_DURATION, MAX_NOTE_BYTES, OperatorOrder, OrderAction,
};

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;

/// What an endpoint may weigh, as in the file.
const WEIGHT_RANGE: std::ops::RangeInclusive<u32> = 1..=1_000;

/// An order as it is asked for: texts as on the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequestBody {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Whatever is left afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl OrderRequestBody {
    /// What is asked for.
    ///
    /// # Errors
    /// What cannot be read, and how it is written.
    pub fn to_command(&self, now: Instant) -> Result<OperatorCommand, String> {
        let what = TopologySelector::parse(&self.of).ok_or_else(|| {
            format!(
                "`{}` is no endpoint, zone or region: write `10.0.1.11:9000`, `region/zone` or \
                 `region`",
                self.of
            )
        })?;
        let verb = self.to_verb(&what)?;
        let length = self.length.as_deref().map(parse_duration).transpose()?;
        if let Some(long) = self.note.as_ref().filter(|note| note.len() > MAX_NOTE_BYTES) {
            return Err(format!("a note has {MAX_NOTE_BYTES} bytes at most, not {}", long.len()));
        }
        Ok(OperatorCommand {
            selector: what,
            pool: self.pool.as_deref().map(Arc::from),
            action: verb,
            until: length.and_then(|length| now.checked_add(length)),
            note: self.note.as_deref().map(Arc::from),
            is_forced: self.force,
        })
    }

    fn to_verb(&self, what: &TopologySelector) -> Result<OperatorAction, String> {
        let is_endpoint = matches!(what, TopologySelector::Endpoint(_));
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
                    let time = text.as_deref().map(parse_duration).transpose()?.unwrap_or(default);
                    let is_long = time > MAX_DRAIN_DURATION;
                    if is_long {
                        Err("a day is the longest time for that".to_owned())
                    } else {
                        Ok(time)
                    }
                };
                let over = bounded(&self.over, Duration::ZERO)?;
                let deadline = bounded(&self.deadline, DEFAULT_DRAIN_DEADLINE)?;
                Ok(OperatorAction::Issue(OrderAction::Drain { fade_duration: over, deadline }))
            }
            "weight" if !is_endpoint => Err(format!("`{of}` is no endpoint: only these weigh")),
            "weight" => match self.weight {
                Some(weight) if WEIGHT_RANGE.contains(&weight) => {
                    Ok(OperatorAction::Issue(OrderAction::Weight(weight)))
                }
                Some(0) => Err(format!("what weighs nothing is drained: `drain {of}`")),
                _ => Err("a weight is a number from 1 to 1000".to_owned()),
            },
            "restore" => Ok(OperatorAction::Restore),
            other => Err(format!(
                "`{other}` is no order: write `drain`, `weight`, `evacuate` or `restore`"
            )),
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    units::parse_age(text).ok_or_else(|| format!("`{text}` is no time: write `30s`, `1h` or `2d`"))
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
    pub fn new(order: &OperatorOrder, clock: &WallClock, now: Instant) -> Self {
        let drain = match order.action {
            OrderAction::Drain { fade_duration: over, deadline } => Some((over, deadline)),
            OrderAction::Weight(_) | OrderAction::Serve => None,
        };
        let weight = match order.action {
            OrderAction::Weight(weight) => Some(weight),
            OrderAction::Drain { .. } | OrderAction::Serve => None,
        };
        let end = drain.map(|(over, deadline)| order.effective_since + over + deadline);
        Self {
            id: order.id,
            order: order.action.as_str(),
            of: order.scope.to_string(),
            pool: order.pool.as_deref().map(str::to_owned),
            weight,
            over_ms: drain.map(|(over, _)| millis(over)),
            deadline_ms: drain.map(|(_, deadline)| millis(deadline)),
            share_left: drain.map(|_| f64::from(order.share_permille(now)) / 1e3),
            ends_lasting_at: end.map(|end| clock.to_rfc3339(end)),
            since: clock.to_rfc3339(order.effective_since),
            for_ms: millis(now.saturating_duration_since(order.effective_since)),
            until: order.expires_at.map(|until| clock.to_rfc3339(until)),
            over_in_ms: order.expires_at.map(|until| millis(until.saturating_duration_since(now))),
            source: order.source.as_str(),
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
    pub fn new(
        granted: &AppliedCommand,
        durable: Option<bool>,
        clock: &WallClock,
        now: Instant,
    ) -> Self {
        let all = |orders: &[OperatorOrder]| {
            orders.iter().map(|one| OrderJson::new(one, clock, now)).collect()
        };
        Self {
            order: granted.order.as_ref().map(|order| OrderJson::new(order, clock, now)),
            lifted: all(&granted.lifted),
            still_drained_by: all(&granted.remaining),
            durable,
        }
    }
}

/// The same for people.
pub fn granted_text(
    granted: &AppliedCommand,
    durable: Option<bool>,
    clock: &WallClock,
    now: Instant,
) -> String {
    let mut page = String::new();
    for order in &granted.lifted {
        let _ = writeln!(page, "lifted: {}", order_line(order, clock, now));
    }
    if let Some(order) = &granted.order {
        let _ = writeln!(page, "given: {}", order_line(order, clock, now));
    }
    for order in &granted.remaining {
        let _ = writeln!(page, "still drained, in part: {}", order_line(order, clock, now));
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
pub fn order_line(order: &OperatorOrder, clock: &WallClock, now: Instant) -> String {
    let mut line = format!("{:>3}  {order}", order.id);
    if let OrderAction::Drain { fade_duration: over, deadline } = order.action {
        let left = order.share_permille(now);
        let end = order.effective_since + over + deadline;
        if left > 0 {
            let _ = write!(line, ", {:.0} % of its share left", f64::from(left) / 10.0);
        } else if now < end {
            let rest = end.saturating_duration_since(now).as_secs_f64();
            let _ = write!(line, ", what lasts there ends in {rest:.0} s");
        }
    }
    let _ =
        write!(line, "; since {}", time_without_fraction(&clock.to_rfc3339(order.effective_since)));
    match order.expires_at {
        Some(until) => {
            let _ = write!(line, " until {}", time_without_fraction(&clock.to_rfc3339(until)));
        }
        None => line.push_str(" until it is restored"),
    }
    let _ = write!(line, ", by {}", order.source.as_str());
    if let Some(note) = &order.note {
        let _ = write!(line, ": {note}");
    }
    line
}

/// A time of day without its fraction.
fn time_without_fraction(text: &str) -> String {
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_request(order: &str, of: &str) -> OrderRequestBody {
        OrderRequestBody {
            order: order.to_owned(),
            of: of.to_owned(),
            ..OrderRequestBody::default()
        }
    }

    #[test]
    fn order_request_is_parsed_or_refused_with_help() {
        let now = Instant::now();
        let slow = OrderRequestBody {
            over: Some("30s".to_owned()),
            length: Some("1h".to_owned()),
            ..order_request("evacuate", "us-south/us-south-1")
        };
        let command = slow.to_command(now).expect("a wish");
        let fade_duration = Duration::from_secs(30);
        assert_eq!(
            command.action,
            OperatorAction::Issue(OrderAction::Drain {
                fade_duration,
                deadline: DEFAULT_DRAIN_DEADLINE
            })
        );
        assert_eq!(command.until, Some(now + Duration::from_hours(1)));
        let heavy = OrderRequestBody { weight: Some(7), ..order_request("weight", "10.0.0.1:80") };
        assert_eq!(
            heavy.to_command(now).expect("a wish").action,
            OperatorAction::Issue(OrderAction::Weight(7))
        );
        assert_eq!(
            order_request("restore", "us-south").to_command(now).expect("a wish").action,
            OperatorAction::Restore
        );
        let refused = |request: &OrderRequestBody| request.to_command(now).expect_err("senseless");
        assert!(refused(&order_request("drain", "us-south")).contains("evacuate us-south"));
        assert!(refused(&order_request("evacuate", "10.0.0.1:80")).contains("drain 10.0.0.1:80"));
        assert!(refused(&order_request("dance", "us-south")).contains("no order"));
        assert!(refused(&order_request("restore", "a b")).contains("region/zone"));
        assert!(refused(&order_request("weight", "10.0.0.1:80")).contains("1 to 1000"));
        let nothing =
            OrderRequestBody { weight: Some(0), ..order_request("weight", "10.0.0.1:80") };
        assert!(refused(&nothing).contains("drain"));
        let odd = OrderRequestBody {
            over: Some("30s".to_owned()),
            ..order_request("restore", "us-south")
        };
        assert!(refused(&odd).contains("over"));
        let long = OrderRequestBody {
            over: Some("2d".to_owned()),
            ..order_request("evacuate", "us-south")
        };
        assert!(refused(&long).contains("a day"));
    }
}
