//! New configurations while running: what changes, what stays, and what a bad file cannot do.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::Gapless;
use crate::support::load::Load;
use crate::support::{HeldPort, SOON, eventually};

/// Reloads under load.
const MANY: u64 = 1_000;

/// Reloads before memory is measured: caches and allocators have taken what they need by then.
const WARM_UP: u64 = 200;

fn to(endpoint: &Endpoint) -> Config {
    Config::new().zone("here/a", &[endpoint.address()])
}

#[track_caller]
fn wait_for_answer(gapless: &Gapless, name: &str) {
    eventually(name, SOON, || gapless.get("/").text() == name);
}

#[test]
fn a_file_that_is_written_is_obeyed() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write(&to(&two).text());
    wait_for_answer(&gapless, "two");
    assert_eq!(gapless.generation(), 2);
    assert_eq!(gapless.endpoints().len(), 1);
}

#[test]
fn a_file_that_is_replaced_is_obeyed() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    for endpoint in [&two, &one, &two] {
        let aside = gapless.file().with_extension("new");
        std::fs::write(&aside, to(endpoint).text()).expect("written");
        std::fs::rename(&aside, gapless.file()).expect("renamed");
        wait_for_answer(&gapless, if endpoint.address() == one.address() { "one" } else { "two" });
    }
}

/// As Kubernetes mounts a config map: file → `..data` → a directory per version.
#[test]
fn a_symlink_that_is_swapped_is_obeyed() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let directory = TempDir::new().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (version, endpoint) in [("..v1", &one), ("..v2", &two)] {
        std::fs::create_dir(at(version)).expect("made");
        std::fs::write(at(version).join("gapless.toml"), to(endpoint).text()).expect("written");
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, at(name)).expect("linked");
    };
    link("..v1", "..data");
    link("..data/gapless.toml", "gapless.toml");
    let file = at("gapless.toml");
    let (temporary, data) = (at("..data_tmp"), at("..data"));
    link("..v2", "..data_tmp");
    let gapless = Gapless::start_with(directory, file);
    wait_for_answer(&gapless, "one");
    std::fs::rename(temporary, data).expect("swapped");
    wait_for_answer(&gapless, "two");
}

#[test]
fn a_signal_reloads_even_what_has_not_changed() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    for generation in 2..5 {
        gapless.signal(Signal::HUP);
        eventually("a reload", SOON, || gapless.generation() == generation);
    }
    assert_eq!(gapless.get("/").status, 200);
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_bad() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    assert!(gapless.api("/api/v1/config")["refused"].is_null());
    let bad = "nonsense = 1\n[[listen]]\naddress = \"nowhere\"\n[[route]]\npool = \"wbe\"\n\
               [pool.web]\nprobe = { http = \"healthz\" }\ndetect = { interval = \"1x\" }\n\
               [[pool.web.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:1\"]\n";
    gapless.write(bad);
    eventually("a refusal", SOON, || gapless.api("/api/v1/config")["refused"].is_object());
    let config = gapless.api("/api/v1/config");
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
    gapless.write(&to(&two).text());
    wait_for_answer(&gapless, "two");
    assert!(gapless.api("/api/v1/config")["refused"].is_null());
    assert_eq!(gapless.metric("gapless_config_last_reload_ok"), 1.0);
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    std::fs::remove_file(gapless.file()).expect("removed");
    eventually("a refusal", SOON, || gapless.api("/api/v1/config")["refused"].is_object());
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write(&to(&one).text());
    eventually("all is well", SOON, || gapless.api("/api/v1/config")["refused"].is_null());
}

#[test]
fn a_down_endpoint_stays_down_through_reloads() {
    let (near, far) = (Endpoint::start("near"), Endpoint::start("far"));
    near.set_probe(Mode::Status(500));
    // Probed so seldom after its verdict that a reload would be seen to absolve it.
    let detect = "detect = { interval = \"30s\", down_interval = \"30s\" }";
    let config = Config::new()
        .pool(detect)
        .zone("here/near", &[near.address()])
        .zone("here/far", &[far.address()]);
    let gapless = Gapless::start(&config);
    eventually("its verdict", SOON, || gapless.state(near.address()) == "down");
    near.set_probe(Mode::Ok);
    for (generation, late) in (2..6).zip(["1s", "2s", "3s", "4s"]) {
        gapless.write(&config.clone().pool(&format!("late_after = \"{late}\"")).text());
        eventually("a reload", SOON, || gapless.generation() == generation);
        assert_eq!(gapless.state(near.address()), "down");
        assert_eq!(gapless.get("/").text(), "far");
    }
}

#[test]
fn a_new_endpoint_serves_after_its_first_pass_only() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    two.set_probe(Mode::Hang);
    let detect = "detect = { interval = \"30s\", timeout = \"30s\", down_interval = \"30s\" }";
    let base = Config::new().pool(detect);
    let gapless = Gapless::start_ready(&base.clone().zone("here/a", &[one.address()]));
    let both = base.zone("here/new", &[two.address()]).zone("here/a", &[one.address()]);
    gapless.write(&both.text());
    eventually("a reload", SOON, || gapless.generation() == 2);
    assert_eq!(gapless.state(two.address()), "unknown");
    assert_eq!(gapless.state(one.address()), "up", "what stays keeps its health");
    for _ in 0..10 {
        assert_eq!(gapless.get("/").text(), "one");
    }
}

#[test]
fn listeners_come_and_go() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    let port = HeldPort::take();
    let added = port.address();
    drop(port);
    assert!(Client::connect(added).is_err());
    gapless.write(&to(&one).listen(added).text());
    eventually("it listens", SOON, || Client::connect(added).is_ok());
    assert_eq!(client::get(added, "/").text(), "one");
    let mut kept = Client::open(added);
    assert_eq!(kept.get("/").status, 200);
    gapless.write(&to(&one).text());
    eventually("it listens no more", SOON, || Client::connect(added).is_err());
    assert_eq!(kept.get("/").status, 200, "a running connection goes on");
    assert_eq!(gapless.get("/").status, 200, "and so does the other listener");
}

#[test]
fn a_listener_that_cannot_be_had_changes_nothing() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
    gapless.write(&to(&two).listen(taken.1).text());
    eventually("a refusal", SOON, || gapless.api("/api/v1/config")["refused"].is_object());
    let refused = gapless.api("/api/v1/config");
    assert!(refused["refused"]["report"].as_str().expect("text").contains("another process"));
    assert_eq!(gapless.get("/").text(), "one");
}

#[test]
fn what_only_a_start_can_change_is_said() {
    let one = Endpoint::start("one");
    let config = Config::default().keys("workers = 1").zone("here/a", &[one.address()]);
    let gapless = Gapless::start_ready(&config);
    let text = config.text().replace("workers = 1", "workers = 2");
    gapless.write(&text);
    eventually("a reload", SOON, || gapless.generation() == 2);
    assert_eq!(gapless.api("/api/v1/config")["needs_restart"], serde_json::json!(["workers"]));
    gapless.write(&config.text());
    eventually("a reload", SOON, || gapless.generation() == 3);
    assert_eq!(gapless.api("/api/v1/config")["needs_restart"], serde_json::json!([]));
}

#[test]
fn connections_and_running_requests_do_not_notice_a_reload() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let config = to(&one);
    let gapless = Gapless::start_ready(&config);
    let mut client = Client::open(gapless.address);
    assert_eq!(client.get("/").status, 200);
    one.set(Mode::Slow(Duration::from_secs(2)));
    let mut waiting = Client::open(gapless.address);
    // A GET would not wait for so long: another endpoint would be asked.
    waiting.send("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").expect("sent");
    eventually("it is under way", SOON, || one.seen().len() == 2);
    gapless.write(&to(&two).text());
    eventually("a reload", SOON, || gapless.generation() == 2);
    gapless.wait_all_up();
    assert_eq!(client.get("/").text(), "two", "on the same connection");
    let answer = waiting.answer("POST").expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "one".to_owned()));
}

#[test]
fn connections_to_endpoints_outlive_a_reload() {
    let one = Endpoint::start("one");
    let gapless = Gapless::start_ready(&to(&one));
    for generation in 2..8 {
        assert_eq!(gapless.get("/").status, 200);
        gapless.signal(Signal::HUP);
        eventually("a reload", SOON, || gapless.generation() == generation);
    }
    assert_eq!(one.connections(), 1);
}

#[test]
fn a_thousand_reloads_under_load_cost_nothing() {
    let names = ["near-a", "near-b", "far-a", "dead"];
    let endpoints = names.map(Endpoint::start);
    let [near_a, near_b, far_a, dead] = endpoints.each_ref().map(Endpoint::address);
    endpoints[3].die();
    let config = Config::new()
        .pool("detect = { interval = \"1s\" }")
        .zone("here/near", &[near_a, near_b, dead])
        .zone("here/far", &[far_a]);
    let gapless = Gapless::start(&config);
    eventually("verdicts", SOON, || {
        let up = [near_a, near_b, far_a].iter().all(|&address| gapless.state(address) == "up");
        up && gapless.state(dead) == "down"
    });
    let load = Load::start(gapless.address, 4, Duration::from_millis(2));
    let mut warm_kib = 0;
    for reload in 1..=MANY {
        let before = gapless.generation();
        if reload % 50 == 0 {
            // Another text now and then, so that not only nothing changes.
            gapless.write(&config.clone().pool(&format!("late_after = \"{reload}ms\"")).text());
        } else {
            gapless.signal(Signal::HUP);
        }
        eventually("a reload", SOON, || gapless.generation() > before);
        assert_eq!(gapless.state(dead), "down", "after {reload} reloads");
        if reload == WARM_UP {
            warm_kib = gapless.rss_kib();
        }
    }
    let end_kib = gapless.rss_kib();
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
    assert!(tally.sent > MANY, "{} requests are no load", tally.sent);
    assert!(end_kib < warm_kib + warm_kib / 10, "{warm_kib} KiB grew to {end_kib} KiB");
    assert_eq!(tally.by_endpoint.get(&dead.to_string()), None);
}

/// The old addresses serve until something is known of the new ones.
#[test]
fn new_addresses_for_all_endpoints_cost_no_request() {
    let sets = [["a", "b"], ["c", "d"]].map(|names| names.map(Endpoint::start));
    // Long enough to be noticed.
    let knowing = Mode::Slow(Duration::from_millis(300));
    sets.iter().flatten().for_each(|endpoint| endpoint.set_probe(knowing.clone()));
    let config =
        |set: &[Endpoint; 2]| Config::new().zone("here/a", &set.each_ref().map(Endpoint::address));
    let gapless = Gapless::start_ready(&config(&sets[0]));
    let load = Load::start(gapless.address, 4, Duration::from_millis(2));
    for set in [&sets[1], &sets[0], &sets[1]] {
        let before = gapless.generation();
        gapless.write(&config(set).text());
        eventually("a reload", SOON, || gapless.generation() > before);
        gapless.wait_all_up();
        let served = set.each_ref().map(|endpoint| endpoint.seen().len());
        let serves = |(endpoint, before): (&Endpoint, usize)| endpoint.seen().len() > before;
        eventually("the new ones serve", SOON, || set.iter().zip(served).all(serves));
    }
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.sent, tally);
}

/// Somebody else writes in the same directory all the time.
#[test]
fn a_directory_that_is_never_left_alone_is_looked_at() {
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    let other = gapless.file().with_file_name("other");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                let _ = std::fs::write(&other, "something");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        eventually("it writes", SOON, || other.exists());
        gapless.write(&to(&two).text());
        let seen = obeyed(&gapless, 2);
        gapless.signal(Signal::HUP);
        let heard = obeyed(&gapless, 3);
        over.store(true, SeqCst);
        assert!(seen && heard, "the change was seen: {seen}, the signal was heard: {heard}");
    });
    assert_eq!(gapless.get("/").text(), "two");
}

/// Whether the configuration of this number is obeyed soon.
fn obeyed(gapless: &Gapless, generation: u64) -> bool {
    let end = Instant::now() + Duration::from_secs(6);
    while gapless.generation() < generation && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    gapless.generation() >= generation
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    /// More than a pipe holds.
    const LOG_BYTES: usize = 256 * 1024;
    let (one, two) = (Endpoint::start("one"), Endpoint::start("two"));
    let gapless = Gapless::start_ready(&to(&one));
    let refusals = || gapless.metric("gapless_config_reloads_total{result=\"refused\"}");
    gapless.write(&"nonsense = 1\n".repeat(500));
    eventually("a refusal", SOON, || gapless.api("/api/v1/config")["refused"].is_object());
    eventually("it is told", SOON, || gapless.log().contains("refused"));
    let report = gapless.api("/api/v1/config")["refused"]["report"].as_str().map(str::len);
    gapless.ignore_log();
    let mut told = 0;
    while told < LOG_BYTES {
        let before = refusals();
        gapless.signal(Signal::HUP);
        eventually("a refusal", SOON, || refusals() > before);
        told += report.expect("text");
    }
    assert!(gapless.is_log_ignored());
    assert_eq!(gapless.get("/").text(), "one");
    gapless.write(&to(&two).text());
    wait_for_answer(&gapless, "two");
    assert!(gapless.metric("gapless_log_lines_dropped_total") >= 0.0);
}
