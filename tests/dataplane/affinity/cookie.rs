//! By a cookie: through reloads, restarts and upgrades, and when its endpoint fails.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{World, ask, ask_with};
use crate::support::client::Answer;
use crate::support::instance::{BINARY, Gapless};
use crate::support::{SOON, eventually, until};

const SECRET: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9\n";
const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n";

/// The cookie that an answer sets, as it is sent back.
#[track_caller]
fn pin(answer: &Answer) -> String {
    let set = answer.field("set-cookie").expect("a cookie");
    set.split(';').next().expect("a value").to_owned()
}

/// A cookie for an endpoint, with the endpoint's name.
#[track_caller]
fn pinned(gapless: &Gapless) -> (String, String) {
    let answer = ask(gapless, "");
    (pin(&answer), answer.text())
}

/// Asks often enough that chance would have gone elsewhere.
#[track_caller]
fn stays(gapless: &Gapless, cookie: &str, endpoint: &str) {
    for _ in 0..20 {
        let answer = ask_with(gapless, cookie);
        assert_eq!((answer.text().as_str(), answer.field("set-cookie")), (endpoint, None));
    }
}

fn outcomes(gapless: &Gapless, outcome: &str) -> f64 {
    gapless.metric(&format!("gapless_affinity_total{{pool=\"web\",outcome=\"{outcome}\"}}"))
}

#[test]
fn a_client_stays_with_its_endpoint() {
    let world = World::new(4);
    let gapless =
        Gapless::start_ready(&world.config("affinity = { cookie = \"pin\", ttl = \"1h\" }"));
    let answer = ask(&gapless, "");
    let set = answer.field("set-cookie").expect("a cookie").to_owned();
    let (value, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
    assert_eq!(value.len(), "pin=".len() + 48, "and nothing of an address in it: {value}");
    stays(&gapless, value, &answer.text());
    assert_eq!(outcomes(&gapless, "new"), 1.0);
    assert_eq!(outcomes(&gapless, "kept"), 20.0);
    let everywhere = (0..60).map(|_| ask(&gapless, "").text());
    let everywhere: std::collections::HashSet<String> = everywhere.collect();
    assert_eq!(everywhere.len(), 4, "others are not kept there");
}

#[test]
fn what_is_forged_leads_nowhere_and_is_counted() {
    let world = World::new(3);
    let gapless = Gapless::start_ready(&world.config("affinity = { cookie = \"pin\" }"));
    let (cookie, endpoint) = pinned(&gapless);
    let mut forged = cookie.clone().into_bytes();
    let last = forged.len() - 1;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    for bad in [forged.as_str(), "pin=short", "pin=\"\"", "pin=%00%00"] {
        let answer = ask_with(&gapless, bad);
        assert!(answer.field("set-cookie").is_some(), "it gets one of its own: {bad}");
    }
    assert_eq!(outcomes(&gapless, "refused"), 4.0);
    // A client may have others of that name, of other paths.
    stays(&gapless, &format!("{forged}; {cookie}"), &endpoint);
    assert_eq!(outcomes(&gapless, "refused"), 4.0);
}

#[test]
fn a_reload_leaves_clients_where_they_are() {
    let world = World::new(4);
    let config = world.config("affinity = { cookie = \"pin\" }");
    let gapless = Gapless::start_ready(&config);
    let (cookie, endpoint) = pinned(&gapless);
    gapless.write(&config.pool("late_after = \"1s\"").text());
    eventually("reloaded", SOON, || gapless.generation() == 2);
    stays(&gapless, &cookie, &endpoint);
}

#[test]
fn secrets_of_a_file_outlive_the_process_and_can_be_exchanged() {
    let world = World::new(4);
    let start = |secrets: &str| {
        let directory = TempDir::new().expect("a directory");
        std::fs::write(directory.path().join("secrets"), secrets).expect("written");
        let config = world.config("affinity = { cookie = \"pin\", secret_file = \"secrets\" }");
        let file = directory.path().join("gapless.toml");
        std::fs::write(&file, config.text()).expect("written");
        let gapless = Gapless::start_with(directory, file);
        gapless.wait_all_up();
        gapless
    };
    let first = start(SECRET);
    let (cookie, endpoint) = pinned(&first);
    drop(first);
    let second = start(&format!("# the new one first\n{OTHER}{SECRET}"));
    let answer = ask_with(&second, &cookie);
    assert_eq!(answer.text(), endpoint);
    let renewed = pin(&answer);
    stays(&second, &renewed, &endpoint);
    let file = second.file().with_file_name("secrets");
    std::fs::write(file, OTHER).expect("written");
    eventually("reloaded", SOON, || second.generation() == 2);
    stays(&second, &renewed, &endpoint);
    let answer = ask_with(&second, &cookie);
    assert!(answer.field("set-cookie").is_some(), "sealed by what is no secret any more");
    assert!(!second.log().contains("ffff"), "no log shows a secret");
}

#[test]
fn the_instances_own_secret_is_kept_in_its_state_directory() {
    let world = World::new(4);
    let state = TempDir::new().expect("a directory");
    let path = state.path().join("state");
    let keys = format!("state_dir = \"{}\"", path.display());
    let config = world.config("affinity = { cookie = \"pin\" }").keys(&keys);
    let first = Gapless::start_ready(&config);
    let (cookie, endpoint) = pinned(&first);
    drop(first);
    assert_eq!(mode(&path.join("affinity.key")), 0o600);
    stays(&Gapless::start_ready(&config), &cookie, &endpoint);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a file").mode() & 0o777
}

#[test]
fn the_process_that_takes_over_opens_what_the_old_one_sealed() {
    let world = World::new(4);
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gapless.toml");
    let config = world.config("affinity = { cookie = \"pin\" }");
    std::fs::write(&file, config.text()).expect("written");
    let mut command = Command::new(BINARY);
    command.arg("run").arg(&file);
    let mut gapless = Gapless::start_by(command, directory, file);
    gapless.wait_all_up();
    let (cookie, endpoint) = pinned(&gapless);
    gapless.upgrade();
    assert!(gapless.wait(SOON).success());
    stays(&gapless, &cookie, &endpoint);
}

/// A client whose endpoint is gone; its cookie, and where it went.
fn moved(gapless: &Gapless, world: &World, (cookie, endpoint): (&str, &str)) -> (String, String) {
    world.named(endpoint).die();
    // While it is only suspected clients pass by, and keep their pins.
    let answer = until("another pin", SOON, || {
        let answer = ask_with(gapless, cookie);
        assert_eq!(answer.status, 200, "it is served elsewhere at once");
        assert_ne!(answer.text(), endpoint);
        answer.field("set-cookie").is_some().then_some(answer)
    });
    let (moved, elsewhere) = (pin(&answer), answer.text());
    let address = world.named(endpoint).address();
    eventually("down", SOON, || gapless.state(address) == "down");
    stays(gapless, &moved, &elsewhere);
    (moved, elsewhere)
}

fn comes_back(gapless: &Gapless, world: &World, endpoint: &str) {
    let endpoint = world.named(endpoint);
    endpoint.listen();
    eventually("up again", SOON, || gapless.state(endpoint.address()) == "up");
}

#[test]
fn a_client_whose_endpoint_fails_returns_to_it() {
    let world = World::new(4);
    let gapless = Gapless::start_ready(&world.config("affinity = { cookie = \"pin\" }"));
    let (cookie, first) = pinned(&gapless);
    let (moved, _) = moved(&gapless, &world, (&cookie, &first));
    comes_back(&gapless, &world, &first);
    let back = until("back at the first", SOON, || {
        let answer = ask_with(&gapless, &moved);
        (answer.text() == first).then(|| pin(&answer))
    });
    stays(&gapless, &back, &first);
    assert_eq!(outcomes(&gapless, "returned"), 1.0);
}

#[test]
fn or_it_stays_where_it_went() {
    let world = World::new(4);
    let affinity = "affinity = { cookie = \"pin\", on_return = \"stay\" }";
    let gapless = Gapless::start_ready(&world.config(affinity));
    let (cookie, first) = pinned(&gapless);
    let (moved, elsewhere) = moved(&gapless, &world, (&cookie, &first));
    comes_back(&gapless, &world, &first);
    stays(&gapless, &moved, &elsewhere);
    assert_eq!(outcomes(&gapless, "moved"), 1.0);
}

#[test]
fn a_full_endpoint_is_passed_by_for_once() {
    let world = World::new(2);
    let lines = "affinity = { cookie = \"pin\" }\nlimits = { endpoint = { requests = 1 } }";
    let config = world.config(lines).route("retry = { hedge = false }");
    let gapless = Gapless::start_ready(&config);
    let (cookie, endpoint) = pinned(&gapless);
    let hold = crate::support::endpoint::Mode::Slow(std::time::Duration::from_secs(2));
    world.named(&endpoint).set(hold);
    let held = std::thread::scope(|scope| {
        let held = scope.spawn(|| ask_with(&gapless, &cookie));
        let there = world.named(&endpoint);
        eventually("it is there", SOON, || there.seen().len() == 2);
        let answer = ask_with(&gapless, &cookie);
        assert_ne!(answer.text(), endpoint);
        assert_eq!(answer.field("set-cookie"), None, "its pin stays");
        held.join().expect("answered")
    });
    assert_eq!(held.text(), endpoint);
    assert_eq!(outcomes(&gapless, "away"), 1.0);
}

#[test]
fn a_drained_endpoint_keeps_its_clients_for_a_time_and_gets_no_others() {
    let world = World::new(3);
    let drained = |drain: &str| {
        let affinity = format!("affinity = {{ cookie = \"pin\", drain = \"{drain}\" }}");
        let gapless = Gapless::start_ready(&world.config(&affinity));
        let (cookie, endpoint) = pinned(&gapless);
        let address = world.named(&endpoint).address();
        let admin = gapless.admin.to_string();
        let mut command = Command::new(BINARY);
        command.args(["drain", &address.to_string(), "--force", "--admin", &admin]);
        assert!(command.status().expect("a process").success());
        eventually("drained", SOON, || gapless.endpoint(address)["standing"] == "drained");
        (gapless, cookie, endpoint)
    };
    let (gapless, cookie, endpoint) = drained("1h");
    stays(&gapless, &cookie, &endpoint);
    assert!((0..20).all(|_| ask(&gapless, "").text() != endpoint));
    let (gapless, cookie, endpoint) = drained("0s");
    let answer = ask_with(&gapless, &cookie);
    assert_ne!(answer.text(), endpoint);
    stays(&gapless, &pin(&answer), &answer.text());
}
