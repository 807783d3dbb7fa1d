//! A drill while it is under way.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Format, ROOT, value};
use crate::cli::ask;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Shows progress until it is over; whether it succeeded, or `None` if the instance is gone.
pub(super) fn watch(
    admin: SocketAddr,
    id: u64,
    format: Format,
    out: &mut impl Write,
) -> io::Result<Option<bool>> {
    let mut shown = None;
    loop {
        let Some(answer) = ask::heard(admin, ask::get(admin, &format!("{ROOT}/{id}"))) else {
            return Ok(None);
        };
        let drill = value(&answer);
        if let Some(outcome) = drill["outcome"].as_str() {
            return Ok(Some(outcome == "SUCCEEDED"));
        }
        // A line a second, and one for what is new.
        let left_s = drill["left_ms"].as_f64().unwrap_or_default() as u64 / 1_000;
        let new = (drill["stage"].clone(), drill["measured"]["detection_ms"].is_null(), left_s);
        if format != Format::Json && shown.as_ref() != Some(&new) {
            writeln!(out, "{}", progress(&drill))?;
            out.flush()?;
            shown = Some(new);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn progress(drill: &Value) -> String {
    let stage = drill["stage"].as_str().unwrap_or_default();
    let left_s = drill["left_ms"].as_f64().unwrap_or_default() / 1e3;
    let (zone, requests) = (drill["zone"].as_str().unwrap_or_default(), &drill["requests"]);
    let count = |name: &str| requests[name].as_u64().unwrap_or_default();
    match stage {
        "looking" => format!("looking at the load before anything happens to {zone}"),
        "warming" => "the drill takes its share; nothing fails yet".to_owned(),
        "judging" => "over; waiting for the prediction".to_owned(),
        _ => {
            let verdict = drill["measured"]["detection_ms"].as_f64();
            let verdict = verdict.map_or_else(
                || "no verdict yet".to_owned(),
                |took| format!("verdict after {took:.0} ms"),
            );
            format!(
                "{left_s:5.1} s left: {} taken, {} failed, {} rescued, {verdict}",
                count("taken"),
                count("failed"),
                count("rescued")
            )
        }
    }
}
