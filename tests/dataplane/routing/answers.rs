//! Answers of a route's own.

use super::World;
use crate::support::client::Client;

const ROUTES: &str = r#"
[[route]]
host = "plain.example"
redirect = { to_https = true, status = 301 }

[[route]]
host = "old.example"
redirect = { host = "new.example:8080", replace_prefix = "/v2/" }
path = "/v1/"

[[route]]
path = "/moved"
redirect = { path = "/here?there=1", status = 303 }

[[route]]
path = "/strip"
redirect = { strip_prefix = "/strip", status = 307 }

[[route]]
path = "/sorry"
respond = { status = 503, body = "<p>sorry</p>", content_type = "text/html" }
response_headers = { set = { retry-after = "60" } }

[[route]]
path = "/empty"
respond = { status = 204 }
"#;

#[test]
fn redirects() {
    let world = World::new(&[], ROUTES, "");
    let to = |host: &str, target: &str| {
        let answer = world.get(host, target, &[]);
        let location = answer.field("location").unwrap_or_default().to_owned();
        (answer.status, location)
    };
    let is = |status, location: &str| (status, location.to_owned());
    assert_eq!(to("plain.example:80", "/x?y=1"), is(301, "https://plain.example/x?y=1"));
    assert_eq!(to("old.example", "/v1/a?b"), is(302, "http://new.example:8080/v2/a?b"));
    assert_eq!(to("h", "/moved?q"), is(303, "/here?there=1"));
    assert_eq!(to("h", "/strip/a?b"), is(307, "/a?b"));
    assert_eq!(to("h", "/strip//evil.example"), is(307, "/evil.example"));
    assert_eq!(to("h", "/strip"), is(307, "/"));
    assert!(world.web().seen().is_empty(), "no endpoint is asked");
}

#[test]
fn fixed_answers_leave_the_connection_in_step() {
    let world = World::new(&[], ROUTES, "");
    let mut client = Client::open(world.gapless.address);
    let sorry = client.exchange("POST", "/sorry", &[], b"a body").expect("an answer");
    assert_eq!((sorry.status, sorry.text()), (503, "<p>sorry</p>".to_owned()));
    assert_eq!(sorry.field("content-type"), Some("text/html"));
    assert_eq!(sorry.field("retry-after"), Some("60"));
    assert_eq!(sorry.field("x-gapless-reason"), None, "it is what was asked for");
    let head = client.exchange("HEAD", "/sorry", &[], b"").expect("an answer");
    assert_eq!((head.status, head.field("content-length")), (503, Some("12")));
    let empty = client.get("/empty");
    assert_eq!((empty.status, empty.text().as_str()), (204, ""));
    assert_eq!(client.get("/").text(), "web", "and goes on");
}
