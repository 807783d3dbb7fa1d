//! What is told of requests.

use std::path::PathBuf;

use gapless::config;
use gapless::config::model::{AccessLog, LogLines, LogTarget};

use super::{found, line, with};

#[track_caller]
fn log(keys: &str, expected: &str) {
    line("[[listen]]", &format!("[access_log]\nto = \"stdout\"\n{keys}"), expected);
}

fn log_of(table: &str) -> AccessLog {
    let text = with("[[listen]]", &format!("{table}\n[[listen]]"));
    config::parse("dir/test.toml", &text).unwrap().config.access_log
}

#[test]
fn the_access_log() {
    assert_eq!(log_of(""), AccessLog::default());
    assert!(!AccessLog::default().is_on());
    let to = |text: &str| log_of(&format!("[access_log]\nto = \"{text}\"")).to;
    assert_eq!(to("off"), LogTarget::Off);
    assert_eq!(to("stdout"), LogTarget::Stdout);
    assert_eq!(to("/var/log/a.log"), LogTarget::File(PathBuf::from("/var/log/a.log")));
    assert_eq!(to("./a.log"), LogTarget::File(PathBuf::from("dir/./a.log")));
    let all = "[access_log]\nto = \"stdout\"\nformat = \"combined\"\nredact_query = false";
    let (lines, redact_query) = (log_of(all).lines, log_of(all).redact_query);
    assert_eq!((lines, redact_query), (LogLines::Combined, false));
    for bad in ["stdoud", "", "logs/", "a.log"] {
        let text = format!("[access_log]\nto = \"{bad}\"");
        line("[[listen]]", &text, &format!("3:6 `{bad}` is no place for the access log | write"));
    }
    line("[[listen]]", "[access_log]", "nothing is logged without `to` | add `to = ");
    log("format = \"jsn\"", "4:10 `jsn` is no format of the access log | did you mean \"json\"?");
    log("format = \"x\"", "| write \"json\" or \"combined\"");
}

#[test]
fn credentials_are_never_logged() {
    for name in ["authorization", "Cookie", "SET-COOKIE", "proxy-authorization"] {
        let expected = format!("`{}` carries credentials", name.to_lowercase());
        log(&format!("headers = [\"{name}\"]"), &expected);
    }
    log("headers = [\"a b\"]", "4:12 `a b` cannot name a header");
    log("headers = [\"x-a\", \"X-A\"]", "4:19 `x-a` is given twice");
    let headers = "format = \"combined\"\nheaders = [\"x-a\"]";
    log(headers, "lines in the combined format have no other fields");
    let many: Vec<String> = (0..40).map(|n| format!("\"x-{n}\"")).collect();
    log(&format!("headers = [{}]", many.join(", ")), "there are more than 32 fields");
    let good = "[access_log]\nto = \"stdout\"\nheaders = [\"X-Tenant\", \"referer\"]\n[[listen]]";
    assert_eq!(found(&with("[[listen]]", good)), [""; 0]);
}
