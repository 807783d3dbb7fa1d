//! The commands as a shell sees them: exit codes, standard output, standard error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::endpoint::{Endpoint, Mode};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{HeldPort, SOON, eventually, until};

const BAD: &str = "[[listen]]\naddress = \"nowhere\"\n[[route]]\npool = \"wbe\"\n[pool.web]\n\
                   [[pool.web.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:1\"]\n";

fn gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// The same for what should end by itself, and is killed if it does not.
fn ending(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let end = Instant::now() + SOON;
    while child.try_wait().expect("a child").is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    child.wait_with_output().expect("it has ended")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file in a directory of its own.
fn file(text: &str) -> (TempDir, String) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("gapless.toml");
    std::fs::write(&path, text).expect("written");
    let name = path.to_str().expect("a plain path").to_owned();
    (directory, name)
}

fn good() -> (TempDir, String) {
    file(&Config::new().zone("here/a", &[([127, 0, 0, 1], 1).into()]).text())
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    assert!(all.len() >= 4, "{all:?}");
    all
}

#[test]
fn check_says_ok_and_what_it_found() {
    let (_directory, path) = good();
    for arguments in [&["check", path.as_str()][..], &["-t", path.as_str()]] {
        let output = gapless(arguments);
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{arguments:?}");
        let text = stdout(&output);
        assert!(
            text.ends_with("ok, 1 listener, 1 route, 1 pool, 1 endpoint in 1 zone\n"),
            "{text}"
        );
    }
}

#[test]
fn check_says_every_error_with_its_place() {
    let (_directory, path) = file(BAD);
    for arguments in [&["check", path.as_str()][..], &["-t", path.as_str()]] {
        let output = gapless(arguments);
        assert_eq!(code(&output), 64);
        let text = stdout(&output);
        assert!(text.ends_with("2 errors\n"), "{text}");
        assert!(text.contains(":2:") && text.contains(":4:"), "{text}");
        assert!(!text.contains('\x1b'), "colours are for terminals");
    }
}

#[test]
fn check_speaks_json() {
    let (_directory, path) = good();
    let output = gapless(&["check", &path, "--format", "json"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((code(&output), &object["ok"], &object["endpoints"]), (0, &true.into(), &1.into()));
    let (_directory, path) = file(BAD);
    let output = gapless(&["check", &path, "--format", "json"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((code(&output), &object["ok"]), (64, &false.into()));
    let lines: Vec<_> =
        object["errors"].as_array().expect("a list").iter().map(|error| &error["line"]).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_bad_configuration() {
    for arguments in [&["check", "/nowhere/gapless.toml"][..], &["run", "/nowhere/gapless.toml"]] {
        let output = gapless(arguments);
        assert_eq!(code(&output), 64, "{arguments:?}");
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains("/nowhere/gapless.toml"), "{said}");
    }
}

#[test]
fn what_makes_no_sense_is_said_on_standard_error() {
    for arguments in
        [&[][..], &["fly"], &["check"], &["run"], &["check", "a", "--format", "yaml"], &["-x"]]
    {
        let output = gapless(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"]] {
        let output = gapless(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn run_refuses_a_bad_file_before_it_does_anything() {
    let (_directory, path) = file(BAD);
    let output = gapless(&["run", &path]);
    assert_eq!(code(&output), 64);
    let said = stderr(&output);
    assert!(said.contains(":2:") && said.contains(":4:"), "{said}");
    assert!(!said.contains("listening"), "{said}");
}

#[test]
fn run_fails_where_it_cannot_listen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let config = Config::new().zone("here/a", &[([127, 0, 0, 1], 1).into()]).listen(address);
    let (_directory, path) = file(&config.text());
    let output = gapless(&["run", &path]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains(&format!("cannot listen on {address}")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn run_fails_where_another_one_listens() {
    let endpoint = Endpoint::start("one");
    let config = Config::new().zone("here/a", &[endpoint.address()]);
    let first = Gapless::start_ready(&config);
    for (key, address) in [("listen", first.address), ("admin", first.admin)] {
        let text = match key {
            "listen" => config.clone().listen(address).text(),
            _ => config.text().replacen("127.0.0.1:0", &address.to_string(), 1),
        };
        let (_directory, path) = file(&text);
        let output = ending(&["run", &path]);
        assert_eq!(output.status.code(), Some(1), "{key}");
        let said = stderr(&output);
        assert!(said.contains(&address.to_string()) && said.contains("another process"), "{said}");
    }
    assert_eq!(first.get("/").status, 200, "the first does not notice");
}

#[test]
fn schema_is_json() {
    let output = gapless(&["schema"]);
    assert_eq!(code(&output), 0);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema["properties"]["pool"].is_object());
}

#[test]
fn nobody_reading_is_no_failure() {
    let mut child = Command::new(BINARY)
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    let endpoint = Endpoint::start("one");
    endpoint.set_probe(Mode::Hang);
    let slow = "detect = { interval = \"2s\", timeout = \"2s\", down_interval = \"2s\" }";
    let config = Config::new().pool(slow).zone("here/a", &[endpoint.address()]);
    let mut instance = Gapless::start(&config);
    let admin = instance.admin.to_string();
    let ask = |more: &[&str]| {
        let arguments = [&["healthcheck", "--admin", &admin], more].concat();
        let output = gapless(&arguments);
        (code(&output), stderr(&output))
    };
    assert_eq!(ask(&[]), (0, String::new()));
    let (unready, said) = ask(&["--ready"]);
    assert_eq!(unready, 1);
    assert!(said.contains("503") && said.contains("/readyz"), "{said}");
    endpoint.set_probe(Mode::Ok);
    eventually("it is ready", SOON, || ask(&["--ready"]).0 == 0);
    instance.signal(Signal::INT);
    instance.wait(SOON);
    let (gone, said) = ask(&[]);
    assert_eq!(gone, 1);
    assert!(said.contains(&admin), "{said}");
}

#[test]
fn every_example_is_good() {
    for example in examples() {
        let output = gapless(&["check", example.to_str().expect("a plain path")]);
        assert_eq!(code(&output), 0, "{}", stdout(&output));
    }
}

/// The example with free ports in place of those that it listens on, and with its state in
/// `directory`, so that several runs of a test fit on one machine.
fn with_free_ports(text: &str, directory: &Path) -> String {
    let mut file: toml::Table = text.parse().expect("TOML");
    let any_port = |listener: &mut toml::Table| {
        let mut address: SocketAddr = match &listener["address"] {
            toml::Value::String(address) => address.parse().expect("an address"),
            other => panic!("an address: {other}"),
        };
        address.set_port(0);
        listener.insert("address".to_owned(), address.to_string().into());
    };
    let default = toml::Table::from_iter([("address".to_owned(), "127.0.0.1:0".into())]);
    let admin = file.entry("admin").or_insert(default.into());
    any_port(admin.as_table_mut().expect("a table"));
    for listener in file["listen"].as_array_mut().expect("listeners") {
        any_port(listener.as_table_mut().expect("a table"));
    }
    if let Some(place) = file.get_mut("state_dir") {
        *place = directory.join("state").display().to_string().into();
    }
    file.to_string()
}

#[test]
fn every_example_runs() {
    for example in examples() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        let text = std::fs::read_to_string(&example).expect("text");
        std::fs::write(&file, with_free_ports(&text, directory.path())).expect("written");
        let mut instance = Gapless::start_with(directory, file);
        assert_ne!(instance.address.port(), 0);
        eventually("it is alive", SOON, || instance.ask("/healthz").status == 200);
        instance.signal(Signal::TERM);
        let status = instance.wait(SOON);
        assert!(status.success(), "{}: {status}\n{}", example.display(), instance.log());
    }
}

/// Whoever gets through to a listener finds every route.
#[test]
fn the_first_request_finds_its_route() {
    let endpoint = Endpoint::start("one");
    for _ in 0..10 {
        let port = HeldPort::take();
        let address = port.address();
        drop(port);
        let config = Config::new().zone("here/a", &[endpoint.address()]).listen(address);
        let (_directory, path) = file(&config.text());
        let mut child = Command::new(BINARY)
            .args(["run", &path])
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut client = until("it listens", SOON, || Client::connect(address).ok());
        let answer = client.exchange("GET", "/", &[], b"");
        let _ = child.kill();
        let _ = child.wait();
        assert_ne!(answer.map_or(0, |answer| answer.status), 404);
    }
}

#[test]
fn predict_says_where_a_histogram_is_wrong() {
    let (_directory, path) = good();
    let (_other, histogram) = file("1 50\n2.5 many\n");
    let output = gapless(&["predict", &path, "--false-verdicts", "--latency", &histogram]);
    assert_eq!(code(&output), 2);
    let wanted = format!("{histogram}:2: `many` is not a whole number of answers");
    assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
    let output = gapless(&["predict", &path, "--loss", "1%"]);
    assert_eq!(code(&output), 2, "it means nothing without --false-verdicts");
    let output = gapless(&["predict", &path, "--false-verdicts", "--loss", "1"]);
    assert!(stderr(&output).contains("as 1% or 0.5%"), "{}", stderr(&output));
}
