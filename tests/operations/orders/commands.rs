//! Refused orders and reports of orders.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{
    TwoZoneFixture, active_orders, lossy_text, run_gapless, run_order, run_refused_order,
    wait_for_standing,
};
use crate::support::client;
use crate::support::instance::{BINARY, Gapless};
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, eventually};

const EXIT_FAILED: i32 = 1;
const EXIT_USAGE: i32 = 2;

#[test]
fn order_leaving_too_little_capacity_needs_force() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    let reason = run_refused_order(&gapless, &["evacuate", "here"], EXIT_FAILED);
    assert!(reason.contains("all of its 4 endpoints") && reason.contains("--force"), "{reason}");
    assert!(active_orders(&gapless).is_empty());
    run_order(&gapless, &["evacuate", "here/b"]);
    let reason = run_refused_order(&gapless, &["evacuate", "here/a"], EXIT_FAILED);
    assert!(reason.contains("pool web: nothing would be left"), "{reason}");
    let reason = run_refused_order(&gapless, &["drain", &fixture.near_address(0)], EXIT_FAILED);
    assert!(
        reason.contains("1 of 4") && reason.contains("here/b is drained (order 1)"),
        "{reason}"
    );
    assert_eq!(gapless.get("/").status, 200);
    run_order(&gapless, &["evacuate", "here/a", "--force"]);
    let is_all_drained = || gapless.get("/").status_and_reason() == (503, Some("drained"));
    eventually("no endpoint is left", DEFAULT_TIMEOUT, is_all_drained);
    assert_eq!(gapless.admin_get("/readyz").status, 503);
    run_order(&gapless, &["restore", "here/b"]);
    eventually("an endpoint serves again", DEFAULT_TIMEOUT, || gapless.get("/").status == 200);
}

/// Both ask the same question: an order and the question what it would do.
#[test]
fn evacuate_and_whatif_give_the_same_verdict() {
    let fixture = TwoZoneFixture::new();
    let with_capacity =
        |rate: u32| fixture.config().pool(&format!("capacity = {{ rate = {rate} }}"));
    let small = Gapless::start_ready(&with_capacity(20));
    let load = SteadyLoad::start(small.address, 4, Duration::from_millis(2));
    let whatif = || run_gapless(&small, &["whatif", "--lose", "here/a"]);
    eventually("the load is measured", DEFAULT_TIMEOUT, || {
        lossy_text(&whatif().stdout).contains("requests/s and can take 40")
    });
    assert_eq!(whatif().status.code(), Some(EXIT_FAILED));
    let reason = run_refused_order(&small, &["evacuate", "here/a"], EXIT_FAILED);
    assert!(reason.contains("pool web: here/b would get"), "{reason}");
    assert!(
        reason.contains("requests/s and can take 40") && reason.contains("--force"),
        "{reason}"
    );
    load.stop();

    let large = Gapless::start_ready(&with_capacity(100_000));
    let both = [fixture.near_address(0), fixture.near_address(1), "here/b".to_owned()];
    let whatif = run_gapless(&large, &["whatif", "--lose", &both[0], "--lose", &both[2]]);
    assert!(whatif.status.success(), "one of four carries no load: {whatif:?}");
    run_order(&large, &["evacuate", "here/b"]);
    run_order(&large, &["drain", &both[0]]);
    let whatif = run_gapless(&large, &["whatif", "--lose", &both[1], "--format", "json"]);
    assert_eq!(whatif.status.code(), Some(EXIT_FAILED));
    let whatif: Value = serde_json::from_slice(&whatif.stdout).expect("JSON");
    let problem = whatif["pools"][0]["problems"][0].as_str().expect("a problem");
    let reason = run_refused_order(&large, &["drain", &both[1]], EXIT_FAILED);
    assert!(reason.contains(problem) && problem.contains("nothing would be left"), "{reason}");
}

#[test]
fn invalid_order_commands_are_usage_errors() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    for arguments in [
        &["drain", "here/a"][..],
        &["evacuate", "10.0.0.1:80"],
        &["weight", "10.0.0.1:80", "0"],
        &["evacuate", "here/a", "--over", "soon"],
        &["restore", "a b"],
        &["evacuate", "here/a", "--over", "30s", "--for", "20s"],
        &["restore", "here/a", "--by", "two\nlines"],
    ] {
        run_refused_order(&gapless, arguments, EXIT_USAGE);
    }
    let reason = run_refused_order(&gapless, &["evacuate", "here/c"], EXIT_FAILED);
    assert!(reason.contains("here/a, here/b"), "{reason}");
    run_refused_order(&gapless, &["drain", "127.0.0.1:1", "--pool", "api"], EXIT_FAILED);
    let output = run_order(&gapless, &["restore", "here/a"]);
    assert!(output.contains("nothing to restore"), "{output}");
}

#[test]
fn repeated_order_keeps_its_note_and_names_its_author() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    let evacuate = ["evacuate", "here/a", "--by"];
    run_order(&gapless, &[&evacuate[..], &["alice", "--note", "racks"]].concat());
    let output = run_order(&gapless, &[&evacuate[..], &["bob", "--over", "1s"]].concat());
    assert!(output.contains("by bob: racks"), "{output}");
    let order = active_orders(&gapless).remove(0);
    assert_eq!((&order["by"], &order["note"]), (&"bob".into(), &"racks".into()));
    assert_eq!(order["source"], "api");
    let mut command = Command::new(BINARY);
    command.args(["drain", &fixture.near_address(0), "--admin", &gapless.admin.to_string()]);
    let output = command.env_remove("SUDO_USER").env("USER", "carol").output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("by carol"), "{output:?}");
}

#[test]
fn status_and_metrics_report_orders() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    assert!(run_order(&gapless, &["status"]).contains("no orders"));
    let arguments = ["evacuate", "here/a", "--for", "1h", "--note", "racks", "--format", "json"];
    let given: Value = serde_json::from_str(&run_order(&gapless, &arguments)).expect("JSON");
    let id = given["order"]["id"].as_u64().expect("a number");
    assert_eq!((&given["order"]["order"], &given["durable"]), (&"drain".into(), &Value::Null));
    wait_for_standing(&gapless, &fixture.near[0], "drained");
    let page = run_order(&gapless, &["status"]);
    for words in ["pool web: ok; 2 of 4 serve, 2 drained", "drain here/a", "racks", "until"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let arguments = ["status", "--format", "json"];
    let status: Value = serde_json::from_str(&run_order(&gapless, &arguments)).expect("JSON");
    let zones = &status["pools"][0]["zones"];
    assert_eq!((&zones[0]["state"], &zones[1]["state"]), (&"drained".into(), &"up".into()));
    assert_eq!((zones[0]["share"].as_f64(), zones[1]["share"].as_f64()), (Some(0.0), Some(1.0)));
    assert_eq!(status["orders"][0]["source"], "api");
    assert_eq!(gapless.metric("gapless_orders{act=\"drain\",source=\"api\"}"), 1.0);
    assert_eq!(gapless.metric("gapless_pool_drained{pool=\"web\"}"), 2.0);
    let drained_metric = |endpoint: &str, zone: &str| {
        format!(
            "gapless_endpoint_drained{{pool=\"web\",zone=\"here/{zone}\",endpoint=\"{endpoint}\"}}"
        )
    };
    assert_eq!(gapless.metric(&drained_metric(&fixture.near_address(0), "a")), 1.0);
    assert_eq!(gapless.metric(&drained_metric(&fixture.far[0].address().to_string(), "b")), 0.0);
    assert!(gapless.log().contains("order given: drain here/a"));
    // Restored by its number.
    let answer = client::request(gapless.admin, "DELETE", &format!("/api/v1/orders/{id}"), b"");
    assert_eq!(answer.status, 403, "not by a name");
    let host = gapless.admin.to_string();
    let delete = |path: &str| {
        let bytes = format!("DELETE {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client::send_raw(gapless.admin, bytes)
    };
    assert_eq!(delete(&format!("/api/v1/orders/{id}")).status, 200);
    assert_eq!(delete(&format!("/api/v1/orders/{id}")).status, 404);
    assert!(active_orders(&gapless).is_empty());
}

#[test]
fn cross_origin_pages_cannot_give_orders() {
    let fixture = TwoZoneFixture::new();
    let gapless = Gapless::start_ready(&fixture.config());
    let host = gapless.admin.to_string();
    let post = |more: &str| {
        let body = r#"{"order":"evacuate","of":"here/a"}"#;
        let length = body.len();
        let head = "POST /api/v1/orders HTTP/1.1";
        let bytes =
            format!("{head}\r\nhost: {host}\r\n{more}content-length: {length}\r\n\r\n{body}");
        client::send_raw(gapless.admin, bytes)
    };
    let json = "content-type: application/json\r\n";
    assert_eq!(post("").status, 415);
    assert_eq!(post(&format!("{json}origin: http://evil.example\r\n")).status, 403);
    assert!(active_orders(&gapless).is_empty());
    let answer = post(json);
    assert_eq!((answer.status, answer.field("location")), (201, Some("/api/v1/orders/1")));
}

#[test]
fn config_file_orders_apply_and_can_be_restored() {
    let fixture = TwoZoneFixture::new();
    let plain = fixture.config().text();
    let zone = "[[pool.web.zone]]\nname = \"here/a\"\n";
    let drained = plain.replace(zone, &format!("{zone}drain = true\n"));
    let gapless = Gapless::start_ready(&fixture.config());
    let load_config = |text: &str| {
        let generation = gapless.generation();
        gapless.write_config(text);
        eventually("the file is read", DEFAULT_TIMEOUT, || gapless.generation() > generation);
    };
    load_config(&drained);
    wait_for_standing(&gapless, &fixture.near[0], "drained");
    assert_eq!(active_orders(&gapless)[0]["source"], "file");
    let output = run_order(&gapless, &["restore", "here/a"]);
    assert!(output.contains("given") && output.contains("restore here/a"), "{output}");
    wait_for_standing(&gapless, &fixture.near[0], "clear");
    load_config(&format!("{drained}\n# nothing new\n"));
    assert_eq!(gapless.endpoint(fixture.near[0].address())["standing"], "clear");
    load_config(&plain);
    load_config(&format!("evacuate = [\"here/b\"]\n{plain}"));
    wait_for_standing(&gapless, &fixture.far[0], "drained");
    let endpoint = format!("\"{}\"", fixture.near_address(1));
    let table = format!("{{ address = {endpoint}, drain = true }}");
    load_config(&plain.replace(&endpoint, &table));
    wait_for_standing(&gapless, &fixture.near[1], "drained");
    wait_for_standing(&gapless, &fixture.far[0], "clear");
}
