//! The downstream side of a request: client, origin, ids and access record.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use http::header::HeaderName;
use http::{HeaderMap, Response};

use crate::app::dataplane::access::{AccessRecord, RecordedRequest};
use crate::app::dataplane::http_policy::HttpPolicy;
use crate::logic::request::identity_fields::is_identity_field;
use crate::logic::steering::{ClientLocation, Country};
use crate::net::h1;

use super::client::Client;
use super::client_origin::ClientOrigin;
use super::local_reply_reason::LocalReplyReason;
use super::request_ids::{IdGenerator, REQUEST_ID, RequestIds, SpanId};
use super::upgrade_request::UpgradeRequest;

/// The client certificate in Envoy's format.
const CLIENT_CERT_HEADER: &str = "x-forwarded-client-cert";

/// The downstream side of one request.
pub(super) struct Downstream<'a> {
    pub(super) client: &'a Rc<Client>,
    pub(super) origin: ClientOrigin<'a>,
    request_ids: RequestIds<'a>,
    /// The access record, if the request is logged or traced.
    pub(super) record: Option<&'a Rc<AccessRecord>>,
    /// Fields about the client that pass from any peer.
    passed_fields: &'a [HeaderName],
    upgrade: RefCell<Option<UpgradeRequest>>,
    /// Cached by [`Self::location`].
    location: Cell<Option<ClientLocation>>,
}

impl<'a> Downstream<'a> {
    /// The downstream side of the request in `recorded`, which came from `client`.
    pub(super) fn new(
        policy: &'a HttpPolicy,
        ids: &IdGenerator,
        client: &'a Rc<Client>,
        recorded: &'a RecordedRequest,
    ) -> Self {
        let headers = recorded.request.headers();
        let fields = policy.headers.forwarded;
        let origin = ClientOrigin::from_headers(client, headers, &policy.trusted_proxies, fields);
        let record = recorded.record.as_ref();
        // A mirrored request has no record, so its trace is not sampled.
        let sampling = policy.headers.sampling;
        let sampled = sampling.map(|_| record.is_some_and(|record| record.is_sampled()));
        let request_ids =
            RequestIds::new(ids, &policy.headers, headers, origin.is_from_trusted_proxy, sampled);
        if let Some(record) = record {
            let trace = request_ids.trace.as_ref().map(|trace| (trace.id, trace.span));
            record.set_origin(origin.ip, origin.scheme, request_ids.request_id(), trace);
        }
        let (upgrade, location) = (RefCell::default(), Cell::default());
        let passed_fields = policy.headers.passed_fields.as_slice();
        Self { client, origin, request_ids, record, passed_fields, upgrade, location }
    }

    /// Adds a request to switch to another protocol.
    pub(super) fn with_upgrade(self, upgrade: Option<UpgradeRequest>) -> Self {
        Self { upgrade: RefCell::new(upgrade), ..self }
    }

    /// The client's location by address and by the header of a trusted proxy.
    pub(super) fn location(&self, policy: &HttpPolicy, headers: &HeaderMap) -> ClientLocation {
        if let Some(cached) = self.location.get() {
            return cached;
        }
        let database = policy.geo_database.as_ref();
        let mut found =
            database.map(|database| database.lookup(self.origin.ip)).unwrap_or_default();
        if let Some(name) =
            policy.country_header.as_ref().filter(|_| self.origin.is_from_trusted_proxy)
        {
            let header_value = headers.get(name).and_then(|value| value.to_str().ok());
            found.country = header_value.and_then(Country::parse).or(found.country);
        }
        self.location.set(Some(found));
        found
    }

    pub(super) fn has_upgrade(&self) -> bool {
        self.upgrade.borrow().is_some()
    }

    /// Whether the client accepts only the other protocol, and that is still pending.
    pub(super) fn is_upgrade_required(&self) -> bool {
        self.upgrade.borrow().as_ref().is_some_and(UpgradeRequest::is_required)
    }

    /// Whether a 101 with these headers accepts the upgrade.
    pub(super) fn is_upgrade_accepted(&self, headers: &HeaderMap) -> bool {
        self.upgrade.borrow().as_ref().is_none_or(|upgrade| upgrade.is_accepted(headers))
    }

    /// Takes the upgrade request, to open its tunnel.
    pub(super) fn take_upgrade(&self) -> Option<UpgradeRequest> {
        self.upgrade.borrow_mut().take()
    }

    /// Whether the proxy replaces a request header, or removes it because a client could forge it.
    pub(super) fn should_replace(&self, name: &HeaderName) -> bool {
        self.request_ids.should_replace(name)
            || !self.origin.is_from_trusted_proxy
                && is_identity_field(name)
                && !self.passed_fields.contains(name)
    }

    /// Writes the headers that describe the downstream side. `host` is the client's Host; `span` is
    /// the attempt's, if it is exported.
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

    /// Adds the request id to a local reply, so that its log line can be found.
    pub(super) fn add_request_id<B>(&self, response: &mut Response<B>) {
        if response.extensions().get::<LocalReplyReason>().is_some()
            && let Some(id) = self.request_ids.request_id_value()
        {
            response.headers_mut().insert(REQUEST_ID, id);
        }
    }
}
