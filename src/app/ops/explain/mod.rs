//! `/api/v1/explain`: the reasons for the state of an endpoint, a zone or a region. The server
//! renders text and JSON; the command line prints them unchanged.

pub mod json;
pub mod query;
pub mod text;

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::suggest;
use crate::logic::director::{Director, Explanation};
use crate::logic::model::selector::TopologySelector;

use super::api::WallClock;
use query::{ExplainFormat, ExplainQuery};

#[derive(Clone, Debug, PartialEq)]
pub enum ExplainReply {
    Text(String),
    Json(serde_json::Value),
    /// The query cannot be parsed: the reason.
    BadQuery(String),
    /// Nothing has this name: a line with the closest or all names.
    UnknownName(String),
}

/// Returns the DNS names by which the endpoint of a pool was found.
pub type NameLookup<'n> = dyn Fn(&str, SocketAddr) -> Vec<String> + 'n;

/// Answers the query part of a request's target.
pub fn answer(
    (director, names): (&Director, &NameLookup<'_>),
    query: &str,
    clock: &WallClock,
    now: Instant,
) -> ExplainReply {
    let query = match ExplainQuery::parse(query) {
        Ok(query) => query,
        Err(reason) => return ExplainReply::BadQuery(reason),
    };
    let pool = query.pool.as_deref();
    let what = TopologySelector::parse(&query.target_name);
    let explain = |what: &TopologySelector| director.explain(what, pool, now);
    let explanations: Vec<Explanation> = what.as_ref().map(explain).unwrap_or_default();
    if explanations.is_empty() {
        return ExplainReply::UnknownName(unknown_name_text(director, &query, what.as_ref(), now));
    }
    match query.format {
        ExplainFormat::Text => ExplainReply::Text(text::render(&explanations, names, clock, now)),
        ExplainFormat::Json => {
            ExplainReply::Json(json::render((&query.target_name, &explanations), names, clock, now))
        }
    }
}

/// Why the query has no answer, and which names were probably meant.
fn unknown_name_text(
    director: &Director,
    query: &ExplainQuery,
    what: Option<&TopologySelector>,
    now: Instant,
) -> String {
    let pools: Vec<String> = director.pools().iter().map(|pool| pool.name.to_string()).collect();
    if let Some(name) = &query.pool {
        if !pools.contains(name) {
            let suggestion = closest_name(name, &pools);
            let others = suggest::quoted_list(pools.iter().map(String::as_str));
            let hint = suggestion.unwrap_or_else(|| format!("the pools are {others}"));
            return format!("there is no pool `{name}`; {hint}");
        }
        let elsewhere = what.map(|what| director.explain(what, None, now)).unwrap_or_default();
        if !elsewhere.is_empty() {
            let names: Vec<&str> = elsewhere.iter().map(explanation_pool).collect();
            return format!(
                "{} is not in the pool `{name}`, but in {}",
                query.target_name,
                suggest::quoted_list(names)
            );
        }
    }
    let mut names = director.selectors();
    if matches!(what, Some(TopologySelector::Endpoint(_))) {
        names.retain(|name| matches!(name, TopologySelector::Endpoint(_)));
    }
    let names: Vec<String> = names.iter().map(TopologySelector::to_string).collect();
    let hint = closest_name(&query.target_name, &names).unwrap_or_else(|| {
        format!("there are {}", suggest::quoted_list(names.iter().map(String::as_str)))
    });
    format!("no endpoint, zone or region is called `{}`; {hint}", query.target_name)
}

fn closest_name(name: &str, names: &[String]) -> Option<String> {
    let nearest = suggest::nearest(name, names.iter().map(String::as_str))?;
    Some(format!("did you mean `{nearest}`?"))
}

fn explanation_pool(explanation: &Explanation) -> &str {
    match explanation {
        Explanation::Endpoint(facts) => &facts.pool.name,
        Explanation::Zone(facts) => &facts.pool.name,
        Explanation::Region(facts) => &facts.pool.name,
    }
}
