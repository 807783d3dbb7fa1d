//! What is found as the file wants it.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::{Spacing, SpanPrinter};

use crate::logic::topology::Detect;

/// The table of one pool, to be pasted instead of its `detect`.
pub(super) fn table(pool: &str, detect: &Detect) -> String {
    let Detect { interval, timeout, fast_interval, down_interval, down_after, up_after, target } =
        *detect;
    let mut text = format!("[pool.{}.detect]\n", key(pool));
    let mut line = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
    let quoted = |duration| format!("\"{}\"", words(duration));
    line("interval", quoted(interval));
    line("timeout", quoted(timeout));
    line("fast_interval", quoted(fast_interval));
    line("down_interval", quoted(down_interval));
    line("down_after", down_after.to_string());
    line("up_after", up_after.to_string());
    if let Some(target) = target {
        line("target", quoted(target));
    }
    text
}

/// A name as a key: bare where it may be.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.chars().all(is_bare) { name.to_owned() } else { format!("\"{name}\"") }
}

/// A duration as the file has it.
pub(super) fn words(duration: Duration) -> String {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    SpanPrinter::new().spacing(Spacing::None).duration_to_string(&signed)
}
