//! The query of `/api/v1/whatif`: `lose=…&lose=…&format=…`.

use crate::app::ops::explain::query::{ExplainFormat, percent_encode, query_pairs};
use crate::logic::model::selector::TopologySelector;

/// The keys of the query, for error messages.
const QUERY_HELP: &str = "`lose` (an address, a region/zone or a region; as often as needed) and `format` \
                    (json or text)";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIfQuery {
    pub lose: Vec<TopologySelector>,
    /// Format of the answer.
    pub format: ExplainFormat,
}

impl WhatIfQuery {
    /// Parses the query part of a request's target.
    ///
    /// # Errors
    /// If `lose` is missing, a key is unknown or a value is invalid.
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
                _ => return Err(format!("`{key}` is not a key; the keys are {QUERY_HELP}")),
            }
        }
        if query.lose.is_empty() {
            return Err(format!(
                "say what is lost, such as ?lose=us-south; the keys are {QUERY_HELP}"
            ));
        }
        Ok(query)
    }

    /// The request's target for this query.
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

/// Parses the name of a lost endpoint, zone or region.
///
/// # Errors
/// If it has none of these forms.
pub fn parse_loss(text: &str) -> Result<TopologySelector, String> {
    TopologySelector::parse(text).ok_or_else(|| {
        format!(
            "`{text}` is neither an address such as 10.0.1.11:9000, nor a region/zone, nor a region"
        )
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
        assert!(WhatIfQuery::parse("lose=a/b/c").expect_err("what?").contains("nor a region"));
        assert!(WhatIfQuery::parse("lost=a").expect_err("what?").contains("`lost` is not a key"));
    }
}
