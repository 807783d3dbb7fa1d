//! What `/api/v1/whatif` is asked: `lose=…&lose=…&format=…`.

use crate::app::explain::query::{Form, encode, pairs};
use crate::logic::director::What;

/// The keys of the query, for whoever got them wrong.
const KEYS: &str = "`lose` (an address, a region/zone or a region; as often as needed) and `format` \
                    (json or text)";

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// What is lost.
    pub lose: Vec<What>,
    /// How the answer is written.
    pub form: Form,
}

impl Query {
    /// Reads the part of a target that follows the question mark.
    ///
    /// # Errors
    /// When it does not say what is lost, or says something that has no meaning.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (key, value) in pairs(text) {
            match (key, value.as_str()) {
                ("lose", _) => query.lose.push(loss(&value)?),
                ("format", "json") => query.form = Form::Json,
                ("format", "text") => query.form = Form::Text,
                ("format", _) => {
                    return Err(format!("`{value}` is not a format; the keys are {KEYS}"));
                }
                _ => return Err(format!("`{key}` has no meaning here; the keys are {KEYS}")),
            }
        }
        if query.lose.is_empty() {
            return Err(format!("say what is lost, such as ?lose=us-south; the keys are {KEYS}"));
        }
        Ok(query)
    }

    /// The target that asks this.
    #[must_use]
    pub fn target(&self) -> String {
        let lose = self.lose.iter().map(|loss| format!("lose={}&", encode(&loss.to_string())));
        let form = match self.form {
            Form::Json => "json",
            Form::Text => "text",
        };
        format!("/api/v1/whatif?{}format={form}", lose.collect::<String>())
    }
}

/// Reads what is lost.
///
/// # Errors
/// When it is nothing of the kind.
pub fn loss(text: &str) -> Result<What, String> {
    What::parse(text).ok_or_else(|| {
        format!("`{text}` is no address such as 10.0.1.11:9000, no region/zone and no region")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_arrives_as_it_was_asked() {
        let query =
            Query::parse("lose=us-south%2Fa&lose=[::1]:80&lose=eu&format=text").expect("good");
        assert_eq!(query.lose.len(), 3);
        let target = query.target();
        let (_, text) = target.split_once('?').expect("a query");
        assert_eq!(Query::parse(text), Ok(query));
        assert!(Query::parse("").expect_err("what?").contains("?lose="));
        assert!(Query::parse("lose=a/b/c").expect_err("what?").contains("no region"));
        assert!(Query::parse("lost=a").expect_err("what?").contains("`lost` has no meaning"));
    }
}
