//! The normal form of a path is matched and forwarded; a path without one is refused.

use super::RoutingFixture;
use crate::support::client::TestResponse;
use crate::support::config::ConfigBuilder;

const ADMIN: &str = "[[route]]\npath = \"/admin\"\nrespond = { status = 403, body = \"no\" }";

fn response_verdict(answer: &TestResponse) -> (u16, Option<&str>) {
    answer.status_and_reason()
}

#[test]
fn matched_path_is_the_forwarded_path() {
    let fixture = RoutingFixture::new(&[], ADMIN, "");
    for (target, forwarded) in [
        ("/a/b?c=/../%41", "/a/b?c=/../%41"),
        ("/a/./b/../c//d", "/a/c/d"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2e%2e/admin%2fx", "/admin%2Fx"),
        ("/a%2Fb%5cc\\d", "/a%2Fb%5Cc%5Cd"),
        ("/%7euser/%41", "/~user/A"),
        ("/..//../", "/"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("http://a.example/x/../y", "/y"),
    ] {
        assert_eq!(fixture.forwarded_target(target), forwarded, "{target}");
    }
    for target in
        ["/admin", "/a/../admin", "/%61dmin/x", "//admin", "/a/%2e%2e/admin/x", "/./admin"]
    {
        assert_eq!(fixture.get("h", target, &[]).status, 403, "{target} came around the route");
    }
}

#[test]
fn path_without_canonical_form_is_rejected() {
    let fixture = RoutingFixture::new(&[], "", "");
    for target in ["/%00", "/a%0d%0ax", "/%1f", "/%7F", "/%", "/%4", "/%zz", "/a/%2"] {
        let answer = fixture.get("h", target, &[]);
        assert_eq!(response_verdict(&answer), (400, Some("bad_path")), "{target}");
    }
    for target in ["/\u{e9}", "/a?\u{e9}"] {
        assert_eq!(fixture.get("h", target, &[]).status, 400, "{target}");
    }
    assert!(fixture.web().requests().is_empty(), "nothing of it is forwarded");
}

#[test]
fn encoded_slash_policy_is_applied() {
    let rejecting = RoutingFixture::new(&[], "[paths]\nencoded_slash = \"reject\"", "");
    for target in ["/a%2fb", "/a%5Cb", "/a\\b"] {
        let answer = rejecting.get("h", target, &[]);
        assert_eq!(response_verdict(&answer), (400, Some("bad_path")), "{target}");
    }
    assert_eq!(rejecting.forwarded_target("/a%252fb"), "/a%252fb");
    let tables = format!("[paths]\nencoded_slash = \"decode\"\n{ADMIN}");
    let decoding = RoutingFixture::new(&[], &tables, "");
    assert_eq!(decoding.forwarded_target("/a%2fb%5Cc\\d"), "/a/b/c/d");
    assert_eq!(decoding.get("h", "/a%2f..%2fadmin", &[]).status, 403);
}

#[test]
fn path_normalisation_can_be_disabled() {
    let tables = "[paths]\nnormalise = false\nmerge_slashes = false";
    let fixture = RoutingFixture::new(&[], tables, "");
    assert_eq!(fixture.forwarded_target("/a//b/../%41"), "/a//b/../%41");
    assert_eq!(fixture.get("h", "/%00", &[]).status, 400);
}

/// The tables of [`Config::new`] without their `[headers]`.
fn fixture_with_underscores(policy: &str) -> RoutingFixture {
    let headers = format!("[headers]\nexpose = true\nunderscores = \"{policy}\"");
    RoutingFixture::with_config(
        ConfigBuilder::default().keys("workers = 1").tables(&headers),
        &[],
        "",
        "",
    )
}

#[test]
fn underscore_in_field_name_follows_the_policy() {
    let fixture = RoutingFixture::new(&[], "", "");
    let forged = "X_Forwarded_For: 6.6.6.6";
    let answer = fixture.get("h", "/", &[forged]);
    assert_eq!(response_verdict(&answer), (400, Some("underscore_header")));
    assert!(fixture.web().requests().is_empty());
    let dropping = fixture_with_underscores("drop");
    assert_eq!(dropping.get("h", "/", &[forged, "x-a: 1"]).status, 200);
    let head = &dropping.web().requests()[0].head;
    assert_eq!((head.field("x_forwarded_for"), head.field("x-a")), (None, Some("1")));
    let allowing = fixture_with_underscores("allow");
    assert_eq!(allowing.get("h", "/", &[forged, "x_a: 1"]).status, 200);
    let head = &allowing.web().requests()[0].head;
    assert_eq!((head.field("x_forwarded_for"), head.field("x_a")), (None, Some("1")));
}
