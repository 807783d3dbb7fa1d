//! gRPC by grpcio: HTTP/2 in, HTTP/2 out.

use tempfile::TempDir;

use super::python_peer::{PythonEndpoint, python_interpreter, run_python_client};
use crate::support::config::ConfigBuilder;
use crate::support::instance::Gapless;
use crate::support::pki::{CertificateAuthority, CertificateValidity};
use crate::support::{DEFAULT_TIMEOUT, eventually};

const PROGRAM: &str = "grpc_peer.py";

/// The pool is probed by grpcio's health service.
fn grpc_pool_config(endpoint: &PythonEndpoint) -> ConfigBuilder {
    let pool = "protocol = \"http2\"\nprobe = { grpc = \"shop.Cart\" }";
    ConfigBuilder::new().pool(pool).zone("here/a", &[endpoint.address])
}

#[test]
fn grpc_calls_of_every_kind_pass() {
    let Some(python) = python_interpreter() else { return };
    let endpoint = PythonEndpoint::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&grpc_pool_config(&endpoint));
    run_python_client(python, PROGRAM, &["call", &gapless.address.port().to_string()], 14);
}

#[test]
fn grpc_calls_pass_over_tls() {
    let Some(python) = python_interpreter() else { return };
    let endpoint = PythonEndpoint::start(python, PROGRAM);
    let (authority, directory) =
        (CertificateAuthority::new("authority"), TempDir::new().expect("a directory"));
    let identity = authority.server_certificate(&["a.example"], CertificateValidity::Current);
    let [ca, pem, key, file] =
        ["ca.pem", "a.pem", "a.key", "gapless.toml"].map(|name| directory.path().join(name));
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let tls = "[listen.tls]\ncertificates = [{ certificate = \"a.pem\", key = \"a.key\" }]\n";
    let text = grpc_pool_config(&endpoint).text().replacen(listen, &format!("{listen}{tls}"), 1);
    let files = [
        (&ca, authority.pem()),
        (&pem, &identity.chain_pem),
        (&key, &identity.key_pem),
        (&file, &text),
    ];
    for (path, content) in files {
        std::fs::write(path, content).expect("written");
    }
    let gapless = Gapless::start_with_file(directory, file);
    gapless.wait_all_up();
    let port = gapless.address.port().to_string();
    run_python_client(python, PROGRAM, &["call", &port, ca.to_str().expect("text")], 14);
}

#[test]
fn not_serving_endpoint_goes_down_then_unavailable() {
    let Some(python) = python_interpreter() else { return };
    let endpoint = PythonEndpoint::start(python, PROGRAM);
    let gapless = Gapless::start_ready(&grpc_pool_config(&endpoint));
    let port = gapless.address.port().to_string();
    run_python_client(python, PROGRAM, &["last", &port], 1);
    eventually("the probe has heard it too", DEFAULT_TIMEOUT, || {
        gapless.endpoint(endpoint.address)["state"] == "down"
    });
    drop(endpoint);
    run_python_client(python, PROGRAM, &["gone", &port], 1);
}
