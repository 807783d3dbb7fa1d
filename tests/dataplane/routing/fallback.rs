//! What is left when a pool has nothing left to try.

use tempfile::TempDir;

use super::{Client, World, pools};
use crate::support::client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;

const TO_SPARE: &str = "fallback = { pool = \"spare\" }";

#[test]
fn another_pool_answers_what_may_be_sent_again() {
    let world = World::new(&["spare"], "", TO_SPARE);
    world.web().set(Mode::Close);
    let mut client = Client::open(world.gapless.address);
    let rescued = client.exchange("PUT", "/", &[("x-id", "put")], b"body").expect("an answer");
    assert_eq!((rescued.status, rescued.text()), (200, "spare".to_owned()));
    assert_eq!(world.other().seen()[0].body, b"body", "its body goes too");
    // What may have been executed is never executed twice.
    let post = client.exchange("POST", "/", &[("x-id", "post")], b"body").expect("an answer");
    assert_eq!(post.verdict(), (502, Some("reset")));
    assert_eq!((world.web().count("post"), world.other().count("post")), (1, 0));
    // What reached nobody may go on.
    world.web().die();
    let post = client.exchange("POST", "/", &[("x-id", "unsent")], b"body").expect("an answer");
    assert_eq!((post.status, post.text()), (200, "spare".to_owned()));
    assert_eq!(world.other().count("unsent"), 1);
    assert_eq!(world.gapless.metric("gapless_fallbacks_total{pool=\"web\"}"), 2.0);
}

#[test]
fn an_answer_of_the_pool_is_an_answer_and_a_fallback_has_none_of_its_own() {
    let world = World::new(&["spare"], "", TO_SPARE);
    world.web().set(Mode::Status(503));
    assert_eq!(world.gapless.get("/").verdict(), (503, None), "the endpoint says so itself");
    assert!(world.other().seen().is_empty());
    world.web().set(Mode::Close);
    world.other().set(Mode::Close);
    assert_eq!(world.gapless.get("/").verdict(), (502, Some("reset")));
    assert_eq!(world.other().seen().len(), 1, "tried once");
}

#[test]
fn a_fixed_answer_says_what_went_wrong() {
    let sorry = "fallback = { respond = { body = \"sorry\", content_type = \"text/x-sorry\" } }";
    let world = World::new(&[], "", sorry);
    world.web().set(Mode::Close);
    let answer = world.gapless.get("/");
    assert_eq!(answer.verdict(), (502, Some("reset")), "the status is that of the error");
    assert_eq!(
        (answer.text().as_str(), answer.field("content-type")),
        ("sorry", Some("text/x-sorry"))
    );
    let post = client::request(world.gapless.address, "POST", "/", b"body");
    assert_eq!((post.status, post.text()), (502, "sorry".to_owned()));
    let other = World::new(&[], "", "fallback = { respond = { status = 200, body = \"[]\" } }");
    other.web().set(Mode::Close);
    assert_eq!(other.gapless.get("/").verdict(), (200, Some("reset")));
}

#[test]
fn a_clients_fault_is_no_reason_to_fall_back() {
    let route = "fallback = { respond = { body = \"sorry\" } }\nlimits = { body = \"1KiB\" }";
    let world = World::new(&[], "", route);
    let answer = client::request(world.gapless.address, "POST", "/", &[b'x'; 2_000]);
    assert_eq!(answer.verdict(), (413, Some("body_too_large")));
}

#[test]
fn a_page_is_read_with_the_configuration() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("sorry.html"), "<h1>sorry</h1>").expect("written");
    let web = Endpoint::start("web");
    let spare = [Endpoint::start("spare")];
    let config = Config::new()
        .tables(&pools(&spare, &["spare"]))
        .tables("[[route]]\npath = \"/spare\"\npool = \"spare\"")
        .route("fallback = { file = \"sorry.html\" }")
        .zone("here/a", &[web.address()]);
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    let page = directory.path().join("sorry.html");
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    std::fs::remove_file(page).expect("removed");
    web.set(Mode::Close);
    let answer = gapless.get("/");
    assert_eq!(answer.verdict(), (502, Some("reset")));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.text(), "<h1>sorry</h1>");
}
