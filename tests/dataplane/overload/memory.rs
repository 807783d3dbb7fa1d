//! Near the bound of memory. The bound is moved, not what is used of it.

use std::time::{Duration, Instant};

use super::closed;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::{SOON, eventually, until};

/// Has `gapless` use this share of what it may, in thousandths, as `config` says the rest, so that it
/// comes to `level`; what it uses grows a little by that.
#[track_caller]
fn use_up(gapless: &Gapless, config: &Config, thousandths: u64, level: f64) {
    until("the level is reached", SOON, || {
        let bound = gapless.metric("gapless_memory_bytes") as u64 * 1_000 / thousandths;
        let generation = gapless.generation();
        gapless.write(&config.clone().tables(&format!("[limits]\nmemory = {bound}")).text());
        eventually("it is loaded", SOON, || gapless.generation() > generation);
        // It is looked at ten times a second.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(600) {
            if gapless.metric("gapless_memory_pressure") == level {
                return Some(());
            }
        }
        None
    });
}

#[test]
fn each_step_is_taken_in_its_turn_and_none_is_an_endpoints_fault() {
    let endpoint = Endpoint::start("one");
    let config = Config::new().zone("here/a", &[endpoint.address()]);
    let gapless = Gapless::start_ready(&config);
    assert!(gapless.metric("gapless_memory_limit_bytes") > 0.0, "the system sets one");
    let ready = || gapless.ask("/readyz");
    let mut idle = Client::open(gapless.address);
    assert_eq!(idle.get("/").status, 200);

    use_up(&gapless, &config, 935, 1.0);
    assert!(idle.is_ended());
    assert!(closed(&gapless, "memory") >= 1);
    assert_eq!((gapless.get("/").status, ready().status), (200, 200));

    use_up(&gapless, &config, 965, 2.0);
    let mut kept = Client::open(gapless.address);
    assert_eq!(kept.get("/").verdict(), (503, Some("overload")));
    let said = ready();
    assert_eq!(said.status, 503);
    assert!(said.text().starts_with("overloaded: 9"), "{}", said.text());
    assert!(gapless.metric("gapless_overload_refusals_total") >= 1.0);

    // From calm: what has stood still for a while would be eased in the middle of this.
    gapless.write(&config.text());
    eventually("it is calm", SOON, || gapless.metric("gapless_memory_pressure") == 0.0);
    use_up(&gapless, &config, 1_100, 3.0);
    // One may have been accepted before it was seen.
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::open(gapless.address)).collect();
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    waiting.iter_mut().for_each(|client| client.send(request).expect("sent"));
    let last = &mut waiting[2];
    last.wire.stream().set_read_timeout(Some(Duration::from_millis(700))).expect("a socket");
    assert!(last.answer("GET").is_err(), "nobody is let in");

    gapless.write(&config.text());
    last.wire.stream().set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    assert_eq!(last.answer("GET").expect("an answer").status, 200, "the kernel held it");
    assert_eq!((gapless.get("/").status, ready().status), (200, 200));
    assert_eq!(gapless.state(endpoint.address()), "up");
    assert!(!gapless.log().contains("suspect"), "{}", gapless.log());
}
