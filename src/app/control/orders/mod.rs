//! Parses requests for orders, and formats orders. Their semantics are in [`crate::logic::orders`].

pub mod order_store;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::units;
use crate::logic::director::{AppliedCommand, OperatorAction, OperatorCommand};
use crate::logic::model::selector::TopologySelector;
use crate::logic::orders::{
    DEFAULT_DRAIN_DEADLINE, MAX_AUTHOR_BYTES, MAX_DRAIN_DURATION, MAX_NOTE_BYTES, OperatorOrder,
    OrderAction,
};

use crate::app::ops::api::WallClock;
use crate::app::ops::event_log::millis;

/// Weights that an order may set, as in the configuration file.
const WEIGHT_RANGE: std::ops::RangeInclusive<u32> = 1..=1_000;

/// An order as requested, with texts as on the command line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequestBody {
    /// `drain`, `weight`, `evacuate` or `restore`.
    pub order: String,
    /// An endpoint, a zone or a region.
    pub of: String,
    /// Restricts the order to this pool; otherwise it applies in every pool that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The weight of a `weight` order, from 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Time over which the share shrinks to zero: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Time that long-running requests may stay after that: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// The order expires after this time: `1h`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<String>,
    /// The operator's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Applies the order even if too little capacity remains.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl OrderRequestBody {
    /// Parses the request.
    ///
    /// # Errors
    /// What cannot be parsed, and the accepted syntax.
    pub fn to_command(&self, now: Instant) -> Result<OperatorCommand, String> {
        let selector = TopologySelector::parse(&self.of).ok_or_else(|| {
            format!(
                "`{}` is not an endpoint, zone or region: write `10.0.1.11:9000`, `region/zone` or \
                 `region`",
                self.of
            )
        })?;
        let action = self.to_action(&selector)?;
        let length = self.length.as_deref().map(parse_duration).transpose()?;
        if let (OperatorAction::Issue(OrderAction::Drain { fade_duration, .. }), Some(length)) =
            (action, length)
            && fade_duration > length
        {
            return Err(format!(
                "`over` ({}) is longer than `for` ({}): the order would expire before the share is \
                 zero",
                units::format_duration(fade_duration),
                units::format_duration(length)
            ));
        }
        check_line("a note", self.note.as_deref(), MAX_NOTE_BYTES)?;
        check_line("the name in `by`", self.by.as_deref(), MAX_AUTHOR_BYTES)?;
        Ok(OperatorCommand {
            selector,
            pool: self.pool.as_deref().map(Arc::from),
            action,
            until: length.and_then(|length| now.checked_add(length)),
            author: self.by.as_deref().map(Arc::from),
            note: self.note.as_deref().map(Arc::from),
            is_forced: self.force,
        })
    }

    fn to_action(&self, selector: &TopologySelector) -> Result<OperatorAction, String> {
        let is_endpoint = matches!(selector, TopologySelector::Endpoint(_));
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
                "`{of}` is not an endpoint; evacuate a zone or a region: `evacuate {of}`"
            )),
            "evacuate" if is_endpoint => {
                Err(format!("`{of}` is an endpoint; drain it: `drain {of}`"))
            }
            "drain" | "evacuate" => {
                let bounded = |text: &Option<String>, default| {
                    let time = text.as_deref().map(parse_duration).transpose()?.unwrap_or(default);
                    if time > MAX_DRAIN_DURATION {
                        Err("`over` and `deadline` are a day at most".to_owned())
                    } else {
                        Ok(time)
                    }
                };
                let over = bounded(&self.over, Duration::ZERO)?;
                let deadline = bounded(&self.deadline, DEFAULT_DRAIN_DEADLINE)?;
                Ok(OperatorAction::Issue(OrderAction::Drain { fade_duration: over, deadline }))
            }
            "weight" if !is_endpoint => {
                Err(format!("`{of}` is not an endpoint: only endpoints have a weight"))
            }
            "weight" => match self.weight {
                Some(weight) if WEIGHT_RANGE.contains(&weight) => {
                    Ok(OperatorAction::Issue(OrderAction::Weight(weight)))
                }
                Some(0) => Err(format!("a weight of zero is not accepted: `drain {of}` instead")),
                _ => Err("a weight is a number from 1 to 1000".to_owned()),
            },
            "restore" => Ok(OperatorAction::Restore),
            other => Err(format!(
                "`{other}` is not an order: write `drain`, `weight`, `evacuate` or `restore`"
            )),
        }
    }
}

/// Texts of operators go into logs and reports.
fn check_line(what: &str, text: Option<&str>, max_bytes: usize) -> Result<(), String> {
    match text {
        Some(text) if text.len() > max_bytes => {
            Err(format!("{what} has {max_bytes} bytes at most, not {}", text.len()))
        }
        Some(text) if text.contains(char::is_control) => {
            Err(format!("{what} is one line, without control characters"))
        }
        _ => Ok(()),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    units::parse_age(text)
        .ok_or_else(|| format!("`{text}` is not a duration: write `30s`, `1h` or `2d`"))
}

/// One order in the JSON of `/api/v1/orders`.
#[derive(Clone, Debug, Serialize)]
pub struct OrderJson {
    id: u64,
    order: &'static str,
    of: String,
    pool: Option<String>,
    weight: Option<u32>,
    over_ms: Option<f64>,
    deadline_ms: Option<f64>,
    /// The remaining share, from 0 to 1.
    share_left: Option<f64>,
    /// When long-running requests are ended.
    ends_lasting_at: Option<String>,
    since: String,
    for_ms: f64,
    until: Option<String>,
    over_in_ms: Option<f64>,
    source: &'static str,
    by: Option<String>,
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
            by: order.author.as_deref().map(str::to_owned),
            note: order.note.as_deref().map(str::to_owned),
        }
    }
}

/// Result of an order request.
#[derive(Debug, Serialize)]
pub struct GrantedJson {
    /// The order that was given.
    pub order: Option<OrderJson>,
    /// Orders that were lifted.
    pub lifted: Vec<OrderJson>,
    /// Other orders that still drain a part of it.
    pub still_drained_by: Vec<OrderJson>,
    /// Whether the order survives a restart; null without a `state_dir`.
    pub durable: Option<bool>,
}

impl GrantedJson {
    /// `durable`: whether the order is on the disk.
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

/// The result of an order request as text.
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

/// One order as a line of text.
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
    let _ = write!(line, ", by {}", order.author.as_deref().unwrap_or(order.source.as_str()));
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
        let command = slow.to_command(now).expect("valid");
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
            heavy.to_command(now).expect("valid").action,
            OperatorAction::Issue(OrderAction::Weight(7))
        );
        assert_eq!(
            order_request("restore", "us-south").to_command(now).expect("valid").action,
            OperatorAction::Restore
        );
        let refused = |request: &OrderRequestBody| request.to_command(now).expect_err("invalid");
        assert!(refused(&order_request("drain", "us-south")).contains("evacuate us-south"));
        assert!(refused(&order_request("evacuate", "10.0.0.1:80")).contains("drain 10.0.0.1:80"));
        assert!(refused(&order_request("dance", "us-south")).contains("not an order"));
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
        let late = OrderRequestBody { length: Some("20s".to_owned()), ..slow };
        assert!(refused(&late).contains("`over` (30s) is longer than `for` (20s)"));
        let by = |name: &str| OrderRequestBody {
            by: Some(name.to_owned()),
            ..order_request("evacuate", "us-south")
        };
        assert_eq!(by("alice").to_command(now).expect("valid").author.as_deref(), Some("alice"));
        assert!(refused(&by("alice\nroot")).contains("one line"));
        assert!(refused(&by(&"a".repeat(65))).contains("64 bytes"));
    }
}
