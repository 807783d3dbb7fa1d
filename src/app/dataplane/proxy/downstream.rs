//! Who asks, by what names the request is known, and where what becomes of it is written down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use http::header::HeaderName;
use http::{HeaderMap, Response};

use crate::app::dataplane::access::{AccessRecord, RecordedRequest};
use crate::app::dataplane::http_policy::HttpPolicy;
use crate::logic::steering::{ClientLocation, Country};
use crate::net::h1;

use super::client::Client;
use super::client_origin::ClientOrigin;
use super::local_reply_reason::LocalReplyReason;
use super::request_ids::{IdGenerator, REQUEST_ID, RequestIds, SpanId};
use super::upgrade_request::UpgradeRequest;

/// What is said of a client's certificate, in Envoy's form.
const CLIENT_CERT_HEADER: &str = "x-forwarded-client-cert";

/// All that is known of who a request comes from.
pub(super) struct Downstream<'a> {
    /// Who has the connection.
    pub(super) client: &'a Rc<Client>,
    /// Whom it asks for.
    pub(super) origin: ClientOrigin<'a>,
    request_ids: RequestIds<'a>,
    /// Where the request is written down, if it is.
    pub(super) record: Option<&'a Rc<AccessRecord>>,
    upgrade: RefCell<Option<UpgradeRequest>>,
    /// Once somebody has asked for it.
    location: Cell<Option<ClientLocation>>,
}

impl<'a> Downstream<'a> {
    /// Who asks by `held`, a request that came from `client`.
    pub(super) fn new(
        policy: &HttpPolicy,
        ids: &IdGenerator,
        client: &'a Rc<Client>,
        recorded: &'a RecordedRequest,
    ) -> Self {
        let headers = recorded.request.headers();
        let fields = policy.headers.forwarded;
        let origin = ClientOrigin::from_headers(client, headers, &policy.trusted_proxies, fields);
        let record = recorded.record.as_ref();
        // What is not written down, as a copy, is in no trace that is kept.
        let sampling = policy.headers.sampling;
        let sampled = sampling.map(|_| record.is_some_and(|note| note.is_sampled()));
        let request_ids =
            RequestIds::new(ids, &policy.headers, headers, origin.is_from_trusted_proxy, sampled);
        if let Some(record) = record {
            let trace = request_ids.trace.as_ref().map(|trace| (trace.id, trace.span));
            record.set_origin(origin.ip, origin.scheme, request_ids.request_id(), trace);
        }
        let (upgrade, location) = (RefCell::default(), Cell::default());
        Self { client, origin, request_ids, record, upgrade, location }
    }

    /// The same, who would rather go on in another protocol.
    pub(super) fn with_upgrade(self, upgrade: Option<UpgradeRequest>) -> Self {
        Self { upgrade: RefCell::new(upgrade), ..self }
    }

    /// Where the client is, for all that is known.
    pub(super) fn location(&self, policy: &HttpPolicy, headers: &HeaderMap) -> ClientLocation {
        if let Some(cached) = self.location.get() {
            return cached;
        }
        let places = policy.geo_database.as_ref();
        let mut found = places.map(|places| places.lookup(self.origin.ip)).unwrap_or_default();
        if let Some(name) =
            policy.country_header.as_ref().filter(|_| self.origin.is_from_trusted_proxy)
        {
            let header_value = headers.get(name).and_then(|value| value.to_str().ok());
            found.country = header_value.and_then(Country::parse).or(found.country);
        }
        self.location.set(Some(found));
        found
    }

    /// Whether it would rather go on in another protocol.
    pub(super) fn has_upgrade(&self) -> bool {
        self.upgrade.borrow().is_some()
    }

    /// Whether it would not go on in anything else, and is not granted that (yet).
    pub(super) fn is_upgrade_required(&self) -> bool {
        self.upgrade.borrow().as_ref().is_some_and(UpgradeRequest::is_required)
    }

    /// Whether a 101 with these headers grants the wish.
    pub(super) fn is_upgrade_accepted(&self, headers: &HeaderMap) -> bool {
        self.upgrade.borrow().as_ref().is_none_or(|wish| wish.is_accepted(headers))
    }

    /// The wish, to be granted.
    pub(super) fn take_upgrade(&self) -> Option<UpgradeRequest> {
        self.upgrade.borrow_mut().take()
    }

    /// Whether a field of the request is written anew.
    pub(super) fn should_replace(&self, name: &HeaderName) -> bool {
        self.request_ids.should_replace(name)
    }

    /// Writes what an endpoint is told of it; `host` is the one that the client asked us for, and `span`
    /// that of the try, where it has one.
    pub(super) fn write_fields(
        &self,
        out: &mut BytesMut,
        headers: &HeaderMap,
        host: &str,
        span: Option<&SpanId>,
    ) {
        self.origin.write_fields(out, headers, self.client, host);
        if let Some(identity) = self.client.identity() {
            h1::write_header(out, CLIENT_CERT_HEADER, identity.as_bytes());
        }
        self.request_ids.write_fields(out, span);
    }

    /// An answer of our own says by which name it can be found in the log.
    pub(super) fn add_request_id<B>(&self, response: &mut Response<B>) {
        if response.extensions().get::<LocalReplyReason>().is_some()
            && let Some(id) = self.request_ids.request_id_value()
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
    }
}
