//! What leads a request to one endpoint: a key of its own, or a cookie of ours.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use http::{Request, StatusCode};

use crate::app::keyring::Keyring;
use crate::app::meter::{Course, PoolMeter};
use crate::app::worker::PoolLocal;
use crate::logic::affinity::{Affinity, Asking, Cookie, Pin, Pins, Seat};
use crate::logic::balance::HashKey;
use crate::logic::balance::hash::{identity, xxh64};
use crate::logic::snapshot::{PoolView, Target};
use crate::logic::topology::PoolSpec;

use super::asker::Asker;
use super::visit::Visit;

/// Cookies of the same name that are looked at, at most: a client may have some of other paths.
const COOKIES: usize = 4;

/// The hash of the request's key; `None` where the pool wants none or the request has none.
pub(super) fn key(spec: &PoolSpec, request: &Request<()>, asker: &Asker<'_>) -> Option<u64> {
    let of = |key: &HashKey| match key {
        HashKey::Header(name) => {
            let value = request.headers().get(name)?.as_bytes();
            (!value.is_empty()).then(|| xxh64(value))
        }
        HashKey::Cookie(name) => cookies(request.headers(), name).next().map(xxh64),
        HashKey::Path => Some(xxh64(request.uri().path().as_bytes())),
        HashKey::Source => Some(match asker.origin.ip {
            IpAddr::V4(ip) => xxh64(&ip.octets()),
            IpAddr::V6(ip) => xxh64(&ip.octets()),
        }),
    };
    spec.keys().find_map(of)
}

/// The values of the cookies of this name that are not empty.
fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// The cookie of a request to a pool whose clients stay with an endpoint by one.
pub(super) struct Pinned {
    keyring: Rc<Keyring>,
    brought: Option<Pin>,
    /// It is sealed by a secret that is on its way out.
    is_old: bool,
    /// It brought something that cannot be used.
    is_refused: bool,
    /// Where it leads has failed the request.
    has_failed: Cell<bool>,
}

impl Pinned {
    /// What `request` brings; `None` where the pool does not look at it.
    pub(super) fn of(pool: &PoolView, local: &PoolLocal, headers: &HeaderMap) -> Option<Box<Self>> {
        let cookie = cookie(pool)?;
        let keyring = local.keyring()?;
        let mut values = cookies(headers, &cookie.name).take(COOKIES).peekable();
        let is_there = values.peek().is_some();
        let now_s = now_s();
        let fresh = |(pin, _): &(Pin, bool)| !pin.is_over(cookie, now_s);
        let brought = values.find_map(|value| keyring.open(value).filter(fresh));
        let is_refused = is_there && brought.is_none();
        let is_old = brought.is_some_and(|(_, is_current)| !is_current);
        let brought = brought.map(|(pin, _)| pin);
        Some(Box::new(Self { keyring, brought, is_old, is_refused, has_failed: Cell::new(false) }))
    }

    /// Where it leads, if that endpoint takes the request.
    pub(super) fn target<'p>(&self, pool: &'p PoolView, asking: Asking) -> Option<&'p Target> {
        match self.brought?.leads(pool.pins.as_ref()?, asking) {
            Seat::Serves(target) => Some(target),
            _ => None,
        }
    }

    /// `target` failed the request.
    pub(super) fn failed_at(&self, target: &Target) {
        let name = identity(target.address);
        if self.brought.is_some_and(|pin| pin.now == name || pin.first == name) {
            self.has_failed.set(true);
        }
    }

    /// The answer comes from where `visit` was: has the client come back there, if it is to.
    pub(super) fn answered(
        &self,
        (pool, meter): (&PoolView, &PoolMeter),
        visit: &Visit,
        (status, is_tls, is_drilled, now_us): (StatusCode, bool, bool, u64),
        headers: &mut HeaderMap,
    ) {
        let Some((cookie, pins)) = cookie(pool).zip(pool.pins.as_ref()) else { return };
        let served = identity(visit.home().target.address);
        if self.is_refused {
            meter.steered(Course::Refused);
        }
        let (course, pin) = self.course(served, pins, cookie, now_us);
        meter.steered(course);
        let is_kept = self.brought.is_some();
        // One that is on trial, or has failed, is nowhere to stay; and a drill moves nobody for good.
        let is_passing = if is_kept { is_drilled } else { status.is_server_error() };
        if let Some(pin) = pin.filter(|_| !is_passing && !visit.is_trial())
            && let Ok(value) = HeaderValue::try_from(self.written(&pin, cookie, is_tls))
        {
            headers.append(SET_COOKIE, value);
        }
    }

    /// How it went, and the pin that the client is to have.
    fn course(
        &self,
        served: u64,
        pins: &Pins,
        cookie: &Cookie,
        now_us: u64,
    ) -> (Course, Option<Pin>) {
        let now_s = now_s();
        let Some(brought) = self.brought else {
            return (Course::New, Some(Pin::new(served, now_s)));
        };
        let after = brought.after(served, self.has_failed.get(), (pins, cookie), (now_us, now_s));
        let renewed = Pin { written_s: now_s, ..brought };
        let after = after.or_else(|| (self.is_old && served == brought.now).then_some(renewed));
        let course = match &after {
            _ if served == brought.now => Course::Kept,
            _ if served == brought.first => Course::Returned,
            Some(_) => Course::Moved,
            None => Course::Away,
        };
        (course, after)
    }

    fn written(&self, pin: &Pin, cookie: &Cookie, is_tls: bool) -> String {
        let (name, value) = (&cookie.name, self.keyring.seal(pin));
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

fn cookie(pool: &PoolView) -> Option<&Cookie> {
    match pool.spec.affinity.as_deref() {
        Some(Affinity::Cookie(cookie)) => Some(cookie),
        _ => None,
    }
}

fn now_s() -> u32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        let all = |headers: &HeaderMap| -> Vec<Vec<u8>> {
            cookies(headers, "pin").map(<[u8]>::to_vec).collect()
        };
        assert!(all(&headers).is_empty());
        headers.append(COOKIE, HeaderValue::from_static("xpin=1; pin=2;pin2=3; PIN=4; pin=; pin"));
        headers.append(COOKIE, HeaderValue::from_static("a=b;pin=5=6"));
        assert_eq!(all(&headers), [b"2".to_vec(), b"5=6".to_vec()]);
    }
}
