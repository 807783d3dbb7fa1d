//! Properties that hold for any bytes. `fuzz/` has the properties, and a fuzzer searches for
//! bytes that break them. Here proptest composes such bytes from fragments that each parser knows,
//! and every regression is tried again.

#[allow(unreachable_pub, reason = "it is a crate of its own elsewhere")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzzed;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

/// Checks one target by its name.
fn check_target(target: &str, data: &[u8]) {
    match target {
        "codec" => fuzzed::codec::check(data),
        "config" => fuzzed::config::check(data),
        "preface" => fuzzed::preface::check(data),
        "proxy_header" => fuzzed::proxy_header::check(data),
        "routes" => fuzzed::routes::check(data),
        other => panic!("no target {other}"),
    }
}

const TARGETS: [&str; 5] = ["codec", "config", "preface", "proxy_header", "routes"];

fn read_files(directory: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let Ok(entries) = std::fs::read_dir(&directory) else { return Vec::new() };
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        path.is_file().then(|| (path.display().to_string(), std::fs::read(&path).expect("read")))
    };
    entries.filter_map(read).collect()
}

#[test]
fn seeds_and_regressions_satisfy_their_properties() {
    for target in TARGETS {
        for kind in ["seeds", "regressions"] {
            for (name, data) in read_files(&format!("fuzz/{kind}/{target}")) {
                println!("{name}");
                check_target(target, &data);
            }
        }
        assert!(!read_files(&format!("fuzz/seeds/{target}")).is_empty() || target == "config");
    }
    for (name, data) in read_files("config") {
        println!("{name}");
        fuzzed::config::check(&data);
    }
}

/// Fragments of endpoint responses, valid and hostile.
const RESPONSE_FRAGMENTS: [&str; 44] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 ",
    "099",
    "2000",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "content-length: 5\r\n",
    "content-length: 05\r\n",
    "Content-Length: 5, 5\r\n",
    "content-length: 18446744073709551615\r\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "connection: close\r\n",
    "connection: content-length, x-a\r\n",
    "x-a: b\r\n",
    "x-a: b\r\n folded\r\n",
    "trailer: x-sum\r\n",
    "upgrade: h2c\r\n",
    ": x\r\n",
    "x : y\r\n",
    "hello",
    "5\r\nhello\r\n",
    "5;name=value\r\nhello\r\n",
    "5 \r\nhello\r\n",
    "05\r\nhello\r\n",
    "5\nhello\n",
    "0\r\n\r\n",
    "0\r\nx-sum: 1\r\n\r\n",
    "0\r\ncontent-length: 9\r\n\r\n",
    "0\r\nx-sum: 1\n\r\n",
    "ffffffffffffffff\r\n",
    "fffffffffffffffff\r\n",
    "-1\r\n",
    ";\r\n",
    "\0",
    "\u{e9}",
];

/// Fragments of PROXY headers.
const PROXY_HEADER_FRAGMENTS: [&[u8]; 30] = [
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"192.0.2.1 ",
    b"2001:db8::1 ",
    b"::ffff:192.0.2.1 ",
    b"256.0.0.1 ",
    b"65535",
    b"65536",
    b"080",
    b"0",
    b"443",
    b" ",
    b"\r\n",
    b"\n",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21",
    b"\x20",
    b"\x11",
    b"\x21\x21",
    b"\x31",
    b"\0\x0c",
    b"\0\x24",
    b"\0\0",
    b"\0\x0f",
    b"\xc0\x00\x02\x01",
    b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
    b"\x01\x02\x03\x04",
    b"\x04\0\x03\xe8",
];

/// Fragments that are inserted into a valid configuration.
const TOML_FRAGMENTS: [&str; 40] = [
    "",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "\u{feff}",
    "\u{1f600}",
    "#",
    "0",
    "-1",
    "1e9",
    "nan",
    "9223372036854775808",
    "\"1s\"",
    "\"99999999999999h\"",
    "\"0%\"",
    "\"64KiB\"",
    "\"127.0.0.1:0\"",
    "\"[::]:1\"",
    "\"(\"",
    "\"*.example.com\"",
    "\"../../etc\"",
    "true",
    "1979-05-27",
    "pool = \"web\"\n",
    "[[route]]\n",
    "a.b.c = 1\n",
    "\u{202e}",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn response_parses_the_same_at_every_split(first: u8, parts in prop::collection::vec(select(&RESPONSE_FRAGMENTS[..]), 0..12)) {
        fuzzed::codec::check(&[&[first], parts.concat().as_bytes()].concat());
    }

    #[test]
    fn valid_response_head_with_any_body_satisfies_codec(
        first: u8,
        fields in prop::collection::vec(select(&RESPONSE_FRAGMENTS[14..26]), 0..4),
        body in prop::collection::vec(select(&RESPONSE_FRAGMENTS[28..]), 0..6),
    ) {
        let wire = format!("HTTP/1.1 200 OK\r\n{}\r\n{}", fields.concat(), body.concat());
        fuzzed::codec::check(&[&[first], wire.as_bytes()].concat());
    }

    #[test]
    fn proxy_protocol_header_parses_unambiguously(parts in prop::collection::vec(select(&PROXY_HEADER_FRAGMENTS[..]), 0..10)) {
        fuzzed::proxy_header::check(&parts.concat());
    }

    #[test]
    fn connection_preface_identifies_the_protocol(step: u8, known in 0..=24_usize, rest: Vec<u8>) {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        fuzzed::preface::check(&[&[step], &preface[..known], &rest].concat());
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn route_table_agrees_with_linear_search(data in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzzed::routes::check(&data);
    }

    #[test]
    fn arbitrary_config_is_accepted_or_error_is_located(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, select(&TOML_FRAGMENTS[..])), 0..6),
    ) {
        let mut examples = read_files("config");
        examples.sort();
        let mut text = which.get(&examples).1.clone();
        for (at, length, with) in edits {
            let from = at.index(text.len() + 1);
            let to = (from + length).min(text.len());
            text.splice(from..to, with.bytes());
        }
        fuzzed::config::check(&text);
    }
}
