//! Who asks, by what names the request is known, and where what becomes of it is written down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use http::header::HeaderName;
use http::{HeaderMap, Response};

use crate::app::access::{Held, Note};
use crate::app::shared::Manners;
use crate::logic::steer::{Country, Whereabouts};
use crate::net::h1;

use super::body::ProxyBody;
use super::client::Client;
use super::fault::Reason;
use super::marks::{Ids, Marks, REQUEST_ID, SpanId};
use super::origin::Origin;
use super::tunnel::Wish;

/// What is said of a client's certificate, in Envoy's form.
const CLIENT_CERT: &str = "x-forwarded-client-cert";

/// All that is known of who a request comes from.
pub(super) struct Asker<'a> {
    /// Who has the connection.
    pub(super) client: &'a Rc<Client>,
    /// Whom it asks for.
    pub(super) origin: Origin<'a>,
    marks: Marks<'a>,
    /// Where the request is written down, if it is.
    pub(super) note: Option<&'a Rc<Note>>,
    wish: RefCell<Option<Wish>>,
    /// Once somebody has asked for it.
    whereabouts: Cell<Option<Whereabouts>>,
}

impl<'a> Asker<'a> {
    /// Who asks by `held`, a request that came from `client`.
    pub(super) fn of(manners: &Manners, ids: &Ids, client: &'a Rc<Client>, held: &'a Held) -> Self {
        let headers = held.request.headers();
        let fields = manners.headers.forwarded;
        let origin = Origin::of(client, headers, &manners.trusted_proxies, fields);
        let note = held.note.as_ref();
        // What is not written down, as a copy, is in no trace that is kept.
        let sampling = manners.headers.sampling;
        let sampled = sampling.map(|_| note.is_some_and(|note| note.is_sampled()));
        let marks = Marks::of(ids, &manners.headers, headers, origin.is_relayed, sampled);
        if let Some(note) = note {
            let trace = marks.trace.as_ref().map(|trace| (trace.id, trace.span));
            note.asked_by(origin.ip, origin.scheme, marks.request_id(), trace);
        }
        let (wish, whereabouts) = (RefCell::default(), Cell::default());
        Self { client, origin, marks, note, wish, whereabouts }
    }

    /// The same, who would rather go on in another protocol.
    pub(super) fn wishing(self, wish: Option<Wish>) -> Self {
        Self { wish: RefCell::new(wish), ..self }
    }

    /// Where the client is, for all that is known.
    pub(super) fn whereabouts(&self, manners: &Manners, headers: &HeaderMap) -> Whereabouts {
        if let Some(known) = self.whereabouts.get() {
            return known;
        }
        let places = manners.places.as_ref();
        let mut found = places.map(|places| places.find(self.origin.ip)).unwrap_or_default();
        if let Some(name) = manners.country_header.as_ref().filter(|_| self.origin.is_relayed) {
            let said = headers.get(name).and_then(|value| value.to_str().ok());
            found.country = said.and_then(Country::parse).or(found.country);
        }
        self.whereabouts.set(Some(found));
        found
    }

    /// Whether it would rather go on in another protocol.
    pub(super) fn has_wish(&self) -> bool {
        self.wish.borrow().is_some()
    }

    /// Whether it would not go on in anything else, and is not granted that (yet).
    pub(super) fn insists(&self) -> bool {
        self.wish.borrow().as_ref().is_some_and(Wish::is_all)
    }

    /// Whether a 101 with these headers grants the wish.
    pub(super) fn is_granted(&self, headers: &HeaderMap) -> bool {
        self.wish.borrow().as_ref().is_none_or(|wish| wish.is_granted(headers))
    }

    /// The wish, to be granted.
    pub(super) fn take_wish(&self) -> Option<Wish> {
        self.wish.borrow_mut().take()
    }

    /// Whether a field of the request is written anew.
    pub(super) fn replaces(&self, name: &HeaderName) -> bool {
        self.marks.replace(name)
    }

    /// Writes what an endpoint is told of it; `host` is the one that the client asked us for, and `span`
    /// that of the try, where it has one.
    pub(super) fn write(
        &self,
        out: &mut BytesMut,
        headers: &HeaderMap,
        host: &str,
        span: Option<&SpanId>,
    ) {
        self.origin.write(out, headers, self.client, host);
        if let Some(identity) = self.client.identity() {
            h1::write_header(out, CLIENT_CERT, identity.as_bytes());
        }
        self.marks.write(out, span);
    }

    /// An answer of our own says by which name it can be found in the log.
    pub(super) fn mark(&self, response: &mut Response<ProxyBody>) {
        if response.extensions().get::<Reason>().is_some()
            && let Some(id) = self.marks.request_id_value()
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
    }
}
