//! Why something is as it is: the admin API and the command line, with real endpoints.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, eventually, until};

const QUICK: &str = "detect = { interval = \"200ms\", timeout = \"150ms\", fast_interval = \"50ms\", \
                     down_interval = \"200ms\" }";

/// Exit code, standard output and standard error of `gapless explain`.
fn explain(admin: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    let admin = format!("http://{admin}/");
    let mut command = Command::new(BINARY);
    let output = command.args(["explain", "--admin", &admin]).args(arguments).output();
    let output = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

fn text(gapless: &Gapless, of: &str) -> String {
    let answer = gapless.ask(&format!("/api/v1/explain?of={of}&format=text"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    answer.text()
}

fn first(gapless: &Gapless, of: &str) -> Value {
    gapless.api(&format!("/api/v1/explain?of={of}"))["explanations"][0].take()
}

/// What stays the same from one moment to the next: neither times nor what is in flight.
fn shape(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let letters: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let words: Vec<&str> = letters.split_whitespace().filter(|word| word.len() > 2).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn two_zones(keys: &str, zones: [&[&Endpoint]; 2]) -> Gapless {
    let addresses = |zone: &[&Endpoint]| -> Vec<SocketAddr> {
        zone.iter().map(|endpoint| endpoint.address()).collect()
    };
    let config = Config::new()
        .pool(keys)
        .zone("here/a", &addresses(zones[0]))
        .zone("here/b", &addresses(zones[1]));
    Gapless::start_ready(&config)
}

#[test]
fn an_endpoint_that_is_refused() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = two_zones(QUICK, [&[&one], &[&two]]);
    let address = one.address().to_string();
    one.die();
    eventually("down", SOON, || gapless.state(one.address()) == "down");
    let page = text(&gapless, &address);
    let title = page.lines().next().expect("a line");
    assert!(
        title.starts_with(&format!("{address} in here/a, pool web: DOWN for "))
            && title.contains(" — connect refused, by "),
        "{title}"
    );
    for label in [
        "since", "traffic", "verdict", "evidence", "probes", "next", "window", "doubt", "zone",
        "pool",
    ] {
        assert!(
            page.lines().any(|line| line.starts_with(&format!("  {label:10}"))),
            "{label}\n{page}"
        );
    }
    assert!(page.contains("0.0 % of the pool's") && page.contains("gets none"), "{page}");
    assert!(page.contains("every 200 ms: down"), "{page}");
    let facts = first(&gapless, &address);
    assert_eq!((&facts["kind"], &facts["state"]), (&"endpoint".into(), &"down".into()));
    assert_eq!(facts["reason"], "connect refused");
    assert_eq!(facts["row"]["needed"], 2);
    assert_eq!(facts["traffic"]["share"], 0.0);
    assert_eq!(facts["probes"].as_array().expect("a list")[0]["protocol"], "http");
    assert_eq!(facts["zone_state"]["endpoints"]["down"], 1);
    assert_eq!(facts["pool_state"]["down"], 1);
    let status = gapless.endpoint(one.address());
    assert_eq!((&status["standing"], &status["withheld"]), (&"out".into(), &Value::Null));
    assert_eq!(status["source"], facts["source"]);
}

#[test]
fn an_endpoint_whose_probe_says_503() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = two_zones(QUICK, [&[&one], &[&two]]);
    one.set_probe(Mode::Status(503));
    eventually("down", SOON, || gapless.state(one.address()) == "down");
    let address = one.address().to_string();
    let page = text(&gapless, &address);
    let title = page.lines().next().expect("a line");
    assert!(title.ends_with(" — http status 503, by probe"), "{title}");
    let facts = first(&gapless, &address);
    assert_eq!((&facts["source"], &facts["withheld"]), (&"probe".into(), &Value::Null));
    let evidence = facts["evidence"].as_array().expect("a list");
    assert_eq!(evidence.len(), 2, "two strikes made the verdict: {evidence:?}");
    one.set_probe(Mode::Ok);
    eventually("up", SOON, || gapless.state(one.address()) == "up");
    let page = text(&gapless, &address);
    assert!(page.starts_with(&format!("{address} in here/a, pool web: UP for ")), "{page}");
    assert!(page.contains("its share has grown to "), "{page}");
    assert!(gapless.endpoint(one.address())["ramp_share"].as_f64().expect("a number") < 1.0);
}

#[test]
fn a_verdict_that_is_withheld() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let keys = format!("{QUICK}\nevict = {{ percent = 0 }}");
    let gapless = two_zones(&keys, [&[&one], &[&two]]);
    one.set_probe(Mode::Status(503));
    eventually("withheld", SOON, || gapless.endpoint(one.address())["withheld"] == "budget");
    let page = text(&gapless, &one.address().to_string());
    let title = page.lines().next().expect("a line");
    assert!(title.contains(": SUSPECT for "), "{title}");
    assert!(
        title.ends_with("http status 503, by probe; the verdict is withheld: budget"),
        "{title}"
    );
    assert_eq!(gapless.pool()["evict_limit"], 0);
    assert_eq!(gapless.metric("gapless_pool_evict_limit{pool=\"web\"}"), 0.0);
    assert_eq!(gapless.get("/").text(), "one", "it stays in service");
}

#[test]
fn a_zone_that_is_down() {
    let near: Vec<Endpoint> = ["a", "b", "c"].map(Endpoint::start).into();
    let far = Endpoint::start("far");
    let near_refs: Vec<&Endpoint> = near.iter().collect();
    let gapless = two_zones(QUICK, [&near_refs, &[&far]]);
    assert_eq!(gapless.metric("gapless_zone_up{pool=\"web\",zone=\"here/a\"}"), 1.0);
    let zones = gapless.api("/api/v1/zones");
    assert_eq!(
        (&zones["zones"][0]["state"], &zones["zones"][0]["quorum"]["needed"]),
        (&"up".into(), &2.into())
    );
    near.iter().for_each(Endpoint::die);
    let down = || gapless.api("/api/v1/zones")["zones"][0]["state"] == "down";
    eventually("the zone is down", SOON, down);
    let page = text(&gapless, "here/a");
    let title = page.lines().next().expect("a line");
    assert!(title.starts_with("zone here/a, pool web: DOWN for "), "{title}");
    assert!(title.contains(" — connect refused, by correlation; "), "{title}");
    assert!(page.contains("returns with 2 endpoints that pass"), "{page}");
    let listed = near.iter().filter(|one| page.contains(&one.address().to_string())).count();
    assert_eq!(listed, 3, "{page}");
    assert!(text(&gapless, "here%2Fb").starts_with("zone here/b, pool web: UP; 1 up of 1"));
    let page = text(&gapless, "here");
    assert!(page.starts_with("region here, pool web: UP; 1 of 2 zones down\n"), "{page}");
    assert_eq!(gapless.metric("gapless_zone_up{pool=\"web\",zone=\"here/a\"}"), 0.0);
    let page = text(&gapless, &near[0].address().to_string());
    assert!(page.contains("here/a: DOWN for "), "{page}");
}

#[test]
fn the_command_line_prints_what_the_api_gives() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = two_zones("detect = { interval = \"10m\" }", [&[&one], &[&two]]);
    let address = one.address().to_string();
    for of in [address.as_str(), "here/a", "here"] {
        let (code, out, error) = explain(gapless.admin, &[of]);
        assert_eq!((code, error.as_str()), (0, ""), "{of}");
        assert_eq!(shape(&out), shape(&text(&gapless, of)), "{of}");
        let (code, out, _) = explain(gapless.admin, &[of, "--format", "json", "--pool", "web"]);
        let object: Value = serde_json::from_str(&out).expect("one object");
        assert_eq!((code, &object["of"]), (0, &of.into()));
        assert_eq!(object["explanations"][0]["kind"], first(&gapless, of)["kind"]);
    }
}

#[test]
fn what_is_unknown_is_said_with_what_may_be_meant() {
    let one = Endpoint::start("one");
    let gapless =
        Gapless::start_ready(&Config::new().zone("us-south/us-south-1", &[one.address()]));
    for (arguments, said) in [
        (&["us-south/us-suoth-1"][..], "did you mean `us-south/us-south-1`?"),
        (&["us-suoth"], "did you mean `us-south`?"),
        (&["a/b/c"], "no endpoint, zone or region is called `a/b/c`; there are `us-south`, "),
        (&["us-south", "--pool", "wbe"], "there is no pool `wbe`; did you mean `web`?"),
    ] {
        let (code, out, error) = explain(gapless.admin, arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(error.starts_with("gapless: ") && error.contains(said), "{error}");
    }
    let status = |path: &str| gapless.ask(path).status;
    assert_eq!(status("/api/v1/explain?of=nowhere"), 404);
    assert_eq!((status("/api/v1/explain"), status("/api/v1/explain?of=here&x=1")), (400, 400));
    let nobody = crate::support::HeldPort::take();
    let (code, _, error) = explain(nobody.address(), &["us-south"]);
    assert!(code == 1 && error.contains("nobody to ask at 127.0.0.1:"), "{error}");
}

#[test]
fn an_address_in_two_pools_is_explained_in_both() {
    let one = Endpoint::start("one");
    let other = format!(
        "[[pool.api.zone]]\nname = \"here/b\"\nendpoints = [\"{}\"]\n[[route]]\nhost = \"api\"\n\
         pool = \"api\"",
        one.address()
    );
    let gapless =
        Gapless::start_ready(&Config::new().tables(&other).zone("here/a", &[one.address()]));
    let page = text(&gapless, &one.address().to_string());
    assert!(
        page.contains("in here/a, pool web: UP") && page.contains("in here/b, pool api: UP"),
        "{page}"
    );
    let (_, page, _) = explain(gapless.admin, &[&one.address().to_string(), "--pool", "api"]);
    assert!(!page.contains("pool web") && page.contains("pool api: UP"), "{page}");
    let (code, _, error) = explain(gapless.admin, &["here/a", "--pool", "api"]);
    assert!(
        code == 1 && error.contains("here/a is not in the pool `api`, but in `web`"),
        "{error}"
    );
}

#[test]
fn gauges_are_there_from_the_start() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&Config::new().pool(QUICK).zone("here/a", &[one.address()]));
    for (gauge, value) in [
        ("gapless_blind", 0.0),
        ("gapless_probe_stretch", 1.0),
        ("gapless_pool_panic{pool=\"web\"}", 0.0),
        ("gapless_pool_divergence{pool=\"web\"}", 0.0),
        ("gapless_pool_down{pool=\"web\"}", 0.0),
        ("gapless_zone_up{pool=\"web\",zone=\"here/a\"}", 1.0),
    ] {
        assert_eq!(gapless.metric(gauge), value, "{gauge}");
    }
    let page = || gapless.ask("/metrics").text();
    eventually("two probes", SOON, || {
        page().contains("gapless_probe_period_seconds{pool=\"web\"} 0.")
    });
}

/// The process sleeps for a while, as when its machine has no time for it.
#[test]
fn control_that_was_late_is_not_ready_for_a_while() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&Config::new().pool(QUICK).zone("here/a", &[one.address()]));
    assert_eq!(gapless.ask("/readyz").status, 200);
    gapless.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(1_800));
    gapless.signal(Signal::CONT);
    let said = until("it is not ready", SOON, || {
        let answer = gapless.ask("/readyz");
        (answer.status == 503).then(|| answer.text())
    });
    assert!(said.starts_with("control is late: it woke "), "{said}");
    eventually("it is ready again", SOON, || gapless.ask("/readyz").status == 200);
}

/// Without a descriptor to probe with, nothing is known any more.
#[test]
fn who_cannot_see_is_not_ready() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&Config::new().pool(QUICK).zone("here/a", &[one.address()]));
    let mut operator = Client::open(gapless.admin);
    let mut ready = || {
        operator.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let answer = operator.answer("GET").expect("an answer");
        (answer.status, answer.text())
    };
    assert_eq!(ready().0, 200);
    gapless.limit_descriptors(Some(3));
    let blind = until("it is blind", SOON, || Some(ready()).filter(|(status, _)| *status == 503));
    assert!(blind.1.starts_with("blind: "), "{}", blind.1);
    gapless.limit_descriptors(None);
    eventually("it sees again", SOON, || ready().0 == 200);
    assert_eq!(gapless.state(one.address()), "up", "nobody was judged meanwhile");
}
