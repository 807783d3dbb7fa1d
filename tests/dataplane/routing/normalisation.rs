//! One form of a path is matched and forwarded, and what has none is refused.

use super::World;
use crate::support::client::Answer;
use crate::support::config::Config;

const ADMIN: &str = "[[route]]\npath = \"/admin\"\nrespond = { status = 403, body = \"no\" }";

fn verdict(answer: &Answer) -> (u16, Option<&str>) {
    answer.verdict()
}

#[test]
fn what_matched_is_what_is_forwarded() {
    let world = World::new(&[], ADMIN, "");
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
        assert_eq!(world.forwarded(target), forwarded, "{target}");
    }
    for target in
        ["/admin", "/a/../admin", "/%61dmin/x", "//admin", "/a/%2e%2e/admin/x", "/./admin"]
    {
        assert_eq!(world.get("h", target, &[]).status, 403, "{target} came around the route");
    }
}

#[test]
fn what_has_no_form_is_refused() {
    let world = World::new(&[], "", "");
    for target in ["/%00", "/a%0d%0ax", "/%1f", "/%7F", "/%", "/%4", "/%zz", "/a/%2"] {
        let answer = world.get("h", target, &[]);
        assert_eq!(verdict(&answer), (400, Some("bad_path")), "{target}");
    }
    for target in ["/\u{e9}", "/a?\u{e9}"] {
        assert_eq!(world.get("h", target, &[]).status, 400, "{target}");
    }
    assert!(world.web().seen().is_empty(), "nothing of it is forwarded");
}

#[test]
fn an_encoded_slash_by_policy() {
    let reject = World::new(&[], "[paths]\nencoded_slash = \"reject\"", "");
    for target in ["/a%2fb", "/a%5Cb", "/a\\b"] {
        let answer = reject.get("h", target, &[]);
        assert_eq!(verdict(&answer), (400, Some("bad_path")), "{target}");
    }
    assert_eq!(reject.forwarded("/a%252fb"), "/a%252fb");
    let tables = format!("[paths]\nencoded_slash = \"decode\"\n{ADMIN}");
    let decode = World::new(&[], &tables, "");
    assert_eq!(decode.forwarded("/a%2fb%5Cc\\d"), "/a/b/c/d");
    assert_eq!(decode.get("h", "/a%2f..%2fadmin", &[]).status, 403);
}

#[test]
fn paths_can_be_left_as_they_are() {
    let tables = "[paths]\nnormalise = false\nmerge_slashes = false";
    let world = World::new(&[], tables, "");
    assert_eq!(world.forwarded("/a//b/../%41"), "/a//b/../%41");
    assert_eq!(world.get("h", "/%00", &[]).status, 400);
}

/// The tables of [`Config::new`] without their `[headers]`.
fn underscores(policy: &str) -> World {
    let headers = format!("[headers]\nexpose = true\nunderscores = \"{policy}\"");
    World::with(Config::default().keys("workers = 1").tables(&headers), &[], "", "")
}

#[test]
fn underscores_in_names_are_refused_unless_the_operator_says_otherwise() {
    let world = World::new(&[], "", "");
    let forged = "X_Forwarded_For: 6.6.6.6";
    let answer = world.get("h", "/", &[forged]);
    assert_eq!(verdict(&answer), (400, Some("underscore_header")));
    assert!(world.web().seen().is_empty());
    let dropping = underscores("drop");
    assert_eq!(dropping.get("h", "/", &[forged, "x-a: 1"]).status, 200);
    let head = &dropping.web().seen()[0].head;
    assert_eq!((head.field("x_forwarded_for"), head.field("x-a")), (None, Some("1")));
    let allowing = underscores("allow");
    assert_eq!(allowing.get("h", "/", &[forged]).status, 200);
    assert_eq!(allowing.web().seen()[0].head.field("x_forwarded_for"), Some("6.6.6.6"));
}
