//! `/api/v1/explain`: why an endpoint, a zone or a region is as it is. The text and the JSON are
//! made here and nowhere else; the command line prints what it gets.

pub mod json;
pub mod query;
pub mod text;

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::suggest;
use crate::logic::director::{Director, Explanation, What};

use super::api::Clock;
use query::{Form, Query};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// For people.
    Text(String),
    /// For programs.
    Json(serde_json::Value),
    /// The question makes no sense: why.
    Senseless(String),
    /// Nothing is called so: a line that says what is.
    Unknown(String),
}

/// Gives the names by which the endpoint of a pool was found.
pub type Names<'n> = dyn Fn(&str, SocketAddr) -> Vec<String> + 'n;

/// Answers what follows the question mark of a request's target.
#[must_use]
pub fn answer(
    (director, names): (&Director, &Names<'_>),
    query: &str,
    clock: &Clock,
    now: Instant,
) -> Reply {
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(why) => return Reply::Senseless(why),
    };
    let pool = query.pool.as_deref();
    let what = What::parse(&query.of);
    let explain = |what: &What| director.explain(what, pool, now);
    let explanations: Vec<Explanation> = what.as_ref().map(explain).unwrap_or_default();
    if explanations.is_empty() {
        return Reply::Unknown(unknown(director, &query, what.as_ref(), now));
    }
    match query.form {
        Form::Text => Reply::Text(text::render(&explanations, names, clock, now)),
        Form::Json => Reply::Json(json::render((&query.of, &explanations), names, clock, now)),
    }
}

/// What is wrong with a question that has no answer, and what may have been meant.
fn unknown(director: &Director, query: &Query, what: Option<&What>, now: Instant) -> String {
    let pools: Vec<String> = director.pools().iter().map(|pool| pool.name.to_string()).collect();
    if let Some(name) = &query.pool {
        if !pools.contains(name) {
            let meant = meant(name, &pools);
            let others = suggest::list(pools.iter().map(String::as_str));
            let mend = meant.unwrap_or_else(|| format!("the pools are {others}"));
            return format!("there is no pool `{name}`; {mend}");
        }
        let elsewhere = what.map(|what| director.explain(what, None, now)).unwrap_or_default();
        if !elsewhere.is_empty() {
            let names: Vec<&str> = elsewhere.iter().map(pool_of).collect();
            return format!(
                "{} is not in the pool `{name}`, but in {}",
                query.of,
                suggest::list(names)
            );
        }
    }
    let mut names = director.names();
    if matches!(what, Some(What::Endpoint(_))) {
        names.retain(|name| matches!(name, What::Endpoint(_)));
    }
    let names: Vec<String> = names.iter().map(What::to_string).collect();
    let mend = meant(&query.of, &names).unwrap_or_else(|| {
        format!("there are {}", suggest::list(names.iter().map(String::as_str)))
    });
    format!("no endpoint, zone or region is called `{}`; {mend}", query.of)
}

fn meant(word: &str, names: &[String]) -> Option<String> {
    let nearest = suggest::nearest(word, names.iter().map(String::as_str))?;
    Some(format!("did you mean `{nearest}`?"))
}

fn pool_of(explanation: &Explanation) -> &str {
    match explanation {
        Explanation::Endpoint(facts) => &facts.pool.name,
        Explanation::Zone(facts) => &facts.pool.name,
        Explanation::Region(facts) => &facts.pool.name,
    }
}
