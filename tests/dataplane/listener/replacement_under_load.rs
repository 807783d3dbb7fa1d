//! Certificates and processes are replaced, ten times each, under wrk (HTTP/1.1) and h2load
//! over TLS (HTTP/2): no request may fail.
//!
//! wrk always has a request in flight on each of its connections. After a response with
//! `connection: close` it opens another one and counts nothing (`http_should_keep_alive` in
//! `response_complete`); any other end of a connection has cut off a request, and is a read error.
//! So none may occur. One wrk keeps its connections. Another asks for a close with every request,
//! so it opens new ones all the time, and counts each that is refused or reset.
//!
//! h2load opens no other connection after GOAWAY. It counts all requests planned for
//! that connection as failed, although they were never sent: those not begun
//! (`process_request_failure`:
//! `req_failed += req_left`), those begun that nghttp2 then did not send
//! (`on_frame_not_send_callback`), and those that GOAWAY excluded (RFC 9113 6.8). Neither its exit
//! code nor these counts distinguish them from lost requests. So it runs repeatedly, each time
//! for few requests. A run without an upgrade must succeed completely. Otherwise
//! the failed requests must never have arrived: the access log has a line for each request
//! that did, and their number must equal h2load's successful responses.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::tls_client::{TlsTestClient, certificate_der, default_client_config};
use super::{config_text, start_with_files, tls_listener_table, write_identity};
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::TestEndpoint;
use crate::support::instance::Gapless;
use crate::support::nginx::is_program_missing;
use crate::support::pki::{CertificateAuthority, CertificateValidity};
use crate::support::{DEFAULT_TIMEOUT, eventually};

/// The number of new certificates and of new processes.
const REPLACEMENTS: u64 = 10;

const H2LOAD: &str = "h2load";

/// When a load ends, and whether a process is taking over.
#[derive(Default)]
struct SharedLoadState {
    should_stop: AtomicBool,
    /// Odd from the signal until the end of the old process.
    upgrade_phase: AtomicU64,
    /// Runs of h2load without an upgrade.
    undisturbed_runs: AtomicU64,
}

/// The results of a load.
#[derive(Default)]
struct LoadTotals {
    requests: u64,
    failures: Vec<String>,
}

/// Runs a load repeatedly.
fn run_repeatedly(
    state: &Arc<SharedLoadState>,
    program: &'static str,
    arguments: Vec<String>,
    parse_output: fn(&str, bool) -> Result<u64, String>,
) -> JoinHandle<LoadTotals> {
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let mut totals = LoadTotals::default();
        while !state.should_stop.load(SeqCst) {
            let phase = state.upgrade_phase.load(SeqCst);
            let output = Command::new(program).args(&arguments).output().expect("an end");
            let is_undisturbed =
                phase.is_multiple_of(2) && state.upgrade_phase.load(SeqCst) == phase;
            if is_undisturbed && program == H2LOAD {
                state.undisturbed_runs.fetch_add(1, SeqCst);
            }
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            match parse_output(&text, is_undisturbed) {
                Ok(requests) => totals.requests += requests,
                Err(error) => totals.failures.push(format!("{program}: {error}\n{text}")),
            }
        }
        totals
    })
}

/// The number of requests, if all succeeded.
fn parse_wrk_output(text: &str, _is_undisturbed: bool) -> Result<u64, String> {
    for error in ["Socket errors", "Non-2xx", "unable to connect"] {
        if text.contains(error) {
            return Err(error.to_owned());
        }
    }
    let line = text.lines().find(|line| line.contains(" requests in "));
    let requests = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    requests.ok_or_else(|| "no figures".to_owned())
}

/// The number of successful requests; in a run without an upgrade all must succeed.
fn parse_h2load_output(text: &str, is_undisturbed: bool) -> Result<u64, String> {
    let figures = |name: &str| -> Option<Vec<u64>> {
        let list = text.lines().find_map(|line| line.strip_prefix(name))?;
        list.split(", ").map(|one| one.trim().split(' ').next()?.parse().ok()).collect()
    };
    let (requests, statuses) = (figures("requests:"), figures("status codes:"));
    let (Some(&[total, started, done, succeeded, failed, errored, timeout]), Some(&[good, ..])) =
        (requests.as_deref(), statuses.as_deref())
    else {
        return Err("no figures".to_owned());
    };
    // Each stream has ended, and none with an error status.
    let is_complete = done == started && good == succeeded && timeout == 0;
    let unfinished = total - succeeded;
    let is_good =
        is_complete && [failed, errored] == [unfinished; 2] && (unfinished == 0 || !is_undisturbed);
    let is_connected = !text.contains("could not connect");
    (is_good && is_connected).then_some(succeeded).ok_or_else(|| format!("calm: {is_undisturbed}"))
}

/// Writes half of a certificate, waits until it is refused, writes all of it, and waits until it is
/// served.
fn replace_certificate(gapless: &Gapless, authority: &CertificateAuthority, files: &TempDir) {
    let identity = authority.server_certificate(&["a.example"], CertificateValidity::Current);
    let half = &identity.chain_pem[..identity.chain_pem.len() / 2];
    std::fs::write(files.path().join("a.pem"), half).expect("written");
    let is_refused = || gapless.api_json("/api/v1/config")["refused"].is_object();
    eventually("half of it is refused", DEFAULT_TIMEOUT, is_refused);
    write_identity(files.path(), "a", &identity);
    let client = default_client_config(authority);
    eventually("the new certificate is shown", DEFAULT_TIMEOUT, || {
        let connection = TlsTestClient::connect(gapless.address, "a.example", &client);
        connection.expect("a good certificate").peer_certificate() == certificate_der(&identity)
    });
    eventually("nothing is refused", DEFAULT_TIMEOUT, || !is_refused());
}

/// The requests of h2load that reached gapless, and the lines of those that failed.
fn h2load_requests_in_log(log: &Path) -> (u64, Vec<Value>) {
    let text = std::fs::read_to_string(log).expect("a log");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line["path"] == "/h2load").collect();
    let is_bad = |line: &&Value| (&line["status"], &line["reason"]) != (&200.into(), &"-".into());
    (lines.len() as u64, lines.iter().filter(is_bad).cloned().collect())
}

#[test]
fn wrk_and_h2load_lose_no_request_over_ten_replacements() {
    if is_program_missing("wrk") || is_program_missing(H2LOAD) {
        return;
    }
    let authority = CertificateAuthority::new("authority");
    let (endpoint, files) = (TestEndpoint::start("one"), TempDir::new().expect("a directory"));
    write_identity(
        files.path(),
        "a",
        &authority.server_certificate(&["a.example"], CertificateValidity::Current),
    );
    let name = files.path().join("a").display().to_string();
    // Not beside the certificates: a directory with constant writes delays a reload by two
    // seconds.
    let logs = TempDir::new().expect("a directory");
    let log = logs.path().join("access.log");
    let config = ConfigBuilder::new().tables(&format!("[access_log]\nto = \"{}\"", log.display()));
    let text = config_text(&config, &endpoint, &tls_listener_table(&[&name], ""));
    let gapless = start_with_files(TempDir::new().expect("a directory"), &text);

    let (state, url) =
        (Arc::new(SharedLoadState::default()), format!("https://{}", gapless.address));
    let arguments = |options: &str, path: &str| -> Vec<String> {
        options.split(' ').map(str::to_owned).chain([format!("{url}{path}")]).collect()
    };
    let keep_alive = arguments("-t1 -c8 -d3s --timeout 10s", "/wrk");
    let closing =
        [keep_alive.clone(), ["-c2", "-H", "connection: close"].map(str::to_owned).into()].concat();
    let loads = [
        run_repeatedly(&state, "wrk", keep_alive, parse_wrk_output),
        run_repeatedly(&state, "wrk", closing, parse_wrk_output),
        run_repeatedly(
            &state,
            H2LOAD,
            arguments("-t1 -c4 -m5 -n100", "/h2load"),
            parse_h2load_output,
        ),
    ];
    for _ in 0..REPLACEMENTS {
        let runs_before = state.undisturbed_runs.load(SeqCst);
        replace_certificate(&gapless, &authority, &files);
        // One of two runs started after the first of the files was written.
        eventually("h2load has seen it", 2 * DEFAULT_TIMEOUT, || {
            state.undisturbed_runs.load(SeqCst) > runs_before + 1
        });
        state.upgrade_phase.fetch_add(1, SeqCst);
        gapless.upgrade();
        gapless.wait_for_single_process(2 * DEFAULT_TIMEOUT);
        state.upgrade_phase.fetch_add(1, SeqCst);
    }
    state.should_stop.store(true, SeqCst);
    let totals = loads.map(|load| load.join().expect("no panic"));
    for totals in &totals {
        assert!(totals.failures.is_empty(), "{}", totals.failures.join("\n"));
        assert!(totals.requests > 5 * REPLACEMENTS, "only {} requests", totals.requests);
    }
    let good = totals[2].requests;
    let (mut lines, mut bad) = (0, Vec::new());
    eventually("all lines are written", DEFAULT_TIMEOUT, || {
        (lines, bad) = h2load_requests_in_log(&log);
        lines >= good
    });
    assert_eq!((lines, bad), (good, Vec::new()), "whatever arrived has a good answer");
    assert_eq!(gapless.process()["upgrades"], REPLACEMENTS);
}
