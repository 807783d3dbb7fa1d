//! The commands from a shell: exit codes, standard output, standard error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::TestClient;
use crate::support::config::ConfigBuilder;
use crate::support::endpoint::{ResponseMode, TestEndpoint};
use crate::support::instance::{BINARY, Gapless};
use crate::support::{DEFAULT_TIMEOUT, ReservedPort, eventually, poll_until};

const INVALID_CONFIG: &str = "[[listen]]\naddress = \"nowhere\"\n[[route]]\npool = \"wbe\"\n[pool.web]\n\
                   [[pool.web.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:1\"]\n";

fn run_gapless(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the program runs")
}

/// Runs a command that should end by itself, and kills it if it does not.
fn run_with_deadline(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let deadline = Instant::now() + DEFAULT_TIMEOUT;
    while child.try_wait().expect("a child").is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    child.wait_with_output().expect("it has ended")
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command whose standard output is closed from the start.
fn run_without_reader(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(BINARY);
    command.args(arguments).stdout(writer).stderr(Stdio::piped());
    command.output().expect("the program runs")
}

#[test]
fn commands_keep_their_exit_code_without_a_reader() {
    let (_invalid, invalid) = write_temp_file(INVALID_CONFIG);
    let (_valid, valid) = write_valid_config();
    for (arguments, code) in [
        (vec!["check", &invalid], 64),
        (vec!["check", &valid], 0),
        (vec!["check", &invalid, "--format", "json"], 64),
        (vec!["tune", &valid, "--target", "10ms"], 1),
        (vec!["predict", &valid], 0),
        (vec!["schema"], 0),
    ] {
        let output = run_without_reader(&arguments);
        assert_eq!((exit_code(&output), stderr(&output).as_str()), (code, ""), "{arguments:?}");
    }
}

/// A file in its own directory.
fn write_temp_file(text: &str) -> (TempDir, String) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("gapless.toml");
    std::fs::write(&path, text).expect("written");
    let name = path.to_str().expect("a plain path").to_owned();
    (directory, name)
}

fn write_valid_config() -> (TempDir, String) {
    write_temp_file(&ConfigBuilder::new().zone("here/a", &[([127, 0, 0, 1], 1).into()]).text())
}

fn example_paths() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    all.sort();
    assert!(all.len() >= 4, "{all:?}");
    all
}

#[test]
fn check_of_valid_config_prints_ok_and_counts() {
    let (_directory, path) = write_valid_config();
    for arguments in [&["check", path.as_str()][..], &["-t", path.as_str()]] {
        let output = run_gapless(arguments);
        assert_eq!((exit_code(&output), stderr(&output).as_str()), (0, ""), "{arguments:?}");
        let text = stdout(&output);
        assert!(
            text.ends_with("ok, 1 listener, 1 route, 1 pool, 1 endpoint in 1 zone\n"),
            "{text}"
        );
    }
}

#[test]
fn check_of_invalid_config_prints_every_error_location() {
    let (_directory, path) = write_temp_file(INVALID_CONFIG);
    for arguments in [&["check", path.as_str()][..], &["-t", path.as_str()]] {
        let output = run_gapless(arguments);
        assert_eq!(exit_code(&output), 64);
        let text = stdout(&output);
        assert!(text.ends_with("2 errors\n"), "{text}");
        assert!(text.contains(":2:") && text.contains(":4:"), "{text}");
        assert!(!text.contains('\x1b'), "colours are for terminals");
    }
}

#[test]
fn check_with_json_format_prints_one_object() {
    let (_directory, path) = write_valid_config();
    let output = run_gapless(&["check", &path, "--format", "json"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (exit_code(&output), &object["ok"], &object["endpoints"]),
        (0, &true.into(), &1.into())
    );
    let (_directory, path) = write_temp_file(INVALID_CONFIG);
    let output = run_gapless(&["check", &path, "--format", "json"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((exit_code(&output), &object["ok"]), (64, &false.into()));
    let lines: Vec<_> =
        object["errors"].as_array().expect("a list").iter().map(|error| &error["line"]).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn unreadable_config_file_exits_with_64() {
    for arguments in [&["check", "/nowhere/gapless.toml"][..], &["run", "/nowhere/gapless.toml"]] {
        let output = run_gapless(arguments);
        assert_eq!(exit_code(&output), 64, "{arguments:?}");
        let printed = stdout(&output) + &stderr(&output);
        assert!(printed.contains("/nowhere/gapless.toml"), "{printed}");
    }
}

#[test]
fn invalid_arguments_exit_with_2_and_print_to_stderr() {
    for arguments in
        [&[][..], &["fly"], &["check"], &["run"], &["check", "a", "--format", "yaml"], &["-x"]]
    {
        let output = run_gapless(arguments);
        assert_eq!(exit_code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"]] {
        let output = run_gapless(arguments);
        assert_eq!(exit_code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn run_with_invalid_config_exits_before_listening() {
    let (_directory, path) = write_temp_file(INVALID_CONFIG);
    let output = run_gapless(&["run", &path]);
    assert_eq!(exit_code(&output), 64);
    let printed = stderr(&output);
    assert!(printed.contains(":2:") && printed.contains(":4:"), "{printed}");
    assert!(!printed.contains("listening"), "{printed}");
}

#[test]
fn run_with_occupied_port_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let config = ConfigBuilder::new().zone("here/a", &[([127, 0, 0, 1], 1).into()]).listen(address);
    let (_directory, path) = write_temp_file(&config.text());
    let output = run_gapless(&["run", &path]);
    assert_eq!(exit_code(&output), 1);
    assert!(
        stderr(&output).contains(&format!("cannot listen on {address}")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn run_on_address_of_running_instance_exits_with_1() {
    let endpoint = TestEndpoint::start("one");
    let config = ConfigBuilder::new().zone("here/a", &[endpoint.address()]);
    let first = Gapless::start_ready(&config);
    for (key, address) in [("listen", first.address), ("admin", first.admin)] {
        let text = match key {
            "listen" => config.clone().listen(address).text(),
            _ => config.text().replacen("127.0.0.1:0", &address.to_string(), 1),
        };
        let (_directory, path) = write_temp_file(&text);
        let output = run_with_deadline(&["run", &path]);
        assert_eq!(output.status.code(), Some(1), "{key}");
        let printed = stderr(&output);
        assert!(
            printed.contains(&address.to_string()) && printed.contains("another process"),
            "{printed}"
        );
    }
    assert_eq!(first.get("/").status, 200, "the first does not notice");
}

#[test]
fn strict_check_fails_on_warnings() {
    let unused = "[pool.unused]\nprobe = { tcp = true }\n\
                  [[pool.unused.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:2\"]\n";
    let valid = ConfigBuilder::new().zone("here/a", &[([127, 0, 0, 1], 1).into()]).text();
    let (_directory, clean) = write_temp_file(&valid);
    let (_other, warned) = write_temp_file(&format!("{valid}{unused}"));
    assert_eq!(exit_code(&run_gapless(&["check", "--strict", &clean])), 0);
    assert_eq!(exit_code(&run_gapless(&["check", &warned])), 0);
    let output = run_gapless(&["check", "--strict", &warned]);
    let text = stdout(&output);
    assert_eq!(exit_code(&output), 64, "{text}");
    assert!(text.contains("no route leads to the pool `unused`"), "{text}");
    assert!(text.trim_end().ends_with("1 warning, with --strict"), "{text}");
    let output = run_gapless(&["check", "--strict", &warned, "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["ok"], report["warnings"].as_array().map(Vec::len)),
        (&false.into(), Some(1))
    );
}

#[test]
fn schema_command_prints_json() {
    let output = run_gapless(&["schema"]);
    assert_eq!(exit_code(&output), 0);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema["properties"]["pool"].is_object());
}

#[test]
fn schema_with_closed_stdout_exits_with_0() {
    let mut child = Command::new(BINARY)
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert_eq!((exit_code(&output), stderr(&output).as_str()), (0, ""));
}

#[test]
fn healthcheck_exit_code_reflects_liveness_and_readiness() {
    let endpoint = TestEndpoint::start("one");
    endpoint.set_probe_mode(ResponseMode::Hang);
    let slow = "detect = { interval = \"2s\", timeout = \"2s\", down_interval = \"2s\" }";
    let config = ConfigBuilder::new().pool(slow).zone("here/a", &[endpoint.address()]);
    let mut instance = Gapless::start(&config);
    let admin = instance.admin.to_string();
    let healthcheck = |more: &[&str]| {
        let arguments = [&["healthcheck", "--admin", &admin], more].concat();
        let output = run_gapless(&arguments);
        (exit_code(&output), stderr(&output))
    };
    assert_eq!(healthcheck(&[]), (0, String::new()));
    let (unready_code, message) = healthcheck(&["--ready"]);
    assert_eq!(unready_code, 1);
    assert!(message.contains("503") && message.contains("/readyz"), "{message}");
    endpoint.set_probe_mode(ResponseMode::Ok);
    eventually("it is ready", DEFAULT_TIMEOUT, || healthcheck(&["--ready"]).0 == 0);
    instance.signal(Signal::INT);
    instance.wait_for_exit(DEFAULT_TIMEOUT);
    let (stopped_code, message) = healthcheck(&[]);
    assert_eq!(stopped_code, 1);
    assert!(message.contains(&admin), "{message}");
}

#[test]
fn every_example_config_passes_check() {
    for example in example_paths() {
        let output = run_gapless(&["check", example.to_str().expect("a plain path")]);
        assert_eq!(exit_code(&output), 0, "{}", stdout(&output));
    }
}

/// The example with free ports in place of its listeners' ports and with its state in
/// `directory`, so that several test runs fit on one machine.
fn with_free_ports(text: &str, directory: &Path) -> String {
    let mut file: toml::Table = text.parse().expect("TOML");
    let set_free_port = |listener: &mut toml::Table| {
        let mut address: SocketAddr = match &listener["address"] {
            toml::Value::String(address) => address.parse().expect("an address"),
            other => panic!("an address: {other}"),
        };
        address.set_port(0);
        listener.insert("address".to_owned(), address.to_string().into());
    };
    let default = toml::Table::from_iter([("address".to_owned(), "127.0.0.1:0".into())]);
    let admin = file.entry("admin").or_insert(default.into());
    set_free_port(admin.as_table_mut().expect("a table"));
    for listener in file["listen"].as_array_mut().expect("listeners") {
        set_free_port(listener.as_table_mut().expect("a table"));
    }
    if let Some(state_dir) = file.get_mut("state_dir") {
        *state_dir = directory.join("state").display().to_string().into();
    }
    file.to_string()
}

#[test]
fn every_example_config_starts_and_stops() {
    for example in example_paths() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("gapless.toml");
        let text = std::fs::read_to_string(&example).expect("text");
        std::fs::write(&file, with_free_ports(&text, directory.path())).expect("written");
        let mut instance = Gapless::start_with_file(directory, file);
        assert_ne!(instance.address.port(), 0);
        eventually("it is alive", DEFAULT_TIMEOUT, || instance.admin_get("/healthz").status == 200);
        instance.signal(Signal::TERM);
        let status = instance.wait_for_exit(DEFAULT_TIMEOUT);
        assert!(status.success(), "{}: {status}\n{}", example.display(), instance.log());
    }
}

/// Every listener serves every route.
#[test]
fn first_request_after_startup_is_never_404() {
    let endpoint = TestEndpoint::start("one");
    for _ in 0..10 {
        let port = ReservedPort::reserve();
        let address = port.address();
        drop(port);
        let config = ConfigBuilder::new().zone("here/a", &[endpoint.address()]).listen(address);
        let (_directory, path) = write_temp_file(&config.text());
        let mut child = Command::new(BINARY)
            .args(["run", &path])
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut client =
            poll_until("it listens", DEFAULT_TIMEOUT, || TestClient::connect(address).ok());
        let answer = client.exchange("GET", "/", &[], b"");
        let _ = child.kill();
        let _ = child.wait();
        assert_ne!(answer.map_or(0, |answer| answer.status), 404);
    }
}

#[test]
fn predict_with_invalid_arguments_reports_the_mistake() {
    let (_directory, path) = write_valid_config();
    let (_histogram_directory, histogram) = write_temp_file("1 50\n2.5 many\n");
    let output = run_gapless(&["predict", &path, "--false-verdicts", "--latency", &histogram]);
    assert_eq!(exit_code(&output), 2);
    let expected = format!("{histogram}:2: `many` is not a whole number of answers");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    let output = run_gapless(&["predict", &path, "--loss", "1%"]);
    assert_eq!(exit_code(&output), 2, "it means nothing without --false-verdicts");
    let output = run_gapless(&["predict", &path, "--false-verdicts", "--loss", "1"]);
    assert!(stderr(&output).contains("as 1% or 0.5%"), "{}", stderr(&output));
}
