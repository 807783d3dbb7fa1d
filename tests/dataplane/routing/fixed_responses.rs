//! Fixed responses and redirects.

use super::RoutingFixture;
use crate::support::client::TestClient;

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
fn redirects_build_the_location() {
    let fixture = RoutingFixture::new(&[], ROUTES, "");
    let redirect_of = |host: &str, target: &str| {
        let answer = fixture.get(host, target, &[]);
        let location = answer.field("location").unwrap_or_default().to_owned();
        (answer.status, location)
    };
    let expected = |status, location: &str| (status, location.to_owned());
    assert_eq!(
        redirect_of("plain.example:80", "/x?y=1"),
        expected(301, "https://plain.example/x?y=1")
    );
    assert_eq!(
        redirect_of("old.example", "/v1/a?b"),
        expected(302, "http://new.example:8080/v2/a?b")
    );
    assert_eq!(redirect_of("h", "/moved?q"), expected(303, "/here?there=1"));
    assert_eq!(redirect_of("h", "/strip/a?b"), expected(307, "/a?b"));
    assert_eq!(redirect_of("h", "/strip//evil.example"), expected(307, "/evil.example"));
    assert_eq!(redirect_of("h", "/strip"), expected(307, "/"));
    assert!(fixture.web().requests().is_empty(), "no endpoint is asked");
}

#[test]
fn fixed_responses_keep_the_connection_open() {
    let fixture = RoutingFixture::new(&[], ROUTES, "");
    let mut client = TestClient::open(fixture.gapless.address);
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
