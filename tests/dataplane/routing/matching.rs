//! Which route takes a request.

use super::World;

const ROUTES: &str = r#"
[[route]]
host = "*.example"
pool = "wild"

[[route]]
host = "a.b.example"
pool = "exact"

[[route]]
path_exact = "/one"
pool = "exact"

[[route]]
path = "/one"
pool = "wild"

[[route]]
path_regex = "/p/[0-9]+"
pool = "exact"

[[route]]
path = "/c"
methods = ["POST"]
pool = "wild"

[[route]]
path = "/c"
headers = { x-env = "canary", x-no = { absent = true } }
pool = "exact"

[[route]]
path = "/c"
query = { v = { regex = "[0-9]+" } }
pool = "wild"
"#;

#[test]
fn hosts_paths_and_conditions_choose_the_pool() {
    let world = World::new(&["exact", "wild"], ROUTES, "");
    let at = |host: &str, target: &str, lines: &[&str]| world.get(host, target, lines).text();
    assert_eq!(at("a.b.example", "/", &[]), "exact");
    assert_eq!(at("A.B.Example.:80", "/", &[]), "exact");
    assert_eq!(at("x.b.example", "/", &[]), "wild");
    assert_eq!(at("example", "/", &[]), "web", "a wildcard wants a label");
    assert_eq!(at("h", "/one", &[]), "exact");
    assert_eq!(at("h", "/one/", &[]), "wild");
    assert_eq!(at("h", "/ones", &[]), "web");
    assert_eq!(at("h", "/p/7", &[]), "exact");
    assert_eq!(at("h", "/p/7/x", &[]), "web", "a pattern is for the whole path");
    assert_eq!(at("h", "/c", &[]), "web");
    assert_eq!(at("h", "/c", &["x-env: canary"]), "exact");
    assert_eq!(at("h", "/c", &["x-env: canary", "x-no: 1"]), "web");
    assert_eq!(at("h", "/c?v=7", &[]), "wild");
    assert_eq!(at("h", "/c?v=7&v=x", &["x-env: canary"]), "exact", "it has more conditions");
    assert_eq!(at("h", "/c?v=x", &[]), "web");
    let post = world.raw(&["POST /c HTTP/1.1", "host: h", "content-length: 0"]);
    assert_eq!(post.text(), "wild");
}

#[test]
fn shares_follow_their_weights_and_a_resend_stays_in_its_pool() {
    let split = "[[route]]\npath = \"/split\"\n\
                 pools = [{ pool = \"web\", weight = 80 }, { pool = \"canary\", weight = 20 }]";
    let world = World::new(&["canary"], split, "");
    let mut client = super::Client::open(world.gapless.address);
    let canary = (0..500).filter(|_| client.get("/split").text() == "canary").count();
    assert!((50..150).contains(&canary), "{canary} of 500, with a weight of 20 in 100");
    // Whoever draws a pool that is gone is not served by the other one.
    world.other().die();
    let mut failed = 0;
    for _ in 0..100 {
        let answer = client.get("/split");
        match answer.status {
            200 => assert_eq!(answer.text(), "web"),
            _ => failed += 1,
        }
    }
    assert!((1..60).contains(&failed), "{failed} of 100");
}
