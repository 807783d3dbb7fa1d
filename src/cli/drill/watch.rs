//! Progress of a running drill.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use super::{DRILLS_PATH, OutputFormat, parse_json};
use crate::cli::admin_client::AdminClient;

const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Shows progress until the drill ends; returns whether it succeeded, or `None` if the instance
/// does not answer.
pub(super) fn watch_drill(
    admin: &AdminClient,
    id: u64,
    format: OutputFormat,
    out: &mut impl Write,
) -> io::Result<Option<bool>> {
    let mut last_shown = None;
    loop {
        let Some(answer) = admin.success_or_report(admin.get(&format!("{DRILLS_PATH}/{id}")))
        else {
            return Ok(None);
        };
        let drill = parse_json(&answer);
        if let Some(outcome) = drill["outcome"].as_str() {
            return Ok(Some(outcome == "SUCCEEDED"));
        }
        // One line per second, and one for each change of stage or verdict.
        let remaining_s = drill["left_ms"].as_f64().unwrap_or_default() as u64 / 1_000;
        let progress_key =
            (drill["stage"].clone(), drill["measured"]["detection_ms"].is_null(), remaining_s);
        if format != OutputFormat::Json && last_shown.as_ref() != Some(&progress_key) {
            writeln!(out, "{}", progress_line(&drill))?;
            out.flush()?;
            last_shown = Some(progress_key);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn progress_line(drill: &Value) -> String {
    let stage = drill["stage"].as_str().unwrap_or_default();
    let remaining_s = drill["left_ms"].as_f64().unwrap_or_default() / 1e3;
    let (zone, requests) = (drill["zone"].as_str().unwrap_or_default(), &drill["requests"]);
    let count = |name: &str| requests[name].as_u64().unwrap_or_default();
    match stage {
        "looking" => format!("measuring the load before the drill in {zone}"),
        "warming" => "the drill selects its requests; nothing fails yet".to_owned(),
        "judging" => "over; waiting for the prediction".to_owned(),
        _ => {
            let verdict = drill["measured"]["detection_ms"].as_f64();
            let verdict = verdict.map_or_else(
                || "no verdict yet".to_owned(),
                |took| format!("verdict after {took:.0} ms"),
            );
            format!(
                "{remaining_s:5.1} s left: {} taken, {} failed, {} rescued, {verdict}",
                count("taken"),
                count("failed"),
                count("rescued")
            )
        }
    }
}
