//! The running program: what it says of probes, certificates that change, connections that it keeps.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::support::config::Config;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Clients, Valid};
use crate::support::server::{Server, http1, ok, serving};
use crate::support::{SOON, eventually};

const LOCAL: &str = "127.0.0.1";

fn config(probe: &str, endpoints: &[SocketAddr]) -> Config {
    let often = "detect = { interval = \"50ms\", timeout = \"50ms\", fast_interval = \"50ms\", \
                 down_interval = \"50ms\" }";
    Config::new().pool(&format!("probe = {probe}\n{often}")).zone("local/a", endpoints)
}

/// Starts with a file in `directory`, beside which its other files are.
fn start(directory: TempDir, config: &Config) -> Gapless {
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    Gapless::start_with(directory, file)
}

/// What the last probe of an endpoint gave.
fn last_result(gapless: &Gapless, address: SocketAddr) -> Option<String> {
    let endpoint = gapless.endpoint(address);
    let last = endpoint["probes"].as_array().and_then(|probes| probes.last().cloned())?;
    last["result"].as_str().map(str::to_owned)
}

#[test]
fn a_reload_reads_the_certificates_again() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let config_of = |authority: &Authority, valid| {
        authority.server(&[LOCAL], valid).server_config(&Clients::Any, &[])
    };
    let server = Server::tls(config_of(&new, Valid::Now), http1(&ok("", "fine")));
    let expired = Server::tls(config_of(&new, Valid::UntilLastYear), http1(&ok("", "fine")));
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), old.pem()).expect("written");
    let probe = "{ http = \"/\", tls = { ca_file = \"ca.pem\" } }";
    let gapless = start(directory, &config(probe, &[server.address, expired.address]));
    let unknown = Some("tls certificate of an unknown issuer".to_owned());
    eventually("unknown", SOON, || last_result(&gapless, server.address) == unknown);

    let ca_file = gapless.file().with_file_name("ca.pem");
    std::fs::write(&ca_file, "no certificate").expect("written");
    gapless.signal(Signal::HUP);
    let refused = || gapless.api("/api/v1/config")["refused"]["errors"].to_string();
    eventually("refused", SOON, || refused().contains("`ca.pem` holds no certificate"));

    std::fs::write(&ca_file, new.pem()).expect("written");
    gapless.signal(Signal::HUP);
    eventually("up", SOON, || gapless.state(server.address) == "up");
    let outdated = Some("tls certificate expired".to_owned());
    eventually("expired", SOON, || last_result(&gapless, expired.address) == outdated);
    let failed = gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"tls\"}");
    assert!(failed >= 1.0, "{failed}");
}

#[test]
fn a_kept_connection_outlives_reloads_and_goes_with_its_endpoint() {
    let servers = [Server::plain(http1(&ok("", ""))), Server::plain(http1(&ok("", "")))];
    let addresses = [servers[0].address, servers[1].address];
    let probe = "{ http = \"/\", reuse = true }";
    let gapless = start(TempDir::new().expect("a directory"), &config(probe, &addresses));
    gapless.wait_all_up();
    let passes = || gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"pass\"}");
    eventually("some probes", SOON, || passes() >= 10.0);
    assert_eq!([servers[0].accepted(), servers[1].accepted()], [1, 1]);
    assert_eq!([servers[0].open(), servers[1].open()], [1, 1]);

    gapless.write(&config(probe, &addresses[..1]).text());
    eventually("its connection is closed", SOON, || servers[1].open() == 0);
    let before = passes();
    eventually("more probes", SOON, || passes() >= before + 5.0);
    assert_eq!((servers[0].accepted(), servers[0].open()), (1, 1));
}

#[test]
fn a_degraded_endpoint_serves_and_is_shown() {
    let server = Server::plain(http1(&ok("x-health: degraded\r\n", "")));
    let probe = "{ http = \"/\", degraded = { header = \"x-health: degraded\" } }";
    let config = config(probe, &[server.address]);
    let gapless = start(TempDir::new().expect("a directory"), &config);
    gapless.wait_all_up();
    assert_eq!(last_result(&gapless, server.address).as_deref(), Some("degraded"));
    assert_eq!(gapless.get("/").status, 200);
    let probes = gapless.endpoint(server.address)["probes"].clone();
    let measured = |probe: &Value| probe["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0);
    assert!(probes.as_array().expect("a list").iter().all(measured), "{probes}");
    assert!(gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"degraded\"}") >= 1.0);
}

/// A program that is stopped for a while (as a virtual machine is, when it moves) comes back to
/// timeouts that are long over, and blames nobody for them.
#[test]
fn a_program_that_was_stopped_blames_nobody() {
    // It takes a turn of each side, so that what came meanwhile is not all that is to come.
    let pause = Duration::from_millis(25);
    let identity = Authority::new("tests").server(&[LOCAL], Valid::Now);
    let acceptor = TlsAcceptor::from(identity.server_config(&Clients::Any, &[]));
    let answer = serving(move |io| {
        let acceptor = acceptor.clone();
        async move {
            tokio::time::sleep(pause).await;
            let Ok(mut io) = acceptor.accept(io).await else { return };
            let _ = io.read(&mut [0; 1024]).await;
            tokio::time::sleep(pause).await;
            let _ = io.write_all(ok("", "").as_bytes()).await;
            let _ = io.read(&mut [0; 1]).await;
        }
    });
    let servers: Vec<_> = (0..8).map(|_| Server::plain(answer.clone())).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let probe = "probe = { http = \"/\", tls = { verify = false } }\n\
                 detect = { interval = \"150ms\", timeout = \"150ms\", fast_interval = \"50ms\" }";
    let config = Config::new().pool(probe).zone("local/a", &addresses);
    let gapless = Gapless::start_ready(&config);
    for _ in 0..5 {
        gapless.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(300));
        gapless.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(150));
    }
    let page = gapless.ask("/metrics").text();
    assert!(page.contains("outcome=\"pass\""), "{page}");
    assert!(!page.contains("outcome=\"silent\""), "{page}");
    assert!(gapless.endpoints().iter().all(|endpoint| endpoint["state"] == "up"));
}
