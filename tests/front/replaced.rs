//! Certificates and processes are replaced, ten times each, while wrk (HTTP/1.1) and h2load (HTTP/2) ask
//! over TLS without a pause: no request of theirs may fail.
//!
//! wrk has a request under way on each of its connections at any time. Where an answer said
//! `connection: close` it opens another one and counts nothing (`http_should_keep_alive` in
//! `response_complete`); any other end of a connection has cut off a request, and is a read error. So
//! there may be none. One wrk keeps its connections; another asks for their end with every request, so
//! that new ones are made all the time: what is refused or reset before its first answer, it counts.
//!
//! h2load opens no other connection after GOAWAY: the requests that it had planned for that connection and
//! can begin no more, it counts as failed and errored, although nobody ever saw them
//! (`process_request_failure`: `req_failed += req_left`). They cannot be told from others by its exit or by
//! these two counts, but they are never `started`. So it runs again and again, each time for few requests,
//! and of each run: whatever was started has succeeded with a 2xx; no more failed than was not started;
//! and all of it was started, unless a process took over during the run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::secure::{Secure, der, simple};
use super::support::config::Config;
use super::support::endpoint::Endpoint;
use super::support::instance::Gapless;
use super::support::nginx::is_missing;
use super::support::pki::{Authority, Valid};
use super::support::{SOON, eventually};
use super::{listen_tls, put, start, text};

/// New certificates, and new processes.
const TIMES: u64 = 10;

/// When a load ends, and whether a process is taking over.
#[derive(Default)]
struct Scene {
    stop: AtomicBool,
    /// Odd from the signal until the old process has ended.
    phase: AtomicU64,
}

/// What a load met.
#[derive(Default)]
struct Met {
    requests: u64,
    /// Runs during which no process took over.
    calm_runs: u64,
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
            let is_calm = phase % 2 == 0 && scene.phase.load(SeqCst) == phase;
            met.calm_runs += u64::from(is_calm);
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

/// The same, as far as they were begun; in a calm run they all are.
fn h2load_says(said: &str, is_calm: bool) -> Result<u64, String> {
    let figures = |name: &str| -> Option<Vec<u64>> {
        let list = said.lines().find_map(|line| line.strip_prefix(name))?;
        list.split(", ").map(|one| one.trim().split(' ').next()?.parse().ok()).collect()
    };
    let (requests, statuses) = (figures("requests:"), figures("status codes:"));
    let (Some(&[total, started, done, succeeded, failed, errored, timeout]), Some(&[ok, ..])) =
        (requests.as_deref(), statuses.as_deref())
    else {
        return Err("no figures".to_owned());
    };
    let unstarted = total - started;
    let is_good = [done, succeeded, ok] == [started; 3]
        && [failed, errored, timeout] == [unstarted, unstarted, 0]
        && (unstarted == 0 || !is_calm)
        && !said.contains("could not connect");
    is_good.then_some(started).ok_or_else(|| format!("requests were lost, calm: {is_calm}"))
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

#[test]
fn no_request_of_wrk_or_h2load_fails_over_ten_certificates_and_ten_processes() {
    if is_missing("wrk") || is_missing("h2load") {
        return;
    }
    let authority = Authority::new("authority");
    let (endpoint, files) = (Endpoint::start("one"), TempDir::new().expect("a directory"));
    put(files.path(), "a", &authority.server(&["a.example"], Valid::Now));
    let name = files.path().join("a").display().to_string();
    let text = text(&Config::new(), &endpoint, &listen_tls(&[&name], ""));
    let gapless = start(TempDir::new().expect("a directory"), &text);

    let (scene, url) = (Arc::new(Scene::default()), format!("https://{}/", gapless.address));
    let words = |line: &str| line.split(' ').chain([&*url]).map(str::to_owned).collect::<Vec<_>>();
    let kept = words("-t1 -c8 -d3s --timeout 10s");
    let new = [words("-t1 -c2 -d3s --timeout 10s"), vec!["-H".into(), "connection: close".into()]];
    let loads = [
        repeat(&scene, "wrk", kept, wrk_says),
        repeat(&scene, "wrk", new.concat(), wrk_says),
        repeat(&scene, "h2load", words("-t1 -c4 -m5 -n400"), h2load_says),
    ];
    for _ in 0..TIMES {
        renew(&gapless, &authority, &files);
        scene.phase.fetch_add(1, SeqCst);
        gapless.upgrade();
        gapless.wait_alone(2 * SOON);
        scene.phase.fetch_add(1, SeqCst);
    }
    scene.stop.store(true, SeqCst);
    let met = loads.map(|load| load.join().expect("no panic"));
    for met in &met {
        assert!(met.failures.is_empty(), "{}", met.failures.join("\n"));
        assert!(met.requests > 500, "only {} requests", met.requests);
    }
    assert!(met[2].calm_runs >= TIMES, "only {} calm runs of h2load", met[2].calm_runs);
    assert_eq!(gapless.process()["upgrades"], TIMES);
}
