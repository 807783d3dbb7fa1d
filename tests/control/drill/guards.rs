//! Who may begin a drill, and what is said of one.

use super::{World, number};
use crate::support::client::{Answer, Client};

const ASKED: &str = r#"{"lose":"here/a","fault":"refused","share":"10%","for":"30s"}"#;

fn write(world: &World, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let admin = world.gapless.admin;
    let mut client = Client::open(admin);
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: {length}\r\n");
    client.send(format!("{head}{fields}\r\n{body}")).expect("sent");
    client.answer(method).expect("an answer")
}

#[test]
fn only_who_means_it_may_begin_one() {
    let world = World::new();
    let root = "/api/v1/drills";
    let kind = "content-type: application/json\r\n";
    let post = |fields: &str, body: &str| write(&world, "POST", root, fields, body).status;
    assert_eq!(post("", ASKED), 415, "a page's form");
    assert_eq!(post(&format!("{kind}origin: http://evil.example\r\n"), ASKED), 403);
    assert_eq!(post(kind, "{"), 400);
    assert_eq!(post(kind, &ASKED.replace("refused", "boom")), 400);
    assert_eq!(post(kind, &ASKED.replace("here/a", "here/z")), 400);
    assert_eq!(post(kind, &ASKED.replace("30s", "30h")), 400);
    assert_eq!(post(kind, &"x".repeat(20_000)), 400);
    assert_eq!(write(&world, "PUT", root, kind, ASKED).status, 405);
    assert_eq!(write(&world, "POST", "/api/v1/pools", kind, ASKED).status, 405);
    assert_eq!(world.gapless.api(root)["drills"].as_array().map(Vec::len), Some(0));
    let begun = write(&world, "POST", root, kind, ASKED);
    assert_eq!((begun.status, begun.field("location")), (201, Some("/api/v1/drills/1")));
    assert_eq!(post(kind, ASKED), 409, "one at a time");
    assert_eq!(write(&world, "DELETE", "/api/v1/drills/7", "", "").status, 404);
    assert_eq!(write(&world, "DELETE", "/api/v1/drills/1", "", "").status, 200);
    let drill = world.reaches("over");
    assert_eq!(drill["outcome"], "INTERRUPTED");
    assert_eq!(write(&world, "DELETE", "/api/v1/drills/1", "", "").status, 404, "it is over");
}

#[test]
fn the_report_is_text_json_and_a_page() {
    let world = World::new();
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("drill.html");
    let name = file.to_str().expect("text");
    let output = world.drill(&[
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
    let answer = world.gapless.ask("/api/v1/drills/1.html");
    assert_eq!(answer.status, 200);
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let json = world.drill(&["report", "--format", "json"]);
    let drill: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(drill["outcome"], "SUCCEEDED", "{drill:#}");
    assert!(number(&drill["measured"]["detection_ms"]) > 0.0);
    let list = world.drill(&["list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("SUCCEEDED"));
    let status = world.drill(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("no drill is under way"));
    assert!(!world.drill(&["start", "--lose", "nowhere", "--fault", "refused"]).status.success());
}
