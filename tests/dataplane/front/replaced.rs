//! Certificates and processes are replaced, ten times each, while wrk (HTTP/1.1) and h2load (HTTP/2) ask
//! over TLS without a pause: no request of theirs may fail.
//!
//! wrk has a request under way on each of its connections at any time. Where an answer said
//! `connection: close` it opens another one and counts nothing (`http_should_keep_alive` in
//! `response_complete`); any other end of a connection has cut off a request, and is a read error. So
//! there may be none. One wrk keeps its connections; another asks for their end with every request, so
//! that new ones are made all the time: what is refused or reset before its first answer, it counts.
//!
//! h2load opens no other connection after GOAWAY, and counts as failed and errored what it had planned for
//! that connection, although it never went out: what it had not begun (`process_request_failure`:
//! `req_failed += req_left`), and what it had begun and nghttp2 then did not send
//! (`on_frame_not_send_callback`), or closed because GOAWAY left it out (RFC 9113 6.8). Neither its exit
//! code nor these counts tell that from a request that was lost. So it runs again and again, each time
//! for few requests. Where no process took over during a run, all of it must have gone well. Otherwise,
//! whatever did not go well must never have arrived: gapless has a line in its access log for each request
//! that did, however that ended, and there must be as many lines as h2load had good answers.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::secure::{Secure, der, simple};
use super::{listen_tls, put, start, text};
use crate::support::config::Config;
use crate::support::endpoint::Endpoint;
use crate::support::instance::Gapless;
use crate::support::nginx::is_missing;
use crate::support::pki::{Authority, Valid};
use crate::support::{SOON, eventually};

/// New certificates, and new processes.
const TIMES: u64 = 10;

const H2LOAD: &str = "h2load";

/// When a load ends, and whether a process is taking over.
#[derive(Default)]
struct Scene {
    stop: AtomicBool,
    /// Odd from the signal until the old process has ended.
    phase: AtomicU64,
    /// Runs of h2load during which none was.
    calm_runs: AtomicU64,
}

/// What a load met.
#[derive(Default)]
struct Met {
    requests: u64,
    failures: Vec<String>,
}

/// Runs a load again and again.
fn repeat(
    scene: &Arc<Scene>,
    program: &'static str,
    arguments: Vec<String>,
    judge: fn(&str, bool) -> Result<u64, String>,
) -> JoinHandle<Met> {
    let scene = Arc::clone(scene);
    std::thread::spawn(move || {
        let mut met = Met::default();
        while !scene.stop.load(SeqCst) {
            let phase = scene.phase.load(SeqCst);
            let output = Command::new(program).args(&arguments).output().expect("an end");
            let is_calm = phase.is_multiple_of(2) && scene.phase.load(SeqCst) == phase;
            if is_calm && program == H2LOAD {
                scene.calm_runs.fetch_add(1, SeqCst);
            }
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            match judge(&said, is_calm) {
                Ok(requests) => met.requests += requests,
                Err(why) => met.failures.push(format!("{program}: {why}\n{said}")),
            }
        }
        met
    })
}

/// How many requests there were, if all of them went well.
fn wrk_says(said: &str, _is_calm: bool) -> Result<u64, String> {
    for bad in ["Socket errors", "Non-2xx", "unable to connect"] {
        if said.contains(bad) {
            return Err(bad.to_owned());
        }
    }
    let line = said.lines().find(|line| line.contains(" requests in "));
    let requests = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    requests.ok_or_else(|| "no figures".to_owned())
}

/// How many requests went well; in a calm run they all do.
fn h2load_says(said: &str, is_calm: bool) -> Result<u64, String> {
    let figures = |name: &str| -> Option<Vec<u64>> {
        let list = said.lines().find_map(|line| line.strip_prefix(name))?;
        list.split(", ").map(|one| one.trim().split(' ').next()?.parse().ok()).collect()
    };
    let (requests, statuses) = (figures("requests:"), figures("status codes:"));
    let (Some(&[total, started, done, succeeded, failed, errored, timeout]), Some(&[good, ..])) =
        (requests.as_deref(), statuses.as_deref())
    else {
        return Err("no figures".to_owned());
    };
    // Each has come to its end, and none that did has a bad answer.
    let is_complete = done == started && good == succeeded && timeout == 0;
    let left = total - succeeded;
    let is_good = is_complete && [failed, errored] == [left; 2] && (left == 0 || !is_calm);
    let is_connected = !said.contains("could not connect");
    (is_good && is_connected).then_some(succeeded).ok_or_else(|| format!("calm: {is_calm}"))
}

/// Writes half of a certificate, sees it refused, writes all of it and its key, and sees it shown.
fn renew(gapless: &Gapless, authority: &Authority, files: &TempDir) {
    let next = authority.server(&["a.example"], Valid::Now);
    let half = &next.chain_pem[..next.chain_pem.len() / 2];
    std::fs::write(files.path().join("a.pem"), half).expect("written");
    let is_refused = || gapless.api("/api/v1/config")["refused"].is_object();
    eventually("half of it is refused", SOON, is_refused);
    put(files.path(), "a", &next);
    let client = simple(authority);
    eventually("the new certificate is shown", SOON, || {
        let secure = Secure::connect(gapless.address, "a.example", &client);
        secure.expect("a good certificate").shown() == der(&next)
    });
    eventually("nothing is refused", SOON, || !is_refused());
}

/// The requests of h2load that came as far as gapless: how many, and what was said of those that ended badly.
fn arrived(log: &Path) -> (u64, Vec<Value>) {
    let text = std::fs::read_to_string(log).expect("a log");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line["path"] == "/h2load").collect();
    let is_bad = |line: &&Value| (&line["status"], &line["reason"]) != (&200.into(), &"-".into());
    (lines.len() as u64, lines.iter().filter(is_bad).cloned().collect())
}

#[test]
fn no_request_of_wrk_or_h2load_fails_over_ten_certificates_and_ten_processes() {
    if is_missing("wrk") || is_missing(H2LOAD) {
        return;
    }
    let authority = Authority::new("authority");
    let (endpoint, files) = (Endpoint::start("one"), TempDir::new().expect("a directory"));
    put(files.path(), "a", &authority.server(&["a.example"], Valid::Now));
    let name = files.path().join("a").display().to_string();
    // Not beside the certificates: a directory in which something is written all the time takes two
    // seconds to be looked at.
    let logs = TempDir::new().expect("a directory");
    let log = logs.path().join("access.log");
    let config = Config::new().tables(&format!("[access_log]\nto = \"{}\"", log.display()));
    let text = text(&config, &endpoint, &listen_tls(&[&name], ""));
    let gapless = start(TempDir::new().expect("a directory"), &text);

    let (scene, url) = (Arc::new(Scene::default()), format!("https://{}", gapless.address));
    let words = |options: &str, path: &str| -> Vec<String> {
        options.split(' ').map(str::to_owned).chain([format!("{url}{path}")]).collect()
    };
    let kept = words("-t1 -c8 -d3s --timeout 10s", "/wrk");
    let new = [kept.clone(), ["-c2", "-H", "connection: close"].map(str::to_owned).into()].concat();
    let loads = [
        repeat(&scene, "wrk", kept, wrk_says),
        repeat(&scene, "wrk", new, wrk_says),
        repeat(&scene, H2LOAD, words("-t1 -c4 -m5 -n100", "/h2load"), h2load_says),
    ];
    for _ in 0..TIMES {
        let calm = scene.calm_runs.load(SeqCst);
        renew(&gapless, &authority, &files);
        // One of two began after the first of the files was written.
        eventually("h2load has seen it", 2 * SOON, || scene.calm_runs.load(SeqCst) > calm + 1);
        scene.phase.fetch_add(1, SeqCst);
        gapless.upgrade();
        gapless.wait_alone(2 * SOON);
        scene.phase.fetch_add(1, SeqCst);
    }
    scene.stop.store(true, SeqCst);
    let met = loads.map(|load| load.join().expect("no panic"));
    for met in &met {
        assert!(met.failures.is_empty(), "{}", met.failures.join("\n"));
        assert!(met.requests > 5 * TIMES, "only {} requests", met.requests);
    }
    let good = met[2].requests;
    let (mut lines, mut bad) = (0, Vec::new());
    eventually("all lines are written", SOON, || {
        (lines, bad) = arrived(&log);
        lines >= good
    });
    assert_eq!((lines, bad), (good, Vec::new()), "whatever arrived has a good answer");
    assert_eq!(gapless.process()["upgrades"], TIMES);
}
