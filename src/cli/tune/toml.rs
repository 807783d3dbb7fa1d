//! What is found as the file wants it.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::{Spacing, SpanPrinter};

use crate::logic::model::topology::DetectionSpec;

/// The table of one pool, to be pasted instead of its `detect`.
pub(super) fn detect_table(pool: &str, detect: &DetectionSpec) -> String {
    let DetectionSpec {
        interval,
        timeout,
        fast_interval,
        down_interval,
        down_after,
        up_after,
        target,
    } = *detect;
    let mut text = format!("[pool.{}.detect]\n", bare_or_quoted_key(pool));
    let mut write_key = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
    let quoted = |duration| format!("\"{}\"", format_duration(duration));
    write_key("interval", quoted(interval));
    write_key("timeout", quoted(timeout));
    write_key("fast_interval", quoted(fast_interval));
    write_key("down_interval", quoted(down_interval));
    write_key("down_after", down_after.to_string());
    write_key("up_after", up_after.to_string());
    if let Some(target) = target {
        write_key("target", quoted(target));
    }
    text
}

/// A name as a key: bare where it may be.
fn bare_or_quoted_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.chars().all(is_bare) { name.to_owned() } else { format!("\"{name}\"") }
}

/// A duration as the file has it.
pub(super) fn format_duration(duration: Duration) -> String {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    SpanPrinter::new().spacing(Spacing::None).duration_to_string(&signed)
}
