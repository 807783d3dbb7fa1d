//! Cookie affinity through reloads, restarts, upgrades and failures.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{AffinityFixture, get_with_cookie, get_with_fields};
use crate::support::client::TestResponse;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, eventually, poll_until};

const SECRET: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9\n";
const OTHER_SECRET: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n";

/// The cookie that an answer sets, as it is sent back.
#[track_caller]
fn affinity_cookie(answer: &TestResponse) -> String {
    let set = answer.field("set-cookie").expect("a cookie");
    set.split(';').next().expect("a value").to_owned()
}

/// A cookie for an endpoint, with the endpoint's name.
#[track_caller]
fn new_affinity_cookie(gapless: &Gapless) -> (String, String) {
    let answer = get_with_fields(gapless, "");
    (affinity_cookie(&answer), answer.text())
}

/// Sends enough requests that a random choice would select another endpoint.
#[track_caller]
fn assert_sticky(gapless: &Gapless, cookie: &str, endpoint: &str) {
    for _ in 0..20 {
        let answer = get_with_cookie(gapless, cookie);
        assert_eq!((answer.text().as_str(), answer.field("set-cookie")), (endpoint, None));
    }
}

fn affinity_outcomes(gapless: &Gapless, outcome: &str) -> f64 {
    gapless.metric(&format!("gapless_affinity_total{{pool=\"web\",outcome=\"{outcome}\"}}"))
}

#[test]
fn cookie_keeps_the_client_on_its_endpoint() {
    let fixture = AffinityFixture::new(4);
    let gapless =
        Gapless::start_ready(&fixture.config("affinity = { cookie = \"pin\", ttl = \"1h\" }"));
    let answer = get_with_fields(&gapless, "");
    let set = answer.field("set-cookie").expect("a cookie").to_owned();
    let (value, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    assert_eq!(value.len(), "pin=".len() + 48, "and nothing of an address in it: {value}");
    assert_sticky(&gapless, value, &answer.text());
    assert_eq!(affinity_outcomes(&gapless, "new"), 1.0);
    assert_eq!(affinity_outcomes(&gapless, "kept"), 20.0);
    let endpoints = (0..60).map(|_| get_with_fields(&gapless, "").text());
    let endpoints: std::collections::HashSet<String> = endpoints.collect();
    assert_eq!(endpoints.len(), 4, "others are not kept there");
}

#[test]
fn forged_cookie_is_refused_and_replaced() {
    let fixture = AffinityFixture::new(3);
    let gapless = Gapless::start_ready(&fixture.config("affinity = { cookie = \"pin\" }"));
    let (cookie, endpoint) = new_affinity_cookie(&gapless);
    let mut forged = cookie.clone().into_bytes();
    let last = forged.len() - 1;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    for bad in [forged.as_str(), "pin=short", "pin=\"\"", "pin=%00%00"] {
        let answer = get_with_cookie(&gapless, bad);
        assert!(answer.field("set-cookie").is_some(), "it gets one of its own: {bad}");
    }
    assert_eq!(affinity_outcomes(&gapless, "refused"), 4.0);
    // A client may hold other cookies of that name for other paths.
    assert_sticky(&gapless, &format!("{forged}; {cookie}"), &endpoint);
    assert_eq!(affinity_outcomes(&gapless, "refused"), 4.0);
}

#[test]
fn reload_keeps_affinity() {
    let fixture = AffinityFixture::new(4);
    let config = fixture.config("affinity = { cookie = \"pin\" }");
    let gapless = Gapless::start_ready(&config);
    let (cookie, endpoint) = new_affinity_cookie(&gapless);
    gapless.write_config(&config.pool("late_after = \"1s\"").text());
    eventually("reloaded", DEFAULT_TIMEOUT, || gapless.generation() == 2);
    assert_sticky(&gapless, &cookie, &endpoint);
}

#[test]
fn secret_file_survives_restart_and_rotation() {
    let fixture = AffinityFixture::new(4);
    let start = |secrets: &str| {
        let directory = TempDir::new().expect("a directory");
        std::fs::write(directory.path().join("secrets"), secrets).expect("written");
        let config = fixture.config("affinity = { cookie = \"pin\", secret_file = \"secrets\" }");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        let gapless = Gapless::start_with_file(directory, file);
        gapless.wait_all_up();
        gapless
    };
    let first = start(SECRET);
    let (cookie, endpoint) = new_affinity_cookie(&first);
    drop(first);
    let second = start(&format!("# the new one first\n{OTHER_SECRET}{SECRET}"));
    let answer = get_with_cookie(&second, &cookie);
    assert_eq!(answer.text(), endpoint);
    let renewed = affinity_cookie(&answer);
    assert_sticky(&second, &renewed, &endpoint);
    let file = second.config_file().with_file_name("secrets");
    std::fs::write(file, OTHER_SECRET).expect("written");
    eventually("reloaded", DEFAULT_TIMEOUT, || second.generation() == 2);
    assert_sticky(&second, &renewed, &endpoint);
    let answer = get_with_cookie(&second, &cookie);
    assert!(answer.field("set-cookie").is_some(), "sealed by what is no secret any more");
    assert!(!second.log().contains("ffff"), "no log shows a secret");
}

#[test]
fn own_secret_persists_in_the_state_directory() {
    let fixture = AffinityFixture::new(4);
    let state = TempDir::new().expect("a directory");
    let path = state.path().join("state");
    let keys = format!("state_dir = \"{}\"", path.display());
    let config = fixture.config("affinity = { cookie = \"pin\" }").keys(&keys);
    let first = Gapless::start_ready(&config);
    let (cookie, endpoint) = new_affinity_cookie(&first);
    drop(first);
    assert_eq!(file_mode(&path.join("affinity.key")), 0o600);
    assert_sticky(&Gapless::start_ready(&config), &cookie, &endpoint);
}

fn file_mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a file").mode() & 0o777
}

#[test]
fn upgraded_process_accepts_cookies_of_its_predecessor() {
    let fixture = AffinityFixture::new(4);
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    let config = fixture.config("affinity = { cookie = \"pin\" }");
    std::fs::write(&file, config.text()).expect("written");
    let mut command = Command::new(BINARY);
    command.arg("run").arg(&file);
    let mut gapless = Gapless::start_command(command, directory, file);
    gapless.wait_all_up();
    let (cookie, endpoint) = new_affinity_cookie(&gapless);
    gapless.upgrade();
    assert!(gapless.wait_for_exit(DEFAULT_TIMEOUT).success());
    assert_sticky(&gapless, &cookie, &endpoint);
}

/// A client after its endpoint was removed: its cookie and its new endpoint.
fn fail_endpoint_of_client(
    gapless: &Gapless,
    fixture: &AffinityFixture,
    (cookie, endpoint): (&str, &str),
) -> (String, String) {
    fixture.endpoint_named(endpoint).kill();
    // While the endpoint is a suspect, clients use another one and keep their cookies.
    let answer = poll_until("another pin", DEFAULT_TIMEOUT, || {
        let answer = get_with_cookie(gapless, cookie);
        assert_eq!(answer.status, 200, "it is served elsewhere at once");
        assert_ne!(answer.text(), endpoint);
        answer.field("set-cookie").is_some().then_some(answer)
    });
    let (new_cookie, elsewhere) = (affinity_cookie(&answer), answer.text());
    let address = fixture.endpoint_named(endpoint).address();
    eventually("down", DEFAULT_TIMEOUT, || gapless.endpoint_state(address) == "down");
    assert_sticky(gapless, &new_cookie, &elsewhere);
    (new_cookie, elsewhere)
}

fn recover_endpoint(gapless: &Gapless, fixture: &AffinityFixture, endpoint: &str) {
    let endpoint = fixture.endpoint_named(endpoint);
    endpoint.listen();
    eventually("up again", DEFAULT_TIMEOUT, || gapless.endpoint_state(endpoint.address()) == "up");
}

#[test]
fn client_returns_to_its_endpoint_after_recovery() {
    let fixture = AffinityFixture::new(4);
    let gapless = Gapless::start_ready(&fixture.config("affinity = { cookie = \"pin\" }"));
    let (cookie, first) = new_affinity_cookie(&gapless);
    let (new_cookie, _) = fail_endpoint_of_client(&gapless, &fixture, (&cookie, &first));
    recover_endpoint(&gapless, &fixture, &first);
    let back = poll_until("back at the first", DEFAULT_TIMEOUT, || {
        let answer = get_with_cookie(&gapless, &new_cookie);
        (answer.text() == first).then(|| affinity_cookie(&answer))
    });
    assert_sticky(&gapless, &back, &first);
    assert_eq!(affinity_outcomes(&gapless, "returned"), 1.0);
}

#[test]
fn on_return_stay_keeps_client_on_the_new_endpoint() {
    let fixture = AffinityFixture::new(4);
    let affinity = "affinity = { cookie = \"pin\", on_return = \"stay\" }";
    let gapless = Gapless::start_ready(&fixture.config(affinity));
    let (cookie, first) = new_affinity_cookie(&gapless);
    let (new_cookie, elsewhere) = fail_endpoint_of_client(&gapless, &fixture, (&cookie, &first));
    recover_endpoint(&gapless, &fixture, &first);
    assert_sticky(&gapless, &new_cookie, &elsewhere);
    assert_eq!(affinity_outcomes(&gapless, "moved"), 1.0);
}

#[test]
fn endpoint_at_limit_is_skipped_without_a_new_cookie() {
    let fixture = AffinityFixture::new(2);
    let lines = "affinity = { cookie = \"pin\" }\nlimits = { endpoint = { requests = 1 } }";
    let config = fixture.config(lines).route("retry = { hedge = false }");
    let gapless = Gapless::start_ready(&config);
    let (cookie, endpoint) = new_affinity_cookie(&gapless);
    let slow = crate::support::endpoint::ResponseMode::Slow(std::time::Duration::from_secs(2));
    fixture.endpoint_named(&endpoint).set_mode(slow);
    let held = std::thread::scope(|scope| {
        let held = scope.spawn(|| get_with_cookie(&gapless, &cookie));
        let pinned_endpoint = fixture.endpoint_named(&endpoint);
        eventually("it is there", DEFAULT_TIMEOUT, || pinned_endpoint.requests().len() == 2);
        let answer = get_with_cookie(&gapless, &cookie);
        assert_ne!(answer.text(), endpoint);
        assert_eq!(answer.field("set-cookie"), None, "its pin stays");
        held.join().expect("answered")
    });
    assert_eq!(held.text(), endpoint);
    assert_eq!(affinity_outcomes(&gapless, "away"), 1.0);
}

#[test]
fn drained_endpoint_keeps_pinned_clients_for_drain_time() {
    let fixture = AffinityFixture::new(3);
    let drained = |drain: &str| {
        let affinity = format!("affinity = {{ cookie = \"pin\", drain = \"{drain}\" }}");
        let gapless = Gapless::start_ready(&fixture.config(&affinity));
        let (cookie, endpoint) = new_affinity_cookie(&gapless);
        let address = fixture.endpoint_named(&endpoint).address();
        let admin = gapless.admin.to_string();
        let mut command = Command::new(BINARY);
        command.args(["drain", &address.to_string(), "--force", "--admin", &admin]);
        assert!(command.status().expect("a process").success());
        eventually("drained", DEFAULT_TIMEOUT, || {
            gapless.endpoint(address)["standing"] == "drained"
        });
        (gapless, cookie, endpoint)
    };
    let (gapless, cookie, endpoint) = drained("1h");
    assert_sticky(&gapless, &cookie, &endpoint);
    assert!((0..20).all(|_| get_with_fields(&gapless, "").text() != endpoint));
    let (gapless, cookie, endpoint) = drained("0s");
    let answer = get_with_cookie(&gapless, &cookie);
    assert_ne!(answer.text(), endpoint);
    assert_sticky(&gapless, &affinity_cookie(&answer), &answer.text());
}
