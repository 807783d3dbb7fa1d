//! Words: comments speak of things, names are the field's terms, and doc comments say something.

use super::source::{all_sources, has_word};

/// Words that speak of persons, and how many lines of comments may have one.
const PERSON_WORDS: [&str; 9] =
    ["who", "whom", "whoever", "nobody", "somebody", "everybody", "anybody", "anyone", "everyone"];
const MAX_PERSON_LINES: usize = 10;

/// Doc comments of at most this many words say nothing, in all but this many places.
const FEW_WORDS: usize = 3;
const MAX_SHORT_DOCS: usize = 150;

/// Names of types that a standard term has replaced.
const RETIRED_TYPES: [&str; 71] = [
    "Trip",
    "Visit",
    "Errand",
    "Asker",
    "Ring",
    "Bell",
    "Early",
    "Wish",
    "Choice",
    "Way",
    "Past",
    "Unserved",
    "Crowd",
    "Guest",
    "Stay",
    "Pulse",
    "Guarded",
    "Served",
    "Doors",
    "Door",
    "Front",
    "Gate",
    "Board",
    "Inlets",
    "Life",
    "Manners",
    "Lane",
    "OpenLane",
    "Staging",
    "Act",
    "Letter",
    "Estate",
    "Legacy",
    "Note",
    "Held",
    "Story",
    "Leg",
    "Book",
    "Oracle",
    "Keeper",
    "Witness",
    "Casualty",
    "Casualties",
    "Sight",
    "Live",
    "Kin",
    "Standing",
    "Condemned",
    "Bond",
    "Trouble",
    "Bidden",
    "Pace",
    "Cuts",
    "Vessel",
    "Seating",
    "Seat",
    "Speech",
    "Lasting",
    "Lines",
    "Opening",
    "Gathered",
    "Flaw",
    "Answer",
    "Asked",
    "Said",
    "Told",
    "Seen",
    "Known",
    "Kept",
    "Fate",
    "Errands",
];

/// Names of functions, fields and modules that a standard term has replaced.
const RETIRED_NAMES: [&str; 33] = [
    "marks",
    "patience",
    "opening",
    "complain",
    "foresight",
    "weigh",
    "restand",
    "trust",
    "sentence",
    "readmit",
    "pardon",
    "bid",
    "deaf",
    "pour",
    "fading",
    "attended",
    "hygiene",
    "mend",
    "veil",
    "falsely",
    "obey",
    "hears",
    "soil",
    "glance",
    "warm",
    "crowd",
    "casualty",
    "witness",
    "errand",
    "asker",
    "trip",
    "lasting",
    "legacy",
];

/// The name that an item or field declaration gives.
fn declared_name(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let code = code
        .strip_prefix("pub(crate) ")
        .or_else(|| code.strip_prefix("pub(super) "))
        .unwrap_or(code);
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let code =
        code.strip_prefix("async ").or_else(|| code.strip_prefix("const fn ")).unwrap_or(code);
    let keywords = ["struct ", "enum ", "trait ", "type ", "fn ", "mod ", "const ", "static "];
    let rest = keywords.iter().find_map(|keyword| code.strip_prefix(keyword))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

#[test]
fn comments_speak_of_things_not_of_persons() {
    let mut found = Vec::new();
    for source in all_sources().iter().filter(|source| !source.path.ends_with("style/words.rs")) {
        for (index, line) in source.lines.iter().enumerate() {
            let Some(comment) = line.comment.as_ref().map(|text| text.to_lowercase()) else {
                continue;
            };
            if PERSON_WORDS.iter().any(|word| has_word(&comment, word)) {
                found.push(format!("{}:{}: {comment}", source.display(), index + 1));
            }
        }
    }
    assert!(found.len() <= MAX_PERSON_LINES, "{} lines: {found:#?}", found.len());
}

#[test]
fn doc_comments_have_more_than_three_words() {
    let mut found = Vec::new();
    for source in all_sources() {
        for (index, line) in source.lines.iter().enumerate() {
            let doc_of = |at: usize| -> Option<&str> {
                source.lines.get(at)?.comment.as_deref()?.strip_prefix("///")
            };
            let is_alone =
                index.checked_sub(1).and_then(doc_of).is_none() && doc_of(index + 1).is_none();
            let few =
                doc_of(index).is_some_and(|text| text.split_whitespace().count() <= FEW_WORDS);
            if few && is_alone && line.code.trim().is_empty() {
                found.push(format!("{}:{}", source.display(), index + 1));
            }
        }
    }
    assert!(found.len() <= MAX_SHORT_DOCS, "{} places: {found:#?}", found.len());
}

#[test]
fn retired_names_are_not_declared() {
    let mut found = Vec::new();
    for source in all_sources().iter().filter(|source| !source.path.starts_with("fuzz")) {
        for (index, line) in source.lines.iter().enumerate() {
            let Some(name) = declared_name(&line.code) else { continue };
            if RETIRED_TYPES.contains(&name) || RETIRED_NAMES.contains(&name) {
                found.push(format!("{}:{}: {name}", source.display(), index + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn declared_names_are_read_from_code() {
    assert_eq!(declared_name("pub(crate) struct Seat<'a> {"), Some("Seat"));
    assert_eq!(declared_name("    pub async fn obey(&self) {"), Some("obey"));
    assert_eq!(declared_name("let seat = 1;"), None);
}
