//! gRPC by grpcio: HTTP/2 in, HTTP/2 out.

use tempfile::TempDir;

use super::peer::{Served, call, python};
use crate::support::config::Config;
use crate::support::instance::Gapless;
use crate::support::pki::{Authority, Valid};
use crate::support::{SOON, eventually};

const PROGRAM: &str = "grpc_peer.py";

/// Its pool is probed as grpcio's own health service says.
fn config(served: &Served) -> Config {
    let pool = "protocol = \"http2\"\nprobe = { grpc = \"shop.Cart\" }";
    Config::new().pool(pool).zone("here/a", &[served.address])
}

#[test]
fn calls_of_every_kind_pass_with_their_messages_metadata_statuses_and_deadlines() {
    let Some(python) = python() else { return };
    let served = Served::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&config(&served));
    call(python, PROGRAM, &["call", &gapless.address.port().to_string()], 14);
}

#[test]
fn they_pass_over_tls_too() {
    let Some(python) = python() else { return };
    let served = Served::start(python, PROGRAM);
    let (authority, directory) =
        (Authority::new("authority"), TempDir::new().expect("a directory"));
    let identity = authority.server(&["a.example"], Valid::Now);
    let [ca, pem, key, file] =
        ["ca.pem", "a.pem", "a.key", "gapless.toml"].map(|name| directory.path().join(name));
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let tls = "[listen.tls]\ncertificates = [{ certificate = \"a.pem\", key = \"a.key\" }]\n";
    let text = config(&served).text().replacen(listen, &format!("{listen}{tls}"), 1);
    let files = [
        (&ca, authority.pem()),
        (&pem, &identity.chain_pem),
        (&key, &identity.key_pem),
        (&file, &text),
    ];
    for (path, content) in files {
        std::fs::write(path, content).expect("written");
    }
    let gapless = Gapless::start_with(directory, file);
    gapless.wait_all_up();
    let port = gapless.address.port().to_string();
    call(python, PROGRAM, &["call", &port, ca.to_str().expect("text")], 14);
}

#[test]
fn who_says_that_it_serves_no_more_is_down_and_nobody_there_is_unavailable() {
    let Some(python) = python() else { return };
    let served = Served::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&config(&served));
    let port = gapless.address.port().to_string();
    call(python, PROGRAM, &["last", &port], 1);
    eventually("the probe has heard it too", SOON, || {
        gapless.endpoint(served.address)["state"] == "down"
    });
    drop(served);
    call(python, PROGRAM, &["gone", &port], 1);
}
