//! Fallbacks after all attempts.

use tempfile::TempDir;

use super::{RoutingFixture, TestClient, single_endpoint_pools};
use crate::support::client;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;

const FALLBACK_TO_SPARE: &str = "fallback = { pool = \"spare\" }";

#[test]
fn fallback_pool_serves_retryable_requests() {
    let fixture = RoutingFixture::new(&["spare"], "", FALLBACK_TO_SPARE);
    fixture.web().set_mode(ResponseMode::Close);
    let mut client = TestClient::open(fixture.gapless.address);
    let rescued = client.exchange("PUT", "/", &[("x-id", "put")], b"body").expect("an answer");
    assert_eq!((rescued.status, rescued.text()), (200, "spare".to_owned()));
    assert_eq!(fixture.other().requests()[0].body, b"body", "its body goes too");
    // A request that may have been executed is not sent again.
    let post = client.exchange("POST", "/", &[("x-id", "post")], b"body").expect("an answer");
    assert_eq!(post.status_and_reason(), (502, Some("reset")));
    assert_eq!(
        (fixture.web().count_with_id("post"), fixture.other().count_with_id("post")),
        (1, 0)
    );
    // A request that reached no endpoint may be sent again.
    fixture.web().kill();
    let post = client.exchange("POST", "/", &[("x-id", "unsent")], b"body").expect("an answer");
    assert_eq!((post.status, post.text()), (200, "spare".to_owned()));
    assert_eq!(fixture.other().count_with_id("unsent"), 1);
    assert_eq!(fixture.gapless.metric("gapless_fallbacks_total{pool=\"web\"}"), 2.0);
}

#[test]
fn pool_error_response_does_not_trigger_fallback() {
    let fixture = RoutingFixture::new(&["spare"], "", FALLBACK_TO_SPARE);
    fixture.web().set_mode(ResponseMode::Status(503));
    assert_eq!(
        fixture.gapless.get("/").status_and_reason(),
        (503, None),
        "the endpoint says so itself"
    );
    assert!(fixture.other().requests().is_empty());
    fixture.web().set_mode(ResponseMode::Close);
    fixture.other().set_mode(ResponseMode::Close);
    assert_eq!(fixture.gapless.get("/").status_and_reason(), (502, Some("reset")));
    assert_eq!(fixture.other().requests().len(), 1, "tried once");
}

#[test]
fn fixed_fallback_response_keeps_the_error_status() {
    let sorry = "fallback = { respond = { body = \"sorry\", content_type = \"text/x-sorry\" } }";
    let fixture = RoutingFixture::new(&[], "", sorry);
    fixture.web().set_mode(ResponseMode::Close);
    let answer = fixture.gapless.get("/");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")), "the status is that of the error");
    assert_eq!(
        (answer.text().as_str(), answer.field("content-type")),
        ("sorry", Some("text/x-sorry"))
    );
    let post = client::request(fixture.gapless.address, "POST", "/", b"body");
    assert_eq!((post.status, post.text()), (502, "sorry".to_owned()));
    let fixed_status =
        RoutingFixture::new(&[], "", "fallback = { respond = { status = 200, body = \"[]\" } }");
    fixed_status.web().set_mode(ResponseMode::Close);
    assert_eq!(fixed_status.gapless.get("/").status_and_reason(), (200, Some("reset")));
}

#[test]
fn client_error_does_not_trigger_fallback() {
    let route = "fallback = { respond = { body = \"sorry\" } }\nlimits = { body = \"1KiB\" }";
    let fixture = RoutingFixture::new(&[], "", route);
    let answer = client::request(fixture.gapless.address, "POST", "/", &[b'x'; 2_000]);
    assert_eq!(answer.status_and_reason(), (413, Some("body_too_large")));
}

#[test]
fn fallback_file_is_read_with_the_configuration() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("sorry.html"), "<h1>sorry</h1>").expect("written");
    let web = TestEndpoint::start("web");
    let spare = [TestEndpoint::start("spare")];
    let config = ConfigBuilder::new()
        .tables(&single_endpoint_pools(&spare, &["spare"]))
        .tables("[[route]]\npath = \"/spare\"\npool = \"spare\"")
        .route("fallback = { file = \"sorry.html\" }")
        .zone("here/a", &[web.address()]);
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    let page = directory.path().join("sorry.html");
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    std::fs::remove_file(page).expect("removed");
    web.set_mode(ResponseMode::Close);
    let answer = gapless.get("/");
    assert_eq!(answer.status_and_reason(), (502, Some("reset")));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.text(), "<h1>sorry</h1>");
}
