//! Suggestions for misspelt words ("did you mean …?"), by Jaro-Winkler similarity and by edit
//! distance.

/// The least similarity (Jaro-Winkler, 0 to 1) of a suggestion.
const MIN_SIMILARITY: f64 = 0.8;

/// In shorter words one typing error often yields another valid word.
const MIN_TYPO_LENGTH: usize = 3;

/// Limits, because a file may have thousands of pools.
const MAX_CANDIDATES: usize = 1_000;
const MAX_LISTED: usize = 12;

/// The candidate that is most similar to `word`, if it is similar enough.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .map(|candidate| (similarity(&word, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// One typing error (a letter too many, missing, wrong, or two swapped) counts as similar at any
/// length; Jaro-Winkler alone rejects it in short words.
fn similarity(a: &str, b: &str) -> f64 {
    let is_one_edit_apart =
        a.len().min(b.len()) >= MIN_TYPO_LENGTH && strsim::osa_distance(a, b) == 1;
    let similarity = strsim::jaro_winkler(a, b);
    if is_one_edit_apart { similarity.max(0.9) } else { similarity }
}

/// The words in backticks with commas between them, for "one of …".
pub(crate) fn quoted_list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words = words.into_iter();
    let mut quoted: Vec<String> =
        words.by_ref().take(MAX_LISTED).map(|word| format!("`{word}`")).collect();
    if words.next().is_some() {
        quoted.push("…".to_owned());
    }
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{nearest, quoted_list};

    #[test]
    fn typo_finds_its_word_and_nonsense_finds_none() {
        let keys = ["interval", "timeout", "fast_interval", "address", "endpoints"];
        assert_eq!(nearest("intervall", keys), Some("interval"));
        assert_eq!(nearest("Timeout", keys), Some("timeout"));
        assert_eq!(nearest("addr", keys), Some("address"));
        assert_eq!(nearest("endpoint", keys), Some("endpoints"));
        assert_eq!(nearest("wep", ["web", "api"]), Some("web"));
        assert_eq!(nearest("wbe", ["web", "api"]), Some("web"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn long_list_is_truncated() {
        assert_eq!(quoted_list(["a", "b"]), "`a`, `b`");
        assert!(quoted_list(["a"; 100]).ends_with("`a`, …"));
    }
}
