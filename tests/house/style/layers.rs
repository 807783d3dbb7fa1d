//! Layers: `main → cli → app → {net, config, sim} → logic`, a pure core, no `unsafe`.

use super::source::{SourceFile, has_word, read_sources};

/// What each layer may use besides itself.
const LAYERS: [(&str, &[&str]); 7] = [
    ("logic", &[]),
    ("net", &["logic"]),
    ("config", &["logic"]),
    ("sim", &["logic"]),
    ("app", &["net", "config", "sim", "logic"]),
    ("cli", &["app", "net", "config", "sim", "logic"]),
    ("main", &["cli"]),
];

/// What would make the core impure: async, sockets, files, clock, environment, locks, logging.
const IMPURE_WORDS: [&str; 15] = [
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tracing",
    "Mutex",
    "RwLock",
    "async",
    "println",
    "eprintln",
];

/// `src/net/upstream/pool.rs` is in `net`; `main.rs` and `lib.rs` are layers of their own.
fn layer_of(source: &SourceFile) -> String {
    let part = source.path.iter().nth(1).unwrap_or_default();
    part.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The number of `super` that lead from the top of this file to the crate.
fn depth_of(source: &SourceFile) -> usize {
    let folders = source.path.iter().count() - 2;
    if source.path.ends_with("mod.rs") { folders } else { folders + 1 }
}

/// Layers that the code names, each with its line.
fn used_layers(source: &SourceFile) -> Vec<(usize, String)> {
    let text = source.code_without_tests();
    let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
    let to_crate = "super::".repeat(depth_of(source));
    let mut found = Vec::new();
    for root in ["crate::", "gapless::", &to_crate] {
        for (offset, _) in text.match_indices(root) {
            let before = text[..offset].chars().next_back();
            if root.starts_with("super") && text[..offset].ends_with("super::")
                || before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            {
                continue;
            }
            for name in first_names(&text[offset + root.len()..]) {
                found.push((line_of(offset), name));
            }
        }
    }
    found
}

/// `a` of `a::b`, and `a` and `c` of `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0;
    let mut names = vec![name(list)];
    for (index, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&list[index + 1..])),
            _ => {}
        }
    }
    names
}

/// Every use of a layer that the using layer may not name.
fn layer_breaches(sources: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let layer = layer_of(source);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            if layer != "lib" {
                breaches.push(format!("{}: {layer} is no layer", source.display()));
            }
            continue;
        };
        for (line, used) in used_layers(source) {
            let is_layer = LAYERS.iter().any(|(name, _)| *name == used);
            if is_layer && used != layer && !allowed.contains(&used.as_str()) {
                breaches.push(format!("{}:{line}: {layer} uses {used}", source.display()));
            }
        }
    }
    breaches
}

/// Every line of the core's own code with an impure word.
fn impure_lines(sources: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|one| layer_of(one) == "logic" && !one.is_test()) {
        for (index, line) in source.code_without_tests().lines().enumerate() {
            for word in IMPURE_WORDS.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {word}", source.display(), index + 1));
            }
        }
    }
    found
}

#[test]
fn layers_use_only_layers_below_them() {
    let sources = read_sources("src");
    assert!(sources.len() > 30, "only {} sources found", sources.len());
    let breaches = layer_breaches(&sources);
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn core_is_pure() {
    let found = impure_lines(&read_sources("src"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn code_has_no_unsafe() {
    for source in read_sources("src") {
        for (index, line) in source.lines.iter().enumerate() {
            assert!(!has_word(&line.code, "unsafe"), "{}:{}", source.display(), index + 1);
        }
    }
}

#[test]
fn planted_layer_breaches_are_detected() {
    for (path, text) in [
        ("src/logic/health.rs", "use crate::net::prober;"),
        ("src/logic/director/mod.rs", "use super::super::config::model;"),
        ("src/net/prober.rs", "use crate::{\n    config::model,\n    logic::id,\n};"),
        ("src/net/h1/head.rs", "fn f() -> super::super::super::config::Loaded {}"),
        ("src/config/mod.rs", "fn f() { crate::net::listener::bind(); }"),
        ("src/sim/world.rs", "use crate::app::Instance;"),
        ("src/app/control.rs", "use crate::cli::OK;"),
        ("src/main.rs", "use gapless::app::Instance;"),
        ("src/extra/mod.rs", ""),
    ] {
        assert_eq!(layer_breaches(&[SourceFile::new(path, text)]).len(), 1, "{path}: {text}");
    }
    for text in [
        "use tokio::time::sleep;",
        "let now = std::time::Instant::now();",
        "use std::sync::{Arc, Mutex};",
        "    tracing::info!(\"up\");",
        "#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse std::fs::read;",
    ] {
        assert_eq!(
            impure_lines(&[SourceFile::new("src/logic/health.rs", text)]).len(),
            1,
            "{text}"
        );
    }
}

#[test]
fn allowed_uses_are_no_breaches() {
    for (path, text) in [
        ("src/logic/health.rs", "use super::evidence::Evidence;\nuse crate::logic::id::Place;"),
        ("src/logic/health.rs", "// crate::net is not for us\nlet s = \"crate::net::x\";"),
        ("src/net/prober.rs", "use crate::logic::id;"),
        ("src/app/control.rs", "use crate::{net::prober, config::model, logic};"),
        ("src/app/proxy/trip.rs", "use super::super::worker::View;"),
        ("src/main.rs", "gapless::cli::main()"),
        ("src/lib.rs", "pub mod logic;"),
    ] {
        let breaches = layer_breaches(&[SourceFile::new(path, text)]);
        assert!(breaches.is_empty(), "{breaches:?}");
    }
    for text in [
        "use std::time::Instant; // Instant::now is the driver's",
        "#[cfg(test)]\nmod tests {\n    fn f() { let t0 = Instant::now(); }\n}",
        "#[cfg(test)]\nmod tests;",
    ] {
        let found = impure_lines(&[SourceFile::new("src/logic/health.rs", text)]);
        assert!(found.is_empty(), "{found:?}");
    }
}
