//! Reloads: what changes, what stays, and that a bad file changes nothing.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::client::{self, TestClient};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::Gapless;
use crate::support::load::SteadyLoad;
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually, poll_until};

const RELOAD_COUNT: u64 = 1_000;

/// Reloads before memory is measured, to fill caches and allocators.
const WARMUP_RELOADS: u64 = 200;

fn config_for(endpoint: &TestEndpoint) -> ConfigBuilder {
    ConfigBuilder::new().zone("here/a", &[endpoint.address()])
}

#[track_caller]
fn wait_for_response(gapless: &Gapless, name: &str) {
    eventually(name, DEFAULT_TIMEOUT, || gapless.get("/").text() == name);
}

#[test]
fn rewritten_file_is_applied() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write_config(&config_for(&two).text());
    wait_for_response(&gapless, "two");
    assert_eq!(gapless.generation(), 2);
    assert_eq!(gapless.endpoints().len(), 1);
}

#[test]
fn replaced_file_is_applied() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    for endpoint in [&two, &one, &two] {
        let aside = gapless.config_file().with_extension("new");
        std::fs::write(&aside, config_for(endpoint).text()).expect("written");
        std::fs::rename(&aside, gapless.config_file()).expect("renamed");
        wait_for_response(
            &gapless,
            if endpoint.address() == one.address() { "one" } else { "two" },
        );
    }
}

/// A mount as Kubernetes makes it for a config map: file → `..data` → a directory per version.
#[test]
fn swapped_symlink_is_applied() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (version, endpoint) in [("..v1", &one), ("..v2", &two)] {
        std::fs::create_dir(at(version)).expect("made");
        std::fs::write(at(version).join("gapless.toml"), config_for(endpoint).text())
            .expect("written");
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, at(name)).expect("linked");
    };
    link("..v1", "..data");
    link("..data/gapless.toml", "gapless.toml");
    let file = at("gapless.toml");
    let (temporary, data) = (at("..data_tmp"), at("..data"));
    link("..v2", "..data_tmp");
    let gapless = Gapless::start_with_file(directory, file);
    wait_for_response(&gapless, "one");
    std::fs::rename(temporary, data).expect("swapped");
    wait_for_response(&gapless, "two");
}

#[test]
fn sighup_reloads_unchanged_file() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    for generation in 2..5 {
        gapless.signal(Signal::HUP);
        eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == generation);
    }
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn invalid_file_is_refused_with_error_locations() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    assert!(gapless.api_json("/api/v1/config")["refused"].is_null());
    let bad = "nonsense = 1\n[[listen]]\naddress = \"nowhere\"\n[[route]]\npool = \"wbe\"\n\
               [pool.web]\nprobe = { http = \"healthz\" }\ndetect = { interval = \"1x\" }\n\
               [[pool.web.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:1\"]\n";
    gapless.write_config(bad);
    eventually("a refusal", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_object()
    });
    let config = gapless.api_json("/api/v1/config");
    assert_eq!(config["generation"], 1);
    let refused = &config["refused"];
    let errors = refused["errors"].as_array().expect("a list");
    let lines: Vec<_> = errors.iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, [1, 3, 5, 7, 8].map(Some), "{refused:#}");
    for error in errors {
        assert!(error["column"].as_u64() > Some(0) && error["mend"].is_string(), "{error:#}");
    }
    assert!(refused["report"].as_str().expect("text").contains("nowhere"));
    assert_eq!(gapless.get("/").text(), "one");
    assert_eq!(gapless.metric("gapless_config_last_reload_ok"), 0.0);
    gapless.write_config(&config_for(&two).text());
    wait_for_response(&gapless, "two");
    assert!(gapless.api_json("/api/v1/config")["refused"].is_null());
    assert_eq!(gapless.metric("gapless_config_last_reload_ok"), 1.0);
}

#[test]
fn missing_file_keeps_running_config() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    std::fs::remove_file(gapless.config_file()).expect("removed");
    eventually("a refusal", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_object()
    });
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write_config(&config_for(&one).text());
    eventually("all is well", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_null()
    });
}

#[test]
fn down_endpoint_stays_down_across_reloads() {
    let (near, far) = (TestEndpoint::start("near"), TestEndpoint::start("far"));
    near.set_probe_mode(ResponseMode::Status(500));
    // Probed so rarely after its verdict that an absolution by the reload would be visible.
    let detect = "detect = { interval = \"30s\", down_interval = \"30s\" }";
    let config = ConfigBuilder::new()
        .pool(detect)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start(&config);
    eventually("its verdict", DEFAULT_TIMEOUT, || gapless.endpoint_state(near.address()) == "down");
    near.set_probe_mode(ResponseMode::Ok);
    for (generation, late) in (2..6).zip(["1s", "2s", "3s", "4s"]) {
        gapless.write_config(&config.clone().pool(&format!("late_after = \"{late}\"")).text());
        eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == generation);
        assert_eq!(gapless.endpoint_state(near.address()), "down");
        assert_eq!(gapless.get("/").text(), "far");
    }
}

#[test]
fn new_endpoint_serves_only_after_first_pass() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    two.set_probe_mode(ResponseMode::Hang);
    let detect = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let base = ConfigBuilder::new().pool(detect);
    let gapless = Gapless::start_ready(&base.clone().zone("here/a", &[one.address()]));
    let both = base.zone("here/new", &[two.address()]).zone("here/a", &[one.address()]);
    gapless.write_config(&both.text());
    eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(gapless.endpoint_state(two.address()), "unknown");
    assert_eq!(gapless.endpoint_state(one.address()), "up", "what stays keeps its health");
    for _ in 0..10 {
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn listeners_are_added_and_removed_by_reload() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    let port = ReservedPort::reserve();
    let added = port.address();
    drop(port);
    assert!(TestClient::connect(added).is_err());
    gapless.write_config(&config_for(&one).listen(added).text());
    eventually("it listens", DEFAULT_TIMEOUT, || TestClient::connect(added).is_ok());
    assert_eq!(client::get(added, "/").text(), "one");
    let mut connection = TestClient::open(added);
    assert_eq!(connection.get("/").status, 200);
    gapless.write_config(&config_for(&one).text());
    eventually("it listens no more", DEFAULT_TIMEOUT, || TestClient::connect(added).is_err());
    assert_eq!(connection.get("/").status, 200, "a running connection goes on");
    assert_eq!(gapless.get("/").status, 200, "and so does the other listener");
}

#[test]
fn unavailable_listen_address_is_refused() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
    gapless.write_config(&config_for(&two).listen(taken.1).text());
    eventually("a refusal", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_object()
    });
    let refused = gapless.api_json("/api/v1/config");
    assert!(refused["refused"]["report"].as_str().expect("text").contains("another process"));
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn restart_only_changes_are_reported() {
    let one = TestEndpoint::start("one");
    let config = ConfigBuilder::default().keys("workers = 1").zone("here/a", &[one.address()]);
    let gapless = Gapless::start_ready(&config);
    let text = config.text().replace("workers = 1", "workers = 2");
    gapless.write_config(&text);
    eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_eq!(gapless.api_json("/api/v1/config")["needs_restart"], serde_json::json!(["workers"]));
    gapless.write_config(&config.text());
    eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == 3);
    assert_eq!(gapless.api_json("/api/v1/config")["needs_restart"], serde_json::json!([]));
}

#[test]
fn reload_keeps_client_connections_and_running_requests() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let config = config_for(&one);
    let gapless = Gapless::start_ready(&config);
    let mut client = TestClient::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    one.set_mode(ResponseMode::Slow(Duration::from_secs(2)));
    let mut waiting = TestClient::open(gapless.address);
    // A GET would be hedged.
    waiting.send("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").expect("sent");
    eventually("it is under way", DEFAULT_TIMEOUT, || one.requests().len() == 2);
    gapless.write_config(&config_for(&two).text());
    eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    gapless.wait_all_up();
    assert_eq!(client.get("/").text(), "two", "on the same connection");
    let answer = waiting.read_response("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "one".to_owned()));
}

#[test]
fn upstream_connections_survive_reload() {
    let one = TestEndpoint::start("one");
    let gapless = Gapless::start_ready(&config_for(&one));
    for generation in 2..8 {
        assert_eq!(gapless.get("/").status, 200);
        gapless.signal(Signal::HUP);
        eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() == generation);
    }
    assert_eq!(one.used_connection_count(), 1);
}

#[test]
fn thousand_reloads_under_load_fail_no_request_and_no_leak() {
    let names = ["near-a", "near-b", "far-a", "dead"];
    let endpoints = names.map(TestEndpoint::start);
    let [near_a, near_b, far_a, dead] = endpoints.each_ref().map(TestEndpoint::address);
    endpoints[3].kill();
    let config = ConfigBuilder::new()
        .pool("detect = { interval = \"1s\" }")
        .zone("here/near", &[near_a, near_b, dead])
        .zone("here/far", &[far_a]);
    let gapless = Gapless::start(&config);
    eventually("verdicts", DEFAULT_TIMEOUT, || {
        let are_others_up =
            [near_a, near_b, far_a].iter().all(|&address| gapless.endpoint_state(address) == "up");
        are_others_up && gapless.endpoint_state(dead) == "down"
    });
    let load = SteadyLoad::start(gapless.address, 4, Duration::from_millis(2));
    let mut warm_kib = 0;
    for reload in 1..=RELOAD_COUNT {
        let before = gapless.generation();
        if reload % 50 == 0 {
            // The text changes now and then.
            gapless
                .write_config(&config.clone().pool(&format!("late_after = \"{reload}ms\"")).text());
        } else {
            gapless.signal(Signal::HUP);
        }
        eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() > before);
        assert_eq!(gapless.endpoint_state(dead), "down", "after {reload} reloads");
        if reload == WARMUP_RELOADS {
            warm_kib = gapless.rss_kib();
        }
    }
    let end_kib = gapless.rss_kib();
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
    assert!(tally.sent > RELOAD_COUNT, "{} requests are no load", tally.sent);
    assert!(end_kib < warm_kib + warm_kib / 10, "{warm_kib} KiB grew to {end_kib} KiB");
    assert_eq!(tally.by_endpoint.get(&dead.to_string()), None);
}

/// The old addresses serve until the new ones have an outcome.
#[test]
fn replacing_all_endpoints_fails_no_request() {
    let sets = [["a", "b"], ["c", "d"]].map(|names| names.map(TestEndpoint::start));
    // Long enough to be observed.
    let slow_probe = ResponseMode::Slow(Duration::from_millis(300));
    sets.iter().flatten().for_each(|endpoint| endpoint.set_probe_mode(slow_probe.clone()));
    let config = |set: &[TestEndpoint; 2]| {
        ConfigBuilder::new().zone("here/a", &set.each_ref().map(TestEndpoint::address))
    };
    let gapless = Gapless::start_ready(&config(&sets[0]));
    let load = SteadyLoad::start(gapless.address, 4, Duration::from_millis(2));
    for set in [&sets[1], &sets[0], &sets[1]] {
        let before = gapless.generation();
        gapless.write_config(&config(set).text());
        eventually("a reload", DEFAULT_TIMEOUT, || gapless.generation() > before);
        gapless.wait_all_up();
        let served = set.each_ref().map(|endpoint| endpoint.requests().len());
        let has_served =
            |(endpoint, before): (&TestEndpoint, usize)| endpoint.requests().len() > before;
        eventually("the new ones serve", DEFAULT_TIMEOUT, || {
            set.iter().zip(served).all(has_served)
        });
    }
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
}

/// Another process writes in the same directory all the time.
#[test]
fn busy_config_directory_still_reloads() {
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    let other = gapless.config_file().with_file_name("other");
    let should_stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !should_stop.load(SeqCst) {
                let _ = std::fs::write(&other, "something");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        eventually("it writes", DEFAULT_TIMEOUT, || other.exists());
        gapless.write_config(&config_for(&two).text());
        let is_change_applied = is_applied_in_time(&gapless, 2);
        gapless.signal(Signal::HUP);
        let is_signal_applied = is_applied_in_time(&gapless, 3);
        should_stop.store(true, SeqCst);
        assert!(
            is_change_applied && is_signal_applied,
            "the change was seen: {is_change_applied}, the signal was heard: {is_signal_applied}"
        );
    });
    assert_eq!(gapless.get("/").text(), "two");
}

/// Whether the configuration of this generation is applied soon.
fn is_applied_in_time(gapless: &Gapless, generation: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(6);
    poll_until("the generation or the deadline", DEFAULT_TIMEOUT, || {
        let is_applied = gapless.generation() >= generation;
        (is_applied || Instant::now() >= deadline).then_some(is_applied)
    })
}

#[test]
fn unread_log_pipe_does_not_block_reload() {
    /// More bytes than a pipe holds.
    const LOG_BYTES: usize = 256 * 1024;
    let (one, two) = (TestEndpoint::start("one"), TestEndpoint::start("two"));
    let gapless = Gapless::start_ready(&config_for(&one));
    let refusals = || gapless.metric("gapless_config_reloads_total{result=\"refused\"}");
    gapless.write_config(&"nonsense = 1\n".repeat(500));
    eventually("a refusal", DEFAULT_TIMEOUT, || {
        gapless.api_json("/api/v1/config")["refused"].is_object()
    });
    eventually("it is told", DEFAULT_TIMEOUT, || gapless.log().contains("refused"));
    let report = gapless.api_json("/api/v1/config")["refused"]["report"].as_str().map(str::len);
    gapless.stop_reading_log();
    let mut logged_bytes = 0;
    while logged_bytes < LOG_BYTES {
        let before = refusals();
        gapless.signal(Signal::HUP);
        eventually("a refusal", DEFAULT_TIMEOUT, || refusals() > before);
        logged_bytes += report.expect("text");
    }
    assert!(gapless.has_stopped_reading_log());
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write_config(&config_for(&two).text());
    wait_for_response(&gapless, "two");
    assert!(gapless.metric("gapless_log_lines_dropped_total") >= 0.0);
}
