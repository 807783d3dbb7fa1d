//! Probes of the running program: reports, changed certificates, cached connections.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity, ClientAuth};
use crate::support::server::{TestServer, connection_handler, http1_handler, ok_response};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const LOOPBACK: &str = "127.0.0.1";

fn probe_config(probe: &str, endpoints: &[SocketAddr]) -> ConfigBuilder {
    let fast_detection = "detect = { interval = \"50ms\", timeout = \"50ms\", fast_interval = \"50ms\", \
                 down_interval = \"50ms\" }";
    ConfigBuilder::new()
        .pool(&format!("probe = {probe}\n{fast_detection}"))
        .zone("local/a", endpoints)
}

/// Starts with a configuration in `directory`, beside its other files.
fn start_in(directory: TempDir, config: &ConfigBuilder) -> Gapless {
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, config.text()).expect("written");
    Gapless::start_with_file(directory, file)
}

/// The outcome of an endpoint's last probe.
fn last_probe_result(gapless: &Gapless, address: SocketAddr) -> Option<String> {
    let endpoint = gapless.endpoint(address);
    let last = endpoint["probes"].as_array().and_then(|probes| probes.last().cloned())?;
    last["result"].as_str().map(str::to_owned)
}

#[test]
fn reload_rereads_ca_certificates() {
    let (old, new) = (CertificateAuthority::new("old"), CertificateAuthority::new("new"));
    let config_of = |authority: &CertificateAuthority, valid| {
        authority
            .server_certificate(&[LOOPBACK], valid)
            .server_config(&ClientAuth::NotRequested, &[])
    };
    let server = TestServer::start_tls(
        config_of(&new, CertificateValidity::Current),
        http1_handler(&ok_response("", "fine")),
    );
    let expired = TestServer::start_tls(
        config_of(&new, CertificateValidity::Expired),
        http1_handler(&ok_response("", "fine")),
    );
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("ca.pem"), old.pem()).expect("written");
    let probe = "{ http = \"/\", tls = { ca_file = \"ca.pem\" } }";
    let gapless = start_in(directory, &probe_config(probe, &[server.address, expired.address]));
    let unknown_issuer = Some("tls certificate of an unknown issuer".to_owned());
    eventually("unknown", DEFAULT_TIMEOUT, || {
        last_probe_result(&gapless, server.address) == unknown_issuer
    });

    let ca_file = gapless.config_file().with_file_name("ca.pem");
    std::fs::write(&ca_file, "no certificate").expect("written");
    gapless.signal(Signal::HUP);
    let refused = || gapless.api_json("/api/v1/config")["refused"]["errors"].to_string();
    eventually("refused", DEFAULT_TIMEOUT, || refused().contains("`ca.pem` holds no certificate"));

    std::fs::write(&ca_file, new.pem()).expect("written");
    gapless.signal(Signal::HUP);
    eventually("up", DEFAULT_TIMEOUT, || gapless.endpoint_state(server.address) == "up");
    let expired_certificate = Some("tls certificate expired".to_owned());
    eventually("expired", DEFAULT_TIMEOUT, || {
        last_probe_result(&gapless, expired.address) == expired_certificate
    });
    let failed = gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"tls\"}");
    assert!(failed >= 1.0, "{failed}");
}

#[test]
fn reused_connection_survives_reload_until_endpoint_leaves() {
    let servers = [
        TestServer::start_cleartext(http1_handler(&ok_response("", ""))),
        TestServer::start_cleartext(http1_handler(&ok_response("", ""))),
    ];
    let addresses = [servers[0].address, servers[1].address];
    let probe = "{ http = \"/\", reuse = true }";
    let gapless = start_in(TempDir::new().expect("a directory"), &probe_config(probe, &addresses));
    gapless.wait_all_up();
    let passes = || gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"pass\"}");
    eventually("some probes", DEFAULT_TIMEOUT, || passes() >= 10.0);
    assert_eq!([servers[0].accepted_count(), servers[1].accepted_count()], [1, 1]);
    assert_eq!([servers[0].open_connection_count(), servers[1].open_connection_count()], [1, 1]);

    gapless.write_config(&probe_config(probe, &addresses[..1]).text());
    eventually("its connection is closed", DEFAULT_TIMEOUT, || {
        servers[1].open_connection_count() == 0
    });
    let before = passes();
    eventually("more probes", DEFAULT_TIMEOUT, || passes() >= before + 5.0);
    assert_eq!((servers[0].accepted_count(), servers[0].open_connection_count()), (1, 1));
}

#[test]
fn degraded_endpoint_serves_and_is_reported() {
    let server =
        TestServer::start_cleartext(http1_handler(&ok_response("x-health: degraded\r\n", "")));
    let probe = "{ http = \"/\", degraded = { header = \"x-health: degraded\" } }";
    let config = probe_config(probe, &[server.address]);
    let gapless = start_in(TempDir::new().expect("a directory"), &config);
    gapless.wait_all_up();
    assert_eq!(last_probe_result(&gapless, server.address).as_deref(), Some("degraded"));
    assert_eq!(gapless.get("/").status, 200);
    let probes = gapless.endpoint(server.address)["probes"].clone();
    let has_latency = |probe: &Value| probe["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0);
    assert!(probes.as_array().expect("a list").iter().all(has_latency), "{probes}");
    assert!(gapless.metric("gapless_probes_total{pool=\"web\",outcome=\"degraded\"}") >= 1.0);
}

/// A program that was stopped for a while, as a migrating virtual machine is, finds all its
/// timeouts expired, and takes none as evidence.
#[test]
fn stopped_process_reports_no_probe_timeouts() {
    // The response takes two turns, so that unread bytes are not the whole of it.
    let pause = Duration::from_millis(25);
    let identity = CertificateAuthority::new("tests")
        .server_certificate(&[LOOPBACK], CertificateValidity::Current);
    let acceptor = TlsAcceptor::from(identity.server_config(&ClientAuth::NotRequested, &[]));
    let slow_tls_handler = connection_handler(move |io| {
        let acceptor = acceptor.clone();
        async move {
            tokio::time::sleep(pause).await;
            let Ok(mut io) = acceptor.accept(io).await else { return };
            let _ = io.read(&mut [0; 1024]).await;
            tokio::time::sleep(pause).await;
            let _ = io.write_all(ok_response("", "").as_bytes()).await;
            let _ = io.read(&mut [0; 1]).await;
        }
    });
    let servers: Vec<_> =
        (0..8).map(|_| TestServer::start_cleartext(slow_tls_handler.clone())).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let probe = "probe = { http = \"/\", tls = { verify = false } }\n\
                 detect = { interval = \"150ms\", timeout = \"150ms\", fast_interval = \"50ms\" }";
    let config = ConfigBuilder::new().pool(probe).zone("local/a", &addresses);
    let gapless = Gapless::start_ready(&config);
    for _ in 0..5 {
        gapless.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(300));
        gapless.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(150));
    }
    let page = gapless.admin_get("/metrics").text();
    assert!(page.contains("outcome=\"pass\""), "{page}");
    assert!(!page.contains("outcome=\"silent\""), "{page}");
    assert!(gapless.endpoints().iter().all(|endpoint| endpoint["state"] == "up"));
}
