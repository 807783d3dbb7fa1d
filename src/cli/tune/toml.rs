//! The tuned window as a table of the configuration file.

use crate::config::units::format_duration;
use crate::logic::model::topology::DetectionSpec;

/// The `detect` table of one pool, to replace the one in the file.
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

/// A name as a TOML key, quoted only where needed.
fn bare_or_quoted_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.chars().all(is_bare) { name.to_owned() } else { format!("\"{name}\"") }
}
