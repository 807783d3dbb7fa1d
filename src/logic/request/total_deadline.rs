//! The bound on all attempts of a request together.

use std::time::Duration;

/// Which bound ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineSource {
    /// The route's total timeout.
    Route,
    /// The client's deadline (`grpc-timeout`).
    Client,
}

/// The bound on all attempts of a request together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalDeadline {
    /// From the request's arrival.
    pub after: Duration,
    pub source: DeadlineSource,
}

impl TotalDeadline {
    /// The earlier one of the route's bound and the client's.
    pub fn earliest(route: Option<Duration>, client: Option<Duration>) -> Option<Self> {
        let route = route.map(|after| Self { after, source: DeadlineSource::Route });
        let client = client.map(|after| Self { after, source: DeadlineSource::Client });
        route.into_iter().chain(client).min_by_key(|deadline| deadline.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_bound_is_the_deadline() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let source =
            |route, client| TotalDeadline::earliest(route, client).map(|deadline| deadline.source);
        assert_eq!(source(None, None), None);
        assert_eq!(source(ms(10), None), Some(DeadlineSource::Route));
        assert_eq!(source(ms(10), ms(9)), Some(DeadlineSource::Client));
        assert_eq!(source(ms(10), ms(10)), Some(DeadlineSource::Route));
    }
}
