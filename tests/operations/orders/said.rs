//! What is refused, and how orders are told of.

use serde_json::Value;

use super::{World, in_force, orders, refused, wait_standing};
use crate::support::client;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[test]
fn too_little_left_is_refused_unless_it_is_forced() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    let why = refused(&gapless, &["evacuate", "here"], FAILED);
    assert!(why.contains("all of its 4 endpoints") && why.contains("--force"), "{why}");
    assert!(in_force(&gapless).is_empty());
    orders(&gapless, &["evacuate", "here/b"]);
    let why = refused(&gapless, &["evacuate", "here/a"], FAILED);
    assert!(why.contains("pool web: nothing would be left"), "{why}");
    let why = refused(&gapless, &["drain", &world.near(0)], FAILED);
    assert!(why.contains("1 of 4") && why.contains("here/b is drained (order 1)"), "{why}");
    assert_eq!(gapless.get("/").status, 200);
    orders(&gapless, &["evacuate", "here/a", "--force"]);
    let nobody = || gapless.get("/").verdict() == (503, Some("drained"));
    eventually("nobody is left", SOON, nobody);
    assert_eq!(gapless.ask("/readyz").status, 503);
    orders(&gapless, &["restore", "here/b"]);
    eventually("somebody is", SOON, || gapless.get("/").status == 200);
}

#[test]
fn what_makes_no_sense_is_a_mistake_of_the_command_line() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    for arguments in [
        &["drain", "here/a"][..],
        &["evacuate", "10.0.0.1:80"],
        &["weight", "10.0.0.1:80", "0"],
        &["evacuate", "here/a", "--over", "soon"],
        &["restore", "a b"],
    ] {
        refused(&gapless, arguments, USAGE);
    }
    let why = refused(&gapless, &["evacuate", "here/c"], FAILED);
    assert!(why.contains("here/a, here/b"), "{why}");
    refused(&gapless, &["drain", "127.0.0.1:1", "--pool", "api"], FAILED);
    let said = orders(&gapless, &["restore", "here/a"]);
    assert!(said.contains("nothing to restore"), "{said}");
}

#[test]
fn status_and_metrics_tell_of_orders() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    assert!(orders(&gapless, &["status"]).contains("no orders"));
    let arguments = ["evacuate", "here/a", "--for", "1h", "--note", "racks", "--format", "json"];
    let given: Value = serde_json::from_str(&orders(&gapless, &arguments)).expect("JSON");
    let id = given["order"]["id"].as_u64().expect("a number");
    assert_eq!((&given["order"]["order"], &given["durable"]), (&"drain".into(), &Value::Null));
    wait_standing(&gapless, &world.near[0], "drained");
    let page = orders(&gapless, &["status"]);
    for words in ["pool web: ok; 2 of 4 serve, 2 drained", "drain here/a", "racks", "until"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let arguments = ["status", "--format", "json"];
    let status: Value = serde_json::from_str(&orders(&gapless, &arguments)).expect("JSON");
    let zones = &status["pools"][0]["zones"];
    assert_eq!((&zones[0]["state"], &zones[1]["state"]), (&"drained".into(), &"up".into()));
    assert_eq!((zones[0]["share"].as_f64(), zones[1]["share"].as_f64()), (Some(0.0), Some(1.0)));
    assert_eq!(status["orders"][0]["source"], "api");
    assert_eq!(gapless.metric("gapless_orders{act=\"drain\",source=\"api\"}"), 1.0);
    assert_eq!(gapless.metric("gapless_pool_drained{pool=\"web\"}"), 2.0);
    let of = |endpoint: &str, zone: &str| {
        format!(
            "gapless_endpoint_drained{{pool=\"web\",zone=\"here/{zone}\",endpoint=\"{endpoint}\"}}"
        )
    };
    assert_eq!(gapless.metric(&of(&world.near(0), "a")), 1.0);
    assert_eq!(gapless.metric(&of(&world.far[0].address().to_string(), "b")), 0.0);
    assert!(gapless.log().contains("order given: drain here/a"));
    // Taken back by its number.
    let answer = client::request(gapless.admin, "DELETE", &format!("/api/v1/orders/{id}"), b"");
    assert_eq!(answer.status, 403, "not by a name");
    let host = gapless.admin.to_string();
    let delete = |path: &str| {
        let bytes = format!("DELETE {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client::raw(gapless.admin, bytes)
    };
    assert_eq!(delete(&format!("/api/v1/orders/{id}")).status, 200);
    assert_eq!(delete(&format!("/api/v1/orders/{id}")).status, 404);
    assert!(in_force(&gapless).is_empty());
}

#[test]
fn pages_of_others_cannot_order() {
    let world = World::new();
    let gapless = Gapless::start_ready(&world.config());
    let host = gapless.admin.to_string();
    let post = |more: &str| {
        let body = r#"{"order":"evacuate","of":"here/a"}"#;
        let length = body.len();
        let head = "POST /api/v1/orders HTTP/1.1";
        let bytes =
            format!("{head}\r\nhost: {host}\r\n{more}content-length: {length}\r\n\r\n{body}");
        client::raw(gapless.admin, bytes)
    };
    let json = "content-type: application/json\r\n";
    assert_eq!(post("").status, 415);
    assert_eq!(post(&format!("{json}origin: http://evil.example\r\n")).status, 403);
    assert!(in_force(&gapless).is_empty());
    let answer = post(json);
    assert_eq!((answer.status, answer.field("location")), (201, Some("/api/v1/orders/1")));
}

#[test]
fn the_file_says_it_too() {
    let world = World::new();
    let plain = world.config().text();
    let zone = "[[pool.web.zone]]\nname = \"here/a\"\n";
    let drained = plain.replace(zone, &format!("{zone}drain = true\n"));
    let gapless = Gapless::start_ready(&world.config());
    let loaded = |text: &str| {
        let generation = gapless.generation();
        gapless.write(text);
        eventually("the file is read", SOON, || gapless.generation() > generation);
    };
    loaded(&drained);
    wait_standing(&gapless, &world.near[0], "drained");
    assert_eq!(in_force(&gapless)[0]["source"], "file");
    let said = orders(&gapless, &["restore", "here/a"]);
    assert!(said.contains("given") && said.contains("restore here/a"), "{said}");
    wait_standing(&gapless, &world.near[0], "clear");
    loaded(&format!("{drained}\n# nothing new\n"));
    assert_eq!(gapless.endpoint(world.near[0].address())["standing"], "clear");
    loaded(&plain);
    loaded(&format!("evacuate = [\"here/b\"]\n{plain}"));
    wait_standing(&gapless, &world.far[0], "drained");
    let endpoint = format!("\"{}\"", world.near(1));
    let table = format!("{{ address = {endpoint}, drain = true }}");
    loaded(&plain.replace(&endpoint, &table));
    wait_standing(&gapless, &world.near[1], "drained");
    wait_standing(&gapless, &world.far[0], "clear");
}
