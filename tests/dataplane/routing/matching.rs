//! Route matching.

use super::RoutingFixture;

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
fn host_path_and_conditions_select_the_pool() {
    let fixture = RoutingFixture::new(&["exact", "wild"], ROUTES, "");
    let pool_of =
        |host: &str, target: &str, lines: &[&str]| fixture.get(host, target, lines).text();
    assert_eq!(pool_of("a.b.example", "/", &[]), "exact");
    assert_eq!(pool_of("A.B.Example.:80", "/", &[]), "exact");
    assert_eq!(pool_of("x.b.example", "/", &[]), "wild");
    assert_eq!(pool_of("example", "/", &[]), "web", "a wildcard wants a label");
    assert_eq!(pool_of("h", "/one", &[]), "exact");
    assert_eq!(pool_of("h", "/one/", &[]), "wild");
    assert_eq!(pool_of("h", "/ones", &[]), "web");
    assert_eq!(pool_of("h", "/p/7", &[]), "exact");
    assert_eq!(pool_of("h", "/p/7/x", &[]), "web", "a pattern is for the whole path");
    assert_eq!(pool_of("h", "/c", &[]), "web");
    assert_eq!(pool_of("h", "/c", &["x-env: canary"]), "exact");
    assert_eq!(pool_of("h", "/c", &["x-env: canary", "x-no: 1"]), "web");
    assert_eq!(pool_of("h", "/c?v=7", &[]), "wild");
    assert_eq!(pool_of("h", "/c?v=7&v=x", &["x-env: canary"]), "exact", "it has more conditions");
    assert_eq!(pool_of("h", "/c?v=x", &[]), "web");
    let post = fixture.send_lines(&["POST /c HTTP/1.1", "host: h", "content-length: 0"]);
    assert_eq!(post.text(), "wild");
}

#[test]
fn weights_are_followed_and_retries_stay_in_the_pool() {
    let split = "[[route]]\npath = \"/split\"\n\
                 pools = [{ pool = \"web\", weight = 80 }, { pool = \"canary\", weight = 20 }]";
    let fixture = RoutingFixture::new(&["canary"], split, "");
    let mut client = super::TestClient::open(fixture.gapless.address);
    let canary = (0..500).filter(|_| client.get("/split").text() == "canary").count();
    assert!((50..150).contains(&canary), "{canary} of 500, with a weight of 20 in 100");
    // A request that draws an empty pool is not served by the other pool.
    fixture.other().kill();
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
