//! Affinity of requests to endpoints: by a hash key of the request, or by a sealed cookie.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use http::{Request, StatusCode};

use crate::app::dataplane::cookie_keys::Keyring;
use crate::app::dataplane::request_metrics::{AffinityOutcome, PoolMetrics};
use crate::app::dataplane::worker::PoolLocal;
use crate::logic::model::snapshot::{PoolView, Target};
use crate::logic::model::topology::PoolSpec;
use crate::logic::steering::affinity::{
    AffinityCookie, AffinityIndex, AffinityPin, AffinityRequest, PinnedEndpoint, ServedRequest,
    SessionAffinity,
};
use crate::logic::steering::balance::HashKeySource;
use crate::logic::steering::balance::hash::{endpoint_hash, xxh64};

use super::attempt_guard::AttemptGuard;
use super::downstream::Downstream;

/// Limit of cookies of the same name that are opened: a client may send several from other paths.
const MAX_COOKIES: usize = 4;

/// The hash of the request's key; `None` where the pool has no key or the request lacks it.
pub(super) fn hash_key(
    spec: &PoolSpec,
    request: &Request<()>,
    downstream: &Downstream<'_>,
) -> Option<u64> {
    let hash_of = |key: &HashKeySource| match key {
        HashKeySource::Header(name) => {
            let value = request.headers().get(name)?.as_bytes();
            (!value.is_empty()).then(|| xxh64(value))
        }
        HashKeySource::Cookie(name) => cookie_values(request.headers(), name).next().map(xxh64),
        HashKeySource::Path => Some(xxh64(request.uri().path().as_bytes())),
        HashKeySource::Source => Some(match downstream.origin.ip {
            IpAddr::V4(ip) => xxh64(&ip.octets()),
            IpAddr::V6(ip) => xxh64(&ip.octets()),
        }),
    };
    spec.hash_keys().find_map(hash_of)
}

/// The values of the cookies of this name that are not empty.
fn cookie_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// The cookie of a request to a pool with cookie affinity.
pub(super) struct RequestAffinity {
    keyring: Rc<Keyring>,
    received: Option<AffinityPin>,
    /// The cookie is sealed with a secret that is being replaced.
    has_retired_secret: bool,
    /// The request has cookies of the name, but none that is valid.
    is_invalid: bool,
    /// The endpoint of the cookie has failed the request.
    has_target_failed: Cell<bool>,
}

/// What the affinity cookie of a response depends on.
pub(super) struct CookieContext<'a> {
    pub(super) pool: &'a PoolView,
    pub(super) meter: &'a PoolMetrics,
    pub(super) status: StatusCode,
    /// The client's connection is encrypted: the cookie is `Secure`.
    pub(super) is_tls: bool,
    /// A drill has selected the request.
    pub(super) is_tagged: bool,
    pub(super) now_us: u64,
}

impl RequestAffinity {
    /// Reads the cookie of `headers`; `None` where the pool has no cookie affinity.
    pub(super) fn from_request(
        pool: &PoolView,
        local: &PoolLocal,
        headers: &HeaderMap,
    ) -> Option<Box<Self>> {
        let cookie = cookie_spec(pool)?;
        let keyring = local.keyring()?;
        let mut values = cookie_values(headers, &cookie.name).take(MAX_COOKIES).peekable();
        let has_cookie = values.peek().is_some();
        let now_s = unix_now_s();
        let is_fresh = |(pin, _): &(AffinityPin, bool)| !pin.is_expired(cookie, now_s);
        let received = values.find_map(|value| keyring.open_pin(value).filter(is_fresh));
        let is_invalid = has_cookie && received.is_none();
        let has_retired_secret = received.is_some_and(|(_, is_current)| !is_current);
        let received = received.map(|(pin, _)| pin);
        Some(Box::new(Self {
            keyring,
            received,
            has_retired_secret,
            is_invalid,
            has_target_failed: Cell::new(false),
        }))
    }

    /// The endpoint of the cookie, if it accepts the request.
    pub(super) fn target<'p>(
        &self,
        pool: &'p PoolView,
        request: AffinityRequest,
    ) -> Option<&'p Target> {
        match self.received?.resolve(pool.affinity_index.as_ref()?, request) {
            PinnedEndpoint::Available(target) => Some(target),
            _ => None,
        }
    }

    /// An attempt at `target` failed.
    pub(super) fn record_failure(&self, target: &Target) {
        let name = endpoint_hash(target.address);
        if self.received.is_some_and(|pin| pin.current == name || pin.preferred == name) {
            self.has_target_failed.set(true);
        }
    }

    /// Sets a cookie for the endpoint that responded, if the client's cookie must change.
    pub(super) fn set_cookie(
        &self,
        context: &CookieContext<'_>,
        guard: &AttemptGuard,
        headers: &mut HeaderMap,
    ) {
        let &CookieContext { pool, meter, status, is_tls, is_tagged, now_us } = context;
        let Some((cookie, index)) = cookie_spec(pool).zip(pool.affinity_index.as_ref()) else {
            return;
        };
        let served = endpoint_hash(guard.connections().target.address);
        if self.is_invalid {
            meter.record_affinity(AffinityOutcome::Refused);
        }
        let (outcome, pin) = self.next_pin(served, index, cookie, now_us);
        meter.record_affinity(outcome);
        let has_pin = self.received.is_some();
        // An endpoint on trial or a failed response makes no pin, and a drill changes no existing
        // one.
        let is_temporary = if has_pin { is_tagged } else { status.is_server_error() };
        if let Some(pin) = pin.filter(|_| !is_temporary && !guard.is_trial())
            && let Ok(value) = HeaderValue::try_from(self.cookie_value(&pin, cookie, is_tls))
        {
            headers.append(SET_COOKIE, value);
        }
    }

    /// The outcome of the cookie, and the pin that the client gets.
    fn next_pin(
        &self,
        served: u64,
        index: &AffinityIndex,
        cookie: &AffinityCookie,
        now_us: u64,
    ) -> (AffinityOutcome, Option<AffinityPin>) {
        let now_s = unix_now_s();
        let Some(received) = self.received else {
            return (AffinityOutcome::NoCookie, Some(AffinityPin::new(served, now_s)));
        };
        let has_pinned_failed = self.has_target_failed.get();
        let request = ServedRequest { endpoint: served, has_pinned_failed, now_us, now_s };
        let next_pin = received.updated_after(&request, index, cookie);
        let renewed = AffinityPin { written_s: now_s, ..received };
        let next_pin = next_pin
            .or_else(|| (self.has_retired_secret && served == received.current).then_some(renewed));
        let outcome = match &next_pin {
            _ if served == received.current => AffinityOutcome::Followed,
            _ if served == received.preferred => AffinityOutcome::Returned,
            Some(_) => AffinityOutcome::Reassigned,
            None => AffinityOutcome::Diverted,
        };
        (outcome, next_pin)
    }

    fn cookie_value(&self, pin: &AffinityPin, cookie: &AffinityCookie, is_tls: bool) -> String {
        let (name, value) = (&cookie.name, self.keyring.seal_pin(pin));
        let mut text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
        if is_tls {
            text.push_str("; Secure");
        }
        if let Some(ttl) = cookie.ttl {
            text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        text
    }
}

fn cookie_spec(pool: &PoolView) -> Option<&AffinityCookie> {
    match pool.spec.affinity.as_deref() {
        Some(SessionAffinity::Cookie(cookie)) => Some(cookie),
        _ => None,
    }
}

fn unix_now_s() -> u32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_name_matches_only_in_full() {
        let mut headers = HeaderMap::new();
        let all = |headers: &HeaderMap| -> Vec<Vec<u8>> {
            cookie_values(headers, "pin").map(<[u8]>::to_vec).collect()
        };
        assert!(all(&headers).is_empty());
        headers.append(COOKIE, HeaderValue::from_static("xpin=1; pin=2;pin2=3; PIN=4; pin=; pin"));
        headers.append(COOKIE, HeaderValue::from_static("a=b;pin=5=6"));
        assert_eq!(all(&headers), [b"2".to_vec(), b"5=6".to_vec()]);
    }
}
