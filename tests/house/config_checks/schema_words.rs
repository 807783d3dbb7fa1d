//! Keys whose values are words: the schema lists them, and the program accepts exactly those.

use gapless::config;
use serde_json::Value;

use super::valid_config_with;

/// A key that takes a word: its table in the schema, its name, and a change of the valid file in
/// which `@` stands for the word.
struct WordKey {
    table: &'static str,
    key: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn word_key(
    table: &'static str,
    key: &'static str,
    from: &'static str,
    to: &'static str,
) -> WordKey {
    WordKey { table, key, from, to }
}

const START: &str = "[[listen]]";
const ROUTE: &str = "pool = \"web\"";
const PROBE: &str = "probe = { http = \"/healthz\" }";
const ZONE: &str = "name = \"local/a\"";

const WORD_KEYS: [WordKey; 17] = [
    word_key("Headers", "underscores", START, "headers.underscores = @\n[[listen]]"),
    word_key("Headers", "forwarded", START, "headers.forwarded = @\n[[listen]]"),
    word_key("Paths", "encoded_slash", START, "paths.encoded_slash = @\n[[listen]]"),
    word_key("AccessLog", "format", START, "access_log.format = @\n[[listen]]"),
    word_key("Dns", "family", START, "dns.family = @\n[[listen]]"),
    word_key("Dns", "empty", START, "dns.empty = @\n[[listen]]"),
    word_key("Route", "steer", ROUTE, "pool = \"web\"\nsteer = @"),
    word_key("Rate", "by", ROUTE, "pool = \"web\"\nlimits = { rate = { requests = 5, by = @ } }"),
    word_key("Pool", "proxy_protocol", PROBE, "proxy_protocol = @"),
    word_key("Pool", "protocol", PROBE, "tls = true\nprotocol = @"),
    word_key("Pool", "steer", PROBE, "steer = @"),
    word_key("Steer", "policy", PROBE, "steer = { policy = @ }"),
    word_key("Pool", "balance", PROBE, "balance = @"),
    word_key("Balance", "method", PROBE, "balance = { method = @, key = { source = true } }"),
    word_key("Affinity", "on_return", PROBE, "affinity = { cookie = \"a\", on_return = @ }"),
    word_key("Probe", "role", PROBE, "probe = [{ tcp = true }, { tcp = true, role = @ }]"),
    word_key("Zone", "role", ZONE, "name = \"local/a\"\nrole = @"),
];

/// The words of a key in the schema.
fn schema_words(schema: &Value, table: &str, key: &str) -> Vec<String> {
    let property = &schema["$defs"][table]["properties"][key];
    let words = property["enum"].as_array().or_else(|| property["anyOf"][0]["enum"].as_array());
    let words = words.unwrap_or_else(|| panic!("{table}.{key} has no words: {property}"));
    words.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

#[test]
fn words_of_the_schema_are_those_that_the_program_accepts() {
    let schema = config::schema();
    for WordKey { table, key, from, to } in WORD_KEYS {
        let error = |word: &str| {
            let text = valid_config_with(from, &to.replace('@', &format!("\"{word}\"")));
            config::parse("test.toml", &text).err().map(|report| report.to_string())
        };
        let words = schema_words(&schema, table, key);
        assert!(words.len() > 1, "{table}.{key}");
        for word in words {
            // A consistent hash needs a key, and no other method has one.
            let error = error(&word).filter(|error| !error.contains("`key`"));
            assert_eq!(error, None, "{table}.{key} = {word}");
        }
        assert!(error("nonsense").is_some_and(|one| one.contains("nonsense")), "{table}.{key}");
    }
}

#[test]
fn redirect_statuses_are_listed_in_the_schema() {
    let statuses = &config::schema()["$defs"]["Redirect"]["properties"]["status"]["enum"];
    assert_eq!(*statuses, serde_json::json!([301, 302, 303, 307, 308]));
}
