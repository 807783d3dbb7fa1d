//! The reference pages of the book are generated from the program. `GAPLESS_UPDATE_REFERENCE=1
//! cargo test --test house reference` writes them; without the variable the test compares them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use gapless::app::dataplane::proxy::LocalReplyReason;
use gapless::app::ops::admin::ADMIN_ROUTES;
use gapless::app::ops::metrics::families;
use gapless::logic::drill::DrillOutcome;
use gapless::logic::incident::client_failure::ClientFailureKind;
use gapless::logic::model::outcome::{FailureClass, FailureLayer};
use serde_json::{Map, Value};

use crate::support::instance::BINARY;

/// Set to have the pages written instead of compared.
const UPDATE_ENV: &str = "GAPLESS_UPDATE_REFERENCE";

/// A page below `docs/reference` and its text.
struct ReferencePage {
    name: &'static str,
    text: String,
}

const NOTICE: &str = "<!-- Generated from the program: GAPLESS_UPDATE_REFERENCE=1 cargo test --test \
                      house reference -->\n";

fn run(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().expect("run");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn text_of(schema: &Value, key: &str) -> String {
    schema[key].as_str().unwrap_or_default().to_owned()
}

/// The type of a value in words, with links to the tables that are described elsewhere on the page.
fn type_text(schema: &Value, definitions: &Map<String, Value>) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let definition = &definitions[name];
        if definition["properties"].is_object() {
            return format!("[table](#{})", name.to_lowercase());
        }
        return type_text(definition, definitions);
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(list) = schema[alternatives].as_array() {
            let mut texts = Vec::new();
            for text in list.iter().map(|one| type_text(one, definitions)) {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
            return texts.join(" or ");
        }
    }
    if let Some(fixed) = schema.get("const") {
        return format!("`{fixed}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => {
            format!("list of {}", type_text(&schema["items"], definitions))
        }
        Value::String(kind) if kind == "object" && schema["additionalProperties"].is_object() => {
            format!("tables by name: {}", type_text(&schema["additionalProperties"], definitions))
        }
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            let kinds: Vec<&str> =
                kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            kinds.join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn write_keys(schema: &Value, definitions: &Map<String, Value>, out: &mut String) {
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = schema["properties"].as_object() else { return };
    out.push_str("| key | type | meaning |\n|---|---|---|\n");
    for (key, value) in properties {
        let kind = type_text(value, definitions);
        let mut meaning = text_of(value, "description");
        if required.contains(key.as_str()) {
            meaning.push_str(" Required.");
        }
        writeln!(out, "| `{key}` | {} | {} |", cell(&kind), cell(&meaning)).expect("text");
    }
    out.push('\n');
}

fn configuration_page() -> ReferencePage {
    let schema: Value = serde_json::from_str(&run(&["schema"])).expect("JSON");
    let definitions = schema["$defs"].as_object().expect("definitions");
    let mut text = format!("# Configuration keys\n\n{NOTICE}\n");
    text.push_str(
        "The configuration is one TOML file. Durations are written as \"250ms\", \"1s\" or ",
    );
    text.push_str(
        "\"5m\",\nsizes as \"64KiB\". `gapless schema` prints the same as JSON Schema.\n\n",
    );
    text.push_str("## Top level\n\n");
    write_keys(&schema, definitions, &mut text);
    for (name, definition) in definitions {
        if definition["properties"].is_object() {
            writeln!(text, "## {name}\n").expect("text");
            let description = cell(&text_of(definition, "description"));
            if !description.is_empty() {
                writeln!(text, "{}\n", wrap(&description)).expect("text");
            }
            write_keys(definition, definitions, &mut text);
        }
    }
    ReferencePage { name: "configuration.md", text: text.trim_end().to_owned() + "\n" }
}

/// Prose with lines of at most 100 columns.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("a line");
        if line.chars().count() + 1 + word.chars().count() > 100 {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// Subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names = list.lines().take_while(|line| line.starts_with("  ")).filter_map(|line| {
        let indented = line.strip_prefix("  ")?;
        (!indented.starts_with(' ')).then(|| indented.split_whitespace().next()).flatten()
    });
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn write_command(path: &[String], out: &mut String) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = run(&arguments);
    let title = if path.is_empty() { "gapless".to_owned() } else { path.join(" ") };
    writeln!(out, "## {title}\n\n```text\n{}\n```\n", help.trim_end()).expect("text");
    for name in subcommands(&help) {
        let mut nested = path.to_vec();
        nested.push(name);
        write_command(&nested, out);
    }
}

fn commands_page() -> ReferencePage {
    let mut text = format!("# Commands\n\n{NOTICE}\n");
    write_command(&[], &mut text);
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    ReferencePage { name: "commands.md", text: lines.join("\n") + "\n" }
}

fn metrics_page() -> ReferencePage {
    let mut text = format!("# Metrics\n\n{NOTICE}\n");
    text.push_str("`/metrics` of the admin listener has these families.\n\n");
    text.push_str("| name | kind | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for family in families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, unit) = (family.name, family.kind.as_str(), family.unit.as_str());
        let (labels, help) = (labels.join(" "), cell(family.help));
        writeln!(text, "| `{name}` | {kind} | {labels} | {unit} | {help} |").expect("text");
    }
    ReferencePage { name: "metrics.md", text }
}

/// The doc comments of an enum's variants without data, by variant.
fn variant_docs(path: &str, name: &str) -> Vec<(String, String)> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let source = source.expect("the source");
    let body = source.split(&format!("pub enum {name} {{\n")).nth(1).expect("the enum");
    let mut docs = Vec::new();
    let mut doc = String::new();
    for line in body.lines().take_while(|line| *line != "}").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if let Some(variant) = line.strip_suffix(',') {
            docs.push((variant.to_owned(), std::mem::take(&mut doc)));
        }
    }
    docs
}

fn words<'a>(list: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = list.into_iter().map(|word| format!("`{word}`")).collect();
    wrap(&(words.join(", ") + "."))
}

fn reasons_page() -> ReferencePage {
    let mut text = format!("# Reasons\n\n{NOTICE}\n");
    text.push_str("## Responses of gapless itself\n\n");
    text.push_str(
        "`x-gapless-reason`, the access log and `gapless_own_responses_total` use these words.\n\n",
    );
    text.push_str("| reason | status | meaning |\n|---|---|---|\n");
    let docs = variant_docs("src/app/dataplane/proxy/local_reply_reason.rs", "LocalReplyReason");
    assert_eq!(docs.len(), LocalReplyReason::ALL.len(), "one doc comment for each reason");
    for (reason, (variant, doc)) in LocalReplyReason::ALL.into_iter().zip(docs) {
        assert_eq!(format!("{reason:?}"), variant, "the table has the order of the enum");
        let (word, status) = reason.word_and_status();
        writeln!(text, "| `{word}` | {} | {} |", status.as_u16(), cell(&doc)).expect("text");
    }
    text.push_str("\n## Failures of endpoints\n\nA failure is a layer and a reason, such as ");
    text.push_str("`connect refused` or `http status 503`.\n\nLayers: ");
    text.push_str(&words(FailureLayer::ALL.map(FailureLayer::as_str)));
    text.push_str("\n\nClasses, by which incidents are filtered: ");
    text.push_str(&words(FailureClass::ALL.map(FailureClass::as_str)));
    text.push_str(
        "\n\n## Failures that clients see\n\nKinds in `requests.failed_by` of an incident:\n",
    );
    text.push_str(&words(ClientFailureKind::ALL.map(ClientFailureKind::as_str)));
    text.push_str("\n\n## Outcomes of drills\n\n");
    text.push_str(&words(DrillOutcome::ALL.map(DrillOutcome::as_str)));
    ReferencePage { name: "reasons.md", text: text + "\n" }
}

fn api_page() -> ReferencePage {
    let mut text = format!("# Admin API\n\n{NOTICE}\n");
    text.push_str(
        "A read is a GET or HEAD. Each request has one `Host`, which is an address or \
         `localhost`. With\n`admin.token_file` it may be any name, and the request carries \
         `Authorization: Bearer TOKEN`. A\nwrite has no foreign `Origin`, and \
         `content-type: application/json`.\n\n",
    );
    text.push_str(
        "The status listener serves `/healthz`, `/readyz`, `/metrics` and `/api/v1/status` to any \
         host, for\nreads only.\n\n",
    );
    text.push_str("| methods | path | query | response |\n|---|---|---|---|\n");
    for route in ADMIN_ROUTES {
        let query = if route.query.is_empty() { String::new() } else { cell(route.query) };
        let (methods, path, summary) = (route.methods, route.path, cell(route.summary));
        writeln!(text, "| {methods} | `{path}` | {query} | {summary} |").expect("text");
    }
    ReferencePage { name: "api.md", text }
}

#[test]
fn reference_pages_match_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    let should_update = std::env::var_os(UPDATE_ENV).is_some();
    let pages = [configuration_page(), commands_page(), metrics_page(), reasons_page(), api_page()];
    for page in pages {
        let path = folder.join(page.name);
        if should_update {
            std::fs::write(&path, &page.text).expect("written");
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(present == page.text, "{} differs: set {UPDATE_ENV}=1 to write it", page.name);
    }
}

#[test]
fn help_lists_its_subcommands() {
    let help =
        "Usage: x\n\nCommands:\n  run    Runs\n           on and on\n  help   Prints\n\nOptions:\n";
    assert_eq!(subcommands(help), ["run"]);
    assert_eq!(cell("a\n  b | c"), "a b \\| c");
}
