//! What `/api/v1/whatif` is asked: `lose=…&lose=…&format=…`.

use crate::app::ops::explain::query::{ExplainFormat, percent_encode, query_pairs};
use crate::logic::model::selector::TopologySelector;

/// The keys of the query, for whoever got them wrong.
const QUERY_HELP: &str = "`lose` (an address, a region/zone or a region; as often as needed) and `format` \
                    (json or text)";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIfQuery {
    pub lose: Vec<TopologySelector>,
    /// How the answer is written.
    pub format: ExplainFormat,
}

impl WhatIfQuery {
    /// Reads the part of a target that follows the question mark.
    ///
    /// # Errors
    /// When it does not say what is lost, or says something that has no meaning.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for (key, value) in query_pairs(text) {
            match (key, value.as_str()) {
                ("lose", _) => query.lose.push(parse_loss(&value)?),
                ("format", "json") => query.format = ExplainFormat::Json,
                ("format", "text") => query.format = ExplainFormat::Text,
                ("format", _) => {
                    return Err(format!("`{value}` is not a format; the keys are {QUERY_HELP}"));
                }
                _ => return Err(format!("`{key}` has no meaning here; the keys are {QUERY_HELP}")),
            }
        }
        if query.lose.is_empty() {
            return Err(format!(
                "say what is lost, such as ?lose=us-south; the keys are {QUERY_HELP}"
            ));
        }
        Ok(query)
    }

    /// The target that asks this.
    pub fn to_request_target(&self) -> String {
        let lose =
            self.lose.iter().map(|loss| format!("lose={}&", percent_encode(&loss.to_string())));
        let format = match self.format {
            ExplainFormat::Json => "json",
            ExplainFormat::Text => "text",
        };
        format!("/api/v1/whatif?{}format={format}", lose.collect::<String>())
    }
}

/// Reads what is lost.
///
/// # Errors
/// When it is nothing of the kind.
pub fn parse_loss(text: &str) -> Result<TopologySelector, String> {
    TopologySelector::parse(text).ok_or_else(|| {
        format!("`{text}` is no address such as 10.0.1.11:9000, no region/zone and no region")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_query_is_parsed_back_equal() {
        let query = WhatIfQuery::parse("lose=us-south%2Fa&lose=[::1]:80&lose=eu&format=text")
            .expect("good");
        assert_eq!(query.lose.len(), 3);
        let target = query.to_request_target();
        let (_, text) = target.split_once('?').expect("a query");
        assert_eq!(WhatIfQuery::parse(text), Ok(query));
        assert!(WhatIfQuery::parse("").expect_err("what?").contains("?lose="));
        assert!(WhatIfQuery::parse("lose=a/b/c").expect_err("what?").contains("no region"));
        assert!(WhatIfQuery::parse("lost=a").expect_err("what?").contains("`lost` has no meaning"));
    }
}
