//! Invalid affinity settings are refused with their place and a help.

use std::process::Command;

use tempfile::TempDir;

use super::AffinityFixture;
use crate::support::instance::BINARY;

/// The output of `check` for these lines of a pool, beside a file of secrets with this content.
fn check_output(pool: &str, secrets: &str) -> String {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("secrets"), secrets).expect("written");
    let file = directory.path().join("gapless.toml");
    std::fs::write(&file, AffinityFixture::new(1).config(pool).text()).expect("written");
    let output = Command::new(BINARY).arg("check").arg(&file).output().expect("a process");
    assert_eq!(output.status.code(), Some(64), "{pool}");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn short_or_missing_secret_is_rejected() {
    let half = "0a1b2c3d4e5f6071";
    let pool = "affinity = { cookie = \"pin\", secret_file = \"secrets\" }";
    let text = check_output(pool, half);
    for expected in ["gapless.toml:", "`secrets` has no secret in line 1", "openssl rand -hex 32"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains(half), "{text}");
    assert!(check_output(pool, "\n# none\n").contains("`secrets` holds no secret"));
}

#[test]
fn invalid_balance_or_affinity_is_rejected_with_a_fix() {
    let ring = |more: &str| format!("balance = {{ method = \"ring_hash\"{more} }}");
    let key = ", key = { header = \"x-user\" }";
    for (pool, expected_parts) in [
        ("balance = \"round-robin\"".to_owned(), ["is not a balancing method", "round_robin"]),
        ("balance = \"maglev\"".to_owned(), ["`maglev` needs a `key`", "add `key"]),
        (ring(", key = { header = \"a b\" }"), ["cannot be the name of a header", "x-user"]),
        (ring(", key = { header = \"a\", path = true }"), ["only one", "remove one of them"]),
        (ring(", key = { path = false }"), ["no key is given", "give one of `header`"]),
        (ring(&format!("{key}, max_load_percent = 100")), ["from 101 to 1000", "whole number"]),
        (
            "balance = { method = \"random\", key = { path = true } }".to_owned(),
            ["`key` has no meaning with `random`", "remove it"],
        ),
        (
            "balance = { method = \"maglev\", key = { path = true }, points = 3 }".to_owned(),
            ["`points` has no meaning with `maglev`", "remove it"],
        ),
        ("affinity = { }".to_owned(), ["no key is given", "give one of `cookie`"]),
        (
            "affinity = { header = \"x-session\", on_return = \"stay\" }".to_owned(),
            ["`on_return` has no meaning", "remove it"],
        ),
        ("affinity = { cookie = \"pin\", ttl = 60 }".to_owned(), ["needs its unit", "write it as"]),
        (
            "affinity = { cookie = \"pin\", on_return = \"never\" }".to_owned(),
            ["`never` is not a value of `on_return`", "\"first\" or \"stay\""],
        ),
        (
            "affinity = { cookie = \"pin\", secret_file = \"nowhere\" }".to_owned(),
            ["cannot read", "name a file that can be read"],
        ),
    ] {
        let text = check_output(&pool, "");
        for expected in expected_parts {
            assert!(text.contains(expected), "{pool}: {expected}\n{text}");
        }
    }
}

#[test]
fn pools_sharing_cookie_name_and_host_are_warned_about() {
    let cookie_warnings = |hosts: [&str; 2], cookie: &str| {
        let pool = |name: &str, cookie: &str, host: &str| {
            let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
            format!(
                "[pool.{name}]\naffinity = {{ cookie = \"{cookie}\" }}\n\
                 [[pool.{name}.zone]]\nname = \"here/a\"\nendpoints = [\"127.0.0.1:1\"]\n\
                 [[route]]\n{host}path = \"/{name}\"\npool = \"{name}\"\n"
            )
        };
        let pools = pool("web", "pin", hosts[0]) + &pool("api", cookie, hosts[1]);
        let text = format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{pools}");
        let loaded = gapless::config::parse("gapless.toml", &text).expect("a good file");
        let warnings = loaded.warnings.diagnostics;
        warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()
    };
    let expected =
        "the pools `web` and `api` both set the cookie `pin`: a client of both loses its affinity";
    for hosts in [["a.example", "a.example"], ["a.example", ""], ["*.example", "a.example"]] {
        assert_eq!(cookie_warnings(hosts, "pin"), [expected], "{hosts:?}");
        assert!(cookie_warnings(hosts, "tack").is_empty());
    }
    for hosts in [["a.example", "b.example"], ["*.b.example", "b.example"]] {
        assert!(cookie_warnings(hosts, "pin").is_empty(), "{hosts:?}");
    }
}
