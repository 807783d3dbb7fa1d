//! Rewrites of requests and responses.

use super::RoutingFixture;
use crate::support::endpoint::ResponseMode;

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
fn path_and_host_are_rewritten() {
    let fixture = RoutingFixture::new(&[], ROUTES, "");
    assert_eq!(fixture.forwarded_target("/v1/a?b=/v1/"), "/v2/a?b=/v1/");
    let head = fixture.web().requests()[0].head.clone();
    assert_eq!(head.field("host"), Some("inner.example:81"));
    assert_eq!(head.field("x-forwarded-host"), Some("a.example"), "what the client asked for");
    assert_eq!(fixture.forwarded_target("/users/7/x"), "/u/7/x");
    assert_eq!(fixture.forwarded_target("/users/x"), "/users/x");
    assert_eq!(fixture.forwarded_target("/v1"), "/v1");
    assert_eq!(fixture.web().requests()[3].head.field("host"), Some("a.example"));
}

#[test]
fn header_rules_apply_in_both_directions() {
    let route = r#"
        request_headers = { remove = ["x-gone"], set = { x-env = "live" }, add = { x-more = "2" } }
        response_headers = { remove = ["server"], set = { x-frame = "DENY" }, add = { x-a = "2" } }
        hsts = "max-age=60"
    "#;
    let fixture = RoutingFixture::new(&[], "", route);
    let answer =
        "HTTP/1.1 200 OK\r\nserver: s\r\nx-frame: ALLOW\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n";
    fixture.web().set_mode(ResponseMode::Raw(answer.into()));
    let sent = ["x-gone: 1", "x-env: forged", "x-env: twice", "x-more: 1"];
    let answer = fixture.get("h", "/", &sent);
    let head = &fixture.web().requests()[0].head;
    assert_eq!(head.field("x-gone"), None);
    assert_eq!(head.field_values("x-env").collect::<Vec<_>>(), ["live"]);
    assert_eq!(head.field_values("x-more").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.head.field_values("x-frame").collect::<Vec<_>>(), ["DENY"]);
    assert_eq!(answer.head.field_values("x-a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(answer.field("strict-transport-security"), None, "only over TLS");
    // A field that is set cannot be nominated away; the others that are nominated go.
    fixture.get("h", "/", &["connection: x-env, x-other, keep-alive", "x-other: 1"]);
    let head = &fixture.web().requests()[1].head;
    assert_eq!((head.field("x-env"), head.field("x-other")), (Some("live"), None));
    // Local replies are responses of the route too.
    fixture.web().set_mode(ResponseMode::Close);
    let error = fixture.get("h", "/", &[]);
    assert_eq!((error.status, error.field("x-frame")), (502, Some("DENY")));
}
