//! What is changed on the way to an endpoint and back.

use super::World;
use crate::support::endpoint::Mode;

const ROUTES: &str = r#"
[[route]]
path = "/v1/"
rewrite = { prefix = "/v2/", host = "inner.example:81" }
pool = "web"

[[route]]
path_regex = "/users/.*"
rewrite = { regex = "^/users/([0-9]+)/(.*)$", to = "/u/$1/$2" }
pool = "web"
"#;

#[test]
fn paths_and_hosts_are_rewritten() {
    let world = World::new(&[], ROUTES, "");
    assert_eq!(world.forwarded("/v1/a?b=/v1/"), "/v2/a?b=/v1/");
    let head = world.web().seen()[0].head.clone();
    assert_eq!(head.field("host"), Some("inner.example:81"));
    assert_eq!(head.field("x-forwarded-host"), Some("a.example"), "what the client asked for");
    assert_eq!(world.forwarded("/users/7/x"), "/u/7/x");
    assert_eq!(world.forwarded("/users/x"), "/users/x");
    assert_eq!(world.forwarded("/v1"), "/v1");
    assert_eq!(world.web().seen()[3].head.field("host"), Some("a.example"));
}

#[test]
fn header_fields_are_changed_in_both_directions() {
    let route = r#"
        request_headers = { remove = ["x-gone"], set = { x-env = "live" }, add = { x-more = "2" } }
        response_headers = { remove = ["server"], set = { x-frame = "DENY" }, add = { x-a = "2" } }
        hsts = "max-age=60"
    "#;
    let world = World::new(&[], "", route);
    let answer =
        "HTTP/1.1 200 OK\r\nserver: s\r\nx-frame: ALLOW\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n";
    world.web().set(Mode::Raw(answer.into()));
    let sent = ["x-gone: 1", "x-env: forged", "x-env: twice", "x-more: 1"];
    let answer = world.get("h", "/", &sent);
    let head = &world.web().seen()[0].head;
    assert_eq!(head.field("x-gone"), None);
    assert_eq!(head.all("x-env").collect::<Vec<_>>(), ["live"]);
    assert_eq!(head.all("x-more").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.head.all("x-frame").collect::<Vec<_>>(), ["DENY"]);
    assert_eq!(answer.head.all("x-a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(answer.field("strict-transport-security"), None, "only over TLS");
    // A field that is set cannot be nominated away; the others that are nominated go.
    world.get("h", "/", &["connection: x-env, x-other, keep-alive", "x-other: 1"]);
    let head = &world.web().seen()[1].head;
    assert_eq!((head.field("x-env"), head.field("x-other")), (Some("live"), None));
    // Errors of the proxy's own are the route's answers too.
    world.web().set(Mode::Close);
    let error = world.get("h", "/", &[]);
    assert_eq!((error.status, error.field("x-frame")), (502, Some("DENY")));
}
