//! Drills over the admin API: permissions and reports.

use super::{DrillFixture, number};
use crate::support::client::{TestClient, TestResponse};

const DRILL_REQUEST: &str = r#"{"lose":"here/a","fault":"refused","share":"10%","for":"30s"}"#;

fn send_write(
    fixture: &DrillFixture,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> TestResponse {
    let admin = fixture.gapless.admin;
    let mut client = TestClient::open(admin);
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: {length}\r\n");
    client.send(format!("{head}{fields}\r\n{body}")).expect("sent");
    client.read_response(method).expect("an answer")
}

#[test]
fn drill_api_rejects_invalid_and_cross_origin_writes() {
    let fixture = DrillFixture::new();
    let root = "/api/v1/drills";
    let content_type = "content-type: application/json\r\n";
    let post = |fields: &str, body: &str| send_write(&fixture, "POST", root, fields, body).status;
    assert_eq!(post("", DRILL_REQUEST), 415, "a page's form");
    assert_eq!(post(&format!("{content_type}origin: http://evil.example\r\n"), DRILL_REQUEST), 403);
    assert_eq!(post(content_type, "{"), 400);
    assert_eq!(post(content_type, &DRILL_REQUEST.replace("refused", "boom")), 400);
    assert_eq!(post(content_type, &DRILL_REQUEST.replace("here/a", "here/z")), 400);
    assert_eq!(post(content_type, &DRILL_REQUEST.replace("30s", "30h")), 400);
    assert_eq!(post(content_type, &"x".repeat(20_000)), 400);
    assert_eq!(send_write(&fixture, "PUT", root, content_type, DRILL_REQUEST).status, 405);
    assert_eq!(
        send_write(&fixture, "POST", "/api/v1/pools", content_type, DRILL_REQUEST).status,
        405
    );
    assert_eq!(fixture.gapless.api_json(root)["drills"].as_array().map(Vec::len), Some(0));
    let created = send_write(&fixture, "POST", root, content_type, DRILL_REQUEST);
    assert_eq!((created.status, created.field("location")), (201, Some("/api/v1/drills/1")));
    assert_eq!(post(content_type, DRILL_REQUEST), 409, "one at a time");
    assert_eq!(send_write(&fixture, "DELETE", "/api/v1/drills/7", "", "").status, 404);
    assert_eq!(send_write(&fixture, "DELETE", "/api/v1/drills/1", "", "").status, 200);
    let drill = fixture.wait_for_stage("over");
    assert_eq!(drill["outcome"], "INTERRUPTED");
    assert_eq!(
        send_write(&fixture, "DELETE", "/api/v1/drills/1", "", "").status,
        404,
        "it is over"
    );
}

#[test]
fn drill_report_is_available_as_text_json_and_html() {
    let fixture = DrillFixture::new();
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("drill.html");
    let name = file.to_str().expect("text");
    let output = fixture.run_drill(&[
        "start", "--lose", "here/a", "--fault", "refused", "--share", "50%", "--for", "2s",
        "--html", name,
    ]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}");
    for words in [
        "Drill 1: refused in here/a — SUCCEEDED",
        "predicted",
        "measured",
        "could have been sent again",
        "left: ",
    ] {
        assert!(text.contains(words), "{words} not in\n{text}");
    }
    let page = std::fs::read_to_string(&file).expect("written");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
    assert!(page.contains("prefers-color-scheme:dark") && !page.contains("<script"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
    let answer = fixture.gapless.admin_get("/api/v1/drills/1.html");
    assert_eq!(answer.status, 200);
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let json = fixture.run_drill(&["report", "--format", "json"]);
    let drill: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(drill["outcome"], "SUCCEEDED", "{drill:#}");
    assert!(number(&drill["measured"]["detection_ms"]) > 0.0);
    let list = fixture.run_drill(&["list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("SUCCEEDED"));
    let status = fixture.run_drill(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("no drill is under way"));
    assert!(
        !fixture.run_drill(&["start", "--lose", "nowhere", "--fault", "refused"]).status.success()
    );
}
