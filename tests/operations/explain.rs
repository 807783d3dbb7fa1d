//! `explain` over the admin API and the command line, with real endpoints.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

const FAST_DETECTION: &str = "detect = { interval = \"200ms\", timeout = \"150ms\", fast_interval = \"50ms\", \
                     down_interval = \"200ms\" }";

/// Exit code, standard output and standard error of `gapless explain`.
fn run_explain(admin: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    let admin = format!("http://{admin}/");
    let mut command = Command::new(BINARY);
    let output = command.args(["explain", "--admin", &admin]).args(arguments).output();
    let output = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

fn explain_text(gapless: &Gapless, target: &str) -> String {
    let answer = gapless.admin_get(&format!("/api/v1/explain?of={target}&format=text"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    answer.text()
}

fn first_explanation(gapless: &Gapless, target: &str) -> Value {
    gapless.api_json(&format!("/api/v1/explain?of={target}"))["explanations"][0].take()
}

/// Removes times and requests in flight, which change from one reading to the next.
fn without_numbers(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let letters: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let words: Vec<&str> = letters.split_whitespace().filter(|word| word.len() > 2).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn start_two_zones(keys: &str, zones: [&[&TestEndpoint]; 2]) -> Gapless {
    let addresses = |zone: &[&TestEndpoint]| -> Vec<SocketAddr> {
        zone.iter().map(|endpoint| endpoint.address()).collect()
    };
    let config = ConfigBuilder::new()
        .pool(keys)
        .zone("here/a", &addresses(zones[0]))
        .zone("here/b", &addresses(zones[1]));
    Gapless::start_ready(&config)
}

#[test]
fn refused_endpoint_is_explained() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = start_two_zones(FAST_DETECTION, [&[&one], &[&two]]);
    let address = one.address().to_string();
    one.kill();
    eventually("down", DEFAULT_TIMEOUT, || gapless.endpoint_state(one.address()) == "down");
    let page = explain_text(&gapless, &address);
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
    let explanation = first_explanation(&gapless, &address);
    assert_eq!((&explanation["kind"], &explanation["state"]), (&"endpoint".into(), &"down".into()));
    assert_eq!(explanation["reason"], "connect refused");
    assert_eq!(explanation["row"]["needed"], 2);
    assert_eq!(explanation["traffic"]["share"], 0.0);
    assert_eq!(explanation["probes"].as_array().expect("a list")[0]["protocol"], "http");
    assert_eq!(explanation["zone_state"]["endpoints"]["down"], 1);
    assert_eq!(explanation["pool_state"]["down"], 1);
    let status = gapless.endpoint(one.address());
    assert_eq!((&status["standing"], &status["withheld"]), (&"out".into(), &Value::Null));
    assert_eq!(status["source"], explanation["source"]);
}

#[test]
fn endpoint_with_failing_probe_status_is_explained() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = start_two_zones(FAST_DETECTION, [&[&one], &[&two]]);
    one.set_probe_mode(ResponseMode::Status(503));
    eventually("down", DEFAULT_TIMEOUT, || gapless.endpoint_state(one.address()) == "down");
    let address = one.address().to_string();
    let page = explain_text(&gapless, &address);
    let title = page.lines().next().expect("a line");
    assert!(title.ends_with(" — http status 503, by probe"), "{title}");
    let explanation = first_explanation(&gapless, &address);
    assert_eq!((&explanation["source"], &explanation["withheld"]), (&"probe".into(), &Value::Null));
    let evidence = explanation["evidence"].as_array().expect("a list");
    assert_eq!(evidence.len(), 2, "two strikes made the verdict: {evidence:?}");
    one.set_probe_mode(ResponseMode::Ok);
    eventually("up", DEFAULT_TIMEOUT, || gapless.endpoint_state(one.address()) == "up");
    let page = explain_text(&gapless, &address);
    assert!(page.starts_with(&format!("{address} in here/a, pool web: UP for ")), "{page}");
    assert!(page.contains("its share has grown to "), "{page}");
    assert!(gapless.endpoint(one.address())["ramp_share"].as_f64().expect("a number") < 1.0);
}

#[test]
fn withheld_verdict_is_explained() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let keys = format!("{FAST_DETECTION}\nevict = {{ percent = 0 }}");
    let gapless = start_two_zones(&keys, [&[&one], &[&two]]);
    one.set_probe_mode(ResponseMode::Status(503));
    eventually("withheld", DEFAULT_TIMEOUT, || {
        gapless.endpoint(one.address())["withheld"] == "budget"
    });
    let page = explain_text(&gapless, &one.address().to_string());
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
fn down_zone_is_explained() {
    let near: Vec<TestEndpoint> = ["a", "b", "c"].map(TestEndpoint::start).into();
    let far = TestEndpoint::start("far");
    let near_refs: Vec<&TestEndpoint> = near.iter().collect();
    let gapless = start_two_zones(FAST_DETECTION, [&near_refs, &[&far]]);
    assert_eq!(gapless.metric("gapless_zone_up{pool=\"web\",zone=\"here/a\"}"), 1.0);
    let zones = gapless.api_json("/api/v1/zones");
    assert_eq!(
        (&zones["zones"][0]["state"], &zones["zones"][0]["quorum"]["needed"]),
        (&"up".into(), &2.into())
    );
    near.iter().for_each(TestEndpoint::kill);
    let is_zone_down = || gapless.api_json("/api/v1/zones")["zones"][0]["state"] == "down";
    eventually("the zone is down", DEFAULT_TIMEOUT, is_zone_down);
    let page = explain_text(&gapless, "here/a");
    let title = page.lines().next().expect("a line");
    assert!(title.starts_with("zone here/a, pool web: DOWN for "), "{title}");
    assert!(title.contains(" — connect refused, by correlation; "), "{title}");
    assert!(page.contains("returns with 2 endpoints that pass"), "{page}");
    let listed = near.iter().filter(|one| page.contains(&one.address().to_string())).count();
    assert_eq!(listed, 3, "{page}");
    assert!(explain_text(&gapless, "here%2Fb").starts_with("zone here/b, pool web: UP; 1 up of 1"));
    let page = explain_text(&gapless, "here");
    assert!(page.starts_with("region here, pool web: UP; 1 of 2 zones down\n"), "{page}");
    assert_eq!(gapless.metric("gapless_zone_up{pool=\"web\",zone=\"here/a\"}"), 0.0);
    let page = explain_text(&gapless, &near[0].address().to_string());
    assert!(page.contains("here/a: DOWN for "), "{page}");
}

#[test]
fn cli_output_matches_api() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = start_two_zones("detect = { interval = \"10m\" }", [&[&one], &[&two]]);
    let address = one.address().to_string();
    for target in [address.as_str(), "here/a", "here"] {
        let (code, out, error) = run_explain(gapless.admin, &[target]);
        assert_eq!((code, error.as_str()), (0, ""), "{target}");
        assert_eq!(
            without_numbers(&out),
            without_numbers(&explain_text(&gapless, target)),
            "{target}"
        );
        let (code, out, _) =
            run_explain(gapless.admin, &[target, "--format", "json", "--pool", "web"]);
        let object: Value = serde_json::from_str(&out).expect("one object");
        assert_eq!((code, &object["of"]), (0, &target.into()));
        assert_eq!(object["explanations"][0]["kind"], first_explanation(&gapless, target)["kind"]);
    }
}

#[test]
fn unknown_name_is_refused_with_suggestions() {
    let one = TestEndpoint::start("one");
    let gapless =
        Gapless::start_ready(&ConfigBuilder::new().zone("us-south/us-south-1", &[one.address()]));
    for (arguments, expected_error) in [
        (&["us-south/us-suoth-1"][..], "did you mean `us-south/us-south-1`?"),
        (&["us-suoth"], "did you mean `us-south`?"),
        (&["a/b/c"], "no endpoint, zone or region is called `a/b/c`; there are `us-south`, "),
        (&["us-south", "--pool", "wbe"], "there is no pool `wbe`; did you mean `web`?"),
    ] {
        let (code, out, error) = run_explain(gapless.admin, arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}");
        assert!(error.starts_with("gapless: ") && error.contains(expected_error), "{error}");
    }
    let status = |path: &str| gapless.admin_get(path).status;
    assert_eq!(status("/api/v1/explain?of=nowhere"), 404);
    assert_eq!((status("/api/v1/explain"), status("/api/v1/explain?of=here&x=1")), (400, 400));
    let unused_port = crate::support::ReservedPort::reserve();
    let (code, _, error) = run_explain(unused_port.address(), &["us-south"]);
    assert!(code == 1 && error.contains("no answer from 127.0.0.1:"), "{error}");
}

#[test]
fn address_in_two_pools_is_explained_for_both() {
    let one = TestEndpoint::start("one");
    let other = format!(
        "[[pool.api.zone]]\nname = \"here/b\"\nendpoints = [\"{}\"]\n[[route]]\nhost = \"api\"\n\
         pool = \"api\"",
        one.address()
    );
    let gapless =
        Gapless::start_ready(&ConfigBuilder::new().tables(&other).zone("here/a", &[one.address()]));
    let page = explain_text(&gapless, &one.address().to_string());
    assert!(
        page.contains("in here/a, pool web: UP") && page.contains("in here/b, pool api: UP"),
        "{page}"
    );
    let (_, page, _) = run_explain(gapless.admin, &[&one.address().to_string(), "--pool", "api"]);
    assert!(!page.contains("pool web") && page.contains("pool api: UP"), "{page}");
    let (code, _, error) = run_explain(gapless.admin, &["here/a", "--pool", "api"]);
    assert!(
        code == 1 && error.contains("here/a is not in the pool `api`, but in `web`"),
        "{error}"
    );
}

#[test]
fn gauges_exist_from_startup() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(
        &ConfigBuilder::new().pool(FAST_DETECTION).zone("here/a", &[one.address()]),
    );
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
    let page = || gapless.admin_get("/metrics").text();
    eventually("two probes", DEFAULT_TIMEOUT, || {
        page().contains("gapless_probe_period_seconds{pool=\"web\"} 0.")
    });
}

/// The process is stopped for a while, as on an overloaded machine.
#[test]
fn late_control_loop_is_temporarily_not_ready() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(
        &ConfigBuilder::new().pool(FAST_DETECTION).zone("here/a", &[one.address()]),
    );
    assert_eq!(gapless.admin_get("/readyz").status, 200);
    gapless.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(1_800));
    gapless.signal(Signal::CONT);
    let reason = poll_until("it is not ready", DEFAULT_TIMEOUT, || {
        let answer = gapless.admin_get("/readyz");
        (answer.status == 503).then(|| answer.text())
    });
    assert!(reason.starts_with("control is late: it woke "), "{reason}");
    eventually("it is ready again", DEFAULT_TIMEOUT, || gapless.admin_get("/readyz").status == 200);
}

/// Without descriptors for probes, probing is blind.
#[test]
fn blind_instance_is_not_ready() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(
        &ConfigBuilder::new().pool(FAST_DETECTION).zone("here/a", &[one.address()]),
    );
    let mut admin_client = TestClient::open(gapless.admin);
    let mut readiness = || {
        admin_client.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let answer = admin_client.read_response("GET").expect("an answer");
        (answer.status, answer.text())
    };
    assert_eq!(readiness().0, 200);
    gapless.set_descriptor_limit(Some(3));
    let blind_response = poll_until("it is blind", DEFAULT_TIMEOUT, || {
        Some(readiness()).filter(|(status, _)| *status == 503)
    });
    assert!(blind_response.1.starts_with("blind: "), "{}", blind_response.1);
    gapless.set_descriptor_limit(None);
    eventually("it sees again", DEFAULT_TIMEOUT, || readiness().0 == 200);
    assert_eq!(gapless.endpoint_state(one.address()), "up", "no verdict was made meanwhile");
}
